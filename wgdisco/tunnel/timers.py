"""A peer's timers, armed here and nowhere else, through functions named for what happened (white paper section 6).

A deadline is a time on the device's clock or None. What a timer does when it fires is the peer's business.
"""

from enum import IntEnum

from wgdisco.tunnel.messages import (
    KEEPALIVE_TIMEOUT,
    REKEY_TIMEOUT,
    REKEY_TIMEOUT_JITTER,
    ZERO_KEY_TIME,
)


class Timer(IntEnum):
    """The five, and one of managed peers alone."""

    RETRANSMIT_HANDSHAKE = 0
    SEND_KEEPALIVE = 1
    NEW_HANDSHAKE = 2
    ZERO_KEY = 3
    PERSISTENT_KEEPALIVE = 4
    DOUBT = 5


class Timers:
    """Deadlines of one peer. `jitter` arguments are fractions in [0, 1)."""

    __slots__ = ("_another_keepalive", "_deadlines", "attempts", "persistent_keepalive")

    def __init__(self) -> None:
        self._deadlines: list[float | None] = [None] * len(Timer)
        self._another_keepalive = False
        self.attempts = 0
        self.persistent_keepalive = 0

    def next_deadline(self) -> float | None:
        """The earliest armed, or None."""
        armed = [deadline for deadline in self._deadlines if deadline is not None]
        return min(armed) if armed else None

    def expire(self, now: float) -> list[Timer]:
        """Disarm and return those that are due."""
        due = [t for t in Timer if (deadline := self._deadlines[t]) is not None and deadline <= now]
        for timer in due:
            self._deadlines[timer] = None
        return due

    def is_armed(self, timer: Timer) -> bool:
        """Whether `timer` is running."""
        return self._deadlines[timer] is not None

    def data_sent(self, now: float, jitter: float) -> None:
        """A packet that is no keepalive went out: an answer is due (rule T6)."""
        if self._deadlines[Timer.NEW_HANDSHAKE] is None:
            delay = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter * REKEY_TIMEOUT_JITTER
            self._deadlines[Timer.NEW_HANDSHAKE] = now + delay

    def data_received(self, now: float, count: int = 1) -> None:
        """Packets that are no keepalives came in: the other side wants to hear from us (rules T5 and T13)."""
        if self._deadlines[Timer.SEND_KEEPALIVE] is None:
            self._deadlines[Timer.SEND_KEEPALIVE] = now + KEEPALIVE_TIMEOUT
            count -= 1
        if count:
            self._another_keepalive = True

    def authenticated_packet_sent(self, now: float) -> None:
        """Anything the other side can authenticate went out."""
        self._deadlines[Timer.SEND_KEEPALIVE] = None
        self._traversal(now)

    def authenticated_packet_received(self, now: float) -> None:
        """Anything authenticated came in."""
        self._deadlines[Timer.NEW_HANDSHAKE] = None
        self._deadlines[Timer.DOUBT] = None
        self._traversal(now)

    def carried(self, sent_at: float | None, received_at: float | None, waiting_at: float | None, more: bool) -> None:
        """Packets went by a lane: the last of either kind; the first that waits for one of ours, and whether more do.

        That data was sent since the last that came is for the caller to say then.
        """
        if received_at is not None:
            self.authenticated_packet_received(received_at)
        if sent_at is not None:
            self.authenticated_packet_sent(sent_at)
        if sent_at is not None and received_at is not None:
            self._traversal(max(sent_at, received_at))
        if waiting_at is not None:
            self.data_received(waiting_at)
        self._another_keepalive |= more

    def _traversal(self, now: float) -> None:
        if self.persistent_keepalive:
            self._deadlines[Timer.PERSISTENT_KEEPALIVE] = now + self.persistent_keepalive

    def doubt(self, now: float, pause: float) -> None:
        """Data went out, and within `pause` something should come in (managed peers)."""
        if self._deadlines[Timer.DOUBT] is None:
            self._deadlines[Timer.DOUBT] = now + pause

    def keepalive_due(self, now: float) -> None:
        """The passive keepalive was sent; another follows when data came meanwhile."""
        if self._another_keepalive:
            self._another_keepalive = False
            self._deadlines[Timer.SEND_KEEPALIVE] = now + KEEPALIVE_TIMEOUT

    def handshake_initiated(self, now: float, jitter: float) -> None:
        """An initiation went out."""
        self._deadlines[Timer.RETRANSMIT_HANDSHAKE] = now + REKEY_TIMEOUT + jitter * REKEY_TIMEOUT_JITTER

    def handshake_held_back(self, sent_at: float, jitter: float) -> None:
        """An initiation is wanted too soon after our last handshake message, at `sent_at`: it goes when it may.

        That message can be our response to theirs. If its confirmation is lost, nothing else would bring us back.
        """
        if self._deadlines[Timer.RETRANSMIT_HANDSHAKE] is None:
            self.handshake_initiated(sent_at, jitter)

    def handshake_given_up(self, now: float) -> None:
        """The last attempt went unanswered (rule T3)."""
        self._deadlines[Timer.SEND_KEEPALIVE] = None
        if self._deadlines[Timer.ZERO_KEY] is None:
            self._deadlines[Timer.ZERO_KEY] = now + ZERO_KEY_TIME

    def handshake_complete(self) -> None:
        """The handshake is confirmed from the other side (rule T8)."""
        self._deadlines[Timer.RETRANSMIT_HANDSHAKE] = None
        self.attempts = 0

    def confirmation_sent(self, now: float, pause: float) -> None:
        """Our first packet in a new session went out, and goes again after `pause` (managed peers)."""
        self._deadlines[Timer.RETRANSMIT_HANDSHAKE] = now + pause

    def confirmation_seen(self) -> None:
        """Something came in the new session, so the other side has it."""
        self._deadlines[Timer.RETRANSMIT_HANDSHAKE] = None

    def session_derived(self, now: float) -> None:
        """New keys exist; they are wiped when nothing renews them (rule T7)."""
        self._deadlines[Timer.ZERO_KEY] = now + ZERO_KEY_TIME

    def keys_cleared(self) -> None:
        """There are no keys left to wipe."""
        self._deadlines[Timer.ZERO_KEY] = None

    def set_persistent_keepalive(self, seconds: int) -> None:
        """Change the interval; the peer sends one at once when it was off (rule T9)."""
        self.persistent_keepalive = seconds
        if not seconds:
            self._deadlines[Timer.PERSISTENT_KEEPALIVE] = None

    def stop(self) -> None:
        """Disarm all."""
        self._deadlines = [None] * len(Timer)
        self._another_keepalive = False
        self.attempts = 0
