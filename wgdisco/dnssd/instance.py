"""One service instance of the zone: a peer, where it is, and the records that say so.

TXT strings are wgsd's three, `txtvers=1`, `pub=<base64>`, `allowed=<prefix>,<prefix>…`, in that order; what does not
fit in one string of 255 bytes goes on in `allowed2=`, `allowed3=` …. Where more is known of a peer there follow
`c1=<kind>,<endpoint>,<priority>` … `c8=`, `nat=<mapping>/<filtering>/<delta>`, `name=<label>` and `v=1`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from wgdisco.api import MAX_CANDIDATES, CandidateKind, CandidateRecord, parse_candidate
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import HostData, PtrData, SrvData, TxtData
from wgdisco.dnssd.txt import STRING_MAX_SIZE, Pair, pack_pairs, parse_strings
from wgdisco.endpoint import LINK_LOCAL, LOOPBACK, Endpoint, IPAddress, IPNetwork, in_any, parse_address
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.names import check_member_name
from wgdisco.nat import NatProfile

TXT_VERSION = b"1"
_MORE_VERSION = b"1"
# a peer-reflexive candidate is known to one peer alone
_CANDIDATE_KINDS = frozenset(CandidateKind) - {CandidateKind.PEER_REFLEXIVE}
_BROADCAST = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class ServiceInstance:
    """A peer as the zone shows it. The order of `allowed_ips` is kept; `()` also when the TXT was not to be had.

    `candidates` are where else it may be reached, at most MAX_CANDIDATES; `nat` is a NatProfile as text, `name` a
    member's.
    """

    key: PublicKey
    endpoint: Endpoint
    allowed_ips: tuple[IPNetwork, ...] = ()
    candidates: tuple[CandidateRecord, ...] = ()
    nat: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class OwnInstance:
    """The registry's own device in its zone (`self` in wgsd).

    Without `endpoint` it is at the address a query came to and at `listen_port`. `tunnel_prefixes` are the prefixes
    inside the tunnel: an address there is no endpoint.
    """

    key: PublicKey
    listen_port: int
    endpoint: Endpoint | None = None
    allowed_ips: tuple[IPNetwork, ...] = ()
    tunnel_prefixes: tuple[IPNetwork, ...] = ()

    def seen_at(self, local_address: IPAddress | None) -> ServiceInstance | None:
        """The instance for a query that came to `local_address`, as wgsd makes it: any address will do."""
        if self.endpoint is not None:
            return ServiceInstance(self.key, self.endpoint, self.allowed_ips)
        if local_address is None or not self.listen_port:
            return None
        return ServiceInstance(self.key, Endpoint(local_address, self.listen_port), self.allowed_ips)

    def published_at(self, local_address: IPAddress | None) -> ServiceInstance | None:
        """The same, but None where the address is of no use to a peer: loopback, link-local or inside the tunnel."""
        if self.endpoint is None and local_address is not None and not self._is_reachable(local_address):
            return None
        return self.seen_at(local_address)

    def _is_reachable(self, address: IPAddress) -> bool:
        return not (
            address.is_unspecified
            or in_any(address, LOOPBACK)
            or in_any(address, LINK_LOCAL)
            or in_any(address, self.tunnel_prefixes)
        )


def ptr_data(key: PublicKey, names: ZoneNames) -> PtrData:
    """What browsing the service says of this instance."""
    return PtrData(names.instance(key))


def srv_data(instance: ServiceInstance, names: ZoneNames) -> SrvData:
    """The one SRV of an instance. It points to a host name: BIND as a primary, and getaddrinfo, take no other."""
    return SrvData(instance.endpoint.port, names.host(instance.key))


def wgsd_srv_data(instance: ServiceInstance, names: ZoneNames) -> SrvData:
    """wgsd's: it points to the instance's own name."""
    return SrvData(instance.endpoint.port, names.instance(instance.key))


def host_data(address: IPAddress) -> HostData:
    """The address record: A for IPv4 and for IPv4-mapped IPv6, else AAAA."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return HostData(address if mapped is None else mapped)


def txt_data(instance: ServiceInstance) -> TxtData:
    """The TXT record of an instance."""
    return TxtData(pack_pairs(_identity_pairs(instance) + _allowed_pairs(instance.allowed_ips) + _more_pairs(instance)))


def wgsd_txt_data(instance: ServiceInstance) -> TxtData:
    """wgsd's three strings; the third may pass 255 bytes, and then cannot be packed."""
    allowed = b"allowed=" + ",".join(map(str, instance.allowed_ips)).encode()
    return TxtData((*pack_pairs(_identity_pairs(instance)), allowed))


