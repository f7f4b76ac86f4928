"""What the network looks like to whoever looks at it: an admin sees all, a member itself and what it may see already.

A row is one member as a JSON object. Rows that did not change stay the same objects, so that to tell a change costs
little where nothing happened.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from wgdisco.api import SCHEMA, MemberRecord
from wgdisco.keys import PublicKey
from wgdisco.registry.directory import Directory, Entry
from wgdisco.registry.facts import Invitation, Member, Role
from wgdisco.registry.histories import INTERVAL, Histories
from wgdisco.registry.membership import Membership
from wgdisco.registry.path_reports import PathReports, Report, report_json
from wgdisco.registry.records import member_record, network_record
from wgdisco.tunnel.events import DeviceStatus, PeerStatus

Row = dict[str, Any]
_Sources = tuple[Member, PeerStatus | None, Entry | None, Report | None, tuple[list[int], list[int]]]
PIECE_SIZE = 64 * 1024
# What only admins are told of others
_WITHHELD: Row = {
    "seen_at": None,
    "handshake_at": None,
    "rx_bytes": 0,
    "tx_bytes": 0,
    "paths": [],
    "paths_at": None,
    "history": {"interval": INTERVAL, "rx": [], "tx": []},
    "offers": [],
}


class _Public:
    """A row as members see it: other groups than their own do not exist for them."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._groups = frozenset(row["groups"])
        self._by_groups: dict[frozenset[str], Row] = {}

    def to(self, groups: frozenset[str]) -> Row:
        """As who is in these groups sees it; the same object each time."""
        common = self._groups & groups
        row = self._by_groups.get(common)
        if row is None:
            row = {**self.row, "groups": [group for group in self.row["groups"] if group in common]}
            self._by_groups[common] = row
        return row


class View:
    """Rows of all members, as of the last `look`. `seen` is when members were last heard before this process began.

    Unix times are whole seconds.
    """

    def __init__(self, membership: Membership, directory: Directory, seen: Mapping[PublicKey, float]) -> None:
        self.reports = PathReports()
        self.histories = Histories()
        self._membership = membership
        self._directory = directory
        self._seen = dict(seen)
        self._rows: dict[int, Row] = {}
        self._public: dict[int, _Public] = {}
        self._made_of: dict[int, _Sources] = {}
        self._unix_at_boot = 0.0

    def sample(self, status: DeviceStatus) -> None:
        """Each INTERVAL seconds: go on with the histories."""
        members = self._membership.members
        counted = ((members.get(peer.key), peer) for peer in status.peers)
        self.histories.sample(
            {member.number: (peer.rx_bytes, peer.tx_bytes) for member, peer in counted if member is not None}
        )

    def follow(self) -> None:
        """Membership has changed."""
        self.reports.keep(self._membership)
        self._made_of.clear()

    def forget(self) -> None:
        """Nobody looks: the next look makes all rows anew."""
        for rows in (self._rows, self._public, self._made_of):
            rows.clear()

    def look(self, status: DeviceStatus, unix: float, boot: float) -> None:
        """Bring the rows up to date; `boot` and `unix` are now on the device's clock and in unix time."""
        if abs(unix - boot - self._unix_at_boot) > 1:  # else one moment would not always be the same second
            self._unix_at_boot = unix - boot
            self._made_of.clear()
        peers = {peer.key: peer for peer in status.peers}
        members = self._membership.members
        numbers = {member.number for member in members.values()}
        for rows in (self._rows, self._public, self._made_of):
            for number in [number for number in rows if number not in numbers]:
                del rows[number]
        keys: dict[int, str] | None = None
        for key, member in members.items():
            peer, entry, report = peers.get(key), self._directory.entry(key), self.reports.of(member.number)
            before, made_of = self._made_of.get(member.number), (member, peer, entry, report, self._past(member))
            if before == made_of:
                continue
            self._made_of[member.number] = made_of
            if before is not None and before[3] is report:
                paths = self._rows[member.number]["paths"]
            else:
                if keys is None:
                    keys = {member.number: member.public_key.to_text() for member in members.values()}
                paths = [] if report is None else report_json(report, keys)
            self._take(member.number, self._row(member, peer, entry, report, paths))

    def rows(self, viewer: Member) -> dict[str, Row]:
        """What `viewer` may see, by public key, in the order they came."""
        members, is_admin = self._membership.members.values(), viewer.role is Role.ADMIN
        groups, found = frozenset(viewer.groups), {}
        for member in members:
            is_own = member.number == viewer.number
            if not (is_admin or is_own or self._membership.sees(viewer, member)):
                continue
            if is_admin or is_own:
                row = self._rows.get(member.number)
            else:
                public = self._public.get(member.number)
                row = None if public is None else public.to(groups)
            if row is not None:  # else it is newer than the last look
                found[row["public_key"]] = row
        return found

    def invitations(self, viewer: Member, now: float) -> list[Row]:
        """Those that are out, and lately were; for admins."""
        if viewer.role is not Role.ADMIN:
            return []
        membership = self._membership
        return [invitation_json(one, now) for one in (*membership.invitations.values(), *membership.past.values())]

    def head(self, viewer: Member) -> Row:
        """Network and who looks."""
        own = {"public_key": viewer.public_key.to_text(), "name": viewer.name, "role": viewer.role.value}
        return {"network": asdict(network_record(self._membership)), "self": own}

    def _take(self, number: int, row: Row) -> None:
        if self._rows.get(number) != row:
            self._rows[number] = row
        public, known = {**row, **_WITHHELD}, self._public.get(number)
        if known is None or known.row != public:
            self._public[number] = _Public(public)

    def _row(
        self,
        member: Member,
        peer: PeerStatus | None,
        entry: Entry | None,
        report: Report | None,
        paths: list[Row],
    ) -> Row:
        record = member_record(self._membership, self._directory, member, member)
        rx, tx = self._past(member)
        handshake = None if peer is None else peer.handshake_unix
        return {
            **_json(record),
            "online": record.live,
            "seen_at": self._seen_at(member.public_key, peer, entry),
            "handshake_at": None if handshake is None else int(handshake),
            "rx_bytes": 0 if peer is None else peer.rx_bytes,
            "tx_bytes": 0 if peer is None else peer.tx_bytes,
            "paths": paths,
            "paths_at": None if report is None else report.at,
            "history": {"interval": INTERVAL, "rx": rx, "tx": tx},
        }

    def _past(self, member: Member) -> tuple[list[int], list[int]]:
        return self.histories.of(member.number)

    def _seen_at(self, key: PublicKey, peer: PeerStatus | None, entry: Entry | None) -> int | None:
        heard = (None if peer is None else peer.received_at, None if entry is None else entry.seen_at)
        latest = max((at for at in heard if at is not None), default=None)
        before = self._seen.get(key)
        if latest is not None:
            return int(latest + self._unix_at_boot)
        return None if before is None else int(before)


