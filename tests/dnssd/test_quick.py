"""The rendered zone against the responder: the same bytes for the same query, whatever happened to the zone before."""

import random
import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import dns.flags
import dns.message
import dns.name
import pytest
from dns.rdatatype import SRV
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.dnssd.goldenzone import ALICE, BOB, known_peer, peer
from wgdisco.api import CandidateRecord
from wgdisco.dnssd.cookies import Cookies
from wgdisco.dnssd.feed import LINE_MAX_SIZE, Audience, DeltaReader, Setup, applied, between, pack_delta, whole
from wgdisco.dnssd.instance import OwnInstance, ServiceInstance
from wgdisco.dnssd.quick import Quick
from wgdisco.dnssd.rendered import RenderedZone
from wgdisco.dnssd.responder import Outcome, Profile, Responder, Transport
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.dnssd.service import Service
from wgdisco.dnssd.tally import Kind
from wgdisco.dnssd.zone import Zone, public_zone
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey

LOCAL = ip_address("198.51.100.1")
SOURCE = "10.0.0.2"
KEYS = [PublicKey(bytes((number,)) * 32) for number in range(1, 25)]
GROUPS = ["all", "red", "blue", "g" * 63]
NAMES = ["alice", "bob", "carol", "hostmaster", "b", KEYS[0].to_label()[:52]]
NETS = ["10.0.0.", "fd00::"]
SECRET = bytes(range(16))


def now():
    return 1_700_000_000.0


@st.composite
def instances(draw):
    address = draw(st.sampled_from(["192.0.2.1", "198.51.100.9", "2001:db8::1"]))
    prefixes = draw(st.integers(0, 40))
    one = ServiceInstance(
        draw(st.sampled_from(KEYS)),
        Endpoint(ip_address(address), draw(st.integers(1, 65535))),
        tuple(ip_network(f"10.{100 + number}.0.0/16") for number in range(prefixes)),
        name=draw(st.none() | st.sampled_from(NAMES)),
    )
    if draw(st.booleans()):
        one = replace(one, candidates=known_peer(one.key).candidates, nat="eim/eif/-")
    return one


@st.composite
def rosters(draw):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    members = [
        ZoneMember(
            name,
            tuple(ip_address(f"{net}{NAMES.index(name) + 2}") for net in draw(st.sets(st.sampled_from(NETS)))),
            tuple(draw(st.lists(st.sampled_from(GROUPS), unique=True))),
        )
        for name in names
    ]
    return Roster.create(members, draw(st.sampled_from([(), (ip_address("10.0.0.1"), ip_address("fd00::1"))])))


@st.composite
def histories(draw):
    """A zone and the snapshots it went through, with the keys that changed from each to the next."""
    own = draw(st.none() | st.just(OwnInstance(KEYS[1], 51820)))
    zone = Zone.create("wg.Example.", 1, draw(st.lists(instances(), max_size=20)), own, draw(rosters()))
    if draw(st.booleans()):
        zone = public_zone(zone, NAMES[:2])
    steps = []
    for serial in range(2, 2 + draw(st.integers(0, 3))):
        put = draw(st.lists(instances(), max_size=3, unique_by=lambda one: one.key))
        gone = draw(st.lists(st.sampled_from(KEYS), max_size=2))
        roster = draw(st.none() | rosters())
        gone = [key for key in gone if key not in {one.key for one in put}]
        steps.append(([*gone, *(one.key for one in put)], (serial, put, gone, roster)))
    return zone, steps


