"""What a registry tells its members, checked field by field before anything believes it.

Every function raises ValueError with one line for what is not as it should be; unknown fields are passed over, so that
a newer registry is understood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from wgdisco.api import (
    MAX_CANDIDATES,
    SCHEMA,
    CandidateRecord,
    EndpointChange,
    MemberRecord,
    NetworkRecord,
    Order,
    Removed,
    SelfRecord,
    Snapshot,
    parse_candidate,
)
from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import SITE_LOCAL, Endpoint, IPAddress, IPNetwork
from wgdisco.errors import LocalError
from wgdisco.invitation import check_registry
from wgdisco.keys import PublicKey
from wgdisco.names import check_member_name, check_network_name
from wgdisco.offers import OFFERS_MAX, parse_subnet

MAX_MEMBERS = 4096
MAX_ADDRESSES = 4
MAX_GROUPS = 64
MAX_REGISTRIES = 8
MAX_PREFIXES = 4
MAX_TEXT = 255

KIND_MEMBER = "member"
KIND_DEVICE = "device"
_KINDS = (KIND_MEMBER, KIND_DEVICE)
_ROLES = ("member", "admin")
# A whole LAN's worth of addresses at most: a registry must not draw half the Internet into the tunnel.
_SHORTEST_PREFIX = {4: 12, 6: 48}


class VersionError(ValueError):
    """What is told is of another schema."""


@dataclass(frozen=True, slots=True)
class Network:
    """A NetworkRecord with its fields as values."""

    name: str
    zone: ZoneNames
    epoch: int
    prefixes: tuple[IPNetwork, ...]
    registries: tuple[str, ...]
    registry_key: PublicKey
    registry_addresses: tuple[IPAddress, ...]
    tls: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: NetworkRecord) -> "Network":
        """ValueError unless prefixes are private and the registry's addresses inside them."""
        prefixes = tuple(ip_network(prefix) for prefix in record.prefixes)
        addresses = tuple(ip_address(address) for address in record.registry_addresses)
        for prefix in prefixes:
            private = any(one.version == prefix.version and prefix.subnet_of(one) for one in SITE_LOCAL)  # type: ignore[arg-type]
            if not private or prefix.prefixlen < _SHORTEST_PREFIX[prefix.version]:
                raise ValueError(f"the network's prefix {prefix} is not a private one of reasonable size")
        if not prefixes or not addresses or not all(_inside(address, prefixes) for address in addresses):
            raise ValueError("the registry's addresses are not inside the network's prefixes")
        key = PublicKey.from_text(record.registry_key)
        zone = ZoneNames.from_text(record.zone)
        return cls(
            record.name, zone, record.epoch, prefixes, tuple(record.registries), key, addresses, tuple(record.tls)
        )


def _inside(address: IPAddress, prefixes: tuple[IPNetwork, ...]) -> bool:
    return any(address in prefix for prefix in prefixes if prefix.version == address.version)


def check_version(data: Any) -> None:
    """VersionError when the registry speaks another version of the API than we do."""
    if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
        raise VersionError(f"the registry speaks another version of the API (this wgdisco knows {SCHEMA}): update it")


def parse_self(data: Any) -> SelfRecord:
    """The answer to `POST /v1/enrol` and `GET /v1/self`."""
    told = _object(data, schema=True)
    return SelfRecord(parse_network(told.get("network")), parse_member(told.get("member")))


def parse_snapshot(data: Any) -> Snapshot:
    """The event `snapshot`."""
    told = _object(data, schema=True)
    members = _list(told, "members", MAX_MEMBERS)
    return Snapshot(
        parse_network(told.get("network")), parse_member(told.get("member")), [parse_member(m) for m in members]
    )


def parse_network(data: Any) -> NetworkRecord:
    """The network's part of both."""
    told = _object(data)
    record = NetworkRecord(
        name=_text(told, "name"),
        zone=_text(told, "zone"),
        epoch=_number(told, "epoch"),
        prefixes=_texts(told, "prefixes", MAX_PREFIXES),
        registries=_texts(told, "registries", MAX_REGISTRIES),
        registry_key=_text(told, "registry_key"),
        registry_addresses=_texts(told, "registry_addresses", MAX_ADDRESSES),
        tls=_texts({"tls": [], **told}, "tls", MAX_REGISTRIES),
    )
    try:
        check_network_name(record.name)
    except LocalError as error:
        raise ValueError(str(error)) from error
    if not record.registries:
        raise ValueError("the network has no registries")
    for registry in (*record.registries, *record.tls):
        check_registry(registry)
    Network.of(record)
    return record


