"""What a device tells: events as they happen, and its status when asked.

All times are on the clock the device is driven with (`now`), in seconds.
"""

from dataclasses import dataclass

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import PublicKey


@dataclass(frozen=True, slots=True)
class PeerHandshake:
    """A handshake with the peer completed: the session is confirmed from both ends."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class PathSeen:
    """An authenticated packet came from `endpoint`, which is not where the one before came from."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class PeerWanted:
    """A packet for the peer is staged and there is no session to send it in: somebody wants this peer now."""

    key: PublicKey
    at: float


@dataclass(frozen=True, slots=True)
class RawReceived:
    """A datagram that is not WireGuard's arrived on the device's socket."""

    data: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class DeviceGone:
    """The interface was taken away underneath; `reason` is one line."""

    reason: str


Event = PeerHandshake | PathSeen | PeerWanted | RawReceived | DeviceGone


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer as `wg show` would have it, and what liveness needs beyond that.

    `handshake_at` and `handshake_unix` are the last completed handshake on the device's clock and in unix time;
    `received_at` the last authenticated packet; `unanswered_since` when the handshake attempt now under way began
    (None when none is). `rx_bytes` and `tx_bytes` count UDP payload, handshakes and keepalives included.
    """

    key: PublicKey
    endpoint: Endpoint | None
    allowed_ips: tuple[IPNetwork, ...]
    has_preshared_key: bool
    persistent_keepalive: int
    handshake_at: float | None
    handshake_unix: float | None
    received_at: float | None
    unanswered_since: float | None
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The device and its peers, in the order they were added. `drops` counts what was refused, by reason."""

    public_key: PublicKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerStatus, ...]
    drops: dict[str, int]
