"""The blind relay: passes sealed WireGuard datagrams on between two members that have an order; it sees no plaintext.

It works on the registry's own WireGuard port, to which every member has a way open: what arrives there and is for
another (`events.Foreign`) comes here. To members, the relayed path is the registry's endpoint as a peer's.

::

    alice ── initiation, sender 7 ──► mac1 fits bob, whom alice may reach ──► bob      bob's messages to 7: alice's
    alice ◄────────────────────────── (bob, 7) is alice's ◄── response to 7, sender 9 ── bob
    alice ── data for 9 ────────────► (alice, 9) is bob's ──────────────────► bob

An initiation without an order waits a moment for one: an engine that is not ours sends it before it can be asked for.
A sender is known by the endpoint it last proved to the registry. Nothing goes by a receiver index alone. All that a
stranger, or a member, can fill is bounded.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel import messages
from wgdisco.tunnel.cookie import check_mac1, mac1_key
from wgdisco.tunnel.events import Foreign
from wgdisco.tunnel.messages import REJECT_AFTER_TIME, TRANSPORT, message_type

IDLE_EXPIRY = 60.0
MAX_ORDERS = 64
# Receiver indices one side may have told the other: those of sessions, and of initiations not answered yet
MAX_ANSWERED = 8
MAX_OFFERED = 16
# A member's own, counted where it sends: 100 Mbit/s; and handshakes, whose mac1 costs a hash for each of its orders
# Handshakes begun by both sides within that time would spoil each other where the engines are not ours: the first one
# goes on. Not more often than the other side begins anew, so that nobody is kept out by what a stranger forged.
CROSSING = 0.5
CROSSING_EVERY = 4.0
# How long an initiation waits for an order, in seconds
HELD_FOR = 2.0
BYTES_PER_SECOND = 12_500_000
BYTES_AT_ONCE = 4_000_000
HANDSHAKES_PER_SECOND = 50
HANDSHAKES_AT_ONCE = 400


class RelayDrop(Enum):
    """Why a datagram was not passed on. Each is counted; none is an error."""

    UNKNOWN_SOURCE = "relay: unknown source"
    NO_ORDER = "relay: no order"
    UNKNOWN_INDEX = "relay: unknown receiver index"
    TOO_MANY_HANDSHAKES = "relay: too many handshakes"
    TOO_MANY_BYTES = "relay: too many bytes"
    CROSSING = "relay: handshakes cross"
    NO_ENDPOINT = "relay: destination not there"


@dataclass(frozen=True, slots=True)
class Forward:
    """Send `data`, datagrams of `row` bytes each, to the member `key` at `endpoint`."""

    key: PublicKey
    endpoint: Endpoint
    data: bytes
    row: int


@dataclass(slots=True)
class Traffic:
    """What was passed on for a member: datagrams and bytes of UDP payload, by direction as the member sees it."""

    tx_packets: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    rx_bytes: int = 0


@dataclass(slots=True)
class _Bucket:
    """A token bucket: `rate` a second, `size` at once."""

    rate: float
    size: float
    tokens: float
    at: float = 0.0

    def take(self, amount: float, now: float) -> bool:
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True


@dataclass(slots=True)
class _Indices:
    """Receiver indices that one side told the other, oldest first: in initiations, and in what was answered."""

    offered: dict[int, None] = field(default_factory=dict)
    answered: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Order:
    """Two members may reach each other until `until`; `told` has the indices each of them told the other.

    `begun` is who began a handshake that is not answered yet, and when. `left` are those who have no use for it now.
    """

    until: float
    told: dict[PublicKey, _Indices]
    begun: tuple[PublicKey, float] | None = None
    crossed_at: float = float("-inf")
    left: set[PublicKey] = field(default_factory=set)

    def begin(self, key: PublicKey, now: float) -> bool:
        """This member begins a handshake; False when it is to take part in the other's."""
        if self.begun is not None and self.begun[0] != key and now - self.begun[1] < CROSSING:
            if now - self.crossed_at >= CROSSING_EVERY:
                self.crossed_at = now
                return False
            return True
        self.begun = key, now
        return True


@dataclass(slots=True, eq=False)
class _Member:
    """`routes`: whose the receiver indices in its messages are. `held` is its last initiation without an order."""

    key: PublicKey
    mac1_key: bytes
    endpoint: Endpoint | None = None
    held: tuple[float, Foreign] | None = None
    orders: dict[PublicKey, _Order] = field(default_factory=dict)
    routes: dict[int, PublicKey] = field(default_factory=dict)
    volume: _Bucket = field(default_factory=lambda: _Bucket(BYTES_PER_SECOND, BYTES_AT_ONCE, BYTES_AT_ONCE))
    handshakes: _Bucket = field(
        default_factory=lambda: _Bucket(HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE, HANDSHAKES_AT_ONCE)
    )
    traffic: Traffic = field(default_factory=Traffic)


