"""What wgsd v0.3.5 answers for the same snapshot, to the byte (`--wgsd-exact`), faults included.

Every TTL is 0; A and AAAA are the same question; whatever is not PTR at the service or SRV, A, AAAA or TXT at an
instance does not exist, the origin among it; the serial never changes.
"""

import dns.name
from dns.rcode import NOERROR, NXDOMAIN, REFUSED
from dns.rdatatype import AAAA, PTR, SRV, TXT, A

from wgdisco.dnssd.instance import ServiceInstance, host_data, ptr_data, wgsd_srv_data, wgsd_txt_data
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import Record, SoaData
from wgdisco.dnssd.zone import Answer, Zone
from wgdisco.endpoint import IPAddress
from wgdisco.keys import PublicKey

_SOA_TTL = 60
_SOA_NUMBERS = (1, 86400, 7200, 3600000, 60)


def lookup(zone: Zone, qname: dns.name.Name, qtype: int, local_address: IPAddress | None) -> Answer:
    """Answer as wgsd does; owner names of answers are the question's in lower case."""
    names = zone.names
    if not names.holds(qname):
        return Answer(REFUSED, authoritative=False)
    owner = qname.canonicalize()
    if owner == names.service and qtype == PTR:
        return _browse(zone, owner, local_address)
    if qtype not in (SRV, A, AAAA, TXT):
        return _does_not_exist(names)
    key = names.key_by_length(qname)
    instance = None if key is None else _instance(zone, key, local_address)
    if instance is None:
        return _does_not_exist(names)
    host = Record(owner, 0, host_data(instance.endpoint.address))
    txt = Record(owner, 0, wgsd_txt_data(instance))
    if qtype == SRV:
        srv = Record(owner, 0, wgsd_srv_data(instance, names))
        return Answer(NOERROR, answer=(srv,), additional=(host, txt))
    return Answer(NOERROR, answer=(txt if qtype == TXT else host,))


def _browse(zone: Zone, owner: dns.name.Name, local_address: IPAddress | None) -> Answer:
    own = None if zone.own is None else zone.own.seen_at(local_address)
    keys = [*zone.instances, *([] if own is None else [own.key])]
    if not keys:
        return _does_not_exist(zone.names)
    return Answer(NOERROR, answer=tuple(Record(owner, 0, ptr_data(key, zone.names)) for key in keys))


def _instance(zone: Zone, key: PublicKey, local_address: IPAddress | None) -> ServiceInstance | None:
    if (instance := zone.instances.get(key)) is not None:
        return instance
    return zone.own.seen_at(local_address) if zone.own is not None and zone.own.key == key else None


def _does_not_exist(names: ZoneNames) -> Answer:
    data = SoaData(names.name_server, names.wgsd_postmaster(), *_SOA_NUMBERS)
    return Answer(NXDOMAIN, authority=(Record(names.origin, _SOA_TTL, data),))
