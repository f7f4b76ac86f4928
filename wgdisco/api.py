"""The formats daemons speak: dataclasses to JSON and back, `"schema": 1`.

The control socket serves a StatusReport as `GET /v1/status`; `wgdisco status -o json` prints the same object. The other
records are the registry's API inside the tunnel. What a registry is sent is checked here, field by field.
"""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Self

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.nat import NatProfile
from wgdisco.offers import OFFERS_MAX, parse_subnet

SCHEMA = 1
MAX_CANDIDATES = 8
RECEIPT_MAX_SIZE = 12 << 10
MAX_STUN_ENDPOINTS = 16
# When a stream of events has nothing to tell, it says so each so many seconds; a member may ask for it otherwise
HEARTBEAT, HEARTBEAT_LEAST, HEARTBEAT_MOST = 25, 15, 75
_NAME_MAX_SIZE = 255


class PathWord(Enum):
    """The one word for how a peer is reached, the same everywhere."""

    IDLE = "idle"
    PUNCHING = "punching"
    DIRECT = "direct"
    LAN = "lan"
    RELAY = "relay"
    STALE = "stale"


class Reason(Enum):
    """Why a path is neither direct nor lan: a closed list."""

    PEER_OFFLINE = "peer offline"
    REGISTRY_UNREACHABLE = "registry unreachable"
    NO_UDP_ANSWER = "no UDP answer"
    BOTH_PORT_DEPENDENT = "both NATs port-dependent"
    HOST_FIREWALL = "host firewall"
    CLOCK = "clock"
    REVOKED = "revoked"
    VERSION = "version"
    NOT_YET_TRIED = "not yet tried"


class Origin(Enum):
    """Where an endpoint in use came from."""

    CONF = "conf"
    ZONE = "zone"
    PACKET = "packet"


@dataclass(frozen=True, slots=True)
class PeerReport:
    """One peer: what `wg show` says, its path and where its endpoint came from; `name` where peers have one.

    `latest_handshake` is unix time in seconds, or None; sizes are bytes; `persistent_keepalive` seconds, 0 is off.
    """

    public_key: str
    path: str
    reason: str | None
    endpoint: str | None
    endpoint_from: str | None
    allowed_ips: list[str]
    latest_handshake: float | None
    rx_bytes: int
    tx_bytes: int
    persistent_keepalive: int
    preshared_key: bool
    name: str | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """One daemon's interface. `role` is "registry" or "member"; `zone` the DNS name it serves or follows.

    `notes` are lines for a person: what is wrong and what to do. `settled`: all that can be reached is.
    """

    role: str
    interface: str
    public_key: str | None
    listen_port: int
    zone: str
    engine: str
    version: str
    peers: list[PeerReport]
    drops: dict[str, int]
    notes: list[str] = field(default_factory=list)
    settled: bool = True

    def to_json(self) -> dict[str, Any]:
        """The object as it goes over the wire."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read the object; ValueError when it is of another schema or lacks a field."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError("the daemon speaks another version of the status format: restart it")
        try:
            fields = _known(cls, data)
            fields["peers"] = [PeerReport(**_known(PeerReport, peer)) for peer in fields["peers"]]
            return cls(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"the daemon's status is incomplete: {error}") from error


def _known(report: type[PeerReport] | type[StatusReport], data: Any) -> dict[str, Any]:
    """What this version knows of an object; a later one may tell more under the same schema."""
    return {name: value for name, value in data.items() if name in report.__dataclass_fields__}


class CandidateKind(Enum):
    """What kind of address a member says it may be reached at (RFC 8445 section 5.1.1), and the peer itself learns."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    PORT_MAPPED = "map"
    RELAYED = "relay"


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """One address a member may be reached at. `kind` is a CandidateKind; `priority` RFC 8445's, higher is better."""

    kind: str
    endpoint: str
    priority: int


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One member or device, as other members see it.

    `kind` is "member" or "device" (stock WireGuard, reached through the registry); `role` "member" or "admin".
    `addresses` are its own in the tunnel. `endpoint` is where the registry last saw it, or its fixed one; `live` says
    whether that is fresh. `epoch`, `sig` and `next_key` are for signed membership and key rotation. `direct` is true
    of a device that has the very member asking as a peer of its own: that member makes it a peer too, and waits for
    its packets. `candidates` are what the member says of itself, beside `endpoint`; `nat` is its NatProfile as text.
    `subnets` are behind it, as CIDR, a default route among them where it may be an exit. What it `offers` beyond that
    only the member itself is told. An `ephemeral` one goes by itself, and another may come under its name.
    """

    name: str
    public_key: str
    addresses: list[str]
    kind: str
    role: str
    groups: list[str]
    endpoint: str | None = None
    live: bool = False
    epoch: int | None = None
    sig: str | None = None
    next_key: str | None = None
    direct: bool = False
    candidates: list[CandidateRecord] = field(default_factory=list)
    nat: str | None = None
    subnets: list[str] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """The network: name and zone, prefixes as CIDR, and its registries as `HOST:PORT`, by UDP and (`tls`) by TCP."""

    name: str
    zone: str
    epoch: int
    prefixes: list[str]
    registries: list[str]
    registry_key: str
    registry_addresses: list[str]
    tls: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SelfRecord:
    """What a member is told of itself: the answer to `POST /v1/enrol` and `GET /v1/self`."""

    network: NetworkRecord
    member: MemberRecord


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a member may see: the first event of a stream, and what it keeps on disk."""

    network: NetworkRecord
    member: MemberRecord
    members: list[MemberRecord]


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """What a joiner asks with; `name` is a wish, unless the invitation names it."""

    public_key: str
    name: str | None = None

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        name = parse_body(data).get("name")
        if name is not None and (not isinstance(name, str) or len(name) > _NAME_MAX_SIZE):
            raise ValueError("name: a text of up to 255 characters")
        return cls(parse_key(data, "public_key"), name)


