"""The browser against real responders over a link with a virtual clock."""

import heapq
import random
from collections.abc import Callable
from dataclasses import replace

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dnssd import goldenzone
from tests.dnssd.goldenzone import ALICE, BOB, golden_zone, key, known_peer, peer
from wgdisco.dnssd.browser import (
    Browser,
    InstanceFound,
    InstanceGone,
    Pace,
    RegistryReachable,
    RegistryUnreachable,
)
from wgdisco.dnssd.messages import Drop
from wgdisco.dnssd.responder import Profile, Responder, Transport
from wgdisco.dnssd.zone import Zone

START = 1000.0
LATENCY = 0.02
ABSENT = key(3)
FIVE = golden_zone().instances[key(5)]


class World:
    """One browser and what answers it. `answer` gets bytes and transport; None is a lost reply."""

    def __init__(self, answer: Callable[[bytes, bool], bytes | None], *wanted, also=()) -> None:
        self.browser = Browser("example.com", wanted, random.Random(7).randbytes, also=also)
        self.answer = answer
        self.now = START
        self.asked: list[tuple[float, str, bool]] = []
        self.events: list = []
        self._arrivals: list[tuple[float, int, bytes]] = []

    def collect(self) -> None:
        for query in self.browser.queries_to_send():
            question = dns.message.from_wire(query.data)
            rdtype = dns.rdatatype.to_text(question.question[0].rdtype)
            kind = f"{rdtype}{'+tcp' if query.tcp else ''}{'+edns' if question.edns == 0 else ''}"
            self.asked.append((round(self.now - START, 2), kind, query.tcp))
            reply = self.answer(query.data, query.tcp)
            if reply is not None:
                heapq.heappush(self._arrivals, (self.now + LATENCY, len(self.asked), reply))
        self.events += self.browser.events()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.collect()
        while True:
            due = max(self.now, min(self.browser.get_timer(), *(arrival[0] for arrival in self._arrivals[:1]), end))
            if due >= end:
                self.now = end
                return
            self.now = due
            if self._arrivals and self._arrivals[0][0] <= due:
                self.browser.receive_reply(heapq.heappop(self._arrivals)[2], self.now)
            else:
                self.browser.handle_timer(self.now)
            self.collect()

    def kinds(self) -> list[tuple[float, str]]:
        return [(at, kind) for at, kind, _ in self.asked]

    def take_events(self) -> list:
        events, self.events = self.events, []
        return events


def serving(responder: Responder) -> Callable[[bytes, bool], bytes | None]:
    def answer(query, tcp):
        return responder.respond(query, goldenzone.LOCAL, Transport.TCP if tcp else Transport.UDP)

    return answer


def strict(*wanted) -> tuple[World, Responder]:
    responder = Responder(golden_zone())
    return World(serving(responder), *wanted), responder


def silent(query, tcp):
    return None


def crafted(change: Callable[[dns.message.Message], None], zone: Zone | None = None) -> World:
    """A server whose SRV replies pass through `change`."""
    inner = serving(Responder(zone or golden_zone()))

    def answer(query, tcp):
        reply = dns.message.from_wire(inner(query, tcp))
        if reply.question[0].rdtype == dns.rdatatype.SRV:
            change(reply)
        return reply.to_wire()

    return World(answer, ALICE)


def test_finds_what_is_there():
    world, _ = strict(ALICE, BOB)
    world.run(0.5)
    alice, bob = golden_zone().instances[ALICE], golden_zone().instances[BOB]
    at = pytest.approx(START + 2 * LATENCY)
    assert world.events == [
        RegistryReachable(pytest.approx(START + LATENCY)),
        InstanceFound(alice, at),
        InstanceFound(bob, at),
    ]
    assert world.kinds() == [(0, "SOA"), (0.02, "SRV+edns"), (0.02, "SRV+edns")]
    assert world.browser.found == {ALICE: alice, BOB: bob}


