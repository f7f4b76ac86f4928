"""Handshake messages on their way in: checked, held back under load, and handed to the peers they are of.

Initiations wait in a queue, and its length is "under load": then only who can hear a cookie where it says it is gets
on, and not too often. What costs a Diffie-Hellman is done when there is time for it.
"""

from collections import deque

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.burst import Burst, OwnAddress
from wgdisco.tunnel.cookie import CookieChecker, RateLimiter
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.messages import HANDSHAKE_QUEUE, RESPONSE, UNDER_LOAD_QUEUE, CookieReply, Initiation, Response
from wgdisco.tunnel.peer import Peer
from wgdisco.tunnel.peers import Peers

UNDER_LOAD_LINGER = 1.0
COOKIE_REPLIES_A_TURN = 32  # until they are drained: sending is what costs most


class Intake:
    """What it receives is for us or it is not: then the caller is told by which check, and counts it.

    `replies` are cookie replies, each with where it goes, for whoever takes them out. `local` in its methods is the
    address of ours that a message came to.
    """

    def __init__(self, ours: Local[Peer], peers: Peers) -> None:
        self._ours = ours
        self._peers = peers
        self._checker: CookieChecker | None = None
        self._limiter = RateLimiter()
        self._queue: deque[tuple[bytes, Endpoint, OwnAddress | None]] = deque()
        self._under_load_until = float("-inf")
        self.replies: list[tuple[Burst, Endpoint]] = []

    def use_key(self, public: PublicKey | None) -> None:
        """Our key is this one: without one every message is dropped."""
        self._checker = None if public is None else CookieChecker(public, self._ours.random_bytes)

    def clear(self) -> None:
        """Consume nothing of what waits."""
        self._queue.clear()

    def receive(self, kind: int, message: bytes, source: Endpoint, local: OwnAddress | None, now: float) -> Drop | None:
        """Take an initiation or a response, by whoever; why it is not for us, or None."""
        checker = self._checker
        if checker is None:
            self._ours.drops[Drop.NO_PRIVATE_KEY] += 1
            return None
        if not checker.check_mac1(message):
            return Drop.BAD_MAC1
        if not self._may_pass(checker, message, source, local, now):
            return None
        if kind == RESPONSE:
            self._consume_response(Response.parse(message), source, local, now)
        elif len(self._queue) >= HANDSHAKE_QUEUE:
            self._ours.drops[Drop.QUEUE_FULL] += 1
        else:
            self._queue.append((message, source, local))
        return None

    def receive_cookie_reply(self, message: bytes, now: float) -> Drop | None:
        """Take a cookie reply; why it is not for us, or None."""
        reply = CookieReply.parse(message)
        peer, _ = self._ours.indices.get(reply.receiver, (None, None))
        if peer is None:
            return Drop.UNKNOWN_INDEX
        peer.consume_cookie(reply, now)
        return None

    @property
    def has_waiting(self) -> bool:
        """Whether `handle` has something to do."""
        return bool(self._queue)

    def handle(self, now: float, budget: int) -> None:
        """Consume up to `budget` initiations that wait."""
        while self._queue and budget > 0:
            message, source, local = self._queue.popleft()
            self._consume_initiation(message, source, local, now)
            budget -= 1

    def _may_pass(
        self, checker: CookieChecker, message: bytes, source: Endpoint, local: OwnAddress | None, now: float
    ) -> bool:
        """Whether a message with a good mac1 is taken now: under load only with a good mac2, and at a rate."""
        drops = self._ours.drops
        if len(self._queue) >= UNDER_LOAD_QUEUE:
            self._under_load_until = now + UNDER_LOAD_LINGER
        if now >= self._under_load_until:
            return True
        if checker.check_mac2(message, source, now):
            allowed = self._limiter.allow(source, now)
            if not allowed:
                drops[Drop.RATE_LIMITED] += 1
            return allowed
        if len(self.replies) >= COOKIE_REPLIES_A_TURN:
            drops[Drop.COOKIE_WITHHELD] += 1
            return False
        drops[Drop.COOKIE_SENT] += 1
        reply = checker.create_reply(message, source, now)
        self.replies.append((Burst(reply, len(reply), local=local), source))
        return False

    def _consume_initiation(self, message: bytes, source: Endpoint, local: OwnAddress | None, now: float) -> None:
        private, public = self._ours.private_key, self._ours.public_key
        if private is None or public is None:
            self._ours.drops[Drop.NO_PRIVATE_KEY] += 1
            return
        opened = noise.open_initiation(private, public, Initiation.parse(message))
        if opened is None:
            self._ours.drops[Drop.BAD_INITIATION] += 1
            return
        peer = self._peers.by_key.get(opened.remote)
        if peer is None:
            self._ours.drops[Drop.UNKNOWN_PEER] += 1
            return
        state = peer.verify_initiation(opened)
        opened.wipe()
        if state is None:
            self._ours.drops[Drop.BAD_INITIATION] += 1
            return
        peer.consume_initiation(state, message, source, local, now)
        self._peers.touch(peer)

    def _consume_response(self, response: Response, source: Endpoint, local: OwnAddress | None, now: float) -> None:
        peer, state = self._ours.indices.get(response.receiver, (None, None))
        if peer is None or not isinstance(state, noise.InitiatorState):
            self._ours.drops[Drop.UNKNOWN_INDEX] += 1
            return
        peer.consume_response(state, response, source, local, now)
        self._peers.note_successor(peer)
        self._peers.touch(peer)
