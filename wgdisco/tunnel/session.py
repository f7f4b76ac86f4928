"""One session: the keys a handshake ended in, and the three a peer may have at once (white paper, section 6.3)."""

from dataclasses import dataclass, field
from typing import Any

from wgdisco.tunnel.burst import Burst, Frames, Room, Sealed, create_counters, create_opener, create_sealer, open_new
from wgdisco.tunnel.messages import (
    KEEPALIVE_TIMEOUT,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_TIMEOUT,
)
from wgdisco.tunnel.noise import TransportKeys


@dataclass(slots=True)
class Received:
    """What a burst of transport data held. `rows` and `size` (bytes) are of what counts: authentic and no replay.

    `packets` of them were no keepalives, `bad` of these no IP packets. One is made a burst: as in `frames`, not frozen.
    """

    frames: list[Frames]
    rows: int
    size: int
    packets: int
    forged: int
    replayed: int
    bad: int


class Session:
    """A pair of keys, its counters and its age. `index` is ours, `remote_index` what the other side wants to see."""

    __slots__ = (
        "_counters",
        "_opener",
        "_sealer",
        "created_at",
        "index",
        "initiator",
        "receive_only",
        "remote_index",
    )

    def __init__(self, keys: TransportKeys, index: int, initiator: bool, now: float) -> None:
        self._sealer = create_sealer(keys.send)
        self._opener = create_opener(keys.receive)
        self._counters = create_counters()
        self.index = index
        self.remote_index = keys.remote_index
        self.initiator = initiator
        self.created_at = now
        self.receive_only = False  # our private key has changed since (rule H16)

    def close(self) -> None:
        """Forget the keys, when nobody can hand it a datagram any more (rule Z1)."""
        self.leave_lane()
        self._sealer.close()
        self._opener.close()

    @property
    def next_counter(self) -> int:
        """The counter of the next packet that is sent."""
        return self._counters.next_sent

    @next_counter.setter
    def next_counter(self, value: int) -> None:
        self._counters.next_sent = value

    def leave_lane(self) -> None:
        """Its packets are looked at one burst after the other from now on."""
        self._counters.lane = 0

    @property
    def is_on_lane(self) -> bool:
        """Whether its packets may go without being looked at."""
        return bool(self._counters.lane)

    def parts(self) -> tuple[Any, Any, Any]:
        """What seals, what opens and what counts, for a lane."""
        return self._sealer, self._opener, self._counters

    def is_usable(self, now: float) -> bool:
        """Young enough, and with counters left, to send (rules L1 and L3)."""
        return not self.receive_only and self.accepts(now) and self.next_counter < REJECT_AFTER_MESSAGES

    def accepts(self, now: float) -> bool:
        """Young enough to receive (rule D5)."""
        return now - self.created_at < REJECT_AFTER_TIME

    def wants_rekey_after_send(self, now: float) -> bool:
        """Rule T10: by count on either side, by time at the initiator only."""
        return self.next_counter > REKEY_AFTER_MESSAGES or (
            self.initiator and now - self.created_at >= REKEY_AFTER_TIME
        )

    def wants_rekey_after_receive(self, now: float) -> bool:
        """Rule T10: the initiator renews in time for one more attempt before the session is refused."""
        last_moment = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
        return self.initiator and not self.receive_only and now - self.created_at >= last_moment

    def seal(self, frames: Frames, mtu: int, room: Room) -> Sealed:
        """Seal frames, a counter a packet; what comes of it may lie in `room`."""
        sealed = self._sealer.seal(frames, self.remote_index, self.next_counter, mtu, room)
        self.next_counter += sealed.counters
        return sealed

    def open(self, datagrams: Burst, room: Room, *, tcp: bool = True, udp: bool = True) -> Received:
        """What authenticates and is new, in few frames where packets may be merged; they may lie in `room`."""
        opened, replayed = open_new(self._opener, self._counters, datagrams, room, tcp=tcp, udp=udp)
        if isinstance(opened.counters, range) and not replayed:
            rows, size = len(opened.counters), len(datagrams.data)
        else:
            sizes = [
                len(row) for row, counter in zip(datagrams.rows(), opened.counters, strict=True) if counter is not None
            ]
            rows, size = len(sizes), sum(sizes)
        return Received(opened.frames, rows, size, rows - opened.keepalives, opened.forged, replayed, opened.bad)


@dataclass(slots=True)
class SessionSlots:
    """Previous, current, next (rule H13). Every change returns the sessions that fell out.

    After a crossed handshake each side may send in what is the other's previous session. Of managed peers that one
    (`heard`, which their owner sets) stays until the new session is confirmed, or packets would be lost.
    """

    previous: Session | None = field(default=None)
    current: Session | None = field(default=None)
    next: Session | None = field(default=None)
    heard: Session | None = field(default=None)

    def add_as_initiator(self, session: Session) -> list[Session]:
        """A response came: the new session is current; the unconfirmed next, or else the old current, is previous."""
        if self.next is not None:
            dropped = [self.previous, self.current]
            self.previous, self.next = self.next, None
        elif self.previous is not None and self.heard is self.previous:
            dropped = [self.current]
        else:
            dropped = [self.previous]
            self.previous = self.current
        self.current = session
        return [s for s in dropped if s is not None]

    def add_as_responder(self, session: Session) -> list[Session]:
        """We answered: the new session is next, and not used for sending until a packet in it confirms it."""
        dropped = [self.next]
        if self.heard is not self.previous:
            dropped.append(self.previous)
            self.previous = None
        self.next = session
        return [s for s in dropped if s is not None]

    def confirm(self, session: Session) -> list[Session] | None:
        """A packet authenticated in `session`: if it was next it becomes current. None when nothing moved."""
        if session is not self.next:
            return None
        dropped = [] if self.previous is None else [self.previous]
        self.previous, self.current, self.next = self.current, session, None
        return dropped

    def clear(self) -> list[Session]:
        """Forget all three."""
        dropped = [s for s in (self.previous, self.current, self.next) if s is not None]
        self.previous = self.current = self.next = self.heard = None
        return dropped
