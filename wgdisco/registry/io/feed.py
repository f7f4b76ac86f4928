"""The event stream: what each member that listens may see, as it changes.

A consumer is told the difference between what it was shown and what it may see now; who falls too far behind is cut,
and comes back with Last-Event-ID, or for a snapshot.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from wgdisco.api import HEARTBEAT, EndpointChange, MemberRecord, Order, Receipt, Record, Removed, to_json
from wgdisco.keys import PublicKey
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Member
from wgdisco.registry.membership import Membership
from wgdisco.registry.receipt import seal
from wgdisco.registry.records import member_record, snapshot

BEHIND_MAX = 256
STREAMS_MAX = 4
HISTORY = 1024
HEARD_INTERVAL = 0.05
COMMENT = b": still here\n\n"


@dataclass(frozen=True, slots=True)
class _Past:
    """Something about the member of `key` changed at `serial`; `groups` are all it was or is in."""

    serial: int
    key: PublicKey
    name: str
    groups: frozenset[str]


class Consumer:
    """One open stream. `cut` is called when it is to end at once; `arrived` says whether what was written got there.

    After `heartbeat` seconds without an event there is a comment: whoever listens acknowledges it, and so keeps the
    mapping of his NAT alive.
    """

    def __init__(self, number: int, cut: Callable[[], None], arrived: Callable[[], bool]) -> None:
        self.number = number
        self.shown: dict[PublicKey, MemberRecord] = {}
        self.ended = False
        self.fell_behind = False
        self.heartbeat = float(HEARTBEAT)
        self._cut = cut
        self._has_arrived = arrived
        self._pending: deque[bytes] = deque()
        self._arrived = asyncio.Event()

    def put(self, serial: int, name: str, record: Record) -> None:
        """Queue an event, or cut the stream when too many wait."""
        if len(self._pending) >= BEHIND_MAX:
            self.fell_behind = True
            self.end()
            return
        self._pending.append(f"id: {serial}\nevent: {name}\ndata: {json.dumps(to_json(record))}\n\n".encode())
        self._arrived.set()

    def end(self) -> None:
        """Cut it."""
        self.ended = True
        self._arrived.set()
        self._cut()

    def is_through(self) -> bool:
        """Whether all that was put has reached the other end."""
        return not self._pending and self._has_arrived()

    def set_heartbeat(self, seconds: float) -> None:
        """Another interval; it begins now, with a comment."""
        if seconds != self.heartbeat:
            self.heartbeat = seconds
            self._pending.append(COMMENT)
            self._arrived.set()

    async def take(self) -> bytes:
        """All that waits, as soon as there is something, or a comment; b"" when the stream has ended."""
        try:
            async with asyncio.timeout(self.heartbeat):
                await self._arrived.wait()
        except TimeoutError:
            return COMMENT
        self._arrived.clear()
        taken = b"".join(self._pending)
        self._pending.clear()
        return b"" if self.ended else taken


class Feed:
    """All consumers. `serial()` is the zone's now. `cut` counts those that fell too far behind."""

    def __init__(self, membership: Membership, directory: Directory, serial: Callable[[], int]) -> None:
        self._membership = membership
        self._directory = directory
        self._serial = serial
        self.cut = 0
        self._consumers: list[Consumer] = []
        self._history: deque[_Past] = deque(maxlen=HISTORY)
        self._forgotten = serial()

    def open(
        self,
        member: Member,
        last_id: int | None,
        cut: Callable[[], None],
        arrived: Callable[[], bool] = lambda: True,
    ) -> Consumer:
        """A stream for `member` that begins after `last_id`, or with a snapshot where that cannot be."""
        consumer = Consumer(member.number, cut, arrived)
        theirs = [other for other in self._consumers if other.number == member.number]
        if len(theirs) >= STREAMS_MAX:
            theirs[0].end()
        self._show(consumer, member)
        # before all else: what is told may rest on what the registry has forgotten
        consumer.put(self._serial(), "receipt", self._receipt())
        if last_id is None or not self._resume(consumer, member, last_id):
            consumer.put(self._serial(), "snapshot", snapshot(self._membership, self._directory, member))
        self._consumers.append(consumer)
        return consumer

    def close(self, consumer: Consumer) -> None:
        """The stream has ended."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
            self.cut += consumer.fell_behind

    def end_all(self) -> None:
        """Cut every stream: the registry goes."""
        for consumer in list(self._consumers):
            consumer.end()

    def order(self, records: Iterable[tuple[Member, Order]]) -> None:
        """Tell each member its order, both in this moment."""
        for member, record in records:
            for consumer in self._consumers:
                if consumer.number == member.number:
                    consumer.put(self._serial(), "order", record)

    def set_heartbeat(self, member: Member, seconds: float) -> None:
        """How often a member's streams say something from now on."""
        for consumer in self._consumers:
            if consumer.number == member.number:
                consumer.set_heartbeat(seconds)

    def give_receipt(self) -> None:
        """Tell every member what to keep now."""
        receipt = self._receipt()
        for consumer in list(self._consumers):
            consumer.put(self._serial(), "receipt", receipt)

    def part(self, member: Member) -> bool:
        """Tell a member that it is one no longer, while it can still hear it; whether it listens."""
        theirs = [consumer for consumer in self._consumers if consumer.number == member.number]
        for consumer in theirs:
            consumer.put(self._serial(), "removed", Removed(member.public_key.to_text(), member.name))
        return bool(theirs)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._consumers)

    def listening(self) -> set[int]:
        """The host numbers of members with an open stream."""
        return {consumer.number for consumer in self._consumers}

    async def heard(self, patience: float) -> set[int]:
        """The host numbers of members that have received all they were told, after up to `patience` seconds."""
        for _ in range(int(patience / HEARD_INTERVAL)):
            if all(consumer.is_through() for consumer in self._consumers):
                break
            await asyncio.sleep(HEARD_INTERVAL)
        return {consumer.number for consumer in self._consumers if consumer.is_through()}

    def refresh(self, changed: Iterable[Member], *, facts: bool = False) -> None:
        """Tell who may know what is different about these members, as they were or as they are.

        Where that is more than their endpoints (`facts`), they get a snapshot themselves.
        """
        before_by_key = {member.public_key: member for member in changed}
        numbers = {member.number for member in before_by_key.values()} if facts else set()
        for key, before in before_by_key.items():
            after = self._membership.members.get(key)
            groups = frozenset(before.groups) | frozenset(() if after is None else after.groups)
            if len(self._history) == HISTORY:
                self._forgotten = self._history[0].serial
            self._history.append(_Past(self._serial(), key, before.name, groups))
        for consumer in list(self._consumers):
            member = self._member(consumer)
            if member is None:
                consumer.end()
                continue
            if consumer.number in numbers:
                self._show(consumer, member)
                consumer.put(self._serial(), "snapshot", snapshot(self._membership, self._directory, member))
                continue
            visible = {other.public_key: other for other in self._visible(member, before_by_key)}
            for key in before_by_key:
                self._tell(consumer, member, key, visible.get(key))

    # Inside

    def _receipt(self) -> Receipt:
        return Receipt(seal(self._membership.network, self._membership.revoked.values()))

    def _member(self, consumer: Consumer) -> Member | None:
        members = self._membership.members.values()
        return next((member for member in members if member.number == consumer.number), None)

    def _visible(self, member: Member, keys: Iterable[PublicKey]) -> list[Member]:
        candidates = [self._membership.members[key] for key in keys if key in self._membership.members]
        return [other for other in candidates if self._membership.sees(member, other)]

    def _show(self, consumer: Consumer, member: Member) -> None:
        consumer.shown = {
            other.public_key: member_record(self._membership, self._directory, other, member)
            for other in self._membership.visible_to(member)
        }

    def _tell(self, consumer: Consumer, member: Member, key: PublicKey, other: Member | None) -> None:
        shown = consumer.shown.get(key)
        if other is None:
            if shown is not None:
                del consumer.shown[key]
                consumer.put(self._serial(), "removed", Removed(shown.public_key, shown.name))
            return
        record = member_record(self._membership, self._directory, other, member)
        if shown == record:
            return
        consumer.shown[key] = record
        if shown is not None and replace(shown, endpoint=record.endpoint, live=record.live) == record:
            change = EndpointChange(record.public_key, record.endpoint, record.live)
            consumer.put(self._serial(), "endpoint", change)
        else:
            consumer.put(self._serial(), "member", record)

    def _resume(self, consumer: Consumer, member: Member, last_id: int) -> bool:
        """Queue what happened after `last_id`; False when that is not known, or is too much."""
        if not self._forgotten <= last_id <= self._serial():
            return False
        # of the same serial too: one number may stand for several events
        missed = {past.key: past for past in self._history if past.serial >= last_id}
        if len(missed) >= BEHIND_MAX or member.public_key in missed:
            return False
        for key, past in missed.items():
            if key in consumer.shown:
                consumer.put(self._serial(), "member", consumer.shown[key])
            elif past.groups.intersection(member.groups):
                consumer.put(self._serial(), "removed", Removed(key.to_text(), past.name))
        return True