@st.composite
def query_names(draw):
    key = draw(st.sampled_from(KEYS))
    relative = draw(
        st.sampled_from(
            [
                f"{key.to_label()}._wireguard._udp",
                f"x.{key.to_label()}._wireguard._udp",
                key.to_label()[:52],
                "_wireguard._udp",
                "_udp",
                "_services._dns-sd._udp",
                "b._dns-sd._udp",
                "_sub._wireguard._udp",
                *(f"_{group}._sub._wireguard._udp" for group in GROUPS[:3]),
                *NAMES,
                "registry",
                "ns1",
                "x.ns1",
                "x.hostmaster",
                "nobody",
                "no\\000body",
                "@",
            ]
        )
    )
    origin = draw(st.sampled_from(["wg.example.", "wg.example.", "wg.example.", "example.", "xwg.example."]))
    name = origin if relative == "@" else f"{relative}.{origin}"
    return dns.name.from_text(draw(st.sampled_from([name, name.upper(), name.title()])))


@st.composite
def queries(draw):
    rdtype = draw(st.sampled_from(["SRV", "TXT", "A", "AAAA", "PTR", "SOA", "NS", "ANY", "TYPE65", "TYPE97", "OPT"]))
    rdclass = draw(st.sampled_from(["IN", "IN", "IN", "IN", "CH"]))
    name = draw(query_names())
    if draw(st.integers(0, 3)) == 0:
        # of all names there are few lists, and most depends on who asks for one
        group = draw(st.sampled_from(["", *(f"_{group}._sub." for group in GROUPS[:3])]))
        name, rdtype, rdclass = dns.name.from_text(f"{group}_wireguard._udp.WG.example."), "PTR", "IN"
    query = dns.message.make_query(name, rdtype, rdclass, id=draw(st.integers(0, 65535)))
    if draw(st.booleans()):
        query.flags = 0
    if draw(st.booleans()):
        cookie = draw(st.sampled_from([b"", b"12345678", b"1234567812345678", b"12345678" + bytes(range(16)), b"1"]))
        other = draw(st.sampled_from([[], [], [dns.edns.GenericOption(3, b"")]]))
        options = [*([dns.edns.GenericOption(10, cookie)] if cookie else []), *other]
        payload = draw(st.sampled_from([0, 512, 600, 1232, 4096]))
        flags = draw(st.sampled_from([0, 0x8000]))
        query.use_edns(draw(st.sampled_from([0, 0, 0, 1])), flags, payload, options=options)
    data = query.to_wire()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes((draw(st.integers(0, 255)),)) + data[at + 1 :]
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    return data


def make(zone):
    cookies = Cookies(SECRET, now)
    responder = Responder(zone, Profile.STRICT, cookies)
    rendered = RenderedZone(zone)
    return responder, rendered, Quick(rendered, responder, cookies)


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate, Phase.shrink])
@given(
    histories(),
    st.lists(st.tuples(queries(), st.none() | st.sets(st.sampled_from(GROUPS))), min_size=10, max_size=25),
    st.sampled_from(Transport),
)
def test_what_is_rendered_is_what_is_answered(history, asked, transport):
    zone, steps = history
    responder, rendered, quick = make(zone)
    for touched, step in steps:
        following = zone.following(*step)
        delta = between(zone, following, touched)
        reader = DeltaReader()
        *_, read = [reader.feed(line) for line in pack_delta(delta)]
        assert read == delta
        zone = applied(zone, delta)
        assert zone == following
        responder.zone = zone
        rendered.update(zone, delta)
    for query, asker in asked:
        groups = None if asker is None else frozenset(asker)
        oracle = Responder(zone, Profile.STRICT, Cookies(SECRET, now))
        oracle.turn = responder.turn
        reply = quick.answer(query, SOURCE, transport, rendered.mask(groups), groups)
        if reply is not None:
            serial = rendered.serial(rendered.mask(groups), groups)
            assert reply.hex(" ") == oracle.respond(query, LOCAL, transport, groups, SOURCE, serial).hex(" ")
            assert oracle.turn == responder.turn
            assert sum(quick.counts().values()) == 1
            assert {what for what, count in quick.counts().items() if count} == set(oracle.counts)
            quick._answered = quick._nodata = quick._nxdomain = 0