@dataclass(frozen=True, slots=True)
class RotateRequest:
    """A member announces the key it will go over to: the body of `POST /v1/self/rotate`.

    `proof` is a `proof.rotation_proof`.
    """

    next_key: str
    proof: str

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        body = parse_body(data)
        proof = body.get("proof")
        if not isinstance(proof, str):
            raise ValueError("proof: missing")
        return cls(parse_key(body, "next_key"), proof)


@dataclass(frozen=True, slots=True)
class CandidatesRequest:
    """Where a member may be reached, and behind what: the body of `PUT /v1/self/candidates`. At most 8 candidates.

    `heartbeat`: in how many seconds its stream of events is to say something, or the NAT would forget it; None: 25.
    """

    candidates: list[CandidateRecord]
    nat: str | None = None
    heartbeat: int | None = None

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        told = parse_body(data).get("candidates")
        if not isinstance(told, list) or len(told) > MAX_CANDIDATES:
            raise ValueError(f"candidates: a list of up to {MAX_CANDIDATES}")
        nat = data.get("nat")
        if nat is not None:
            if not isinstance(nat, str):
                raise ValueError("nat: a text")
            NatProfile.from_text(nat)
        beat = data.get("heartbeat")
        if beat is not None and (type(beat) is not int or not HEARTBEAT_LEAST <= beat <= HEARTBEAT_MOST):
            raise ValueError(f"heartbeat: a number from {HEARTBEAT_LEAST} to {HEARTBEAT_MOST}")
        return cls([parse_candidate(one) for one in told], nat, beat)


@dataclass(frozen=True, slots=True)
class OffersRequest:
    """All subnets that a member says are behind it, as CIDR: the body of `PUT /v1/self/offers`."""

    offers: list[str]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        told = parse_body(data).get("offers")
        if not isinstance(told, list) or len(told) > OFFERS_MAX:
            raise ValueError(f"offers: a list of up to {OFFERS_MAX}")
        if not all(isinstance(one, str) and len(one) <= _NAME_MAX_SIZE for one in told):
            raise ValueError("offers: subnets as CIDR")
        return cls([str(parse_subnet(one)) for one in dict.fromkeys(told)])


