"""What both daemons count: who they are, and what their device does."""

from wgdisco.metrics import Family, Kind, Metric, Risen, slug
from wgdisco.tunnel.events import DeviceStatus, Drop

BUILD_INFO = Metric("wgdisco_build_info", Kind.GAUGE, "Always 1: the version and the engine.", ("version", "engine"))
INTERFACE_INFO = Metric(
    "wgdisco_interface_info", Kind.GAUGE, "Always 1: whose daemon this is.", ("interface", "role", "zone")
)
PEERS = Metric("wgdisco_device_peers", Kind.GAUGE, "WireGuard peers of the device.")
HANDSHAKES = Metric("wgdisco_device_handshakes_total", Kind.COUNTER, "WireGuard handshakes completed, by either side.")
RECEIVED = Metric(
    "wgdisco_device_receive_bytes_total", Kind.COUNTER, "UDP payload from peers, handshakes and keepalives included."
)
SENT = Metric(
    "wgdisco_device_transmit_bytes_total", Kind.COUNTER, "UDP payload to peers, handshakes and keepalives included."
)
DROPS = Metric(
    "wgdisco_drops_total",
    Kind.COUNTER,
    "Packets refused without a word, by who refused them (device, relay, stun, dns) and why.",
    ("component", "reason"),
)
METRICS = (BUILD_INFO, INTERFACE_INFO, PEERS, HANDSHAKES, RECEIVED, SENT, DROPS)


class DeviceCounts:
    """Of one device. `handshakes` is for whoever hears of them."""

    def __init__(self) -> None:
        self.handshakes = 0
        self._received = Risen()
        self._sent = Risen()

    def observe(self, status: DeviceStatus) -> None:
        """Look at the device; a peer that goes away takes with it what it had since the last look."""
        self._received.observe({peer.key: peer.rx_bytes for peer in status.peers})
        self._sent.observe({peer.key: peer.tx_bytes for peer in status.peers})

    def families(self, status: DeviceStatus) -> list[Family]:
        """All but `drops`, which others add to."""
        self.observe(status)
        return [
            PEERS.of(len(status.peers)),
            HANDSHAKES.of(self.handshakes),
            RECEIVED.of(self._received.total),
            SENT.of(self._sent.total),
        ]


def device_drops(status: DeviceStatus) -> dict[tuple[str, ...], float]:
    """Samples of DROPS: every reason there is, since a counter that is not there yet has no rate."""
    return {("device", slug(reason.value)): status.drops.get(reason, 0) for reason in Drop}


def about(version: str, engine: str, interface: str, role: str, zone: str) -> list[Family]:
    """Who this is."""
    return [BUILD_INFO.by_all({(version, engine): 1}), INTERFACE_INFO.by_all({(interface, role, zone): 1})]
