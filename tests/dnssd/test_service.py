"""The service: who may not know of something cannot tell from any reply whether it is there."""

import random
from ipaddress import ip_address, ip_network

import dns.message
import dns.name
import pytest

from wgdisco.api import CandidateRecord
from wgdisco.dnssd.feed import Audience, Setup, between, whole
from wgdisco.dnssd.instance import ServiceInstance
from wgdisco.dnssd.responder import Profile, Transport
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.dnssd.service import Service
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey

REGISTRY = ip_address("10.0.0.1")
NAMES = ["alice", "bob", "carol", "dave", "eve"]
KEYS = {name: PublicKey(bytes((number,)) * 32) for number, name in enumerate(NAMES, 1)}
GROUPS = ["all", "red", "blue"]
PUBLISHED = frozenset({"alice", "dave"})
SERVICE = "_wireguard._udp.example.com."


def network(chance):
    """Some of the members, some of them online."""
    members, instances = [], []
    for number, name in enumerate(NAMES, 2):
        if chance.random() < 0.8:
            addresses = (ip_address(f"10.0.0.{number}"), ip_address(f"fd00::{number}"))
            groups = tuple(group for group in GROUPS if chance.random() < 0.4) or ("all",)
            members.append(ZoneMember(name, addresses, groups))
            if chance.random() < 0.8:
                endpoint = Endpoint(ip_address(f"198.51.100.{chance.randrange(1, 250)}"), 7000)
                told = (CandidateRecord("host", "192.168.0.1:5", 7),)
                allowed = (ip_network(addresses[0]),)
                instances.append(ServiceInstance(KEYS[name], endpoint, allowed, told, "eim/apdf/-", name))
    return members, instances


def zone_of(serial, members, instances):
    return Zone.create("example.com.", serial, instances, None, Roster.create(members, (REGISTRY,)))


def service_of(zone, published=PUBLISHED):
    service = Service(
        Setup("example.com.", Profile.STRICT, (), None, published), bytes(16), lambda: 1e9, iter(range(10**9)).__next__
    )
    service.apply(whole(zone))
    return service, {audience: service.answerer(audience) for audience in (Audience.MEMBERS, Audience.STRANGERS)}


def questions(*rdtypes):
    names = ["", "ns1.", "zzz.", "registry.", "_sub._wireguard._udp.", "_wireguard._udp.", "_services._dns-sd._udp."]
    names += [f"{name}." for name in NAMES] + [f"_{group}._sub._wireguard._udp." for group in GROUPS]
    names += [f"{key.to_label()}._wireguard._udp." for key in KEYS.values()]
    names += [f"{key.to_label()[:52]}." for key in KEYS.values()] + [f"x.{KEYS['bob'].to_label()}._wireguard._udp."]
    for name in [*(f"{name}example.com." for name in names), "2.0.0.10.in-addr.arpa."]:
        for rdtype in rdtypes or ("A", "AAAA", "SRV", "TXT", "PTR", "NS", "SOA", "ANY", "AXFR", "NSEC"):
            yield dns.message.make_query(name, rdtype, id=7, use_edns=0).to_wire()


@pytest.mark.parametrize("seed", range(3))
def test_what_somebody_may_not_know_of_changes_no_reply(seed):
    chance = random.Random(seed)
    zone = zone_of(1, *network(chance))
    served, answering = service_of(zone)
    for serial in (2, 3):
        members, instances = network(chance)
        gone = [key for key in KEYS.values() if key not in {one.key for one in instances}]
        following = zone.following(serial, instances, gone, Roster.create(members, (REGISTRY,)))
        served.apply(between(zone, following, KEYS.values()))
        zone = following
    asked = list(questions())
    for asker in (*members, None, Audience.STRANGERS):
        audience = Audience.STRANGERS if asker is Audience.STRANGERS else Audience.MEMBERS
        source = "10.0.0.200"
        if isinstance(asker, ZoneMember):
            source = str(asker.addresses[0])
        groups = set(asker.groups) if isinstance(asker, ZoneMember) else set()
        known = {one.name for one in members if groups & set(one.groups)}
        if audience is Audience.STRANGERS:
            known, groups = PUBLISHED, set(GROUPS)
        # nobody else is there, and of who is no other group
        fewer = zone_of(
            3,
            [
                ZoneMember(one.name, one.addresses, tuple(group for group in one.groups if group in groups))
                for one in members
                if one.name in known
            ],
            [one for one in zone.instances.values() if one.name in known],
        )
        reference, expected = service_of(fewer)
        for query in asked:
            for transport in Transport:
                for view in (served._whole, served._public, reference._whole, reference._public):
                    view.responder.turn = 0
                reply = answering[audience].answer(query, source, REGISTRY, transport)
                wanted = expected[audience].answer(query, source, REGISTRY, transport)
                assert without_serial(reply) == without_serial(wanted), (source, dns.message.from_wire(query).question)