def _json(record: MemberRecord) -> Row:
    """As `asdict` has it, without its copies."""
    row = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return {**row, "candidates": [asdict(candidate) for candidate in record.candidates]}


def invitation_json(invitation: Invitation, now: float) -> Row:
    """One invitation as admins are told of it; `now` is unix time."""
    state = "used" if invitation.uses <= 0 else "expired" if now >= invitation.expires_at else "pending"
    return {
        "id": invitation.enrol_key.to_text(),
        "name": invitation.name,
        "groups": list(invitation.groups),
        "role": invitation.role.value,
        "uses_left": invitation.uses,
        "expires_at": int(invitation.expires_at),
        "state": state,
        "used_by": list(invitation.used_by),
        "ephemeral": invitation.ephemeral is not None,
    }


def changed_rows(shown: Mapping[str, Row], rows: Mapping[str, Row]) -> list[Row]:
    """Those of `rows` that are not what was `shown`. Paths are most of a row, and left out where they are as before."""
    changed = []
    for key, row in rows.items():
        before = shown.get(key)
        if before is row or before == row:
            continue
        if before is not None and before["paths"] is row["paths"]:
            row = {name: value for name, value in row.items() if name != "paths"}
        changed.append(row)
    return changed


def view_json(told: Row, serial: int | None, time: int, rows: Iterable[Row]) -> Iterator[str]:
    """The whole object, piece by piece: it may be large. `told` is all but the members."""
    return with_members({"schema": SCHEMA, "time": time, "serial": serial, **told}, rows)


def with_members(told: Row, rows: Iterable[Row]) -> Iterator[str]:
    """`told`, of which there is something, with `members`; in pieces of PIECE_SIZE and what is left of a row."""
    piece, comma = [f'{json_text(told)[:-1]},"members":['], ""
    size = len(piece[0])
    for row in rows:
        piece.append(comma + json_text(row))
        size, comma = size + len(piece[-1]), ","
        if size >= PIECE_SIZE:
            yield "".join(piece)
            piece, size = [], 0
    yield "".join(piece) + "]}"


def json_text(value: Row) -> str:
    """Without spaces."""
    return json.dumps(value, separators=(",", ":"))