def parse_member(data: Any) -> MemberRecord:
    """One member, as the event `member` has it."""
    told = _object(data)
    record = MemberRecord(
        name=_text(told, "name"),
        public_key=_text(told, "public_key"),
        addresses=_texts(told, "addresses", MAX_ADDRESSES),
        kind=_text(told, "kind"),
        role=_text(told, "role"),
        groups=_texts(told, "groups", MAX_GROUPS),
        endpoint=_text_or_none(told, "endpoint"),
        live=_boolean(told, "live"),
        epoch=None if told.get("epoch") is None else _number(told, "epoch"),
        sig=_text_or_none(told, "sig"),
        next_key=_text_or_none(told, "next_key"),
        direct=_boolean(told, "direct"),
        candidates=_candidates(told),
        nat=_text_or_none(told, "nat"),
        subnets=_subnets(told, "subnets"),
        offers=_subnets(told, "offers"),
        ephemeral=_boolean(told, "ephemeral"),
    )
    try:
        check_member_name(record.name)
    except LocalError as error:
        raise ValueError(str(error)) from error
    PublicKey.from_text(record.public_key)
    if record.next_key is not None:
        PublicKey.from_text(record.next_key)
    if record.kind not in _KINDS or record.role not in _ROLES:
        raise ValueError("a member's kind or role is unknown here: update wgdisco")
    if not record.addresses:
        raise ValueError(f"the member {record.name} has no address")
    for address in record.addresses:
        ip_address(address)
    if record.endpoint is not None:
        Endpoint.from_text(record.endpoint)
    return record


def next_key_of(record: MemberRecord) -> PublicKey | None:
    """The key a member has announced."""
    return None if record.next_key is None else PublicKey.from_text(record.next_key)


def endpoint_of(record: MemberRecord) -> Endpoint | None:
    """Where the registry sees a member."""
    return None if record.endpoint is None else Endpoint.from_text(record.endpoint)


def parse_removed(data: Any) -> Removed:
    """The event `removed`."""
    told = _object(data)
    removed = Removed(_text(told, "public_key"), _text(told, "name"))
    PublicKey.from_text(removed.public_key)
    return removed


def parse_endpoint(data: Any) -> EndpointChange:
    """The event `endpoint`."""
    told = _object(data)
    change = EndpointChange(_text(told, "public_key"), _text_or_none(told, "endpoint"), _boolean(told, "live"))
    PublicKey.from_text(change.public_key)
    if change.endpoint is not None:
        Endpoint.from_text(change.endpoint)
    return change


def parse_order(data: Any) -> Order:
    """The event `order`."""
    told = _object(data)
    order = Order(
        order=_number(told, "order"),
        peer=_text(told, "peer"),
        initiator=_text(told, "initiator"),
        candidates=_candidates(told),
        nat=_text_or_none(told, "nat"),
        relay=_boolean(told, "relay"),
        expires_ms=_number(told, "expires_ms"),
    )
    PublicKey.from_text(order.peer)
    PublicKey.from_text(order.initiator)
    return order


def _candidates(told: Mapping[str, Any]) -> list[CandidateRecord]:
    """Absent is none: a registry that knows no candidates is understood."""
    if "candidates" not in told:
        return []
    return [parse_candidate(one) for one in _list(told, "candidates", MAX_CANDIDATES)]


def _subnets(told: Mapping[str, Any], name: str) -> list[str]:
    """Absent is none, as above."""
    return [str(parse_subnet(text)) for text in _texts({name: [], **told}, name, OFFERS_MAX)]


def _object(data: Any, schema: bool = False) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ValueError("an object was expected")
    if schema and "schema" not in data:
        raise ValueError("schema is missing")
    check_version(data)
    return data


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise ValueError(f"{name} is not a short text")
    return value


def _text_or_none(told: Mapping[str, Any], name: str) -> str | None:
    return None if told.get(name) is None else _text(told, name)


def _number(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(f"{name} is not a whole number")
    return value


def _boolean(told: Mapping[str, Any], name: str) -> bool:
    value = told.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def _list(told: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = told.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{name} is not a list of up to {most}")
    return value


def _texts(told: Mapping[str, Any], name: str, most: int) -> list[str]:
    return [_text({name: one}, name) for one in _list(told, name, most)]
