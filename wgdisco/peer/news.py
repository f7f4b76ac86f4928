"""What an agent has to tell a person."""

from dataclasses import dataclass

from wgdisco.api import PathWord, Reason
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Found:
    """The zone told an endpoint that may be used."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The zone told an endpoint that must not be applied; `why` is one phrase."""

    key: PublicKey
    endpoint: Endpoint
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A path has another word or other endpoints: the one in use, or those that are tried while punching."""

    key: PublicKey
    path: PathWord
    reason: Reason | None
    endpoints: tuple[Endpoint, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Checked:
    """A peer answered a check at `endpoint`, `rtt` seconds later, and sees us at `seen`."""

    key: PublicKey
    endpoint: Endpoint
    seen: Endpoint
    rtt: float
    at: float


@dataclass(frozen=True, slots=True)
class Ordered:
    """The registry ordered a peer and us to punch; `is_initiator`: we begin the handshake."""

    key: PublicKey
    is_initiator: bool
    endpoints: tuple[Endpoint, ...]
    at: float


News = Found | Refused | PathChanged | Checked | Ordered
