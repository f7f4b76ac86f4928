"""The event stream: what each member that listens may see, as it changes.

A consumer is told the difference between what it was shown and what it may see now; who falls too far behind is cut,
and comes back with Last-Event-ID, or for a snapshot.
"""

import asyncio
import os
from collections.abc import Callable, Container, Iterable
from collections.abc import Set as AbstractSet
from itertools import islice

from wgdisco.api import HEARTBEAT, Order, Receipt, Removed
from wgdisco.keys import PublicKey
from wgdisco.registry.changes import Changes, EventIds
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Member
from wgdisco.registry.membership import Membership
from wgdisco.registry.receipt import seal
from wgdisco.registry.telling import Event, Telling, Tellings

BEHIND_MAX = 256
STREAMS_MAX = 4
HEARD_INTERVAL = 0.05
A_TURN = 64
COMMENT = b": still here\n\n"


class Consumer:
    """One open stream. `cut` is called when it is to end at once; `arrived` says whether what was written got there.

    After `heartbeat` seconds without an event there is a comment: whoever listens acknowledges it, and so keeps the
    mapping of his NAT alive. `name` and `groups` are the member's, as of what it was last told of itself.
    """

    def __init__(self, member: Member, cut: Callable[[], None], arrived: Callable[[], bool], waking: "_Waking") -> None:
        self.number = member.number
        self.name = member.name
        self.groups = frozenset(member.groups)
        self.ended = False
        self.fell_behind = False
        self.heartbeat = float(HEARTBEAT)
        self._cut = cut
        self._has_arrived = arrived
        self._pending: list[bytes] = []
        self._arrived = asyncio.Event()
        self._waking = waking

    def put(self, event: bytes) -> None:
        """Queue an event, or cut the stream when too many wait."""
        if len(self._pending) >= BEHIND_MAX:
            self.fell_behind = True
            self.end()
            return
        self._pending.append(event)
        self._waking.add(self._arrived)

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