def test_no_line_of_the_feed_is_longer_than_the_reader_takes():
    """Else the process would die of the same line again and again."""
    networks = tuple(ip_network(f"2001:db8:1234:5678:9abc:{number:x}:1111:2222") for number in range(0x1000, 0x1900))
    endpoint = Endpoint(ip_address("2001:db8:1234:5678:9abc:def0:1111:2222"), 51820)
    told = (CandidateRecord("host", endpoint.to_text(), 1 << 31),) * 8
    all_of_it = [
        ServiceInstance(PublicKey(bytes((number,)) * 32), endpoint, networks, told, "nat", "n" * 63)
        for number in range(100)
    ]
    assert max(map(len, pack_delta(whole(Zone.create("example.com.", 1, all_of_it))))) < LINE_MAX_SIZE


def asked(name, rdtype, **edns):
    return dns.message.make_query(name, rdtype, **edns).to_wire()


@pytest.mark.parametrize("edns", [{}, {"use_edns": 0, "payload": 1232}])
@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        (f"{ALICE.to_label()}._wireguard._udp.example.com", "SRV"),
        (f"{ALICE.to_label()}._wireguard._udp.example.com", "TXT"),
        (f"{ALICE.to_label()}._wireguard._udp.example.com", "A"),
        (f"{ALICE.to_label()}._wireguard._udp.example.com", "AAAA"),
        (f"{ALICE.to_label().upper()}._WIREGUARD._udp.example.COM", "SRV"),
        (ALICE.to_label()[:52] + ".example.com", "A"),
        ("_wireguard._udp.example.com", "PTR"),
        ("_all._sub._wireguard._udp.example.com", "PTR"),
        ("alice.example.com", "A"),
        ("example.com", "SOA"),
        ("_services._dns-sd._udp.example.com", "PTR"),
        ("nothing.example.com", "A"),
    ],
)
def test_what_is_usually_asked_is_answered_from_what_is_rendered(name, rdtype, edns):
    alice = replace(known_peer(ALICE), name="alice")
    roster = Roster.create([ZoneMember("alice", (ip_address("10.0.0.2"),), ("all",))])
    _, rendered, quick = make(Zone.create("example.com", 1, [alice, known_peer(BOB)], roster=roster))
    for groups in (None, frozenset({"all"})):
        assert quick.answer(asked(name, rdtype, **edns), SOURCE, Transport.UDP, rendered.mask(groups), groups)


@pytest.mark.rule("DNS23")
@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("payload", [None, 512, 600, 1232])
def test_lists_of_every_length_bring_what_they_list_where_there_is_room(payload, transport):
    keys = [PublicKey(bytes((number,)) * 32) for number in range(1, 251)]
    brought = set()
    for count in (*range(1, 25), 70, 250):
        # of all kinds: with one TXT string and many, by IPv4 and IPv6
        found = [
            peer(key, "192.0.2.1:7" if number % 2 else "[2001:db8::1]:7", *["10.9.0.0/16"] * (number % 4))
            for number, key in enumerate(keys[:count])
        ]
        members = [ZoneMember(f"m{number}", (), ("all",)) for number in range(count)]
        named = [replace(one, name=member.name) for one, member in zip(found, members, strict=True)]
        zone = Zone.create("wg.Example.", 1, named, roster=Roster.create(members))
        responder, rendered, quick = make(zone)
        for name in ("_wireguard._udp.wg.example", "_ALL._sub._Wireguard._udp.wg.example"):
            edns = {} if payload is None else {"use_edns": 0, "payload": payload}
            oracle = Responder(zone, Profile.STRICT, Cookies(SECRET, now))
            oracle.turn = responder.turn
            query = asked(name, "PTR", **edns)
            reply = quick.answer(query, SOURCE, transport, rendered.mask(None), None)
            assert reply.hex(" ") == oracle.respond(query, LOCAL, transport, None, SOURCE).hex(" ")
            message = dns.message.from_wire(reply)
            listed = [one.target for one in message.answer[0]]
            told = [one for one in message.additional if one.rdtype == SRV]
            assert [one.name for one in told] == listed[: len(told)]
            for one in message.additional:
                (record,) = one
                owner = asked(one.name, one.rdtype, use_edns=0, payload=1232)
                alone = dns.message.from_wire(quick.answer(owner, SOURCE, transport, rendered.mask(None), None))
                assert alone.answer[0].name == one.name
                assert alone.answer[0][0] == record
            assert len(message.additional) == 3 * len(told)
            assert not (told and message.flags & dns.flags.TC)
            brought.add(0 if not told else 1 if len(told) < count else 2)
    plain = transport is Transport.UDP and (payload or 0) <= 512
    assert brought == ({0} if plain else {0, 1, 2})


