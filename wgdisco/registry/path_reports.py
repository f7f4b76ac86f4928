"""What members report of their paths: kept in memory, bounded, and only of peers that they may know of.

Members are kept by host number, which stays when a key is renewed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wgdisco.keys import PublicKey
from wgdisco.paths import PathRecord
from wgdisco.registry.facts import Member
from wgdisco.registry.membership import Membership

IN_ALL_MAX = 250_000
_FIELDS = tuple(PathRecord.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Report:
    """One member's paths, by the host number of the peer; `at` is unix time."""

    paths: tuple[tuple[int, PathRecord], ...]
    at: int


class PathReports:
    """The latest of each member."""

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}
        self._count = 0

    def take(self, membership: Membership, member: Member, paths: Iterable[PathRecord], now: float) -> int | None:
        """What `member` reports takes the place of what it did before; how many paths were taken.

        Those to peers that it may not know of are left out: it may just not have heard yet that they are gone. None
        when all members have reported IN_ALL_MAX already.
        """
        taken: dict[int, PathRecord] = {}
        for path in paths:
            other = membership.members.get(PublicKey.from_text(path.peer))
            if other is not None and membership.sees(member, other):
                taken[other.number] = path
        before = self._reports.get(member.number)
        count = self._count + len(taken) - (0 if before is None else len(before.paths))
        if count > IN_ALL_MAX:
            return None
        self._count = count
        self._reports[member.number] = Report(tuple(taken.items()), int(now))
        return len(taken)

    def keep(self, membership: Membership) -> None:
        """Membership has changed: forget who is gone, and the paths to them."""
        numbers = {member.number for member in membership.members.values()}
        for number, report in list(self._reports.items()):
            left = tuple((peer, path) for peer, path in report.paths if peer in numbers)
            if number not in numbers:
                del self._reports[number]
            elif len(left) != len(report.paths):
                self._reports[number] = Report(left, report.at)
        self._count = sum(len(report.paths) for report in self._reports.values())

    def of(self, number: int) -> Report | None:
        """What a member reported last."""
        return self._reports.get(number)


def report_json(report: Report, keys: dict[int, str]) -> list[dict[str, Any]]:
    """The paths as the API tells them; `keys` are public keys as of now, by host number."""
    paths = ((keys[peer], path) for peer, path in report.paths if peer in keys)
    return [{**{name: getattr(path, name) for name in _FIELDS}, "peer": key} for key, path in paths]