def test_srv_is_asked_again_only_when_the_serial_changes():
    world, responder = strict(ALICE)
    world.run(6)
    assert [kind for _, kind in world.kinds()] == ["SOA", "SRV+edns", "SOA"]
    responder.zone = responder.zone.with_instance(peer(ALICE, "192.0.2.77:77"), serial=6)
    world.take_events()
    world.run(5)
    assert world.take_events() == [InstanceFound(peer(ALICE, "192.0.2.77:77"), pytest.approx(START + 10.04))]


def test_an_unchanged_instance_is_told_once():
    world, responder = strict(ALICE)
    world.run(1)
    responder.zone = responder.zone.with_instance(peer(BOB, "192.0.2.77:77"), serial=9)
    world.take_events()
    world.run(5)
    assert world.take_events() == []
    assert [kind for _, kind in world.kinds()] == ["SOA", "SRV+edns", "SOA", "SRV+edns"]


@pytest.mark.parametrize(
    ("wanted", "pace", "times"),
    [
        ((ALICE, ABSENT), Pace.SETTLED, [0, 1, 2, 3, 4, 5, 6, 7]),
        ((ALICE,), Pace.PATH_MISSING, [0, 5]),
        ((ALICE,), Pace.SETTLED, [0]),
    ],
)
def test_pace(wanted, pace, times):
    world, _ = strict(*wanted)
    world.browser.set_pace(pace)
    world.run(7.5)
    assert [at for at, kind in world.kinds() if kind == "SOA"] == times
    world.run(60)
    assert [at for at, kind in world.kinds() if kind == "SOA"][-1] > 59


def test_poll_now_asks_at_once():
    world, responder = strict(ALICE)
    world.browser.set_pace(Pace.SETTLED)
    world.run(7)
    responder.zone = responder.zone.without_instance(ALICE, serial=8)
    world.browser.poll_now(world.now)
    world.run(0.5)
    assert world.events[-1] == InstanceGone(ALICE, pytest.approx(START + 7.04))
    assert world.browser.found == {}


def test_poll_now_does_not_repeat_a_question_just_asked():
    world = World(silent, ALICE)
    world.run(0.5)
    for _ in range(3):
        world.browser.poll_now(world.now)
    world.run(0.1)
    assert world.kinds() == [(0, "SOA")]


def test_gone_and_back():
    world, responder = strict(ALICE)
    world.run(1)
    world.take_events()
    responder.zone = golden_zone().without_instance(ALICE, serial=8)
    world.run(5)
    assert world.take_events() == [InstanceGone(ALICE, pytest.approx(START + 5.04))]
    responder.zone = golden_zone()
    world.run(1)
    assert world.take_events() == [InstanceFound(golden_zone().instances[ALICE], pytest.approx(START + 6.04))]


def test_who_was_there_between_two_rounds_alone_is_gone_all_the_same():
    """Ourselves: seen by the registry just after we asked, and forgotten before we ask again."""
    responder = Responder(golden_zone())
    world = World(serving(responder), ALICE, also=[ABSENT])
    world.browser.set_pace(Pace.SETTLED)
    world.run(30)
    assert not [event for event in world.take_events() if isinstance(event, InstanceGone)]
    responder.zone = replace(golden_zone(), serial=9)
    world.run(31)
    assert world.take_events() == [InstanceGone(ABSENT, pytest.approx(START + 60.04))]


def test_wanted_may_change():
    world, _ = strict(ALICE)
    world.run(2)
    world.browser.set_wanted([BOB])
    world.run(1.5)
    assert list(world.browser.found) == [BOB]
    assert not [event for event in world.events if isinstance(event, InstanceGone)]


def test_poll_now_repeats_a_question_that_could_not_be_sent():
    world = World(silent, ALICE)
    world.run(0.5)
    world.browser.query_failed(None, world.now)
    world.browser.poll_now(world.now)
    world.run(0.1)
    assert [at for at, _ in world.kinds()] == [0, 0.5]


