"""The zone as an immutable snapshot, and what it answers (RFC 1034 section 4.3.2, RFC 6763, RFC 2308).

A question that names nothing in the zone is NXDOMAIN; one that names something without records of the type asked is
NODATA. Either carries the SOA, whose minimum says how long the asker may remember it.

An SRV answer always has the host record first among its additional records: a deployed wgsd-client dies without it.

What a member may not know of does not exist for it (`Vantage.groups`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Self

import dns.name
from dns.rcode import NOERROR, NXDOMAIN, REFUSED, Rcode
from dns.rdatatype import AAAA, ANY, NS, PTR, SOA, SRV, TXT, A

from wgdisco.dnssd.instance import OwnInstance, ServiceInstance, host_data, ptr_data, srv_data, txt_data
from wgdisco.dnssd.instances import Instances
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import Data, HinfoData, HostData, NsData, PtrData, Record, SoaData
from wgdisco.dnssd.roster import EVERYBODY, NOBODY, REGISTRY_NAME, Groups, Roster
from wgdisco.endpoint import LOOPBACK, IPAddress, in_any
from wgdisco.keys import PublicKey

# an endpoint may move at any moment, and a peer that was not there may come
ENDPOINT_TTL = 5
NEGATIVE_TTL = 5
STATIC_TTL = 3600
# a member keeps its addresses for as long as it is one
MEMBER_TTL = 60
# for secondaries: refresh, retry, expire
_SOA_TIMES = (3600, 600, 86400)
# as many as one message of 65,535 bytes can hold
BROWSE_MAX = 900


@dataclass(frozen=True, slots=True)
class _Node:
    """What there is at one name, by type; nothing at an empty non-terminal."""

    records: Mapping[int, tuple[Data, ...]]
    ttl: int = ENDPOINT_TTL


@dataclass(frozen=True, slots=True)
class Answer:
    """What the zone says to one question; `authoritative` is false only outside the zone.

    `extra` has what a list's instances are, each whole, for where there is room: it is found when it is taken.
    """

    rcode: Rcode
    authoritative: bool = True
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    extra: Iterable[tuple[Record, ...]] = ()


@dataclass(frozen=True, slots=True)
class Vantage:
    """From where a question is asked, as far as the answer depends on it.

    `local_address` is the address it came to (None: unknown), `groups` are those of who asks, and `serial` is the
    zone's as they see it, where that is another. Where more instances than
    `browse_max` are there to be listed, the list starts `turn` instances further on, so that repeated questions see
    all of them.
    """

    local_address: IPAddress | None = None
    browse_max: int = BROWSE_MAX
    turn: int = 0
    groups: Groups = EVERYBODY
    serial: int | None = None


ANYWHERE = Vantage()


@dataclass(frozen=True, slots=True)
class Zone:
    """A snapshot. `serial` is the SOA's, 32 bits; `instances` keep their order, and `own` comes after them.

    A zone that is not `browsable` answers who knows a name, and lists none.
    """

    names: ZoneNames
    serial: int
    instances: Mapping[PublicKey, ServiceInstance]
    own: OwnInstance | None = None
    roster: Roster = NOBODY
    browsable: bool = True

    @classmethod
    def create(
        cls,
        zone: str,
        serial: int,
        instances: Iterable[ServiceInstance] = (),
        own: OwnInstance | None = None,
        roster: Roster = NOBODY,
    ) -> Self:
        """A snapshot of `zone`, a domain name in text; ValueError when it is none."""
        return cls(ZoneNames.from_text(zone), serial, {one.key: one for one in instances}, own, roster)

    def with_instance(self, instance: ServiceInstance, serial: int) -> Self:
        """The next snapshot: `instance` is new, or takes the place of the one with its key."""
        return self.following(serial, (instance,))

    def without_instance(self, key: PublicKey, serial: int) -> Self:
        """The next snapshot, `key` not in it."""
        return self.following(serial, (), (key,))

    def following(
        self,
        serial: int,
        put: Iterable[ServiceInstance],
        gone: Iterable[PublicKey] = (),
        roster: Roster | None = None,
    ) -> Self:
        """The next snapshot: `gone` are not in it, `put` are new or replace those with their keys."""
        before = self.instances if isinstance(self.instances, Instances) else Instances(self.instances)
        instances, shown = before.following(put, gone), self.roster if roster is None else roster
        return type(self)(self.names, serial, instances, self.own, shown, self.browsable)

    def lookup(self, qname: dns.name.Name, qtype: int, vantage: Vantage = ANYWHERE) -> Answer:
        """Answer a question of class IN."""
        if not self.names.holds(qname):
            return Answer(REFUSED, authoritative=False)
        node = self._node(qname, vantage)
        if node is None:
            return self._negative(NXDOMAIN, vantage)
        if qtype == ANY and node.records:
            # RFC 8482 section 4.2: one small record instead of everything there is
            return Answer(NOERROR, answer=(Record(qname, STATIC_TTL, HinfoData()),))
        data = node.records.get(qtype, ())
        if not data:
            return self._negative(NOERROR, vantage)
        return Answer(
            NOERROR,
            answer=tuple(Record(qname, STATIC_TTL if qtype == NS else node.ttl, item) for item in data),
            additional=tuple(self._additional(qname, qtype, node, vantage)),
            extra=self._listed_records(data, vantage) if qtype == PTR else (),
        )

    def soa(self, serial: int | None = None) -> Record:
        """The SOA record; its TTL is that of a negative answer too, which is the lesser of the two (RFC 2308).

        With `serial` it is that of an earlier snapshot, or as some see this one.
        """
        names = self.names
        number = self.serial if serial is None else serial
        data = SoaData(names.name_server, names.hostmaster, number, *_SOA_TIMES, NEGATIVE_TTL)
        return Record(names.origin, NEGATIVE_TTL, data)

    def listed(self, groups: Groups, subtype: str | None = None) -> Iterator[ServiceInstance]:
        """The instances that who is in `groups` may list, those of the group `subtype` alone where it is given."""
        if not self.browsable:
            return iter(())
        if subtype is None and groups is None:
            return iter(self.instances.values())
        roster, wanted = self.roster, groups if subtype is None else frozenset((subtype,))
        return (one for one in self.instances.values() if roster.may_know(wanted, one.name))

    def _node(self, name: dns.name.Name, vantage: Vantage) -> _Node | None:
        """What is at a name, or None when the name does not exist."""
        names = self.names
        if (key := names.key_of(name)) is not None:
            return self._instance_node(key, vantage)
        if name == names.service:
            return _Node({PTR: tuple(ptr_data(key, names) for key in self._browse(vantage))})
        if name == names.origin:
            return _Node({SOA: (self.soa(vantage.serial).data,), NS: (NsData(names.name_server),)})
        if name == names.name_server:
            return self._name_server_node(vantage)
        if name == names.service_types:
            return _Node({PTR: (PtrData(names.service),)}, STATIC_TTL)
        if name in names.browse_domains:
            return _Node({PTR: (PtrData(names.origin),)}, STATIC_TTL)
        if name in names.empty:
            return _Node({})
        return self._subtype_node(name, vantage) or self._host_node(name, vantage)

    def _instance(self, key: PublicKey, vantage: Vantage) -> ServiceInstance | None:
        if (instance := self.instances.get(key)) is not None:
            return instance if self.roster.may_know(vantage.groups, instance.name) else None
        if self.own is not None and self.own.key == key:
            return self.own.published_at(vantage.local_address)
        return None

    def _instance_node(self, key: PublicKey, vantage: Vantage) -> _Node | None:
        instance = self._instance(key, vantage)
        if instance is None:
            return None
        # wgsd has the address at the instance's name too
        host = host_data(instance.endpoint.address)
        return _Node({SRV: (srv_data(instance, self.names),), host.rdtype: (host,), TXT: (txt_data(instance),)})

    def _host_node(self, name: dns.name.Name, vantage: Vantage) -> _Node | None:
        """The host of an instance, a member, or the registry."""
        if (key := self.names.host_key_of(name)) is not None:
            instance = self._instance(key, vantage)
            return None if instance is None else _host_records((instance.endpoint.address,), ENDPOINT_TTL)
        label = self.names.label_of(name)
        if label == REGISTRY_NAME and self.roster.registry:
            return _host_records(self.roster.registry, MEMBER_TTL)
        if label is not None and label in self.roster.members and self.roster.may_know(vantage.groups, label):
            return _host_records(self.roster.members[label].addresses, MEMBER_TTL)
        return None

    def _subtype_node(self, name: dns.name.Name, vantage: Vantage) -> _Node | None:
        groups = self.roster.visible_groups(vantage.groups) if self.browsable else frozenset()
        if name == self.names.sub:
            return _Node({}) if any(self.names.subtype(group) for group in groups) else None
        group = self.names.group_of(name)
        if group is None or group not in groups:
            return None
        keys = [one.key for one in self.listed(vantage.groups, group)]
        return _Node({PTR: tuple(ptr_data(key, self.names) for key in _turned(keys, vantage))})

    def _name_server_node(self, vantage: Vantage) -> _Node:
        """The address the question came to: whoever asked can reach the server there."""
        address = vantage.local_address
        if address is None or address.is_unspecified or in_any(address, LOOPBACK):
            return _Node({})
        return _host_records((address,), ENDPOINT_TTL)

    def _browse(self, vantage: Vantage) -> Iterable[PublicKey]:
        """The keys to list, at most `browse_max`, in the order of the zone."""
        keys = [one.key for one in self.listed(vantage.groups)]
        own = self.own
        if self.browsable and own is not None and own.key not in self.instances and self._instance(own.key, vantage):
            keys.append(own.key)
        return _turned(keys, vantage)

    def _additional(self, qname: dns.name.Name, qtype: int, node: _Node, vantage: Vantage) -> Iterator[Record]:
        """The host record and then the TXT for an SRV (RFC 6763 section 12.2); the server's address for an NS."""
        if qtype == SRV:
            key = self.names.key_of(qname)
            assert key is not None
            host = self.names.host(key)
            for data in chain(node.records.get(A, ()), node.records.get(AAAA, ())):
                yield Record(host, ENDPOINT_TTL, data)
            for data in node.records[TXT]:
                yield Record(qname, ENDPOINT_TTL, data)
        elif qtype == NS:
            for data in chain.from_iterable(self._name_server_node(vantage).records.values()):
                yield Record(self.names.name_server, ENDPOINT_TTL, data)

    def _listed_records(self, pointers: Iterable[Data], vantage: Vantage) -> Iterator[tuple[Record, ...]]:
        """The SRV record of each instance that is listed, and what goes with it (RFC 6763 section 12.1)."""
        for pointer in pointers:
            assert isinstance(pointer, PtrData)
            key = self.names.key_of(pointer.target)
            node = None if key is None else self._instance_node(key, vantage)
            if node is not None:
                name = pointer.target
                srv = Record(name, node.ttl, node.records[SRV][0])
                yield (srv, *self._additional(name, SRV, node, vantage))

    def _negative(self, rcode: Rcode, vantage: Vantage) -> Answer:
        return Answer(rcode, authority=(self.soa(vantage.serial),))


def public_instance(instance: ServiceInstance, published: Collection[str]) -> ServiceInstance | None:
    """What strangers may see of an instance: where it is, if its member is among the `published`; nothing inside."""
    return ServiceInstance(instance.key, instance.endpoint) if instance.name in published else None


def public_zone(zone: Zone, published: Collection[str]) -> Zone:
    """What strangers may see of a zone. Whoever knows a key in it is told where it is; nothing can be listed."""
    found = (public_instance(instance, published) for instance in zone.instances.values())
    shown = {instance.key: instance for instance in found if instance is not None}
    return replace(zone, instances=shown, own=None, roster=NOBODY, browsable=False)


def _host_records(addresses: Iterable[IPAddress], ttl: int) -> _Node:
    records: dict[int, tuple[HostData, ...]] = {}
    for address in addresses:
        host = host_data(address)
        records[host.rdtype] = (*records.get(host.rdtype, ()), host)
    return _Node(records, ttl)


def _turned(keys: list[PublicKey], vantage: Vantage) -> Iterable[PublicKey]:
    start = vantage.turn % len(keys) if len(keys) > vantage.browse_max else 0
    return islice(keys[start:] + keys[:start], vantage.browse_max)
