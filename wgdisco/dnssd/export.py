"""The zone as other servers hold it: all its records, for secondaries and in a zone file.

It is what we answer, but for what depends on who asks: the name servers are those that the world asks, at fixed
addresses. Host records at instances' names are left out, which BIND refuses (`=` and `_` are not for hosts) and nobody
asks for: SRV points to a host name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import dns.name
import dns.rdataclass

from wgdisco.dnssd.instance import ServiceInstance, host_data, ptr_data, srv_data, txt_data
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import Data, HostData, NsData, PtrData, Record, SoaData, SrvData, TxtData
from wgdisco.dnssd.roster import REGISTRY_NAME, Roster
from wgdisco.dnssd.zone import ENDPOINT_TTL, MEMBER_TTL, STATIC_TTL, Zone
from wgdisco.endpoint import LOOPBACK, IPAddress, in_any
from wgdisco.keys import PublicKey

NAME_SERVERS_MAX = 9
# a record must fit into a message
_TXT_MAX_SIZE = 16_000
_ESCAPED = frozenset(b'"\\')


@dataclass(frozen=True, slots=True)
class Shown:
    """An instance as it is in a zone: listed for all, and for the groups of its member, or found by its key alone."""

    instance: ServiceInstance
    groups: tuple[str, ...] = ()
    is_listed: bool = True

    def records(self, names: ZoneNames) -> Iterator[Record]:
        """All of its own."""
        instance = self.instance
        name, host, pointer = names.instance(instance.key), names.host(instance.key), ptr_data(instance.key, names)
        if self.is_listed:
            yield Record(names.service, ENDPOINT_TTL, pointer)
        for group in self.groups if self.is_listed else ():
            if (subtype := names.subtype(group)) is not None:
                yield Record(subtype, ENDPOINT_TTL, pointer)
        txt = txt_data(instance)
        if sum(1 + len(string) for string in txt.strings) > _TXT_MAX_SIZE:
            txt = TxtData(txt.strings[:2])
        yield Record(name, ENDPOINT_TTL, srv_data(instance, names))
        yield Record(name, ENDPOINT_TTL, txt)
        yield Record(host, ENDPOINT_TTL, host_data(instance.endpoint.address))


@dataclass(frozen=True, slots=True)
class Named:
    """A member, or the registry, by name."""

    name: str
    addresses: tuple[IPAddress, ...]

    def records(self, names: ZoneNames) -> Iterator[Record]:
        """Where it is inside the tunnel."""
        for address in self.addresses:
            yield Record(names.member(self.name), MEMBER_TTL, host_data(address))


Part = Shown | Named


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one content of a zone to another: each part of it that differs, as it was and as it is."""

    parts: Mapping[PublicKey | str, tuple[Part | None, Part | None]]

    def __len__(self) -> int:
        return len(self.parts)

    def records(self, names: ZoneNames) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        """The records that go, and those that come."""
        gone: list[Record] = []
        new: list[Record] = []
        for was, now in self.parts.values():
            before = () if was is None else tuple(was.records(names))
            after = () if now is None else tuple(now.records(names))
            gone += [record for record in before if record not in after]
            new += [record for record in after if record not in before]
        return tuple(gone), tuple(new)


def difference(before: Zone, after: Zone, touched: Iterable[PublicKey] | None = None) -> Difference:
    """What differs between two snapshots of one zone, serials aside.

    With `touched`, instances of these keys alone may differ, and no member.
    """
    is_same_roster = touched is not None or before.roster is after.roster
    found: dict[PublicKey | str, tuple[Part | None, Part | None]] = {}
    for key in {**before.instances, **after.instances} if touched is None else touched:
        was, instance = before.instances.get(key), after.instances.get(key)
        if was is not instance or not is_same_roster:
            found[key] = (_shown(before, was), _shown(after, instance))
    if not is_same_roster:
        old, new = _named(before.roster), _named(after.roster)
        found.update({name: (old.get(name), new.get(name)) for name in {**old, **new}})
    return Difference({key: pair for key, pair in found.items() if pair[0] != pair[1]})


