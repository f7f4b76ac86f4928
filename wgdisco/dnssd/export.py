"""The zone as other servers hold it: all its records, for secondaries and in a zone file.

It is what we answer, but for what depends on who asks: the name servers are those that the world asks, at fixed
addresses. Host records at instances' names are left out, which BIND refuses (`=` and `_` are not for hosts) and nobody
asks for: SRV points to a host name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import dns.name
import dns.rdataclass

from wgdisco.dnssd.instance import ServiceInstance, host_data, ptr_data, txt_data
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import Data, HostData, NsData, PtrData, Record, SoaData, SrvData, TxtData
from wgdisco.dnssd.zone import ENDPOINT_TTL, STATIC_TTL, Zone
from wgdisco.endpoint import LOOPBACK, IPAddress, in_any
from wgdisco.keys import PublicKey

NAME_SERVERS_MAX = 9
# a record must fit into a message
_TXT_MAX_SIZE = 16_000
_ESCAPED = frozenset(b'"\\')


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one content of a zone to another: by key, an instance as it was and as it is."""

    instances: Mapping[PublicKey, tuple[ServiceInstance | None, ServiceInstance | None]]

    def __len__(self) -> int:
        return len(self.instances)

    def records(self, names: ZoneNames) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        """The records that go, and those that come."""
        gone: list[Record] = []
        new: list[Record] = []
        for was, now in self.instances.values():
            before, after = _instance_records(names, was), _instance_records(names, now)
            gone += [record for record in before if record not in after]
            new += [record for record in after if record not in before]
        return tuple(gone), tuple(new)


def difference(before: Zone, after: Zone) -> Difference:
    """What differs between two snapshots of one zone, serials aside."""
    old, new = before.instances, after.instances
    found: dict[PublicKey, tuple[ServiceInstance | None, ServiceInstance | None]] = {}
    for key, instance in new.items():
        was = old.get(key)
        if was is not instance and was != instance:
            found[key] = (was, instance)
    for key, instance in old.items():
        if key not in new:
            found[key] = (instance, None)
    return Difference(found)


def merged(differences: Iterable[Difference]) -> Difference:
    """One after the other, as one."""
    found: dict[PublicKey, tuple[ServiceInstance | None, ServiceInstance | None]] = {}
    for one in differences:
        for key, (was, now) in one.instances.items():
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
        yield from _instance_records(names, instance)


def server_addresses(*addresses: IPAddress) -> tuple[IPAddress, ...]:
    """Those at which others can ask, each once."""
    usable = (one for one in addresses if not one.is_unspecified and not in_any(one, LOOPBACK))
    return tuple(dict.fromkeys(usable))[:NAME_SERVERS_MAX]


def to_text(zone: Zone, servers: Iterable[IPAddress] = ()) -> Iterator[str]:
    """The lines of a zone file (RFC 1035 section 5), every name whole."""
    yield _line(zone.soa())
    for record in records(zone, servers):
        yield _line(record)


def _instance_records(names: ZoneNames, instance: ServiceInstance | None) -> tuple[Record, ...]:
    if instance is None:
        return ()
    name, host = names.instance(instance.key), names.host(instance.key)
    txt = txt_data(instance)
    if sum(1 + len(string) for string in txt.strings) > _TXT_MAX_SIZE:
        txt = TxtData(txt.strings[:2])
    return (
        Record(names.service, ENDPOINT_TTL, ptr_data(instance.key, names)),
        Record(name, ENDPOINT_TTL, SrvData(instance.endpoint.port, host)),
        Record(name, ENDPOINT_TTL, txt),
        Record(host, ENDPOINT_TTL, host_data(instance.endpoint.address)),
    )


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
