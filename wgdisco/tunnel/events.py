"""What a device tells: events as they happen, and its status when asked.

All times are on the clock the device is driven with (`now`), in seconds.
"""

from dataclasses import dataclass
from enum import Enum

from wgdisco.api import Origin, PathWord, PeerReport, Reason
from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import PublicKey


class Drop(Enum):
    """Why something was refused without a word. Each is counted; none is an error."""

    NOT_WIREGUARD = "not wireguard"
    NO_PRIVATE_KEY = "no private key"
    BAD_MAC1 = "bad mac1"
    COOKIE_SENT = "under load, cookie sent"
    COOKIE_WITHHELD = "under load, no cookie sent"
    RATE_LIMITED = "under load, rate limited"
    QUEUE_FULL = "handshake queue full"
    BAD_INITIATION = "bad initiation"
    UNKNOWN_PEER = "unknown peer"
    REPLAYED_INITIATION = "replayed initiation"
    INITIATION_FLOOD = "initiations too close"
    UNKNOWN_INDEX = "unknown receiver index"
    BAD_RESPONSE = "bad response"
    BAD_COOKIE = "bad cookie reply"
    SESSION_EXPIRED = "session expired"
    FORGED = "forged transport data"
    REPLAYED = "replayed transport data"
    BAD_INNER_PACKET = "bad inner packet"
    SOURCE_NOT_ALLOWED = "inner source not allowed"
    NO_ROUTE = "no peer for destination"
    NO_ENDPOINT = "peer without endpoint"
    BAD_FRAME = "impossible offload header"
    NESTED_TOO_DEEP = "nested too deep"
    STAGED_OVERFLOW = "staged packet given up"


@dataclass(frozen=True, slots=True)
class PeerHandshake:
    """A handshake with the peer completed: the session is confirmed from both ends."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class PathSeen:
    """Transport data came from `endpoint`, which is not where the data before came from.

    Handshake messages do not count: whoever delivers a captured initiation first can choose its source.
    """

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class PeerWanted:
    """A packet for the peer is staged and there is no session to send it in: somebody wants this peer now.

    Said again while packets come and there is still none, not more often than handshakes begin; and, of a managed peer
    without a keepalive, when there is a session and nothing came for so long that a NAT may have forgotten.
    """

    key: PublicKey
    at: float


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """Data was sent to a managed peer and nothing has come back for a while, though it may only have nothing to say.

    `heard_at` is when something authenticated last came from it, None if never.
    """

    key: PublicKey
    heard_at: float | None
    at: float


@dataclass(frozen=True, slots=True)
class RawReceived:
    """A datagram that is not WireGuard's arrived on the device's socket."""

    data: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class Foreign:
    """WireGuard datagrams from `source` that are not for this device: a relay's business, where there is one.

    A handshake message whose mac1 fits another key, or messages with a receiver index that nobody here has. `data` may
    hold several of equal size (`row`; the last may be shorter).
    """

    data: bytes
    row: int
    source: Endpoint


@dataclass(frozen=True, slots=True)
class HandshakeStep:
    """What a handshake with the peer has come to, in words for a log; told by devices that `trace` only."""

    key: PublicKey
    what: str


@dataclass(frozen=True, slots=True)
class DeviceGone:
    """The interface was taken away underneath; `reason` is one line."""

    reason: str


Event = PeerHandshake | PathSeen | PeerWanted | PeerSilent | RawReceived | Foreign | HandshakeStep | DeviceGone


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

    def report(self, path: PathWord, reason: Reason | None, origin: Origin | None) -> PeerReport:
        """This peer for the status output, with what its owner knows of its path."""
        return PeerReport(
            public_key=self.key.to_text(),
            path=path.value,
            reason=None if reason is None else reason.value,
            endpoint=None if self.endpoint is None else self.endpoint.to_text(),
            endpoint_from=None if origin is None else origin.value,
            allowed_ips=[str(network) for network in self.allowed_ips],
            latest_handshake=self.handshake_unix,
            rx_bytes=self.rx_bytes,
            tx_bytes=self.tx_bytes,
            persistent_keepalive=self.persistent_keepalive,
            preshared_key=self.has_preshared_key,
        )


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The device and its peers, in the order they were added. `drops` counts what was refused, by reason."""

    public_key: PublicKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerStatus, ...]
    drops: dict[Drop, int]