class _Waking:
    """Consumers are woken A_TURN in a turn of the loop.

    The packets of a thousand at once would be more than the interface's queue holds, and the others wait for a turn.
    """

    def __init__(self) -> None:
        self._due: dict[asyncio.Event, None] = {}

    def add(self, sleeping: asyncio.Event) -> None:
        """It is to be set soon."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._wake)
        self._due[sleeping] = None

    def _wake(self) -> None:
        for sleeping in list(islice(self._due, A_TURN)):
            del self._due[sleeping]
            sleeping.set()
        if self._due:
            asyncio.get_running_loop().call_soon(self._wake)


class Feed:
    """All consumers. `cut` counts those that fell too far behind.

    All have been told the same of a member, or nothing, where they may not see it: so it is kept once.
    """

    def __init__(self, membership: Membership, directory: Directory) -> None:
        self._membership = membership
        self._tellings = Tellings(membership, directory)
        self._told: dict[PublicKey, Telling] = {}
        self._waking = _Waking()
        self._by_number: dict[int, list[Consumer]] = {}
        self._by_group: dict[str, dict[Consumer, None]] = {}
        self.cut = 0
        self._changes = Changes(BEHIND_MAX - 1)  # and the receipt
        self._ids = EventIds(os.urandom)

    def open(
        self,
        member: Member,
        last_id: str,
        cut: Callable[[], None],
        arrived: Callable[[], bool] = lambda: True,
    ) -> Consumer:
        """A stream for `member` that begins after the event of `last_id`, or with a snapshot where that cannot be."""
        consumer = Consumer(member, cut, arrived, self._waking)
        theirs = self._by_number.get(member.number, [])
        if len(theirs) >= STREAMS_MAX:
            theirs[0].end()
        visible = self._bring_up(member)
        # before all else: what is told may rest on what the registry has forgotten
        consumer.put(_pack(self._receipt()))
        last = self._ids.from_text(last_id)
        if last is None or not self._resume(consumer, member, last):
            consumer.put(self._pack_change(self._tellings.snapshot(member, visible)))
        self._by_number.setdefault(member.number, []).append(consumer)
        self._place(consumer)
        return consumer

    def close(self, consumer: Consumer) -> None:
        """The stream has ended."""
        theirs = self._by_number.get(consumer.number, [])
        if consumer in theirs:
            theirs.remove(consumer)
            self.cut += consumer.fell_behind
            self._displace(consumer)
            if not theirs:
                del self._by_number[consumer.number]

    def end_all(self) -> None:
        """Cut every stream: the registry goes."""
        for consumer in self._consumers():
            consumer.end()

    def order(self, records: Iterable[tuple[Member, Order]]) -> None:
        """Tell each member its order, both in this moment."""
        for member, record in records:
            self._tell(member.number, Event.of("order", record))

    def set_heartbeat(self, member: Member, seconds: float) -> None:
        """How often a member's streams say something from now on."""
        for consumer in self._by_number.get(member.number, []):
            consumer.set_heartbeat(seconds)

    def give_receipt(self) -> None:
        """Tell every member what to keep now."""
        receipt = _pack(self._receipt())
        for consumer in self._consumers():
            consumer.put(receipt)

    def part(self, member: Member) -> bool:
        """Tell a member that it is one no longer, while it can still hear it; whether it listens."""
        return self._tell(member.number, Event.of("removed", Removed(member.public_key.to_text(), member.name)))

    @property
    def streams(self) -> int:
        """How many are open."""
        return sum(map(len, self._by_number.values()))

    def listening(self) -> AbstractSet[int]:
        """The host numbers of members with an open stream."""
        return self._by_number.keys()

    async def heard(self, patience: float) -> set[int]:
        """The host numbers of members that have received all they were told, after up to `patience` seconds."""
        for _ in range(int(patience / HEARD_INTERVAL)):
            if all(consumer.is_through() for consumer in self._consumers()):
                break
            await asyncio.sleep(HEARD_INTERVAL)
        return {consumer.number for consumer in self._consumers() if consumer.is_through()}

    def refresh(self, changed: Iterable[Member], *, facts: bool = False) -> None:
        """Tell who may know what is different about these members, as they were or as they are.

        Where that is more than their endpoints (`facts`), they get a snapshot themselves.
        """
        before_by_key = {member.public_key: member for member in changed}
        numbers = dict.fromkeys(member.number for member in before_by_key.values())
        owners = {number: self._membership.by_number(number) for number in numbers if number in self._by_number}
        for number, member in owners.items():
            if member is None:
                for consumer in self._by_number[number]:
                    consumer.end()
        anew = {number: member for number, member in owners.items() if facts and member is not None}
        for key in before_by_key:
            self._spread(key, anew)
        for number in numbers if facts else ():
            self._changes.note_own(number)
        for number, member in anew.items():
            visible = self._bring_up(member)
            event = self._pack_change(self._tellings.snapshot(member, visible))
            for consumer in self._by_number[number]:
                self._displace(consumer)
                consumer.name, consumer.groups = member.name, frozenset(member.groups)
                self._place(consumer)
                consumer.put(event)

    # Inside

    def _consumers(self) -> list[Consumer]:
        return [consumer for theirs in self._by_number.values() for consumer in theirs]

    def _place(self, consumer: Consumer) -> None:
        for group in consumer.groups:
            self._by_group.setdefault(group, {})[consumer] = None

    def _displace(self, consumer: Consumer) -> None:
        for group in consumer.groups:
            listening = self._by_group[group]
            del listening[consumer]
            if not listening:
                del self._by_group[group]

    def _receipt(self) -> Event:
        return Event.of("receipt", Receipt(seal(self._membership.network, self._membership.revoked.values())))

    def _pack_change(self, event: Event, number: int | None = None) -> bytes:
        """With what says that all up to change `number`, or the latest, has been told."""
        return _pack(event, self._ids.to_text(self._changes.latest if number is None else number))

    def _tell(self, number: int, event: Event) -> bool:
        """Tell one member; whether it listens."""
        theirs = self._by_number.get(number, [])
        packed = _pack(event)
        for consumer in theirs:
            consumer.put(packed)
        return bool(theirs)

    def _bring_up(self, member: Member) -> list[Telling]:
        """What `member` may see, after everybody has been told of that as it is now."""
        visible = []
        for other in self._membership.visible_to(member):
            telling = self._tellings.of(other)
            if self._told.get(other.public_key) is not telling:
                self._spread(other.public_key)
            visible.append(telling)
        return visible

    def _spread(self, key: PublicKey, but: Container[int] = ()) -> None:
        """Tell whoever may know that a member is, is not, or is another than they were told; not those numbers."""
        member = self._membership.members.get(key)
        before = self._told.pop(key, None)
        after = None if member is None or not member.proven else self._tellings.of(member)
        if after is None:
            self._tellings.forget(key)
        else:
            self._told[key] = after
        if before is after:
            return
        moved = None if before is None or after is None else after.moved(before)
        known = [telling for telling in (before, after) if telling is not None]
        groups = frozenset[str]().union(*(telling.groups for telling in known))
        is_elsewhere = before is not None and after is not None and before.is_same_in_common(after)
        noted = known[0].groups ^ known[-1].groups if is_elsewhere else groups
        self._changes.note(key, known[0].record.name, noted)
        packed: dict[Event, bytes] = {}
        for consumer in self._in_groups(groups):
            if consumer.number not in but:
                event = _difference(consumer, before, after, moved)
                if event is not None:
                    if event not in packed:
                        packed[event] = self._pack_change(event)
                    consumer.put(packed[event])

    def _in_groups(self, groups: Iterable[str]) -> Iterable[Consumer]:
        return list({consumer: None for group in groups for consumer in self._by_group.get(group, ())})

    def _resume(self, consumer: Consumer, member: Member, last: int) -> bool:
        """Queue what happened after change `last`; False when that is not known, or is too much."""
        missed = self._changes.since(last, member.number, member.groups)
        if missed is None or member.public_key in missed:
            return False
        for key, (number, name) in missed.items():
            telling = self._told.get(key)
            if telling is not None and telling.is_for(consumer.number, consumer.groups):
                event = telling.event(consumer.name, consumer.groups)
            else:
                event = Event.of("removed", Removed(key.to_text(), name))
            consumer.put(self._pack_change(event, number))
        return True


def _pack(event: Event, id_: str | None = None) -> bytes:
    """The id comes last: of what breaks off before it is whole, nobody has it (members take it as they read it)."""
    told = "" if id_ is None else f"id: {id_}\n"
    return f"event: {event.name}\ndata: {event.data}\n{told}\n".encode()


def _difference(consumer: Consumer, before: Telling | None, after: Telling | None, moved: Event | None) -> Event | None:
    """What tells a consumer that one is not the other; `moved` where that is enough."""
    saw = before is not None and before.is_for(consumer.number, consumer.groups)
    sees = after is not None and after.is_for(consumer.number, consumer.groups)
    if not sees:
        return before.removed() if saw and before is not None else None
    assert after is not None
    if not saw or before is None:
        return after.event(consumer.name, consumer.groups)
    is_direct = consumer.name in after.direct_to
    if moved is None or is_direct != (consumer.name in before.direct_to):
        event = after.event(consumer.name, consumer.groups)
        # where only other groups of it are different, there is nothing to tell
        return None if event == before.event(consumer.name, consumer.groups) else event
    return None if before.record == after.record else moved