def without_serial(reply):
    message = dns.message.from_wire(reply)
    return [message.rcode(), message.flags, message.options] + [
        [rrset.to_text() if rrset.rdtype != 6 else rrset.name for rrset in section] for section in message.sections
    ]


def test_strangers_see_a_new_serial_only_when_something_published_changed():
    """Else it would tell when any member comes, moves or goes."""
    members = [ZoneMember(name, (ip_address(f"10.0.0.{n}"),), ("all",)) for n, name in enumerate(("alice", "bob"), 2)]
    alice, bob = (
        ServiceInstance(KEYS[name], Endpoint(ip_address("198.51.100.7"), 7000), name=name) for name in ("alice", "bob")
    )
    zone = zone_of(5, members, [alice, bob])
    service, answering = service_of(zone)
    soa = dns.message.make_query("example.com.", "SOA").to_wire()

    def serials():
        replies = [answerer.answer(soa, "10.0.0.2", REGISTRY, Transport.UDP) for answerer in answering.values()]
        return [dns.message.from_wire(reply).answer[0][0].serial for reply in replies]

    def step(put=(), gone=(), roster=None):
        nonlocal zone
        following = zone.following(zone.serial + 1, put, gone, roster)
        service.apply(between(zone, following, [one.key for one in put] + list(gone)))
        zone = following
        return serials()

    moved = Endpoint(ip_address("198.51.100.8"), 7001)
    assert serials() == [5, 5]
    assert step([ServiceInstance(bob.key, moved, name="bob")]) == [6, 5]
    assert step(gone=[bob.key]) == [7, 5]
    assert step(roster=Roster.create(members[:1], (REGISTRY,))) == [8, 5]
    assert service.public_serial() == 5
    assert step([ServiceInstance(alice.key, moved, name="alice")]) == [9, 9]
    assert step([bob]) == [9, 9], "which is no member any more"
    assert step(gone=[alice.key]) == [11, 11]


@pytest.mark.parametrize("seed", range(2))
def test_a_member_sees_a_new_serial_when_it_sees_something_new_and_only_then(seed):
    chance = random.Random(seed)
    members, instances = network(chance)
    zone = zone_of(1, members, instances)
    service, answering = service_of(zone)
    asked = list(questions("A", "SRV", "TXT", "PTR"))
    soa = dns.message.make_query("example.com.", "SOA").to_wire()
    steady = rose = 0

    def seen(source):
        """The serial, in its two places, and all else."""
        replies = [dns.message.from_wire(answer(query, source)) for query in asked]
        serials = {rrset[0].serial for one in replies for rrset in (*one.answer, *one.authority) if rrset.rdtype == 6}
        assert serials == {dns.message.from_wire(answer(soa, source)).answer[0][0].serial}
        records = [
            sorted(line for rrset in section if rrset.rdtype != 6 for line in rrset.to_text().splitlines())
            for one in replies
            for section in one.sections
        ]
        return serials.pop(), [one.rcode() for one in replies], records

    def answer(query, source):
        service._whole.responder.turn = 0
        return answering[Audience.MEMBERS].answer(query, source, REGISTRY, Transport.TCP)

    for serial in range(2, 12):
        before = {one: seen(str(one.addresses[0])) for one in members}
        others, there = network(chance)
        # one thing is another at a time: an instance, or a member
        name = chance.choice(NAMES)
        now = {one.name: one for one in members}
        shown = dict(zone.instances)
        if chance.random() < 0.5:
            now.pop(name, None)
            now |= {one.name: one for one in others if one.name == name}
        else:
            shown.pop(KEYS[name], None)
            shown |= {one.key: one for one in there if one.name == name}
        members = list(now.values())
        gone = [key for key in zone.instances if key not in shown]
        put = [one for key, one in shown.items() if zone.instances.get(key) != one]
        following = zone.following(serial, put, gone, Roster.create(members, (REGISTRY,)))
        service.apply(between(zone, following, KEYS.values()))
        zone = following
        for one in members:
            if one not in before:
                continue
            last, *content = before[one]
            current, *new = seen(str(one.addresses[0]))
            assert current == (serial if content != new else last), (one, serial)
            steady += content == new
            rose += content != new
    assert steady > 5
    assert rose > 2
