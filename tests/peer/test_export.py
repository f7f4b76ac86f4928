"""A membership as a plain wg-quick file."""

from ipaddress import ip_interface, ip_network

from tests.peer.test_roster import BOB, CAROL, EVIL, NOW, REGISTRY, key, record, snapshot
from wgdisco.api import Snapshot
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.peer.export import member_text
from wgdisco.peer.roster import OFFLINE_TRUST, Accept, Memory, Roster
from wgdisco.tunnel.conf import parse_conf

PRIVATE = PrivateKey(bytes([1]) * 32)
PSK = PresharedKey(b"p" * 32)
LAST = Endpoint.from_text("203.0.113.9:4000")
SEEN = Endpoint.from_text("203.0.113.8:5000")


def export(told: Snapshot, endpoints=None, *, registry="198.51.100.10:51820", with_ipv6=True, pins=None):
    memory = Memory(told, NOW - 10 * OFFLINE_TRUST, 1, pins or {})
    roster = Roster(PRIVATE.public_key(), Accept.ALL, memory)
    text = member_text(roster, PRIVATE, PSK, 40000, (registry,), endpoints or {}, with_ipv6=with_ipv6)
    return text, parse_conf(text, "home.conf")


def test_all_that_is_known_is_in_the_file_however_long_ago_the_registry_answered():
    told = snapshot(
        record("bob", BOB, 3, endpoint=str(SEEN), live=True),
        record("carol", CAROL, 4, next_key=str(key(9))),
        record("phone", EVIL, 5, kind="device"),
    )
    text, conf = export(told, {BOB: LAST})
    assert conf.device.private_key == PRIVATE
    assert conf.device.listen_port == 40000
    assert conf.addresses == (ip_interface("10.9.8.2/24"), ip_interface("fd00:9::2/64"))
    registry, bob, carol = conf.device.peers
    assert (registry.public_key, registry.preshared_key) == (REGISTRY, PSK)
    assert registry.endpoint == Endpoint.from_text("198.51.100.10:51820")
    assert ip_network("10.9.8.5") in registry.allowed_ips, "the phone is behind the registry"
    assert (bob.public_key, bob.preshared_key, bob.endpoint, bob.persistent_keepalive) == (BOB, None, LAST, 25)
    assert bob.allowed_ips == (ip_network("10.9.8.3"), ip_network("fd00:9::3"))
    assert (carol.endpoint, carol.persistent_keepalive) == (None, 0)
    assert f"# bob\nPublicKey = {BOB}" in text


def test_a_member_not_heard_from_lately_is_where_the_registry_saw_it_but_for_a_tls_connections_end():
    told = snapshot(record("bob", BOB, 3, endpoint=str(SEEN)), record("carol", CAROL, 4, endpoint="127.0.0.1:7"))
    _, conf = export(told)
    assert [peer.endpoint for peer in conf.device.peers[1:]] == [SEEN, None]


def test_a_registry_by_name_stays_a_name():
    _, conf = export(snapshot(), {REGISTRY: LAST}, registry="vpn.example.net:51820")
    assert conf.endpoint_names == {REGISTRY: ("vpn.example.net", 51820)}


def test_who_is_not_accepted_is_no_peer_and_is_named():
    text, conf = export(snapshot(record("bob", EVIL, 3)), pins={"bob": BOB})
    assert [peer.public_key for peer in conf.device.peers] == [REGISTRY]
    assert "not accepted (`wgdisco accept`): bob" in text


def test_a_host_without_ipv6_gets_a_file_without():
    text, _ = export(snapshot(record("bob", BOB, 3)), with_ipv6=False)
    assert "fd00" not in text
