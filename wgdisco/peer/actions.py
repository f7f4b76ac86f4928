"""What a path, and the agent that holds it, want done. A shell carries it out."""

from dataclasses import dataclass

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Tell the device where the peer is, and how often to keep the path open (seconds)."""

    key: PublicKey
    endpoint: Endpoint
    keepalive: int


@dataclass(frozen=True, slots=True)
class Initiate:
    """Tell the device to send an initiation to each of these endpoints."""

    key: PublicKey
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask the peer at `endpoint` whether it is reached there; with `ttl`, only open our own NAT towards it."""

    key: PublicKey
    endpoint: Endpoint
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Send the peer something authenticated at `endpoint`, that it may see where we are."""

    key: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class AskOrder:
    """Ask the registry to order this peer and us to punch."""

    key: PublicKey


@dataclass(frozen=True, slots=True)
class LeaveRelay:
    """Tell the registry that this peer and we have a direct path."""

    key: PublicKey


PathAction = SetPeer | Initiate | Ping | Probe | AskOrder | LeaveRelay


@dataclass(frozen=True, slots=True)
class SendRaw:
    """Have the device send a datagram that is not WireGuard's, with its own TTL where one is given."""

    data: bytes
    endpoint: Endpoint
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class SetRelays:
    """Tell the device who forwards."""

    endpoints: frozenset[Endpoint]


Action = SetPeer | Initiate | Probe | AskOrder | LeaveRelay | SendRaw | SetRelays
