"""The strict profile on the wire, read back by dnspython; and whatever else may come in a datagram."""

import struct
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.tsig
import pytest
from dns.rcode import BADVERS, FORMERR, NOERROR, NOTAUTH, NOTIMP, NXDOMAIN, REFUSED
from hypothesis import example, given
from hypothesis import strategies as st

from tests.dnssd import goldenzone
from tests.dnssd.goldenzone import ALICE, BOB, golden_zone, key, known_peer, peer
from wgdisco.dnssd.cookies import Cookies
from wgdisco.dnssd.responder import Outcome, Profile, Responder, Transport
from wgdisco.dnssd.zone import Zone
from wgdisco.keys import PublicKey

LOCAL = ip_address("198.51.100.1")
SERVICE = "_wireguard._udp.example.com."
NAMES = [
    f"{ALICE.to_label()}.{SERVICE}",
    f"{BOB.to_label().upper()}.{SERVICE}",
    f"{key(5).to_label()}.{SERVICE}",
    f"{key(3).to_label()}.{SERVICE}",
    SERVICE,
    "_udp.example.com.",
    "_services._dns-sd._udp.example.com.",
    "b._dns-sd._udp.example.com.",
    "ns1.example.com.",
    "example.com.",
    "EXAMPLE.com.",
    "nothing.example.com.",
    "example.org.",
]
TYPES = ["SRV", "TXT", "A", "AAAA", "PTR", "SOA", "NS", "ANY", "AXFR", "TYPE65280"]


def large_zone(count: int) -> Zone:
    keys = [PublicKey(number.to_bytes(32, "big")) for number in range(count)]
    return Zone.create("example.com", 1, [peer(public_key, "192.0.2.1:1") for public_key in keys])


def ask(query: dns.message.Message, transport=Transport.UDP, zone=None):
    reply = Responder(zone or golden_zone()).respond(query.to_wire(), LOCAL, transport)
    message = dns.message.from_wire(reply)
    assert query.is_response(message)
    return message, len(reply)


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("payload", [None, 0, 512, 1232, 65535])
@pytest.mark.parametrize("rdtype", TYPES)
@pytest.mark.rule("DNS4")
def test_every_answer_parses_and_keeps_to_its_size(rdtype, payload, transport):
    for name in NAMES:
        query = dns.message.make_query(name, rdtype, use_edns=payload is not None, payload=payload or 0)
        query.flags &= ~dns.flags.RD
        message, size = ask(query, transport)
        limit = 65535 if transport is Transport.TCP else 512 if payload is None else min(1232, max(512, payload))
        assert size <= limit
        assert message.question[0].name.labels == query.question[0].name.labels, "the case asked in comes back"
        assert (message.edns, message.payload if message.edns == 0 else 1232) == (-1 if payload is None else 0, 1232)
        assert not message.flags & (dns.flags.RA | dns.flags.RD)
        assert bool(message.flags & dns.flags.AA) == (message.rcode() != REFUSED)
        for rrset in (*message.answer, *message.authority, *message.additional):
            assert rrset.rdclass == dns.rdataclass.IN
        if rdtype == "SRV" and message.answer:
            assert message.additional[0].rdtype in (1, 28), "wgsd-client dies without"


def test_recursion_desired_is_copied_and_not_offered():
    message, _ = ask(dns.message.make_query(SERVICE, "PTR"))
    assert message.flags & dns.flags.RD
    assert not message.flags & dns.flags.RA


def test_srv_without_edns_drops_only_the_long_txt():
    message, size = ask(dns.message.make_query(f"{key(5).to_label()}.{SERVICE}", "SRV"))
    assert message.flags & dns.flags.TC
    assert [rrset.rdtype for rrset in message.additional] == [1]
    assert size <= 512


def test_srv_with_edns_has_the_long_txt():
    message, _ = ask(dns.message.make_query(f"{key(5).to_label()}.{SERVICE}", "SRV", use_edns=0))
    assert not message.flags & dns.flags.TC
    assert message.additional[1][0].strings[3].startswith(b"allowed2=")


def test_all_that_is_known_of_a_peer_fits_where_there_is_edns():
    zone = Zone.create("example.com", 1, [known_peer(ALICE)])
    name = f"{ALICE.to_label()}.{SERVICE}"
    message, size = ask(dns.message.make_query(name, "SRV", use_edns=0, payload=1232), zone=zone)
    assert size <= 1232
    assert not message.flags & dns.flags.TC
    strings = message.additional[1][0].strings
    assert [string.partition(b"=")[0] for string in strings[3:]] == [
        *(b"c%d" % number for number in range(1, 9)),
        *(b"nat", b"name", b"v"),
    ]
    message, size = ask(dns.message.make_query(name, "SRV"), zone=zone)
    assert size <= 512
    assert message.flags & dns.flags.TC
    assert [rrset.rdtype for rrset in message.additional] == [1], "wgsd-client takes no harm"


