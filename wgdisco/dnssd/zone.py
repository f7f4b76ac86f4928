"""The zone as an immutable snapshot, and what it answers (RFC 1034 section 4.3.2, RFC 6763, RFC 2308).

A question that names nothing in the zone is NXDOMAIN; one that names something without records of the type asked is
NODATA. Either carries the SOA, whose minimum says how long the asker may remember it.

An SRV answer always has the host record first among its additional records: a deployed wgsd-client dies without it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import dns.name
from dns.rcode import NOERROR, NXDOMAIN, REFUSED, Rcode
from dns.rdatatype import AAAA, ANY, NS, PTR, SOA, SRV, TXT, A

from wgdisco.dnssd.instance import OwnInstance, ServiceInstance, host_data, ptr_data, srv_data, txt_data
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import Data, HinfoData, NsData, PtrData, Record, SoaData
from wgdisco.endpoint import LOOPBACK, IPAddress, in_any
from wgdisco.keys import PublicKey

# an endpoint may move at any moment, and a peer that was not there may come
ENDPOINT_TTL = 5
NEGATIVE_TTL = 5
STATIC_TTL = 3600
# for secondaries: refresh, retry, expire
_SOA_TIMES = (3600, 600, 86400)
# as many as one message of 65,535 bytes can hold
BROWSE_MAX = 900

_Node = dict[int, tuple[Data, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the zone says to one question; `authoritative` is false only outside the zone."""

    rcode: Rcode
    authoritative: bool = True
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Vantage:
    """From where a question is asked, as far as the answer depends on it.

    `local_address` is the address it came to (None: unknown). Where more instances than `browse_max` are there to be
    listed, the list starts `turn` instances further on, so that repeated questions see all of them.
    """

    local_address: IPAddress | None = None
    browse_max: int = BROWSE_MAX
    turn: int = 0


ANYWHERE = Vantage()


@dataclass(frozen=True, slots=True)
class Zone:
    """A snapshot. `serial` is the SOA's, 32 bits; `instances` keep their order, and `own` comes after them."""

    names: ZoneNames
    serial: int
    instances: Mapping[PublicKey, ServiceInstance]
    own: OwnInstance | None = None

    @classmethod
    def create(
        cls, zone: str, serial: int, instances: Iterable[ServiceInstance] = (), own: OwnInstance | None = None
    ) -> Self:
        """A snapshot of `zone`, a domain name in text; ValueError when it is none."""
        return cls(ZoneNames.from_text(zone), serial, {instance.key: instance for instance in instances}, own)

    def with_instance(self, instance: ServiceInstance, serial: int) -> Self:
        """The next snapshot: `instance` is new, or takes the place of the one with its key."""
        return replace(self, serial=serial, instances={**self.instances, instance.key: instance})

    def without_instance(self, key: PublicKey, serial: int) -> Self:
        """The next snapshot, `key` not in it."""
        remaining = {other: instance for other, instance in self.instances.items() if other != key}
        return replace(self, serial=serial, instances=remaining)

    def lookup(self, qname: dns.name.Name, qtype: int, vantage: Vantage = ANYWHERE) -> Answer:
        """Answer a question of class IN."""
        if not self.names.holds(qname):
            return Answer(REFUSED, authoritative=False)
        node = self._node(qname, vantage)
        if node is None:
            return self._negative(NXDOMAIN)
        if qtype == ANY and node:
            # RFC 8482 section 4.2: one small record instead of everything there is
            return Answer(NOERROR, answer=(Record(qname, STATIC_TTL, HinfoData()),))
        data = node.get(qtype, ())
        if not data:
            return self._negative(NOERROR)
        ttl = STATIC_TTL if qname != self.names.service and qtype in (PTR, NS) else ENDPOINT_TTL
        return Answer(
            NOERROR,
            answer=tuple(Record(qname, ttl, item) for item in data),
            additional=tuple(self._additional(qname, qtype, node, vantage)),
        )

    def soa(self, serial: int | None = None) -> Record:
        """The SOA record; its TTL is that of a negative answer too, which is the lesser of the two (RFC 2308).

        With `serial` it is that of an earlier snapshot.
        """
        names = self.names
        number = self.serial if serial is None else serial
        data = SoaData(names.name_server, names.hostmaster, number, *_SOA_TIMES, NEGATIVE_TTL)
        return Record(names.origin, NEGATIVE_TTL, data)

    def _node(self, name: dns.name.Name, vantage: Vantage) -> _Node | None:
        """The records at a name by type: empty at an empty non-terminal, None when the name does not exist."""
        names = self.names
        if (key := names.key_of(name)) is not None:
            instance = self._instance(key, vantage)
            return None if instance is None else self._instance_node(instance)
        if name == names.service:
            return {PTR: tuple(ptr_data(key, names) for key in self._browse(vantage))}
        if name == names.origin:
            return {SOA: (self.soa().data,), NS: (NsData(names.name_server),)}
        if name == names.name_server:
            return self._name_server_node(vantage)
        if name == names.service_types:
            return {PTR: (PtrData(names.service),)}
        if name in names.browse_domains:
            return {PTR: (PtrData(names.origin),)}
        return {} if name in names.empty else None

    def _instance(self, key: PublicKey, vantage: Vantage) -> ServiceInstance | None:
        if (instance := self.instances.get(key)) is not None:
            return instance
        if self.own is not None and self.own.key == key:
            return self.own.published_at(vantage.local_address)
        return None

    def _instance_node(self, instance: ServiceInstance) -> _Node:
        host = host_data(instance.endpoint.address)
        return {SRV: (srv_data(instance, self.names),), host.rdtype: (host,), TXT: (txt_data(instance),)}

    def _name_server_node(self, vantage: Vantage) -> _Node:
        """The address the question came to: whoever asked can reach the server there."""
        address = vantage.local_address
        if address is None or address.is_unspecified or in_any(address, LOOPBACK):
            return {}
        host = host_data(address)
        return {host.rdtype: (host,)}

    def _browse(self, vantage: Vantage) -> Iterator[PublicKey]:
        """The keys to list, at most `browse_max`, in the order of the zone."""
        keys = list(self.instances)
        if self.own is not None and self._instance(self.own.key, vantage) is not None and self.own.key not in keys:
            keys.append(self.own.key)
        start = vantage.turn % len(keys) if len(keys) > vantage.browse_max else 0
        return islice(keys[start:] + keys[:start], vantage.browse_max)

    def _additional(self, qname: dns.name.Name, qtype: int, node: _Node, vantage: Vantage) -> Iterator[Record]:
        """The host record and then the TXT for an SRV (RFC 6763 section 12.2); the server's address for an NS."""
        if qtype == SRV:
            for rdtype in (A, AAAA, TXT):
                for data in node.get(rdtype, ()):
                    yield Record(qname, ENDPOINT_TTL, data)
        elif qtype == NS:
            for items in self._name_server_node(vantage).values():
                for data in items:
                    yield Record(self.names.name_server, ENDPOINT_TTL, data)

    def _negative(self, rcode: Rcode) -> Answer:
        return Answer(rcode, authority=(self.soa(),))
