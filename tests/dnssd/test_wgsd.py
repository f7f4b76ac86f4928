"""Every captured reply of wgsd v0.3.5, replayed against the responder; and what was measured of it besides."""

import struct

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.dnssd import goldenzone
from tests.dnssd.goldenzone import ALICE, golden_zone, key, peer
from wgdisco.dnssd.responder import Outcome, Profile, Responder, Transport
from wgdisco.dnssd.zone import Zone

VECTORS = goldenzone.load()
ALICE_NAME = f"{ALICE.to_label()}._wireguard._udp.example.com."


def ask(name, rdtype, payload=None, transport=Transport.UDP, zone=None):
    responder = Responder(zone or golden_zone(), Profile.WGSD_EXACT)
    query = dns.message.make_query(name, rdtype, use_edns=payload is not None, payload=payload or 0)
    return responder, responder.respond(query.to_wire(), goldenzone.LOCAL, transport)


def test_all_captures_are_read():
    assert len(VECTORS) == 14


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.rdtype} {vector.question[:12]}")
def test_captured_replies_come_back_to_the_byte(vector):
    responder = Responder(golden_zone(), Profile.WGSD_EXACT)
    reply = responder.respond(vector.query(), goldenzone.LOCAL)
    assert reply is not None
    assert reply.hex() == vector.reply.hex()


def test_a_reply_that_fits_is_not_compressed_and_ends_in_opt():
    _, reply = ask(ALICE_NAME, "SRV", payload=1232)
    assert len(reply) == 576
    assert reply[-11:] == struct.pack("!BHHIH", 0, 41, 1232, 0, 0)


def test_opt_echoes_size_and_do():
    responder = Responder(golden_zone(), Profile.WGSD_EXACT)
    query = dns.message.make_query(ALICE_NAME, "SRV", payload=4096, want_dnssec=True)
    reply = dns.message.from_wire(responder.respond(query.to_wire(), goldenzone.LOCAL))
    assert (reply.payload, reply.ednsflags) == (4096, dns.flags.DO)


@pytest.mark.parametrize(("payload", "count"), [(None, 6), (1232, 16), (4096, 25)])
def test_browse_capacity_by_udp(payload, count):
    zone = Zone.create("example.com", 1, [peer(key(number), "192.0.2.1:1") for number in range(1, 26)])
    _, reply = ask("_wireguard._udp.example.com.", "PTR", payload, zone=zone)
    message = dns.message.from_wire(reply)
    assert len(message.answer[0]) == count
    assert bool(message.flags & dns.flags.TC) == (count < 25)


@pytest.mark.parametrize(("count", "size"), [(11, 1431), (12, 908)])
def test_above_1480_bytes_udp_is_compressed_even_where_it_fits(count, size):
    zone = Zone.create("example.com", 1, [peer(key(number), "192.0.2.1:1") for number in range(1, count + 1)])
    _, reply = ask("_wireguard._udp.example.com.", "PTR", 4096, zone=zone)
    assert len(reply) == size


def test_browse_by_tcp_is_whole():
    zone = Zone.create("example.com", 1, [peer(key(number), "192.0.2.1:1") for number in range(1, 26)])
    _, reply = ask("_wireguard._udp.example.com.", "PTR", transport=Transport.TCP, zone=zone)
    assert len(dns.message.from_wire(reply).answer[0]) == 25


@pytest.mark.parametrize(
    ("rdtype", "payload", "transport"),
    [("SRV", 4096, Transport.UDP), ("SRV", None, Transport.TCP), ("TXT", None, Transport.TCP)],
)
def test_a_long_txt_is_silence(rdtype, payload, transport):
    name = f"{key(5).to_label()}._wireguard._udp.example.com."
    responder, reply = ask(name, rdtype, payload, transport)
    assert reply is None
    assert responder.counts == {Outcome.DROPPED_UNPACKABLE: 1}


def test_a_long_txt_is_left_out_of_512_bytes():
    _, reply = ask(f"{key(5).to_label()}._wireguard._udp.example.com.", "SRV")
    message = dns.message.from_wire(reply)
    assert message.flags & dns.flags.TC
    assert [len(message.answer), len(message.additional)] == [1, 1]


def test_only_the_length_of_an_instance_name_counts():
    _, reply = ask(f"{ALICE.to_label()}.abcdefghij.klmn.example.com.", "SRV")
    assert dns.message.from_wire(reply).answer[0][0].port == 7777


@pytest.mark.parametrize("name", [f"{ALICE.to_label().rstrip('=')}._wireguard._udp.example.com.", "_udp.example.com."])
def test_other_names_do_not_exist(name):
    _, reply = ask(name, "SRV")
    message = dns.message.from_wire(reply)
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert message.authority[0].ttl == 60


def test_a_zone_without_peers_is_nxdomain_when_browsed():
    _, reply = ask("_wireguard._udp.example.com.", "PTR", zone=Zone.create("example.com", 1))
    assert dns.message.from_wire(reply).rcode() == dns.rcode.NXDOMAIN
