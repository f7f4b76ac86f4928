"""Devices joined by a wire on a virtual clock.

The wire delivers at once, keeps all it carried, and loses what a test tells it to lose. Time passes in `run` only.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from tests.tunnel.by_hand import packets_in
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.burst import Burst, Frames, OwnAddress
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop, Event, PeerStatus
from wgdisco.tunnel.messages import COOKIE_REPLY, INITIATION, MINIMUM_TRANSPORT_SIZE, RESPONSE, TRANSPORT

__all__ = ["COOKIE_REPLY", "INITIATION", "RESPONSE", "TRANSPORT", "Node", "Sent", "Wire", "ip_packet", "joined"]


def ip_packet(source: str, destination: str, payload: bytes = b"0123456789ab") -> bytes:
    """An IP packet without checksums; the engine reads addresses and lengths only."""
    a, b = ip_address(source), ip_address(destination)
    if a.version == 4:
        total = (20 + len(payload)).to_bytes(2, "big")
        return b"\x45\x00" + total + bytes(4) + b"\x40\x11" + bytes(2) + a.packed + b.packed + payload
    return b"\x60\x00\x00\x00" + len(payload).to_bytes(2, "big") + b"\x11\x40" + a.packed + b.packed + payload


@dataclass(frozen=True, slots=True)
class Sent:
    """One datagram the wire was given."""

    at: float
    source: Endpoint
    destination: Endpoint
    data: bytes
    tos: int = 0
    local: OwnAddress | None = None
    hops: int = 0

    @property
    def kind(self) -> int:
        return self.data[0]

    @property
    def is_keepalive(self) -> bool:
        return self.kind == TRANSPORT and len(self.data) == MINIMUM_TRANSPORT_SIZE

    @property
    def index(self) -> int:
        """The receiver index of transport data."""
        return int.from_bytes(self.data[4:8], "little")


@dataclass(eq=False)
class Node:
    """A device, where it is, and what came out of it."""

    wire: "Wire"
    private: PrivateKey
    endpoint: Endpoint
    inner: tuple[str, ...]
    device: Device
    peers: dict["Node", PeerConfig] = field(default_factory=dict)
    busy: bool = False  # its handshake queue waits
    delivered: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def key(self) -> PublicKey:
        return self.private.public_key()

    def apply(self) -> None:
        self.device.apply(DeviceConfig(self.private, peers=tuple(self.peers.values())), self.wire.now)
        self.wire.settle()

    def change(self, peer: "Node", **changes) -> None:
        """Change what the peer is told to be; an endpoint it roamed to stays unless one is given."""
        self.peers[peer] = replace(self.peers[peer], **{"endpoint": None} | changes)
        self.apply()

    def send(self, packet: bytes) -> None:
        self.device.send(Frames.of(packet), self.wire.now)
        self.wire.settle()

    def ping(self, peer: "Node", which: int = 0, payload: bytes = b"0123456789ab") -> bytes:
        """Send a packet to the peer's inner address; the packet."""
        packet = ip_packet(self.inner[which], peer.inner[which], payload)
        self.send(packet)
        return packet

    def receive(self, data: bytes, source: Endpoint) -> None:
        """Hand the device a datagram, as from `source`; what it answers goes onto the wire."""
        self.device.receive(Burst.of(data), source, self.wire.now)
        if not self.busy:
            self.device.handle_handshakes(self.wire.now)
        self.wire.settle()

    def status(self, peer: "Node") -> PeerStatus:
        return next(status for status in self.device.status().peers if status.key == peer.key)

    def drops(self, reason: Drop) -> int:
        return self.device.status().drops.get(reason, 0)

    def events_of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class Wire:
    """The network between, and its clock. `lose` is asked about each datagram, and `mark` what becomes of it on its
    way; `hold` keeps them all back. Each arrives at the address it was sent to, by interface 1.
    """

    def __init__(self, seed: int = 1, now: float = 1000.0) -> None:
        self.random = random.Random(seed)
        self.now = now
        self.unix_offset = 1_700_000_000.0
        self.nodes: list[Node] = []
        self.log: list[Sent] = []
        self.lose: Callable[[Sent], bool] = lambda _sent: False
        self.mark: Callable[[Sent], Sent] = lambda sent: sent
        self.hold = False
        self.held: list[Sent] = []

    def unix_time(self) -> float:
        return self.now + self.unix_offset

    def node(self, endpoint: str, *inner: str) -> Node:
        private = PrivateKey(self.random.randbytes(32))
        device = Device(self.random.randbytes, self.unix_time)
        node = Node(self, private, Endpoint.from_text(endpoint), inner, device)
        self.nodes.append(node)
        return node

    def introduce(self, here: Node, there: Node, **changes) -> None:
        """Configure `there` as a peer of `here`, with its endpoint and inner addresses."""
        networks = tuple(ip_network(text) for text in there.inner)
        config = PeerConfig(there.key, endpoint=there.endpoint, allowed_ips=networks)
        here.peers[there] = replace(config, **changes)
        here.apply()

    def settle(self) -> None:
        """Carry until nobody has anything to say, and collect what came out."""
        while self._collect():
            pass
        for node in self.nodes:
            node.delivered += packets_in(node.device.packets_to_deliver())
            node.delivered += node.device.errors_to_deliver()
            node.events += node.device.events()

    def _collect(self) -> bool:
        sent = [
            Sent(self.now, node.endpoint, destination, bytes(row), burst.tos, burst.local, burst.hops)
            for node in self.nodes
            for burst, destination in node.device.datagrams_to_send()
            for row in burst.rows()
        ]
        self.log += sent
        for datagram in sent:
            if self.lose(datagram):
                continue
            if self.hold:
                self.held.append(datagram)
            else:
                self._deliver(datagram)
        return bool(sent)

    def _deliver(self, sent: Sent) -> None:
        for node in self.nodes:
            if node.endpoint == sent.destination:
                arrived = self.mark(sent)
                local = OwnAddress(sent.destination.address.packed, 1)
                node.device.receive(Burst(arrived.data, len(arrived.data), arrived.tos, local), sent.source, self.now)
                if not node.busy:
                    node.device.handle_handshakes(self.now)

    def pass_on(self, datagram: Sent) -> None:
        """Deliver one held datagram; what follows from it is held as well."""
        self.held.remove(datagram)
        self._deliver(datagram)
        self.settle()

    def release(self, *datagrams: Sent) -> None:
        """Hold no longer, and deliver what was held: the datagrams given, or all in the order they were sent."""
        chosen = list(datagrams) or list(self.held)
        self.held = [sent for sent in self.held if sent not in chosen]
        self.hold = False
        for sent in chosen:
            self._deliver(sent)
        self.settle()

    def run(self, seconds: float) -> list[Sent]:
        """Let time pass, every timer on time; what was sent meanwhile."""
        start, until = len(self.log), self.now + seconds
        while True:
            deadlines = [at for node in self.nodes if (at := node.device.get_timer()) is not None]
            earliest = min(deadlines, default=until)
            if earliest > until:
                break
            self.now = max(self.now, earliest)
            for node in self.nodes:
                node.device.handle_timer(self.now)
            self.settle()
            if not deadlines:
                break
        self.now = until
        return self.log[start:]

    def since(self, mark: int, *kinds: int, by: Node | None = None) -> list[Sent]:
        """What the wire was given since `mark` (a length of `log`), of these kinds, by this node."""
        return [
            sent
            for sent in self.log[mark:]
            if (not kinds or sent.kind in kinds) and (by is None or sent.source == by.endpoint)
        ]


def joined(seed: int = 1, **changes) -> tuple[Wire, Node, Node]:
    """A wire and two nodes that know each other, IPv4 outside, both families inside; no session yet."""
    wire = Wire(seed)
    alice = wire.node("192.0.2.1:51820", "10.9.0.1", "fd00:9::1")
    bob = wire.node("198.51.100.2:51820", "10.9.0.2", "fd00:9::2")
    wire.introduce(alice, bob, **changes)
    wire.introduce(bob, alice, **changes)
    return wire, alice, bob