def test_poll_now_takes_the_place_of_a_question_long_unanswered():
    world = World(silent, ALICE)
    world.run(4.5)
    world.browser.poll_now(world.now)
    world.run(4)
    assert [at for at, _ in world.kinds()] == [0, 1, 3, 4.5, 5.5, 7.5]


def test_silence_is_asked_again_with_back_off_and_told_once():
    world = World(silent, ALICE)
    world.run(23)
    assert [at for at, _ in world.kinds()] == [0, 1, 3, 7, 12, 17, 22]
    assert world.take_events() == [RegistryUnreachable(START)]
    world.answer = serving(Responder(golden_zone()))
    world.run(6)
    assert [type(event) for event in world.take_events()] == [RegistryReachable, InstanceFound]


def test_refused_sending_is_not_repeated_faster():
    world = World(silent, ALICE)
    for _ in range(40):
        world.run(0.1)
        world.browser.query_failed(None, world.now)
    assert [at for at, _ in world.kinds()] == [0, 1, 3]
    world.run(0.1)
    assert world.events == [RegistryUnreachable(START)]


def test_a_failing_answer_keeps_what_was_known():
    world, responder = strict(ALICE)
    world.run(1)
    world.take_events()
    inner = serving(responder)

    def servfail(query, tcp):
        reply = dns.message.make_response(dns.message.from_wire(query))
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply.to_wire()

    for answer in (servfail, silent):
        world.answer = answer
        world.run(40)
        assert [type(event) for event in world.take_events()] in ([], [RegistryUnreachable])
        assert list(world.browser.found) == [ALICE]
    world.answer = inner
    world.run(10)
    assert [type(event) for event in world.take_events()] == [RegistryReachable]


def test_srv_that_failed_is_asked_again_in_the_next_round_under_the_same_serial():
    world, responder = strict(ALICE)
    inner = serving(responder)
    world.answer = lambda query, tcp: inner(query, tcp) if query[-3:] == b"\x06\x00\x01" else None
    world.run(4)
    world.answer = inner
    world.run(5)
    assert list(world.browser.found) == [ALICE]


def test_truncated_reply_is_used_and_completed_by_tcp():
    responder = Responder(golden_zone())
    inner = serving(responder)

    def answer(query, tcp):
        question = dns.message.from_wire(query)
        question.use_edns(-1)
        return inner(question.to_wire(), tcp)

    world = World(answer, FIVE.key)
    world.run(0.5)
    assert [kind for _, kind in world.kinds()] == ["SOA", "SRV+edns", "SRV+tcp+edns"]
    found = [event.instance for event in world.events if isinstance(event, InstanceFound)]
    assert [instance.endpoint for instance in found] == [FIVE.endpoint] * 2
    assert found[-1] == FIVE
    responder.zone = responder.zone.without_instance(ALICE, serial=8)
    world.take_events()
    world.run(5)
    assert len(world.asked) == 6
    assert world.take_events() == [], "the truncated reply takes nothing back"


def test_what_more_is_known_of_a_peer_is_told_and_told_again_when_it_changes():
    world, responder = strict(ALICE)
    responder.zone = responder.zone.with_instance(known_peer(ALICE), serial=8)
    world.run(1)
    assert world.browser.found[ALICE] == known_peer(ALICE)
    world.take_events()
    changed = replace(known_peer(ALICE), candidates=known_peer(ALICE).candidates[1:], nat=None)
    responder.zone = responder.zone.with_instance(changed, serial=9)
    world.run(6)
    assert [event.instance for event in world.take_events()] == [changed]


def test_a_reply_cut_to_nothing_is_not_a_denial():
    def cut(reply):
        if not world.asked[-1][2]:
            reply.answer.clear()
            reply.additional.clear()
            reply.flags |= dns.flags.TC

    world, _ = strict(ALICE)
    world.run(0.5)
    world.take_events()
    world.answer = crafted(cut, golden_zone().with_instance(peer(BOB, "192.0.2.1:1"), serial=8)).answer
    world.run(5)
    assert [kind for _, kind in world.kinds()][-3:] == ["SOA", "SRV+edns", "SRV+tcp+edns"]
    assert world.take_events() == []


