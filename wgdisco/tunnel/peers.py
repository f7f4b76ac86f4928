"""The peers of a device: who they are, which prefixes they have, and who of them has something to say or is waited for.

No call costs more than the peers it touches: there is one heap of deadlines, and one ordered dict of peers with output.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import count

from wgdisco.endpoint import IPNetwork
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.tunnel.allowed_ips import AllowedIPs
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import Event, PeerStatus
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.peer import Peer

_SLICE = 256  # prefixes taken from a peer at once


class Peers:
    """After anything that was done to one of them: `touch`."""

    def __init__(self, local: Local[Peer]) -> None:
        self.by_key: dict[PublicKey, Peer] = {}  # in the order they were added
        self.allowed_ips: AllowedIPs[Peer] = AllowedIPs()
        self.dirty: dict[Peer, None] = {}  # who has output
        self.events: list[Event] = []  # of all, in order
        self.successors: dict[PublicKey, PublicKey] = {}  # a peer's next key, and the one it replaces
        self._local = local
        self._heap: list[tuple[float, int, Peer]] = []
        self._armed: dict[Peer, float] = {}
        self._sequence = count()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.by_key.values())

    def named(self, key: PublicKey) -> Peer:
        """The peer with that key; LocalError without one."""
        peer = self.by_key.get(key)
        if peer is None:
            raise LocalError(f"no peer {key} on this device")
        return peer

    # Who they are

    def add(self, key: PublicKey) -> Peer:
        """A new peer with that key."""
        peer = self.by_key[key] = Peer(self._local, key)
        return peer

    def apply(self, configs: Iterable[PeerConfig], now: float) -> None:
        """Become these; sessions of those that stay are kept."""
        wanted = {config.public_key: config for config in configs}
        for key in [key for key in self.by_key if key not in wanted]:
            self.remove(key)
        for config in wanted.values():
            self._apply(config, now)
        self.successors = {
            config.public_key: config.replaces
            for config in wanted.values()
            if config.replaces is not None and config.replaces in self.by_key
        }

    def remove(self, key: PublicKey) -> None:
        """Remove a peer with all it has."""
        peer = self.by_key.pop(key)
        peer.remove()
        self.allowed_ips.remove_peer(peer)
        self.dirty.pop(peer, None)
        self._armed.pop(peer, None)

    def clear_allowed_ips(self, peer: Peer) -> Iterator[None]:
        """Take all prefixes of a peer, in slices: done at the iterator's end."""
        while self.allowed_ips.remove_some(peer, _SLICE):
            yield

    def remove_all(self, peers: Iterable[Peer]) -> Iterator[None]:
        """Remove these with all they have, in slices: done at the iterator's end."""
        for peer in peers:
            yield from self.clear_allowed_ips(peer)
            if self.by_key.get(peer.key) is peer:
                self.remove(peer.key)
            yield

    def note_successor(self, peer: Peer) -> None:
        """If a peer has shown its next key: what was routed to it under the old one is routed to the new."""
        if peer.key not in self.successors or peer.handshake_at is None:
            return
        replaced = self.by_key.get(self.successors.pop(peer.key))
        if replaced is None:
            return
        networks = self.allowed_ips.networks(replaced)
        self.allowed_ips.remove_peer(replaced)
        self._give(networks, peer)

    def configs(self) -> tuple[PeerConfig, ...]:
        """What they are told to be, with the endpoints they have roamed to."""
        return tuple(
            PeerConfig(
                key,
                peer.preshared_key,
                peer.endpoint,
                self.allowed_ips.networks(peer),
                peer.timers.persistent_keepalive,
                peer.managed,
            )
            for key, peer in self.by_key.items()
        )

    def status(self, peer: Peer) -> PeerStatus:
        """One of them now."""
        return PeerStatus(
            key=peer.key,
            endpoint=peer.endpoint,
            allowed_ips=self.allowed_ips.networks(peer),
            has_preshared_key=peer.preshared_key is not None,
            persistent_keepalive=peer.timers.persistent_keepalive,
            handshake_at=peer.handshake_at,
            handshake_unix=peer.handshake_unix,
            received_at=peer.received_at,
            unanswered_since=peer.unanswered_since,
            rx_bytes=peer.rx_bytes,
            tx_bytes=peer.outbox.tx_bytes,
        )

    # What they have to say, and when they are waited for

    def touch(self, peer: Peer) -> None:
        """Drain a peer after it changed: note its output, take its events, re-arm its deadline."""
        peer.leave_lane()
        self.note(peer)

    def note(self, peer: Peer) -> None:
        """As `touch`, of one that nothing happened to but packets on its lane."""
        if peer.outbox.datagrams:
            self.dirty[peer] = None
        if peer.events:
            self.events.extend(peer.events)
            peer.events.clear()
        deadline = peer.timers.next_deadline()
        armed = self._armed.get(peer)
        # A deadline that moved later keeps its earlier entry: it fires with nothing due and is armed anew.
        if deadline is not None and (armed is None or deadline < armed):
            self._armed[peer] = deadline
            heapq.heappush(self._heap, (deadline, next(self._sequence), peer))

    def get_timer(self) -> float | None:
        """When `handle_timer` next has something to do, on the clock of `now`."""
        return self._heap[0][0] if self._heap else None

    def handle_timer(self, now: float) -> None:
        """Fire what is due; early or repeated calls are harmless."""
        while self._heap and self._heap[0][0] <= now:
            deadline, _, peer = heapq.heappop(self._heap)
            if self._armed.get(peer) != deadline:
                continue
            del self._armed[peer]
            peer.handle_timer(now)
            self.touch(peer)

    # Inside

    def _apply(self, config: PeerConfig, now: float) -> None:
        peer = self.by_key.get(config.public_key) or self.add(config.public_key)
        if self.allowed_ips.networks(peer) != config.allowed_ips:
            self.allowed_ips.remove_peer(peer)
            self._give(config.allowed_ips, peer)
        peer.update(config, now)
        self.touch(peer)

    def _give(self, networks: Iterable[IPNetwork], peer: Peer) -> None:
        for network in networks:
            self.allowed_ips.insert(network, peer)