def test_a_moved_instance_is_all_that_is_rendered_anew():
    zone = Zone.create("example.com", 1, [known_peer(key) for key in KEYS])
    rendered = RenderedZone(zone)
    before = dict(rendered.entries)
    moved = zone.with_instance(replace(known_peer(KEYS[3]), endpoint=Endpoint.from_text("192.0.2.7:7")), 2)
    rendered.update(moved, between(zone, moved, [KEYS[3]]))
    changed = [question for question, entry in rendered.entries.items() if before[question] is not entry]
    assert len(changed) == 3, "SRV, and the address by two names"
    assert all(question[1:53].decode() == KEYS[3].to_label()[:52] for question in changed)


def test_wherever_instances_move_what_is_rendered_is_as_if_it_were_rendered_anew():
    """Moves alone, many at once, as the feed has them, of all families."""
    chance = random.Random(4)
    keys = [PublicKey(bytes((number,)) * 32) for number in range(1, 101)]
    shown = {key: replace(known_peer(key), name=f"m{number}") for number, key in enumerate(keys)}
    roster = Roster.create([ZoneMember(f"m{number}", (), (f"g{number % 5}",)) for number in range(100)])
    zone = Zone.create("example.com", 1, shown.values(), roster=roster)
    rendered, reader = RenderedZone(zone), DeltaReader()
    assert rendered.soa(1, 20)
    for serial in range(2, 40):
        touched = chance.sample(keys, chance.choice((1, 1, 90)))
        for key in touched:
            host = chance.choice(("192.0.2.%d", "[2001:db8::%x]", "[::ffff:192.0.2.%d]")) % chance.randrange(256)
            endpoint = Endpoint.from_text(f"{host}:{chance.randrange(1, 65536)}")
            shown[key] = replace(shown[key], endpoint=endpoint)
        following = zone.following(serial, [shown[key] for key in touched])
        delta = between(zone, following, touched)
        assert len(delta.moved) >= len(touched) - 1
        assert not delta.put
        read = [one for line in pack_delta(delta) if (one := reader.feed(line))]
        assert read == [delta]
        zone = applied(zone, delta)
        assert zone == following
        rendered.update(zone, delta)
        fresh = RenderedZone(zone)
        assert rendered.entries == fresh.entries
        assert rendered.names == fresh.names
        assert rendered.soa(serial, 20) == fresh.soa(serial, 20)