class Relay:
    """See the module's docstring. `now` is the boot-time clock; it may stand still and never goes back.

    `passed` is what all members there ever were have received.
    """

    def __init__(self) -> None:
        self.drops: Counter[RelayDrop] = Counter()
        self.passed = Traffic()
        self._members: dict[PublicKey, _Member] = {}
        self._sources: dict[Endpoint, PublicKey] = {}

    # Who may reach whom, and where members are

    def admit(self, a: PublicKey, b: PublicKey, now: float) -> bool:
        """Let two members reach each other until nothing was passed on for 60 s; again prolongs it.

        False when one of them has 64 others already, or the two are one.
        """
        if a == b:
            return False
        order = self._member(a).orders.get(b)
        if order is None:
            if not (self._has_room(self._members[a], now) and self._has_room(self._member(b), now)):
                return False
            order = _Order(now, {a: _Indices(), b: _Indices()})
            self._members[a].orders[b] = self._members[b].orders[a] = order
        order.until = now + IDLE_EXPIRY
        order.left.clear()
        return True

    def leave(self, key: PublicKey, other: PublicKey, now: float) -> None:
        """This member reaches the other directly. When both say so, nothing is passed on until they are admitted again.

        Engines that follow whatever they hear would be led back and forth by what is still under way.
        """
        member = self._members.get(key)
        order = None if member is None else member.orders.get(other)
        if order is not None:
            order.left.add(key)
            order.until = now if {key, other} == order.left else order.until

    def held(self, a: PublicKey, b: PublicKey, now: float) -> list[Forward]:
        """What these two, just admitted, have sent each other a moment ago, when it had no order; each once."""
        forwards = []
        for sender, receiver in ((self._members[a], self._members[b]), (self._members[b], self._members[a])):
            if sender.held is None or not check_mac1(memoryview(sender.held[1].data), receiver.mac1_key):
                continue
            (at, foreign), sender.held = sender.held, None
            forward = self.receive(foreign, now) if now - at <= HELD_FOR else None
            if forward is not None:
                forwards.append(forward)
        return forwards

    def revoke(self, key: PublicKey) -> None:
        """Nothing more to or from this member; it must be admitted, and found, anew."""
        self.locate(key, None)
        member = self._members.pop(key, None)
        for other in [] if member is None else list(member.orders):
            self._members[other].orders.pop(key, None)
            self._forget_routes(self._members[other], key)

    def keep(self, allowed: Callable[[PublicKey, PublicKey], bool]) -> None:
        """End the orders between members that are not `allowed` to reach each other."""
        for member in self._members.values():
            for other in [key for key in member.orders if not allowed(member.key, key)]:
                self._end(member, self._members[other])

    def rename(self, old: PublicKey, new: PublicKey) -> None:
        """A member has another key from now on: its orders and sessions go on."""
        self.revoke(new)
        member = self._members.pop(old, None)
        if member is None:
            return
        member.key, member.mac1_key = new, mac1_key(new)
        self._members[new] = member
        if member.endpoint is not None and self._sources.get(member.endpoint) == old:
            self._sources[member.endpoint] = new
        for other, order in member.orders.items():
            order.told[new] = order.told.pop(old)
            order.left.clear()
            there = self._members[other]
            there.orders[new] = there.orders.pop(old)
            there.routes = {index: new if key == old else key for index, key in there.routes.items()}

    def locate(self, key: PublicKey, endpoint: Endpoint | None) -> None:
        """A member has proved that it is at `endpoint`; None when it was not heard for too long."""
        member = self._members.get(key) if endpoint is None else self._member(key)
        if member is None or member.endpoint == endpoint:
            return
        if member.endpoint is not None and self._sources.get(member.endpoint) == key:
            del self._sources[member.endpoint]
        member.endpoint = endpoint
        if endpoint is not None:
            self._sources[endpoint] = key

    def traffic(self) -> dict[PublicKey, Traffic]:
        """What was passed on, by member."""
        return {member.key: member.traffic for member in self._members.values()}

    # What passes

    def receive(self, foreign: Foreign, now: float) -> Forward | None:
        """Where these datagrams go on to; None, and counted, when nowhere. Rows are of one kind and one receiver."""
        view = memoryview(foreign.data)
        count = -(-len(view) // foreign.row) if foreign.row else 1
        key = self._sources.get(foreign.source)
        if key is None:
            self.drops[RelayDrop.UNKNOWN_SOURCE] += count
            return None
        sender = self._members[key]
        receiver = self._destination(sender, view[: foreign.row], now)
        if receiver is RelayDrop.NO_ORDER and message_type(view) == messages.INITIATION and count == 1:
            sender.held = now, foreign
        passed = receiver if isinstance(receiver, RelayDrop) else self._pass(sender, receiver, foreign, count, now)
        if isinstance(passed, RelayDrop):
            self.drops[passed] += count
            return None
        return passed

    def concerns(self, seen: Foreign, own_key: bytes) -> bool:
        """Whether what comes to a device that takes its own part is for another. `own_key`: the device's `mac1_key`.

        What is nobody's is not counted: it is the device's, or a stranger's.
        """
        key = self._sources.get(seen.source)
        if key is None:
            return False
        message = memoryview(seen.data)[: seen.row]
        kind = message_type(message)
        if kind == messages.INITIATION:
            return not check_mac1(message, own_key)
        at = 8 if kind == messages.RESPONSE else 4
        return kind is not None and int.from_bytes(message[at : at + 4], "little") in self._members[key].routes

    def indices(self, most: int) -> set[int]:
        """The receiver indices that are somebody's, or of these `most` and one."""
        found: set[int] = set()
        for member in self._members.values():
            found.update(member.routes)
            if len(found) > most:
                return set(islice(found, most + 1))
        return found

    def _destination(self, sender: _Member, message: memoryview, now: float) -> _Member | RelayDrop:
        kind = message_type(message)
        if kind != TRANSPORT and not sender.handshakes.take(1, now):
            return RelayDrop.TOO_MANY_HANDSHAKES
        match kind:
            case messages.INITIATION:
                return self._to_whom(sender, message, now)
            case messages.RESPONSE:
                return self._answered(sender, message, now)
            case messages.COOKIE_REPLY | messages.TRANSPORT:
                return self._routed(sender, int.from_bytes(message[4:8], "little"), now)
            case _:
                return RelayDrop.UNKNOWN_INDEX

    def _to_whom(self, sender: _Member, message: memoryview, now: float) -> _Member | RelayDrop:
        """An initiation has no receiver index: its mac1 tells, tried against those the sender may reach."""
        for key, order in sender.orders.items():
            receiver = self._members[key]
            if now < order.until and check_mac1(message, receiver.mac1_key):
                index = int.from_bytes(message[4:8], "little")
                if not self._learn(receiver, sender.key, index, order.told[sender.key]):
                    return RelayDrop.UNKNOWN_INDEX
                return receiver if order.begin(sender.key, now) else RelayDrop.CROSSING
        return RelayDrop.NO_ORDER

    def _answered(self, sender: _Member, message: memoryview, now: float) -> _Member | RelayDrop:
        """A response names the initiator's index, and tells its own."""
        own, index = (int.from_bytes(message[at : at + 4], "little") for at in (4, 8))
        receiver = self._routed(sender, index, now)
        if isinstance(receiver, RelayDrop):
            return receiver
        order = sender.orders[receiver.key]
        order.begun, told = None, order.told
        if not self._learn(receiver, sender.key, own, told[sender.key], answered=True):
            return RelayDrop.UNKNOWN_INDEX
        self._learn(sender, receiver.key, index, told[receiver.key], answered=True)
        return receiver

    def _routed(self, sender: _Member, index: int, now: float) -> _Member | RelayDrop:
        key = sender.routes.get(index)
        if key is None:
            return RelayDrop.UNKNOWN_INDEX
        return self._members[key] if now < sender.orders[key].until else RelayDrop.NO_ORDER

    def _pass(
        self, sender: _Member, receiver: _Member, foreign: Foreign, count: int, now: float
    ) -> Forward | RelayDrop:
        size = len(foreign.data)
        if receiver.endpoint is None:
            return RelayDrop.NO_ENDPOINT
        if not sender.volume.take(size, now):
            return RelayDrop.TOO_MANY_BYTES
        sender.orders[receiver.key].until = now + IDLE_EXPIRY
        sender.traffic.tx_packets += count
        sender.traffic.tx_bytes += size
        for traffic in (receiver.traffic, self.passed):
            traffic.rx_packets += count
            traffic.rx_bytes += size
        return Forward(receiver.key, receiver.endpoint, foreign.data, foreign.row)

    # Inside

    def _member(self, key: PublicKey) -> _Member:
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = _Member(key, mac1_key(key))
        return member

    def _has_room(self, member: _Member, now: float) -> bool:
        """Whether the member may have one more order; those that lapsed make room.

        Until then they keep their indices, for as long as a session lasts: given again, it goes on.
        """
        for key, order in list(member.orders.items()):
            over = now >= order.until + REJECT_AFTER_TIME
            if over or (now >= order.until and len(member.orders) >= MAX_ORDERS):
                self._end(member, self._members[key])
        return len(member.orders) < MAX_ORDERS

    def _end(self, a: _Member, b: _Member) -> None:
        for one, other in ((a, b), (b, a)):
            del one.orders[other.key]
            self._forget_routes(one, other.key)

    @staticmethod
    def _forget_routes(member: _Member, key: PublicKey) -> None:
        member.routes = {index: other for index, other in member.routes.items() if other != key}

    @staticmethod
    def _learn(member: _Member, owner: PublicKey, index: int, told: _Indices, *, answered: bool = False) -> bool:
        """`index` in messages of `member` is `owner`'s from now on; False when it is somebody else's already.

        What was only offered cannot push out what was answered: anybody can forge an initiation.
        """
        if member.routes.setdefault(index, owner) != owner:
            return False
        if index in told.answered and not answered:
            return True
        told.offered.pop(index, None)
        told.answered.pop(index, None)
        indices, most = (told.answered, MAX_ANSWERED) if answered else (told.offered, MAX_OFFERED)
        indices[index] = None
        if len(indices) > most:
            oldest = next(iter(indices))
            del indices[oldest], member.routes[oldest]
        return True