def merged(differences: Iterable[Difference]) -> Difference:
    """One after the other, as one."""
    found: dict[PublicKey | str, tuple[Part | None, Part | None]] = {}
    for one in differences:
        for key, (was, now) in one.parts.items():
            found[key] = (found[key][0] if key in found else was, now)
    return Difference({key: pair for key, pair in found.items() if pair[0] != pair[1]})


def records(zone: Zone, servers: Iterable[IPAddress] = ()) -> Iterator[Record]:
    """All records but the SOA. `servers` are the addresses of ns1, ns2 …"""
    names = zone.names
    addresses = list(servers)[:NAME_SERVERS_MAX]
    for number, address in enumerate(addresses or [None], 1):
        server = names.server(number)
        yield Record(names.origin, STATIC_TTL, NsData(server))
        if address is not None:
            yield Record(server, STATIC_TTL, host_data(address))
    yield Record(names.service_types, STATIC_TTL, PtrData(names.service))
    for domain in names.browse_domains:
        yield Record(domain, STATIC_TTL, PtrData(names.origin))
    own = None if zone.own is None or zone.own.key in zone.instances else zone.own.published_at(None)
    for instance in chain(zone.instances.values(), () if own is None else (own,)):
        shown = _shown(zone, instance)
        assert shown is not None
        yield from shown.records(names)
    for named in _named(zone.roster).values():
        yield from named.records(names)


def server_addresses(*addresses: IPAddress) -> tuple[IPAddress, ...]:
    """Those at which others can ask, each once."""
    usable = (one for one in addresses if not one.is_unspecified and not in_any(one, LOOPBACK))
    return tuple(dict.fromkeys(usable))[:NAME_SERVERS_MAX]


def to_text(zone: Zone, servers: Iterable[IPAddress] = ()) -> Iterator[str]:
    """The lines of a zone file (RFC 1035 section 5), every name whole."""
    yield _line(zone.soa())
    for record in records(zone, servers):
        yield _line(record)


def describe(
    zone: Zone, servers: tuple[IPAddress, ...], transferred: int | None, given: Mapping[str, int]
) -> dict[str, Any]:
    """What the daemon tells of its zone, as JSON: `zone`, `serial`, the `servers` in their order, and the `file`.

    `transferred` is the serial that secondaries and strangers are to have, where that is another, `given` what each
    secondary has.
    """
    return {
        "zone": zone.names.to_text(),
        "serial": zone.serial if transferred is None else transferred,
        "given": given,
        "servers": [str(address) for address in servers],
        "file": "".join(to_text(zone, servers)),
    }


def _shown(zone: Zone, instance: ServiceInstance | None) -> Shown | None:
    if instance is None:
        return None
    member = None if instance.name is None else zone.roster.members.get(instance.name)
    return Shown(instance, () if member is None else member.groups, zone.browsable)


def _named(roster: Roster) -> dict[PublicKey | str, Part]:
    found: dict[PublicKey | str, Part] = {one.name: Named(one.name, one.addresses) for one in roster.members.values()}
    if roster.registry:
        found[REGISTRY_NAME] = Named(REGISTRY_NAME, roster.registry)
    return found


def _line(record: Record) -> str:
    kind = record.data.rdtype.name
    return f"{_name(record.name)} {record.ttl} {dns.rdataclass.IN.name} {kind} {_data(record.data)}\n"


def _data(data: Data) -> str:
    match data:
        case PtrData(target) | NsData(target):
            return _name(target)
        case SoaData():
            numbers = (data.serial, data.refresh, data.retry, data.expire, data.minimum)
            return f"{_name(data.primary)} {_name(data.mailbox)} {' '.join(map(str, numbers))}"
        case SrvData(port, target):
            return f"0 0 {port} {_name(target)}"
        case HostData(address):
            return str(address)
        case TxtData(strings):
            return " ".join(_quoted(string) for string in strings)
    raise AssertionError(f"a zone has no {data.rdtype.name}")


def _name(name: dns.name.Name) -> str:
    # `=` needs no escape by the book, but is read by more than servers
    return name.to_text().replace("=", "\\061")


def _quoted(string: bytes) -> str:
    text = "".join(f"\\{byte:03d}" if byte in _ESCAPED or not 0x20 <= byte < 0x7F else chr(byte) for byte in string)
    return f'"{text}"'