def from_records(key: PublicKey, port: int, address: str, strings: Sequence[bytes] | None) -> ServiceInstance:
    """The instance that SRV port, address record and TXT strings (None when absent) tell of.

    ValueError when one of them cannot be: port 0, an address that is not unicast, a TXT of another key. What is told
    beside wgsd's three strings is left out where it cannot be.
    """
    endpoint = Endpoint(parse_address(address), port)
    if not _is_unicast(endpoint.address):
        raise ValueError(f"{endpoint.address} is not a unicast address")
    pairs = dict(parse_strings(strings or ()))
    if pairs.get("txtvers", TXT_VERSION) != TXT_VERSION:
        pairs = {}
    if pairs.get("pub") not in (None, key.to_text().encode()):
        raise ValueError("the TXT record is another key's")
    allowed = _parse_allowed(pairs)
    if pairs.get("v") != _MORE_VERSION:
        return ServiceInstance(key, endpoint, allowed)
    return ServiceInstance(key, endpoint, allowed, _parse_candidates(pairs), _parse_nat(pairs), _parse_name(pairs))


def _identity_pairs(instance: ServiceInstance) -> list[Pair]:
    return [("txtvers", TXT_VERSION), ("pub", instance.key.to_text().encode())]


def _allowed_pairs(networks: tuple[IPNetwork, ...]) -> list[Pair]:
    """`allowed=` and its continuations, cut between prefixes; one empty `allowed=` when there are none."""
    values = [b""]
    for network in networks:
        key = _allowed_key(len(values))
        value = b",".join((values[-1], str(network).encode())) if values[-1] else str(network).encode()
        if len(key) + 1 + len(value) > STRING_MAX_SIZE:
            values.append(str(network).encode())
        else:
            values[-1] = value
    return [(_allowed_key(number), value) for number, value in enumerate(values, 1)]


def _allowed_key(number: int) -> str:
    return "allowed" if number == 1 else f"allowed{number}"


def _parse_allowed(pairs: dict[str, bytes | None]) -> tuple[IPNetwork, ...]:
    """The prefixes of `allowed=`, `allowed2=` … up to the first that is missing; ValueError on one that is none."""
    networks: list[IPNetwork] = []
    number = 1
    while (value := pairs.get(_allowed_key(number))) is not None:
        text = value.decode("ascii")
        networks += [ip_network(prefix, strict=False) for prefix in text.split(",") if prefix]
        number += 1
    return tuple(networks)


def _more_pairs(instance: ServiceInstance) -> list[Pair]:
    """What wgsd does not have; nothing where there is none of it."""
    pairs: list[Pair] = [
        (f"c{number}", f"{one.kind},{one.endpoint},{one.priority}".encode())
        for number, one in enumerate(instance.candidates[:MAX_CANDIDATES], 1)
    ]
    if instance.nat is not None:
        pairs.append(("nat", instance.nat.encode()))
    if instance.name is not None:
        pairs.append(("name", instance.name.encode()))
    return [*pairs, ("v", _MORE_VERSION)] if pairs else []


def _parse_candidates(pairs: dict[str, bytes | None]) -> tuple[CandidateRecord, ...]:
    """Those of `c1=` … `c8=` that can be, an endpoint once."""
    found: dict[str, CandidateRecord] = {}
    for number in range(1, MAX_CANDIDATES + 1):
        try:
            candidate = _parse_candidate(_text(pairs, f"c{number}") or "")
        except ValueError:
            continue
        found.setdefault(candidate.endpoint, candidate)
    return tuple(found.values())


def _parse_candidate(text: str) -> CandidateRecord:
    kind, endpoint, priority = text.split(",")
    if not (priority.isascii() and priority.isdigit()) or len(priority) > 10:
        raise ValueError("priority: a number of 32 bits")
    candidate = parse_candidate({"kind": kind, "endpoint": endpoint, "priority": int(priority)})
    if CandidateKind(candidate.kind) not in _CANDIDATE_KINDS:
        raise ValueError("kind: host, srflx, map or relay")
    if not _is_unicast(Endpoint.from_text(candidate.endpoint).address):
        raise ValueError("endpoint: a unicast address")
    return candidate


def _parse_nat(pairs: dict[str, bytes | None]) -> str | None:
    try:
        text = _text(pairs, "nat")
        return None if text is None else NatProfile.from_text(text).to_text()
    except ValueError:
        return None


def _parse_name(pairs: dict[str, bytes | None]) -> str | None:
    try:
        text = _text(pairs, "name")
        if text is not None:
            check_member_name(text)
    except (ValueError, LocalError):
        return None
    return text


def _text(pairs: dict[str, bytes | None], key: str) -> str | None:
    """ValueError when it is not ASCII."""
    value = pairs.get(key)
    return None if value is None else value.decode("ascii")


def _is_unicast(address: IPAddress) -> bool:
    return not (address.is_unspecified or address.is_multicast or address == _BROADCAST)