def test_tcp_that_fails_leaves_the_rest_as_it_was():
    world, _ = strict(FIVE.key)
    inner = world.answer
    world.answer = lambda query, tcp: (
        None if tcp else inner(query.replace(b"\x00\x00\x29\x04\xd0", b"\x00\x00\x29\x02\x00"), tcp)
    )
    world.run(0.5)
    tcp_id = [message_id for message_id, asked in world.browser._asked.items() if asked.tcp]
    assert len(tcp_id) == 1
    world.browser.query_failed(tcp_id[0], world.now)
    assert world.browser.found[FIVE.key].endpoint == FIVE.endpoint
    assert world.browser._asked == {}


def test_missing_host_record_is_asked_for():
    world = crafted(lambda reply: reply.additional.clear())
    world.run(0.5)
    assert [kind for _, kind in world.kinds()] == ["SOA", "SRV+edns", "A+edns"]
    assert world.browser.found[ALICE].endpoint == golden_zone().instances[ALICE].endpoint


def test_missing_host_record_of_the_other_family_is_found_too():
    inner = serving(Responder(golden_zone()))

    def answer(query, tcp):
        reply = dns.message.from_wire(inner(query, tcp))
        reply.additional.clear()
        return reply.to_wire()

    world = World(answer, BOB)
    world.run(0.5)
    assert [kind for _, kind in world.kinds()] == ["SOA", "SRV+edns", "A+edns", "AAAA+edns"]
    assert world.browser.found[BOB].endpoint == golden_zone().instances[BOB].endpoint


def test_follows_a_target_that_is_another_name_of_the_zone():
    target = dns.name.from_text("host.example.com.")

    def rename(reply):
        reply.answer[0] = dns.rrset.from_text(reply.question[0].name, 5, "IN", "SRV", f"0 0 99 {target}")
        reply.additional = [dns.rrset.from_text(target, 5, "IN", "A", "192.0.2.9")]

    world = crafted(rename)
    world.run(0.5)
    assert world.browser.found[ALICE].endpoint.to_text() == "192.0.2.9:99"


@pytest.mark.parametrize(
    ("srv", "host"),
    [
        ("0 0 0 {name}", "{name} A 192.0.2.1"),
        ("0 0 7 {name}", "{name} A 224.0.0.1"),
        ("0 0 7 {name}", "{name} A 0.0.0.0"),
        ("0 0 7 {name}", "{name} AAAA ff02::1"),
        ("0 0 7 .", ". A 192.0.2.1"),
        ("0 0 7 host.example.org.", "host.example.org. A 192.0.2.1"),
    ],
)
def test_records_that_cannot_be_are_counted_and_told_to_nobody(srv, host):
    def forge(reply):
        name = reply.question[0].name
        owner, rdtype, address = host.format(name=name).split()
        reply.answer[0] = dns.rrset.from_text(name, 5, "IN", "SRV", srv.format(name=name))
        reply.additional = [dns.rrset.from_text(owner, 5, "IN", rdtype, address)]

    world = crafted(forge)
    world.run(1.5)
    assert world.browser.found == {}
    assert world.browser.drops == {Drop.INVALID: 1}
    assert world.events == [RegistryReachable(pytest.approx(START + LATENCY))]


def test_the_most_preferred_of_several_srv_is_taken():
    def add(reply):
        name = reply.question[0].name
        reply.answer[0] = dns.rrset.from_text(
            name, 5, "IN", "SRV", f"2 0 2 {name}", f"1 0 1 {name}", f"1 9 9 {name}", f"3 0 3 {name}"
        )

    world = crafted(add)
    world.run(0.5)
    assert world.browser.found[ALICE].endpoint.port == 9


