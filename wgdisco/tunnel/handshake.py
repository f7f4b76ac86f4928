"""The handshakes of one peer in both roles: what is kept between their messages.

It makes messages and sessions. When one is due, where it goes and what follows is the peer's business.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wgdisco.keys import PresharedKey, PrivateKey, PublicKey, wipe
from wgdisco.tunnel import noise
from wgdisco.tunnel.cookie import CookieJar
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.messages import MINIMUM_INITIATION_GAP, CookieReply, Response
from wgdisco.tunnel.session import Session
from wgdisco.tunnel.tai64n import Timestamps


@dataclass(frozen=True, slots=True)
class Pending:
    """The initiation that waits for its response, with its MACs."""

    state: noise.InitiatorState
    message: bytes
    created_at: float


class Handshake:
    """`index` in its methods is a receiver index that nobody holds, `now` the device's clock.

    `sent_at` is when our last message went out (rule H17), an initiation that was said again left aside.
    """

    __slots__ = (
        "_consumed_at",
        "_cookies",
        "_greatest_timestamp",
        "_has_shared",
        "_private",
        "_random_bytes",
        "_remote",
        "_shared",
        "_timestamps",
        "pending",
        "sent_at",
    )

    def __init__(self, remote: PublicKey, random_bytes: Callable[[int], bytes]) -> None:
        self.pending: Pending | None = None
        self.sent_at: float | None = None
        self._remote = remote
        self._random_bytes = random_bytes
        self._private: PrivateKey | None = None
        self._shared: bytes | None = None
        self._has_shared = False
        self._cookies = CookieJar(remote)
        self._timestamps = Timestamps()
        self._greatest_timestamp = b""
        self._consumed_at: float | None = None

    def use_key(self, private: PrivateKey | None) -> None:
        """Our private key is this one: the static-static secret changes with it (rule H4)."""
        if self._shared is not None:
            wipe(self._shared)
        self._private, self._shared, self._has_shared = private, None, False

    def forget_pending(self) -> int | None:
        """No response is waited for any more; the index that is free now."""
        pending, self.pending = self.pending, None
        if pending is None:
            return None
        pending.state.wipe()
        return pending.state.index

    @property
    def is_possible(self) -> bool:
        """Whether we have a key, and the remote one is not of low order."""
        return self._static_static() is not None

    # As initiator

    def create_initiation(self, index: int, unix_time: float, now: float) -> Pending | None:
        """Begin a handshake; None where it is not possible."""
        private, shared = self._private, self._static_static()
        if private is None or shared is None:
            return None
        ephemeral = self._random_bytes(32)
        timestamp = self._timestamps.next(unix_time)
        made = noise.create_initiation(private, self._remote, shared, ephemeral, index, timestamp)
        wipe(ephemeral)
        if made is None:
            return None
        state, message = made
        self.pending = Pending(state, self._cookies.add_macs(message, now), now)
        self.sent_at = now
        return self.pending

    def consume_response(
        self, state: noise.InitiatorState, response: Response, preshared: PresharedKey | None, now: float
    ) -> Session | None:
        """Finish a handshake we began: the session, or None when the response is not good."""
        private = self._private
        keys = None if private is None else noise.consume_response(private, state, preshared, response)
        if keys is None:
            return None
        session = Session(keys, state.index, initiator=True, now=now)
        keys.wipe()
        state.wipe()
        self.pending = None
        return session

    def consume_cookie(self, reply: CookieReply, now: float) -> bool:
        """Keep a cookie for the next initiation; False when it is none for our last message."""
        return self._cookies.consume_reply(reply, now)

    # As responder

    def verify_initiation(self, opened: noise.OpenedInitiation) -> noise.ResponderState | None:
        """Check that an initiation in the peer's name is its own."""
        shared = self._static_static()
        return None if shared is None else noise.verify_initiation(opened, shared)

    def refuses(self, state: noise.ResponderState, now: float) -> Drop | None:
        """Why a verified initiation is not to be answered, or None (rules H9 and H10)."""
        if state.timestamp <= self._greatest_timestamp:
            return Drop.REPLAYED_INITIATION
        if self._consumed_at is not None and now - self._consumed_at < MINIMUM_INITIATION_GAP:
            return Drop.INITIATION_FLOOD
        return None

    def create_response(
        self, state: noise.ResponderState, preshared: PresharedKey | None, index: int, now: float
    ) -> tuple[Session, bytes] | None:
        """Answer an initiation: the session and the response with its MACs; None where the initiation is not good."""
        ephemeral = self._random_bytes(32)
        made = noise.create_response(state, preshared, ephemeral, index)
        wipe(ephemeral)
        state.wipe()
        if made is None:
            return None
        keys, response = made
        self._greatest_timestamp = state.timestamp
        self._consumed_at = self.sent_at = now
        session = Session(keys, index, initiator=False, now=now)
        keys.wipe()
        return session, self._cookies.add_macs(response, now)

    def _static_static(self) -> bytes | None:
        """Computed once a private key, when it is first needed: thousands of peers may come or change at once."""
        if not self._has_shared:
            self._shared = None if self._private is None else noise.static_static(self._private, self._remote)
            self._has_shared = True
        return self._shared