@dataclass(frozen=True, slots=True)
class StunRecord:
    """Where a member may find out how its NAT behaves, and with what: the answer to `GET /v1/stun`.

    `endpoints` are all ports of one address, then those of the next; none where there is no responder. Username and
    password are a short-term credential (RFC 8489 section 9.1), good for `lifetime` seconds.
    """

    endpoints: list[str]
    username: str
    password: str = field(repr=False)
    lifetime: int

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read the answer; ValueError says what is wrong with it."""
        endpoints = parse_body(data).get("endpoints")
        if not isinstance(endpoints, list) or len(endpoints) > MAX_STUN_ENDPOINTS:
            raise ValueError(f"endpoints: a list of up to {MAX_STUN_ENDPOINTS}")
        username, password, lifetime = (data.get(name) for name in ("username", "password", "lifetime"))
        if not isinstance(username, str) or not isinstance(password, str) or len(username + password) > _NAME_MAX_SIZE:
            raise ValueError("username and password: short texts")
        if not isinstance(lifetime, int) or isinstance(lifetime, bool) or lifetime <= 0:
            raise ValueError("lifetime: a number of seconds")
        return cls([_endpoint(one) for one in endpoints], username, password, lifetime)


@dataclass(frozen=True, slots=True)
class PunchRequest:
    """A member wants a path to another: the body of `POST /v1/punch`.

    Or (`leave`) it has a direct one, and wants nothing more over the relay until the next order. When both say so, the
    relay passes nothing on.
    """

    peer: str
    leave: bool = False

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        leave = parse_body(data).get("leave", False)
        if not isinstance(leave, bool):
            raise ValueError("leave: true or false")
        return cls(parse_key(data, "peer"), leave)


@dataclass(frozen=True, slots=True)
class Order:
    """Both sides punch now: told to both in the same moment. `initiator` is the public key of who sends initiations.

    `candidates` and `nat` are `peer`'s, its server-reflexive endpoint among them. `relay` says whether the registry
    forwards between the two. The order holds for `expires_ms` from when it is heard.
    """

    order: int
    peer: str
    initiator: str
    candidates: list[CandidateRecord]
    nat: str | None
    relay: bool
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a member keeps for its registry, sealed by it (`registry.receipt`): an event, and the body of the way back.

    `POST /v1/receipt` takes it, and answers with the one of now and `recalled`, whether it held what was forgotten.
    """

    receipt: str

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read it from either end; ValueError says what is wrong with it."""
        receipt = parse_body(data).get("receipt")
        if not isinstance(receipt, str) or not 0 < len(receipt) <= RECEIPT_MAX_SIZE or not receipt.isascii():
            raise ValueError("receipt: a text of up to 12 KiB")
        return cls(receipt)


@dataclass(frozen=True, slots=True)
class Removed:
    """A member that is gone: revoked, or no longer in a common group."""

    public_key: str
    name: str


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """Where a member is now; `live` false when it has gone silent."""

    public_key: str
    endpoint: str | None
    live: bool


Record = (
    MemberRecord
    | SelfRecord
    | Snapshot
    | EnrolRequest
    | RotateRequest
    | CandidatesRequest
    | OffersRequest
    | StunRecord
    | PunchRequest
    | Order
    | Receipt
    | Removed
    | EndpointChange
)


def to_json(record: Record) -> dict[str, Any]:
    """The object as it goes over the wire."""
    return {"schema": SCHEMA, **asdict(record)}


def parse_candidate(data: Any) -> CandidateRecord:
    """One candidate from whoever tells it; ValueError says what is wrong with it."""
    if not isinstance(data, dict):
        raise ValueError("a candidate is a JSON object")
    kind, endpoint, priority = data.get("kind"), data.get("endpoint"), data.get("priority")
    if not isinstance(kind, str) or kind not in {one.value for one in CandidateKind}:
        raise ValueError("kind: host, srflx, prflx, map or relay")
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority < 1 << 32:
        raise ValueError("priority: a number of 32 bits")
    return CandidateRecord(kind, _endpoint(endpoint), priority)


def _endpoint(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _NAME_MAX_SIZE:
        raise ValueError("endpoint: ADDRESS:PORT")
    return Endpoint.from_text(value).to_text()


def parse_body(data: Any) -> dict[str, Any]:
    """A request's body as the object that it has to be; ValueError says why it is none."""
    if not isinstance(data, dict):
        raise ValueError("the body is not a JSON object")
    if data.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"schema: this registry knows {SCHEMA}")
    return data


def parse_key(data: dict[str, Any], name: str) -> str:
    """The public key that a field has to be, as text; ValueError says what is wrong with it."""
    value = data.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: a key of 44 base64 characters")
    try:
        return PublicKey.from_text(value).to_text()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
