"""Facts: what a registry knows of its network, as values, and as the JSON texts that a store holds.

A text has secrets in it: never for logs. A field that an older text lacks takes its default; one that nobody knows any
more is passed over.
"""

import json
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.firewall import Mode

DEFAULT_GROUP = "all"
REGISTRY_HOST_NUMBER = 1
MTU = 1280  # what every path carries (RFC 8200 section 5); a phone cannot measure it
REGISTRIES_MAX = 8  # what a member takes at most
_KEPT = 1 << 14


class Role(Enum):
    """What a member may do through the API."""

    MEMBER = "member"
    ADMIN = "admin"


class Kind(Enum):
    """Who runs the other end."""

    MEMBER = "member"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Network:
    """The network itself. `endpoints` are `HOST:PORT` of its registries; `epoch` rises with every restore from backup.

    `also_ports` are UDP ports that lead to `listen_port`, `tls_port` the TCP port for those who have no UDP at all.
    `firewall` is what to do about this host's own. With `forward_dns` the registry's DNS server passes members'
    questions about other zones on to the host's resolvers. `next_host` is the host number given out next: freed ones
    come round again only after all others. `own_host` is the registry's own. `mtu` is its interface's.
    `predecessor` is the interface of the server it was adopted from, until its place is taken.
    """

    name: str
    zone: str
    private_key: PrivateKey = field(repr=False)
    listen_port: int
    endpoints: tuple[str, ...]
    prefix4: IPv4Network
    prefix6: IPv6Network
    epoch: int = 1
    next_host: int = REGISTRY_HOST_NUMBER + 1
    also_ports: tuple[int, ...] = ()
    tls_port: int | None = None
    firewall: Mode = Mode.NONE
    forward_dns: bool = False
    own_host: int = REGISTRY_HOST_NUMBER
    mtu: int = MTU
    predecessor: str | None = None

    @property
    def reached_at(self) -> tuple[str, ...]:
        """Where members try, all of it at once: `endpoints`, then their hosts on each of `also_ports`."""
        also = (f"{host}:{port}" for port in self.also_ports for host in self.hosts)
        return tuple(dict.fromkeys((*self.endpoints, *also)))[:REGISTRIES_MAX]

    @property
    def tls_at(self) -> tuple[str, ...]:
        """`HOST:PORT` of WebSockets over TLS."""
        return () if self.tls_port is None else tuple(f"{host}:{self.tls_port}" for host in self.hosts)

    @property
    def hosts(self) -> list[str]:
        """Where its registries are, without ports."""
        return list(dict.fromkeys(endpoint.rpartition(":")[0] for endpoint in self.endpoints))

    def addresses(self, number: int) -> tuple[IPv4Address, IPv6Address]:
        """Both addresses of a host number."""
        return _addresses(self.prefix4, self.prefix6, number)

    def networks(self, number: int) -> tuple[IPNetwork, ...]:
        """The same, as prefixes."""
        return _networks(self.prefix4, self.prefix6, number)

    @property
    def registry_addresses(self) -> tuple[IPv4Address, IPv6Address]:
        """The registry's own."""
        return self.addresses(self.own_host)


@lru_cache(_KEPT)
def _addresses(prefix4: IPv4Network, prefix6: IPv6Network, number: int) -> tuple[IPv4Address, IPv6Address]:
    """Kept, since all members' are asked for whenever one changes."""
    return prefix4[number], prefix6[number]


@lru_cache(_KEPT)
def _networks(prefix4: IPv4Network, prefix6: IPv6Network, number: int) -> tuple[IPNetwork, ...]:
    return ip_network(prefix4[number]), ip_network(prefix6[number])


