import random

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgdisco.dnssd.forwarding import EACH_MAX, EDNS_SIZE, TOTAL_MAX, Budget, read_query

NAME = "Www.Example.net."
ZONE = dns.name.from_text("wg.internal.")


def read(wire):
    return read_query(wire, ZONE)


def query(name=NAME, rdtype="A", **more):
    return dns.message.make_query(name, rdtype, **more)


def replied(sent, *records, rcode=0):
    reply = dns.message.make_response(dns.message.from_wire(sent), recursion_available=True)
    reply.answer += [dns.rrset.from_text(*record) for record in records]
    reply.set_rcode(rcode)
    return reply.to_wire()


def test_a_query_is_made_anew_and_its_reply_is_the_askers():
    asked = query(use_edns=0, payload=4096, want_dnssec=True, options=[dns.edns.GenericOption(10, b"cookie!!")])
    passed = read(asked.to_wire())
    sent = passed.to_upstream(7, 0b101)
    seen = dns.message.from_wire(sent)
    assert (seen.id, seen.edns, seen.payload, seen.ednsflags, seen.options) == (7, 0, EDNS_SIZE, dns.flags.DO, ())
    assert seen.question == asked.question
    reply = dns.message.from_wire(passed.to_asker(replied(sent, (NAME, 60, "IN", "A", "192.0.2.1")), sent, EDNS_SIZE))
    assert reply.id == asked.id
    assert str(reply.question[0].name) == NAME  # as it was spelled
    assert str(reply.answer[0]) == "Www.Example.net. 60 IN A 192.0.2.1"
    assert reply.flags & (dns.flags.RA | dns.flags.AA) == dns.flags.RA


def test_letters_are_spelled_at_random():
    passed = read(query().to_wire())
    dice = random.Random(7)
    spelled = {passed.to_upstream(1, dice.getrandbits(256))[12:29] for _ in range(64)}
    assert len(spelled) > 32
    assert {bytes(one).lower() for one in spelled} == {passed.question[:17].lower()}
    assert passed.to_upstream(1, None)[12:29] == passed.question[:17]


@pytest.mark.parametrize(
    "forge",
    [
        lambda data: b"\0\7" + data[2:],  # another id
        lambda data: data[:2] + bytes([data[2] & 0x7F]) + data[3:],  # no reply
        lambda data: data[:12] + data[12:].swapcase(),  # right, but for the spelling
        lambda data: data.replace(b"\x07", b"\x08", 1),
        lambda data: data[:5] + b"\0" + data[6:],  # no question
        lambda data: data[:11],
        lambda _data: b"",
    ],
)
def test_a_reply_that_is_not_to_what_was_sent_is_none(forge):
    passed = read(query().to_wire())
    sent = passed.to_upstream(0x1234, 0b1011)
    right = replied(sent, (NAME, 60, "IN", "A", "192.0.2.1"))
    assert passed.to_asker(right, sent, 512) is not None
    assert passed.to_asker(forge(right), sent, 512) is None


def test_one_that_is_too_large_is_cut():
    passed = read(query(rdtype="TXT").to_wire())
    sent = passed.to_upstream(1, 0)
    large = replied(sent, (NAME, 60, "IN", "TXT", " ".join(['"' + "x" * 250 + '"'] * 4)))
    cut = dns.message.from_wire(passed.to_asker(large, sent, passed.size))
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    assert passed.to_asker(large, sent, 65535)[12:] == passed.question + large[12 + len(passed.question) :]


@pytest.mark.parametrize(
    "wire",
    [
        query(rdtype="AXFR").to_wire(),
        query(flags=0).to_wire(),  # no recursion desired
        query(flags=dns.flags.QR | dns.flags.RD).to_wire(),
        query(use_edns=1).to_wire(),
        query(rdclass="CH").to_wire(),
        dns.message.Message(1).to_wire(),
        query("wg.INTERNAL").to_wire(),
        query("alice.wg.internal").to_wire(),
        b"\0" * 12,
        b"",
    ],
    ids=range(10),
)
def test_what_is_not_passed_on(wire):
    assert read(wire) is None


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_bytes_do_harm(wire, reply):
    passed = read(wire)
    assert passed is None or passed.to_asker(reply, passed.to_upstream(1, 2), 512) is None
    passed = read(query().to_wire())
    assert passed.to_asker(reply, passed.to_upstream(1, 2), 512) is None


def test_names_of_this_host_or_link_are_asked_of_nobody():
    for name, is_local in (("printer.local", True), ("x.onion", True), ("localhost", True), ("local.example", False)):
        passed = read(query(name).to_wire())
        assert passed.is_local is is_local
        rcode = dns.message.from_wire(passed.failed()).rcode()
        assert rcode == (dns.rcode.NXDOMAIN if is_local else dns.rcode.SERVFAIL)


def test_nobody_has_more_outstanding_than_a_share_and_all_together_not_too_many():
    budget = Budget()
    assert [budget.take("10.0.0.2") for _ in range(EACH_MAX + 1)] == [True] * EACH_MAX + [False]
    assert budget.take("10.0.0.3")
    budget.give_back("10.0.0.2")
    assert budget.take("10.0.0.2")
    others = sum(budget.take(f"10.0.1.{n % 250}") for n in range(2 * TOTAL_MAX))
    assert others == TOTAL_MAX - EACH_MAX - 1
