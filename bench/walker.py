"""One member as far as a registry can tell: its key, its session, and what is sent and received in it."""

import os
import time
from collections.abc import Iterable
from ipaddress import IPv4Address

from bench.population import OUTSIDE, PORT
from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.registry.facts import MTU
from wgdisco.tunnel import messages
from wgdisco.tunnel.burst import Burst, Frames, Room, leading_run
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import PeerHandshake
from wgdisco.tunnel.intake import Intake
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.peer import Peer
from wgdisco.tunnel.peers import Peers
from wgdisco.tunnel.session import Session

REGISTRY = Endpoint(OUTSIDE, PORT)


class Walker:
    """At the address `outer`, which may change. `room` is shared by all, so whatever it gives is used up at once.

    `handshakes` counts those that were completed; the address it listens at inside is `inner`.
    """

    __slots__ = ("_intake", "_local", "_peer", "_peers", "armed", "handshakes", "inner", "number", "outer")

    def __init__(
        self,
        number: int,
        inner: IPv4Address,
        outer: bytes,
        keys: tuple[PrivateKey, PublicKey, PresharedKey | None],
        allowed: tuple[IPNetwork, ...],
        room: Room,
        keepalive: int,
    ) -> None:
        private, registry, preshared = keys
        public = private.public_key()
        self.number, self.inner, self.outer = number, inner.packed, outer
        self.armed: float | None = None
        self.handshakes = 0
        self._local: Local[Peer] = Local(os.urandom, time.time, time.time, private, public, MTU, room=room)
        self._peers = Peers(self._local)
        self._peers.apply([PeerConfig(registry, preshared, None, allowed)], 0.0)
        self._intake = Intake(self._local, self._peers)
        self._intake.use_key(public)
        (self._peer,) = self._peers
        self._peer.timers.set_persistent_keepalive(keepalive)

    def begin(self, now: float) -> None:
        """Greet the registry, with a new handshake whatever there is."""
        self._peer.set_endpoint(REGISTRY, self._peer.timers.persistent_keepalive, now)
        self._peer.initiate((REGISTRY,), now)

    def touch(self, now: float) -> None:
        """Say that it is there, from wherever it is now."""
        self._peer.probe(REGISTRY, now)

    def receive(self, datagrams: Burst, now: float) -> Iterable[Frames]:
        """What one call brought for it; what was in it for the interface."""
        if leading_run(datagrams) < datagrams.count:
            for row in datagrams.rows():
                yield from self._receive_one(bytes(row), now)
        else:
            yield from self._receive_transport(datagrams, now)

    def _receive_one(self, message: bytes, now: float) -> Iterable[Frames]:
        kind = messages.message_type(message)
        if kind in (messages.INITIATION, messages.RESPONSE):
            self._intake.receive(kind, message, REGISTRY, None, now)
            self._intake.handle(now, 8)
        elif kind == messages.COOKIE_REPLY:
            self._intake.receive_cookie_reply(message, now)
        elif kind is not None:
            return self._receive_transport(Burst.of(message), now)
        return ()

    def _receive_transport(self, datagrams: Burst, now: float) -> Iterable[Frames]:
        receiver = int.from_bytes(datagrams.data[4:8], "little")
        peer, session = self._local.indices.get(receiver, (None, None))
        if peer is None or not isinstance(session, Session):
            return ()
        return peer.receive(session, datagrams, REGISTRY, now)

    def send(self, frames: Frames, now: float) -> None:
        """From the interface."""
        self._peer.send(frames, now)

    def handle_timer(self, now: float) -> None:
        """What is due."""
        self._peer.handle_timer(now)

    def get_timer(self) -> float | None:
        """When that is."""
        return self._peer.timers.next_deadline()

    def datagrams(self) -> list[bytes]:
        """What it sends, and notes what happened."""
        self._peers.touch(self._peer)
        self.handshakes += sum(isinstance(event, PeerHandshake) for event in self._peers.events)
        self._peers.events.clear()
        self._peers.dirty.clear()
        found = [bytes(row) for burst, _ in self._peer.outbox.datagrams for row in burst.rows()]
        self._peer.outbox.datagrams.clear()
        return found

    def drops(self) -> dict[str, int]:
        """What it refused, by reason."""
        return {reason.value: count for reason, count in self._local.drops.items()}