@dataclass(frozen=True, slots=True)
class Member:
    """One member or device. `proven`: a handshake with `public_key` has shown that somebody holds it.

    `invitation` is the one-time key it was enrolled under, until it is proven. `endpoint` is a fixed public one.
    `next_key` is announced while the key is being rotated. `created_at` is unix time. Of devices only: `direct_to`
    names the members it has as peers of its own, and with `full_tunnel` it sends everything through the registry.
    An `ephemeral` one goes by itself when it was not heard for so many seconds.
    `offers` are the subnets a member says are behind it, `approved` those an administrator said yes to.
    """

    name: str
    public_key: PublicKey
    number: int
    groups: tuple[str, ...]
    created_at: float
    kind: Kind = Kind.MEMBER
    role: Role = Role.MEMBER
    preshared_key: PresharedKey | None = field(default=None, repr=False)
    proven: bool = False
    invitation: PublicKey | None = None
    endpoint: Endpoint | None = None
    next_key: PublicKey | None = None
    direct_to: tuple[str, ...] = ()
    full_tunnel: bool = False
    offers: tuple[IPNetwork, ...] = ()
    approved: tuple[IPNetwork, ...] = ()
    ephemeral: float | None = None

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """What is routed to it: approved, and still offered. Stock devices say nothing of themselves."""
        if not self.approved:
            return ()
        is_device = self.kind is Kind.DEVICE
        return tuple(network for network in self.approved if is_device or network in self.offers)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A join link that is out, known by its one-time public key; `expires_at` is unix time.

    `uses` are left. `name` is None where the joiner chooses. Whom it makes members are `ephemeral` as `Member` has it;
    where a name is taken, they get one that is not. `used_by` are names of those who showed their key. One that is over
    has `ended_at`, as unix time, and nobody joins by it any more.
    """

    enrol_key: PublicKey
    preshared_key: PresharedKey = field(repr=False)
    address: IPv4Address
    expires_at: float
    name: str | None = None
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    role: Role = Role.MEMBER
    uses: int = 1
    ephemeral: float | None = None
    used_by: tuple[str, ...] = ()
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """A key that must never come back; `at` is unix time."""

    public_key: PublicKey
    name: str
    at: float


Fact = Network | Member | Invitation | Revoked


@dataclass(frozen=True, slots=True)
class Put:
    """Store a fact, in place of the one with the same identity."""

    fact: Fact


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a fact."""

    fact: Member | Invitation


Change = Put | Remove

KINDS: dict[str, type[Fact]] = {
    "network": Network,
    "member": Member,
    "invitation": Invitation,
    "revoked": Revoked,
}
_TEXT_TYPES = (PublicKey, PresharedKey, PrivateKey, Endpoint)
_ADDRESS_TYPES = (IPv4Address, IPv4Network, IPv6Network)


def identity(fact: Fact) -> tuple[str, str]:
    """Kind and identity: a fact takes the place of the one that has the same. A member is its host number."""
    match fact:
        case Network():
            return "network", ""
        case Member(number=number):
            return "member", str(number)
        case Invitation(enrol_key=key):
            return "invitation", key.to_text()
        case Revoked(public_key=key):
            return "revoked", key.to_text()


def pack_fact(fact: Fact) -> str:
    """The text `parse_fact` reads."""
    values = {one.name: _to_json(getattr(fact, one.name)) for one in fields(fact)}
    return json.dumps(values, separators=(",", ":"))


def parse_fact(kind: str, text: str) -> Fact:
    """Read a fact back; ValueError, without the text, when it cannot be one."""
    try:
        made = KINDS[kind]
        data, hints = json.loads(text), get_type_hints(made)
        return made(**{name: _from_json(data[name], hint) for name, hint in hints.items() if name in data})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"a {kind[:20]!r} in the store cannot be read") from None


def _to_json(value: object) -> object:
    match value:
        case Enum():
            return value.value
        case PublicKey() | PresharedKey() | PrivateKey() | Endpoint():
            return value.to_text()
        case tuple():
            return [_to_json(item) for item in value]
        case None | str() | int() | float():
            return value
        case _:
            return str(value)


def _from_json(value: Any, hint: Any) -> Any:
    """`value` as the type of its field; ValueError or TypeError when it is none."""
    if hint == IPNetwork:
        return ip_network(value)
    if isinstance(hint, UnionType):
        wanted = next(option for option in get_args(hint) if option is not type(None))
        return None if value is None else _from_json(value, wanted)
    if get_origin(hint) is tuple:
        return tuple(_from_json(item, get_args(hint)[0]) for item in value)
    if hint in _TEXT_TYPES:
        return hint.from_text(value)
    if hint in _ADDRESS_TYPES or issubclass(hint, Enum):
        return hint(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value