@pytest.mark.parametrize("damage", ["id", "name", "type", "class", "query", "opcode", "no question"])
def test_a_reply_that_is_not_ours_is_dropped_and_the_right_one_still_taken(damage):
    world, responder = strict(ALICE)
    world.browser.handle_timer(world.now)
    (query,) = world.browser.queries_to_send()
    good = responder.respond(query.data)
    forged = dns.message.from_wire(good)
    asked = forged.question[0]
    match damage:
        case "id":
            forged.id ^= 1
        case "name":
            forged.question = [dns.rrset.RRset(dns.name.from_text("example.net."), asked.rdclass, asked.rdtype)]
        case "type":
            forged.question = [dns.rrset.RRset(asked.name, asked.rdclass, dns.rdatatype.NS)]
        case "class":
            forged.question = [dns.rrset.RRset(asked.name, 3, asked.rdtype)]
        case "query":
            forged.flags &= ~dns.flags.QR
        case "opcode":
            forged.flags |= 2 << 11
        case "no question":
            forged.question = []
    world.browser.receive_reply(forged.to_wire(), world.now)
    assert world.browser.events() == []
    assert world.browser.drops == {Drop.UNKNOWN_ID if damage == "id" else Drop.MISMATCH: 1}
    world.browser.receive_reply(good, world.now)
    assert world.browser.events() == [RegistryReachable(START)]


def test_the_question_may_come_back_in_another_case():
    world, _ = strict(ALICE)
    inner = world.answer
    world.answer = lambda query, tcp: inner(query, tcp).replace(b"\x07example\x03com", b"\x07EXAMPLE\x03com", 1)
    world.run(0.5)
    assert list(world.browser.found) == [ALICE]


def test_a_reply_counts_once():
    world, responder = strict(ALICE)
    world.browser.handle_timer(world.now)
    (query,) = world.browser.queries_to_send()
    reply = responder.respond(query.data)
    world.browser.receive_reply(reply, world.now)
    world.browser.receive_reply(reply, world.now)
    assert world.browser.drops == {Drop.UNKNOWN_ID: 1}


def test_ids_in_flight_differ_whatever_the_random_source_says():
    browser = Browser("example.com", [key(number) for number in range(1, 9)], bytes)
    browser.handle_timer(START)
    (soa,) = browser.queries_to_send()
    browser.receive_reply(Responder(golden_zone()).respond(soa.data), START)
    ids = [query.id for query in browser.queries_to_send()]
    assert len(set(ids)) == 8


def test_no_more_than_32_queries_are_in_flight():
    keys = [key(number) for number in range(1, 101)]
    responder = Responder(Zone.create("example.com", 1, [peer(one, "192.0.2.1:1") for one in keys]))
    world = World(serving(responder), *keys)
    most = 0
    world.browser.handle_timer(world.now)
    while world.browser._asked:
        most = max(most, len(world.browser._asked))
        for query in world.browser.queries_to_send():
            world.browser.receive_reply(responder.respond(query.data), world.now)
    assert most == 32
    assert len(world.browser.found) == 100


def exact(*wanted) -> tuple[World, Responder]:
    responder = Responder(golden_zone(), Profile.WGSD_EXACT)
    return World(serving(responder), *wanted), responder


def test_wgsd_is_followed_without_a_serial():
    world, responder = exact(ALICE, BOB, ABSENT)
    world.browser.set_pace(Pace.PATH_MISSING)
    world.run(0.5)
    assert set(world.browser.found) == {ALICE, BOB}
    responder.zone = responder.zone.with_instance(peer(ALICE, "192.0.2.77:77"), serial=1)
    world.run(6)
    assert world.browser.found[ALICE].endpoint.port == 77
    per_second = [at for at, kind in world.kinds() if kind == "SRV+edns"]
    # the missing key every second, the two that are found every five
    assert len(per_second) == 3 + 6 + 2


@pytest.mark.parametrize(("pace", "times"), [(Pace.PATH_MISSING, [0, 5, 10, 15]), (Pace.SETTLED, [0])])
def test_wgsd_is_asked_for_what_is_found_at_the_pace(pace, times):
    world, _ = exact(ALICE)
    world.browser.set_pace(pace)
    world.run(17)
    assert [int(at) for at, kind in world.kinds() if kind == "SRV+edns"] == times


