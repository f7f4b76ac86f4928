"""A machine on the virtual network: UDP sockets, and a WireGuard device whose interface carries UDP too.

It does for cores what a shell does: gives them what comes, sends what they have, wakes them when they asked for it.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address

from tests.sim.nat import PUBLIC, Gateway, NatType
from tests.sim.network import Datagram, Network
from tests.tunnel.by_hand import packets_in
from tests.tunnel.wire import ip_packet
from wgdisco.endpoint import Endpoint, IPAddress, in_any
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.burst import Burst, Frames
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Event, PeerStatus

WIREGUARD_PORT = 51820
EPHEMERAL_PORT = 40000

Receive = Callable[[bytes, Endpoint], None]


class Alarm:
    """Wakes somebody at a time that may be moved earlier or later; a time once past is not waited for."""

    def __init__(self, network: Network, wake: Callable[[], None]) -> None:
        self._network = network
        self._wake = wake
        self._at: float | None = None

    def set(self, at: float | None) -> None:
        """Wake at that time and no other; None: never."""
        if at == self._at:
            return
        self._at = at
        if at is not None:
            self._network.clock.at(at, lambda: self._ring(at))

    def _ring(self, at: float) -> None:
        if self._at == at:
            self._at = None
            self._wake()


class Host:
    """One machine. `inner` are its addresses inside the tunnel, `address` the one outside."""

    def __init__(
        self,
        network: Network,
        address: IPAddress,
        gateway: Gateway | None,
        private: PrivateKey,
        inner: str,
        *,
        relays: bool = False,
    ) -> None:
        self.network = network
        self.address = address
        self.gateway = gateway
        self.private = private
        self.inner = ip_address(inner)
        self.unix_offset = 1_700_000_000.0
        self.device = Device(network.random.randbytes, self.unix_time, relays=relays)
        self.peers: dict[Host, PeerConfig] = {}
        self.tunnel: tuple[IPv4Network | IPv6Network, ...] = ()
        self.events: list[Event] = []
        self.delivered: list[tuple[float, bytes, Endpoint]] = []
        self.on_event: Callable[[Event], None] = lambda _event: None
        self.is_up = True
        self.sent = 0
        self._sockets: dict[int, Receive] = {}
        self._alarm = Alarm(network, self._device_due)
        if gateway is None:
            network.attach(address, self)
        else:
            gateway.connect(address, self.from_core)

    def unix_time(self) -> float:
        """This machine's wall clock."""
        return self.network.now + self.unix_offset

    @property
    def public_address(self) -> IPAddress:
        return self.address if self.gateway is None else self.gateway.address

    # The network

    def from_core(self, datagram: Datagram) -> None:
        """A datagram arrived outside the tunnel."""
        if not self.is_up:
            return
        if datagram.destination.port == WIREGUARD_PORT:
            self.device.receive(Burst.of(datagram.data), datagram.source, self.network.now)
            while self.device.handle_handshakes(self.network.now):
                pass
            self.settle()
        elif (receive := self._sockets.get(datagram.destination.port)) is not None:
            receive(datagram.data, datagram.source)

    def bind(self, port: int, receive: Receive) -> None:
        """Listen on a port, inside the tunnel and outside."""
        self._sockets[port] = receive

    def send(self, data: bytes, port: int, destination: Endpoint) -> None:
        """Send from a port of ours, through the tunnel where that is the way."""
        if in_any(destination.address, self.tunnel):
            udp = port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
            udp += (8 + len(data)).to_bytes(2, "big") + bytes(2) + data
            packet = ip_packet(str(self.inner), str(destination.address), udp)
            self.device.send(Frames.of(packet), self.network.now)
            self.settle()
        else:
            self._send_outside(data, port, destination)

    def ping(self, other: "Host", payload: bytes = b"ping") -> None:
        """Send something to the other's inner address; it shows in `delivered` there."""
        self.send(payload, EPHEMERAL_PORT - 1, Endpoint(other.inner, 7))

    def send_raw(self, data: bytes, destination: Endpoint, ttl: int | None = None) -> None:
        """Send from WireGuard's own port what is not WireGuard's."""
        self._send_outside(data, WIREGUARD_PORT, destination, 64 if ttl is None else ttl)

    def _send_outside(self, data: bytes, port: int, destination: Endpoint, ttl: int = 64) -> None:
        if not self.is_up:
            return
        datagram = Datagram(Endpoint(self.address, port), destination, data, ttl)
        self.sent += 1
        if self.gateway is None:
            self.network.carry(replace(datagram, ttl=ttl - 1))  # it has a router all the same
        else:
            gateway = self.gateway
            self.network.clock.at(self.network.now + self.network.delay, lambda: gateway.from_inside(datagram))

    # The device

    def introduce(self, other: "Host", **config) -> None:
        """Make `other` a peer, with its inner address as allowed IP; more of the configuration by name."""
        bits = 32 if other.inner.version == 4 else 128
        network = (IPv4Network if bits == 32 else IPv6Network)((other.inner, bits))
        key = other.private.public_key()
        self.peers[other] = PeerConfig(key, **{"allowed_ips": (network,)} | config)
        self.tunnel = tuple(network for peer in self.peers.values() for network in peer.allowed_ips)

    def apply(self) -> None:
        """Configure the device with the peers it was introduced to."""
        config = DeviceConfig(self.private, WIREGUARD_PORT, peers=tuple(self.peers.values()))
        self.device.apply(config, self.network.now)
        self.settle()

    def status(self, other: "Host") -> PeerStatus:
        key = other.private.public_key()
        return next(peer for peer in self.device.status().peers if peer.key == key)

    def settle(self) -> None:
        """Carry out what the device has, until it has nothing."""
        while True:
            datagrams = self.device.datagrams_to_send()
            packets = self.device.packets_to_deliver()
            self.device.errors_to_deliver()  # nobody here reads them
            events = self.device.events()
            if not (datagrams or packets or events):
                break
            for burst, destination in datagrams:
                for row in burst.rows():
                    self._send_outside(bytes(row), WIREGUARD_PORT, destination)
            for packet in packets_in(packets):
                self._deliver(packet)
            for event in events:
                self.events.append(event)
                self.on_event(event)
        self._alarm.set(self.device.get_timer())

    def _deliver(self, packet: bytes) -> None:
        version = packet[0] >> 4
        source = ip_address(packet[12:16] if version == 4 else packet[8:24])
        udp = packet[20:] if version == 4 else packet[40:]
        source_endpoint = Endpoint(source, int.from_bytes(udp[:2], "big"))
        self.delivered.append((self.network.now, udp[8:], source_endpoint))
        receive = self._sockets.get(int.from_bytes(udp[2:4], "big"))
        if receive is not None and self.is_up:
            receive(udp[8:], source_endpoint)

    def _device_due(self) -> None:
        if self.is_up:
            self.device.handle_timer(self.network.now)
            self.settle()


def place(network: Network, nat: NatType, number: int, inner: str, *, ipv6: bool = False, relays: bool = False) -> Host:
    """A host behind a gateway of that type; `number` (1 to 255) makes addresses that nobody else has.

    With `ipv6` it has one global address, and the gateway must be one that does not translate.
    """
    assert not (ipv6 and nat.translates)
    private = PrivateKey(network.random.randbytes(32))
    outside = ip_address(f"2001:db8:{number:x}::1" if ipv6 else f"198.51.{number}.1")
    if nat is PUBLIC:
        return Host(network, outside, None, private, inner, relays=relays)
    inside = ip_address(f"192.168.{number}.2") if nat.translates else outside
    return Host(network, inside, Gateway(network, outside, nat), private, inner)