@pytest.mark.parametrize(("payload", "fewest"), [(None, 6), (1232, 15)])
def test_browse_is_partial_and_says_so(payload, fewest):
    query = dns.message.make_query(SERVICE, "PTR", use_edns=payload is not None, payload=payload or 0)
    message, _ = ask(query, zone=large_zone(40))
    assert message.flags & dns.flags.TC
    assert fewest <= len(message.answer[0]) < 40


def test_no_advertised_size_is_passed():
    responder = Responder(large_zone(40))
    for payload in range(0, 1300, 7):
        query = dns.message.make_query(SERVICE, "PTR", use_edns=0, payload=payload).to_wire()
        size = len(responder.respond(query, LOCAL))
        # one PTR is 71 bytes
        assert max(512, min(payload, 1232)) - 71 < size <= max(512, min(payload, 1232))


def test_repeated_partial_browsing_sees_every_instance():
    responder = Responder(large_zone(40))
    query = dns.message.make_query(SERVICE, "PTR").to_wire()
    seen = {rdata.target for _ in range(10) for rdata in dns.message.from_wire(responder.respond(query)).answer[0]}
    assert len(seen) == 40


def test_browse_by_tcp_has_900_of_many():
    message, _ = ask(dns.message.make_query(SERVICE, "PTR"), Transport.TCP, large_zone(1000))
    assert len(message.answer[0]) == 900
    assert not message.flags & dns.flags.TC


def test_zone_can_be_replaced():
    responder = Responder(golden_zone())
    responder.zone = golden_zone().without_instance(ALICE, serial=8)
    reply = dns.message.from_wire(responder.respond(dns.message.make_query(NAMES[0], "SRV").to_wire()))
    assert (reply.rcode(), reply.authority[0][0].serial) == (NXDOMAIN, 8)


def failure(query: bytes) -> tuple[int, int, bytes]:
    responder = Responder(golden_zone())
    reply = responder.respond(query, LOCAL)
    assert sum(responder.counts.values()) == 1
    message = dns.message.from_wire(reply)
    return message.rcode(), message.opcode(), reply


def test_unknown_opcode_is_notimp():
    query = dns.message.make_query(SERVICE, "PTR")
    query.set_opcode(dns.opcode.STATUS)
    assert failure(query.to_wire())[:2] == (NOTIMP, dns.opcode.STATUS)


@pytest.mark.parametrize("count", [0, 2])
def test_other_than_one_question_is_formerr(count):
    question = dns.message.make_query(SERVICE, "PTR").to_wire()[12:]
    rcode, _, reply = failure(struct.pack("!6H", 7, 0, count, 0, 0, 0) + question * count)
    assert (rcode, len(reply), reply[:2]) == (FORMERR, 12, b"\x00\x07")


@pytest.mark.rule("DNS5")
def test_who_asks_nothing_is_given_a_cookie():
    def respond(*options, cookies=True):
        query = dns.message.QueryMessage(id=9)
        query.use_edns(0, options=options)
        made = Cookies(bytes(16), lambda: 1_700_000_000.0) if cookies else None
        return dns.message.from_wire(
            Responder(golden_zone(), cookies=made).respond(query.to_wire(), source="192.0.2.9")
        )

    client = dns.edns.GenericOption(10, b"8 bytes.")
    reply = respond(client)
    assert (reply.id, reply.rcode(), reply.question, len(reply.options)) == (9, NOERROR, [], 1)
    known = reply.options[0]
    assert known.to_wire()[:8] == b"8 bytes."
    assert len(known.to_wire()) == 24
    assert respond(dns.edns.GenericOption(10, known.to_wire())).options[0] == known
    for other in (respond(), respond(dns.edns.GenericOption(3, b"")), respond(client, cookies=False)):
        assert other.rcode() == FORMERR
    assert respond(dns.edns.GenericOption(10, b"short")).rcode() == FORMERR


def test_many_records_are_not_even_parsed():
    query = dns.message.make_query(SERVICE, "PTR").to_wire()
    record = b"\x00" + struct.pack("!HHIH", 1, 1, 0, 4) + bytes(4)
    assert failure(query[:10] + b"\x00\x05" + query[12:] + record * 5)[0] == FORMERR
    assert failure(query[:10] + b"\x00\x04" + query[12:] + record * 4)[0] == NOERROR


def test_trailing_junk_is_formerr():
    assert failure(dns.message.make_query(SERVICE, "PTR").to_wire() + b"x")[0] == FORMERR


@pytest.mark.rule("DNS4")
def test_edns_version_1_is_badvers():
    query = dns.message.make_query(SERVICE, "PTR", use_edns=1)
    message, _ = ask(query)
    assert (message.rcode(), message.edns, message.answer) == (BADVERS, 0, [])