def test_wgsd_is_asked_for_everything_once_when_told_to():
    world, _ = exact(ALICE, ABSENT)
    world.browser.set_pace(Pace.SETTLED)
    world.run(2.5)
    before = len(world.asked)
    world.browser.poll_now(world.now)
    world.run(2.9)
    assert [kind for _, kind in world.kinds()[before:]] == ["SOA", "SRV+edns", "SRV+edns"] + ["SOA", "SRV+edns"] * 2


def test_wgsd_that_is_silent_on_a_long_txt_is_asked_plainly():
    world, _ = exact(FIVE.key)
    world.run(4)
    kinds = [kind for _, kind in world.kinds()]
    assert kinds[:2] == ["SOA", "SRV+edns"]
    assert world.browser.found[FIVE.key].endpoint == FIVE.endpoint
    before = len(world.asked)
    world.run(8)
    later = [kind for _, kind in world.kinds()[before:]]
    assert "SRV" in later
    assert "SRV+edns" not in later, "the next time it is plain at once"


def test_a_server_without_edns_is_asked_plainly_at_once():
    inner = serving(Responder(golden_zone()))

    def answer(query, tcp):
        if dns.message.from_wire(query).edns < 0:
            return inner(query, tcp)
        return query[:2] + bytes([0x80, dns.rcode.FORMERR]) + bytes(8)

    world = World(answer, ALICE)
    world.run(0.5)
    assert [kind for _, kind in world.kinds()] == ["SOA", "SRV+edns", "SRV"]
    assert list(world.browser.found) == [ALICE]


def test_a_serial_that_changes_while_a_query_is_on_its_way_is_followed_up():
    world, responder = strict(ALICE)
    world.browser.handle_timer(world.now)
    (soa,) = world.browser.queries_to_send()
    world.browser.receive_reply(responder.respond(soa.data), world.now)
    (srv,) = world.browser.queries_to_send()
    late = responder.respond(srv.data)
    responder.zone = responder.zone.with_instance(peer(ALICE, "192.0.2.77:77"), serial=8)
    world.now += 0.5
    world.browser.poll_now(world.now)
    (soa,) = world.browser.queries_to_send()
    world.browser.receive_reply(responder.respond(soa.data), world.now)
    world.browser.receive_reply(late, world.now)
    world.run(0.2)
    assert world.browser.found[ALICE].endpoint.port == 77


def test_timers_may_come_early_and_often():
    world, _ = strict(ALICE)
    world.run(1)
    before = len(world.asked)
    for _ in range(10):
        world.browser.handle_timer(world.now)
    world.collect()
    assert len(world.asked) == before


REPLIES = [
    Responder(golden_zone()).respond(dns.message.make_query(name, rdtype, use_edns=0, id=0).to_wire())
    for name, rdtype in [("example.com.", "SOA"), (golden_zone().names.instance(ALICE), "SRV"), ("example.com.", "NS")]
]


@st.composite
def damaged_replies(draw):
    """A good reply with some bytes changed and its end cut off or added to."""
    data = bytearray(draw(st.sampled_from(REPLIES)))
    for position, value in draw(
        st.dictionaries(st.integers(2, len(data) - 1), st.integers(0, 255), max_size=4)
    ).items():
        data[position] = value
    return bytes(data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=20)))


@given(st.lists(st.binary(max_size=600) | damaged_replies() | st.sampled_from(REPLIES), max_size=6))
def test_no_bytes_raise(replies):
    # ids are 0, 1, …, so that what comes is looked at
    browser = Browser("example.com", [ALICE], bytes)
    browser.handle_timer(START)
    for reply in replies:
        browser.receive_reply(reply, START)
        for event in browser.events():
            assert not isinstance(event, InstanceFound) or 0 < event.instance.endpoint.port < 65536
    assert browser.get_timer() >= START