def test_the_service_answers_strangers_only_so_often_and_who_has_a_cookie_always():
    clock = [0.0]
    service = Service(Setup("example.com.", Profile.STRICT, ()), SECRET, now, lambda: clock[0])
    service.apply(whole(Zone.create("example.com", 1, [known_peer(ALICE)])))
    answerer = service.answerer(Audience.ALL_STRANGERS)
    query = asked(f"{ALICE.to_label()}._wireguard._udp.example.com", "SRV")

    def replies(count, source="203.0.113.9", data=query, transport=Transport.UDP):
        return [answerer.answer(data, source, LOCAL, transport) for _ in range(count)]

    assert all(len(reply) > len(query) for reply in replies(500))
    limited = replies(100)
    assert limited.count(None) == 50
    cut = next(reply for reply in limited if reply)
    assert len(cut) == len(query)
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    assert len(replies(1, "203.0.113.200")[0] or b"") <= len(query), "the same prefix"
    assert len(replies(1, "203.0.114.9")[0]) > len(query)
    assert len(replies(1, transport=Transport.TCP)[0]) > len(query)
    cookie = Cookies(SECRET, now).option(b"12345678", "203.0.113.9")[4:]
    options = [dns.edns.GenericOption(10, cookie)]
    proven = asked("nothing.example.com", "A", use_edns=0, payload=1232, options=options)
    assert all(dns.message.from_wire(reply).rcode() == 3 for reply in replies(10, data=proven))
    assert not any(len(reply or b"") > len(proven) for reply in replies(10, "203.0.113.8", proven))
    clock[0] = 1.0
    assert [len(reply or b"") > len(query) for reply in replies(101)].count(True) == 100
    tally = service.tally()
    before = tally[Kind.DROPS]["limit"], tally[Kind.ANSWERS]["truncated"]
    assert min(before) >= 50
    # no question is to be seen in it: it is no more than dropped
    assert replies(20, data=query[:5] + b"\x00" + query[6:]) == [None] * 20
    tally = service.tally()
    assert (tally[Kind.DROPS]["limit"], tally[Kind.ANSWERS]["truncated"]) == (before[0] + 10, before[1])
    assert tally[Kind.DROPS]["limit, and no question"] == 10


def test_garbage_is_refused_by_the_quick_way_without_a_word():
    _, _, quick = make(Zone.create("example.com", 1, [known_peer(ALICE)]))
    for size in range(60):
        for byte in (0, 1, 0xFF):
            data = bytes((byte,)) * size
            assert quick.answer(data, SOURCE, Transport.UDP, -1, None) is None
    header = struct.pack("!6H", 1, 0, 1, 0, 0, 0)
    for tail in (b"", b"\x00", b"\x00\x00\x01", b"\x3f", b"\x01a\x00\x00"):
        assert quick.answer(header + tail, SOURCE, Transport.UDP, -1, None) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600) | queries(), st.sampled_from(Audience), st.sampled_from(Transport))
def test_nothing_is_raised_whoever_asks_whatever(query, audience, transport):
    alice = replace(known_peer(ALICE), name="alice")
    roster = Roster.create([ZoneMember("alice", (ip_address("10.0.0.2"),), ("all",))])
    service = Service(Setup("wg.example.", Profile.STRICT, (), published=frozenset({"alice"})), SECRET, now, now)
    answerer = service.answerer(audience)
    service.apply(whole(Zone.create("wg.example", 1, [alice], roster=roster)))
    reply = answerer.answer(query, SOURCE, LOCAL, transport)
    assert sum(sum(counts.values()) for counts in service.tally().values()) == 1
    if reply is not None:
        assert dns.message.from_wire(reply).id == int.from_bytes(query[:2], "big")
        assert len(reply) <= (65535 if transport is Transport.TCP else 1232)


def test_outcomes_are_counted_together():
    service = Service(Setup("example.com.", Profile.STRICT, ()), SECRET, now, now)
    service.apply(whole(Zone.create("example.com", 1, [known_peer(ALICE)])))
    answerer = service.answerer(Audience.ALL)
    name = f"{ALICE.to_label()}._wireguard._udp.example.com"
    for asked_name, rdtype in [(name, "SRV"), (name, "AAAA"), (name, "ANY"), ("x.example.com", "A"), ("x.org", "A")]:
        answerer.answer(asked(asked_name, rdtype), SOURCE, LOCAL, Transport.UDP)
    counts = {Outcome.ANSWERED: 2, Outcome.NODATA: 1, Outcome.NXDOMAIN: 1, Outcome.REFUSED: 1}
    answerer.answer(b"short", SOURCE, LOCAL, Transport.UDP)
    assert service.tally() == {
        Kind.ANSWERS: {what.value: count for what, count in counts.items()},
        Kind.DROPS: {"short": 1},
    }