def test_other_class_is_refused():
    query = dns.message.make_query(SERVICE, "PTR", rdclass="CH")
    assert ask(query)[0].rcode() == REFUSED


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
@pytest.mark.rule("DNS11")
def test_a_transfer_is_refused(rdtype):
    """An empty answer would tell a secondary that the zone is broken."""
    assert ask(dns.message.make_query("example.com.", rdtype))[0].rcode() == REFUSED


@pytest.mark.parametrize(
    ("name", "rdtype", "code"),
    [("example.org.", "A", 20), ("alice.example.com.evil.", "SRV", 20), ("example.com.", "AXFR", 18)],
)
@pytest.mark.rule("DNS8")
def test_who_is_refused_is_told_why(name, rdtype, code):
    message, _ = ask(dns.message.make_query(name, rdtype, use_edns=0))
    assert message.rcode() == REFUSED
    assert [(option.otype, option.to_wire()) for option in message.options] == [(15, code.to_bytes(2, "big"))]
    assert not ask(dns.message.make_query(name, rdtype))[0].options


def keepalive(data=b""):
    return dns.message.make_query(SERVICE, "PTR", use_edns=0, options=[dns.edns.GenericOption(11, data)])


@pytest.mark.rule("DNS7")
def test_how_long_an_idle_connection_is_kept_is_told_who_asks_by_tcp():
    options = ask(keepalive(), Transport.TCP)[0].options
    assert [(option.otype, option.to_wire()) for option in options] == [(11, (100).to_bytes(2, "big"))]
    assert not ask(keepalive(), Transport.UDP)[0].options
    assert not ask(dns.message.make_query(SERVICE, "PTR", use_edns=0), Transport.TCP)[0].options


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.rule("DNS7")
def test_a_query_with_a_timeout_in_it_is_formerr(transport):
    assert ask(keepalive(b"\0\1"), transport)[0].rcode() == FORMERR


@pytest.mark.rule("DNS9")
def test_who_we_are_is_told_nobody():
    query = dns.message.make_query(SERVICE, "PTR", use_edns=0, options=[dns.edns.GenericOption(3, b"")])
    assert not ask(query, Transport.TCP)[0].options


def test_signed_query_is_notauth():
    query = dns.message.make_query(SERVICE, "PTR")
    query.use_tsig(dns.tsig.Key("key.", b"0" * 32))
    assert failure(query.to_wire())[0] == NOTAUTH


def test_responses_get_no_reply():
    responder = Responder(golden_zone())
    query = bytearray(dns.message.make_query(SERVICE, "PTR").to_wire())
    query[2] |= 0x80
    assert responder.respond(bytes(query)) is None
    assert responder.counts == {Outcome.DROPPED_RESPONSE: 1}


def test_outcomes_are_counted():
    responder = Responder(golden_zone())
    for name, rdtype in [(NAMES[0], "SRV"), (NAMES[0], "AAAA"), ("no.example.com", "A"), ("example.org", "A")]:
        responder.respond(dns.message.make_query(name, rdtype).to_wire())
    assert responder.counts == dict.fromkeys((Outcome.ANSWERED, Outcome.NODATA, Outcome.NXDOMAIN, Outcome.REFUSED), 1)


QUERIES = [dns.message.make_query(name, rdtype, use_edns=0, id=1).to_wire() for name in NAMES for rdtype in TYPES]


@st.composite
def damaged_queries(draw):
    """A good query with some bytes changed and its end cut off or added to."""
    data = bytearray(draw(st.sampled_from(QUERIES)))
    for position, value in draw(
        st.dictionaries(st.integers(0, len(data) - 1), st.integers(0, 255), max_size=4)
    ).items():
        data[position] = value
    return bytes(data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=20)))


@given(st.binary(max_size=600) | damaged_queries(), st.sampled_from(Profile), st.sampled_from(Transport))
@example(b"", Profile.STRICT, Transport.UDP)
@example(bytes(12), Profile.STRICT, Transport.UDP)
@example(b"\x00\x00\x00\x00\x00\x01" + bytes(6) + b"\xc0\x0c\x00\x01\x00\x01", Profile.STRICT, Transport.UDP)
def test_no_bytes_raise_and_every_reply_is_one(data, profile, transport):
    responder = Responder(golden_zone(), profile)
    reply = responder.respond(data, goldenzone.LOCAL, transport)
    assert sum(responder.counts.values()) == 1
    if len(data) < 12 or data[2] & 0x80:
        assert reply is None
    elif reply is not None:
        message = dns.message.from_wire(reply)
        assert reply[:2] == data[:2]
        assert message.flags & dns.flags.QR
        assert message.rcode() in (NOERROR, NXDOMAIN, REFUSED, FORMERR, NOTIMP, NOTAUTH, BADVERS)
        assert len(reply) <= (65535 if transport is Transport.TCP or profile is Profile.WGSD_EXACT else 1232)
