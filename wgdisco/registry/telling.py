"""What members are told of each other, as text that is made once, however many are told it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from wgdisco.api import SCHEMA, EndpointChange, MemberRecord, NetworkRecord, Record, Removed, to_json
from wgdisco.keys import PublicKey
from wgdisco.registry.directory import Directory, Entry
from wgdisco.registry.facts import Member
from wgdisco.registry.membership import Membership
from wgdisco.registry.records import member_record, network_record, self_record


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, without its number."""

    name: str
    data: str

    @classmethod
    def of(cls, name: str, record: Record) -> "Event":
        """With a record of the API."""
        return cls(name, json.dumps(to_json(record)))


class Telling:
    """One member as others see it. It does not change: another record is another telling."""

    __slots__ = ("_texts", "direct_to", "groups", "number", "record")

    def __init__(self, member: Member, record: MemberRecord) -> None:
        self.number = member.number
        self.groups = frozenset(member.groups)
        self.direct_to = frozenset(member.direct_to)
        self.record = record
        self._texts: dict[tuple[bool, frozenset[str]], str] = {}

    def is_for(self, number: int, groups: frozenset[str]) -> bool:
        """Whether the member of that number, in these groups, may know of it."""
        return number != self.number and not groups.isdisjoint(self.groups)

    def text(self, viewer: str, groups: frozenset[str]) -> str:
        """A JSON object, as the member of that name and in these groups sees it: other groups do not exist for it."""
        direct, common = viewer in self.direct_to, self.groups & groups
        text = self._texts.get((direct, common))
        if text is None:
            shown = [group for group in self.record.groups if group in common]
            text = json.dumps(asdict(replace(self.record, direct=direct, groups=shown)))
            self._texts[direct, common] = text
        return text

    def event(self, viewer: str, groups: frozenset[str]) -> Event:
        """All of it."""
        return Event("member", f'{{"schema": {SCHEMA}, {self.text(viewer, groups)[1:]}')

    def removed(self) -> Event:
        """There is no such member any longer."""
        return Event.of("removed", Removed(self.record.public_key, self.record.name))

    def moved(self, before: "Telling") -> Event | None:
        """What says the difference, where that is only where it is."""
        record = self.record
        if replace(before.record, endpoint=record.endpoint, live=record.live) != record:
            return None
        return Event.of("endpoint", EndpointChange(record.public_key, record.endpoint, record.live))

    def is_same_in_common(self, other: "Telling") -> bool:
        """Whether who is in none but groups that both have, or that neither has, sees the same."""
        common = self.groups & other.groups
        ours, theirs = ([group for group in one.record.groups if group in common] for one in (self, other))
        record = replace(self.record, groups=other.record.groups)
        return (record, self.direct_to, ours) == (other.record, other.direct_to, theirs)

    def is_same(self, other: "Telling") -> bool:
        """Whether everybody sees the same."""
        return (self.record, self.direct_to, self.groups) == (other.record, other.direct_to, other.groups)


# What a telling follows from beside the member's facts; when an entry was seen last it does not say
_Source = tuple[Member, object, bool, object, str | None, int]


class Tellings:
    """All of them, each made anew only when it would be another."""

    def __init__(self, membership: Membership, directory: Directory) -> None:
        self._membership = membership
        self._directory = directory
        self._known: dict[PublicKey, tuple[_Source, Telling]] = {}
        self._network: tuple[NetworkRecord, str] | None = None

    def of(self, member: Member) -> Telling:
        """The member as it is now; the same object for as long as that is the same."""
        key = member.public_key
        source = self._source(member, self._directory.entry(key))
        known = self._known.get(key)
        if known is not None and (known[0][0] is member or known[0][0] == member) and known[0][1:] == source[1:]:
            return known[1]
        # who looks is not in `direct_to`, nor the member itself
        viewer = replace(member, number=-1, name="")
        telling = Telling(member, member_record(self._membership, self._directory, member, viewer))
        if known is not None and known[1].is_same(telling):
            telling = known[1]
        self._known[key] = source, telling
        return telling

    def forget(self, key: PublicKey) -> None:
        """It is a member no longer."""
        self._known.pop(key, None)

    def snapshot(self, member: Member, visible: Iterable[Telling]) -> Event:
        """Network, itself and all that `member` may see."""
        own = self_record(self._membership, self._directory, member)
        groups = frozenset(member.groups)
        members = ", ".join(telling.text(member.name, groups) for telling in visible)
        return Event(
            "snapshot",
            f'{{"schema": {SCHEMA}, "network": {self._network_text()}, "member": {json.dumps(asdict(own.member))}, '
            f'"members": [{members}]}}',
        )

    def _network_text(self) -> str:
        record = network_record(self._membership)
        if self._network is None or self._network[0] != record:
            self._network = record, json.dumps(asdict(record))
        return self._network[1]

    def _source(self, member: Member, entry: Entry | None) -> _Source:
        epoch = self._membership.network.epoch
        if entry is None:
            return member, None, False, None, None, epoch
        return member, entry.endpoint, entry.live, entry.candidates, entry.nat, epoch
