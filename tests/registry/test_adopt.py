"""Servers of wg-quick as installers leave them, read as the facts of a registry."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from tests.registry.test_stock import add, membership
from wgdisco.endpoint import Endpoint
from wgdisco.errors import ConfigError
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.registry.adopt import adopt, listen_port, read_server
from wgdisco.registry.export import registry_text
from wgdisco.registry.facts import Kind
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.events import DeviceStatus, PeerStatus

__all__ = ["membership"]  # the fixture

SERVER = PrivateKey(bytes(31) + b"\x01")
KEYS = [PrivateKey(bytes(31) + bytes([number])).public_key() for number in range(2, 8)]
ALICE, BOB, CAROL, *_ = KEYS
PSK = PresharedKey(b"p" * 32)
SPARE = IPv6Network("fd99::/64")
HERE = Endpoint.from_text("203.0.113.9:4000")

# github.com/angristan/wireguard-install
ANGRISTAN = f"""[Interface]
Address = 10.66.66.1/24,fd42:42:42::1/64
ListenPort = 61234
PrivateKey = {SERVER.to_text()}
PostUp = iptables -I INPUT -p udp --dport 61234 -j ACCEPT
PostUp = iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
PostDown = iptables -t nat -D POSTROUTING -o eth0 -j MASQUERADE

### Client alice
[Peer]
PublicKey = {ALICE}
PresharedKey = {PSK.to_text()}
AllowedIPs = 10.66.66.2/32,fd42:42:42::2/128

### Client Bobs_Phone
[Peer]
PublicKey = {BOB}
PresharedKey = {PSK.to_text()}
AllowedIPs = 10.66.66.7/32,fd42:42:42::7/128
"""
# github.com/Nyr/wireguard-install
NYR = f"""# Do not alter the commented lines
# They are used by wireguard-install
# ENDPOINT 203.0.113.77

[Interface]
Address = 10.7.0.1/24, fddd:2c4:2c4:2c4::1/64
PrivateKey = {SERVER.to_text()}
ListenPort = 51820

# BEGIN_PEER alice
[Peer]
PublicKey = {ALICE}
PresharedKey = {PSK.to_text()}
AllowedIPs = 10.7.0.2/32, fddd:2c4:2c4:2c4::2/128
# END_PEER alice
# BEGIN_PEER bob
[Peer]
PublicKey = {BOB}
PresharedKey = {PSK.to_text()}
AllowedIPs = 10.7.0.3/32, fddd:2c4:2c4:2c4::3/128
# END_PEER bob
"""


def by_hand(*peers, interface=""):
    head = f"[Interface]\nPrivateKey = {SERVER.to_text()}\nListenPort = 51820\n"
    return "\n".join([head + (interface or "Address = 10.0.0.1/24\n"), *peers])


def peer(key, allowed, more="", above=""):
    return f"{above}[Peer]{more}\nPublicKey = {key}\nAllowedIPs = {allowed}\n"


def facts_of(text, running=None):
    server = read_server(text, "wg0.conf")
    endpoint = "198.51.100.10:51820"
    return adopt(server, running, name="wg0", zone="wg.internal.", endpoint=endpoint, spare_prefix6=SPARE, now=5.0)


def test_a_server_of_angristans_script_keeps_all_that_its_peers_know():
    server = read_server(ANGRISTAN, "wg0.conf")
    assert server.ignored == ("PostUp", "PostDown")
    assert listen_port(server, None) == 61234
    found = facts_of(ANGRISTAN)
    assert found.refusals == ()
    network = found.network
    assert (network.name, network.private_key, network.listen_port) == ("wg0", SERVER, 61234)
    assert network.prefix4 == IPv4Network("10.66.66.0/24")
    assert network.registry_addresses == (ip_address("10.66.66.1"), ip_address("fd42:42:42::1"))
    assert [(one.name, one.public_key, one.number) for one in found.devices] == [
        ("alice", ALICE, 2),
        ("bobs-phone", BOB, 7),
    ]
    assert all(one.kind is Kind.DEVICE and one.proven and one.full_tunnel for one in found.devices)
    rules = Membership([network, *found.devices])
    alice, bob = rules.device_config().peers
    assert (alice.preshared_key, alice.endpoint) == (PSK, None)
    assert bob.allowed_ips == (ip_network("10.66.66.7"), ip_network("fd42:42:42::7"))
    changes, device = rules.add_device("carol", CAROL, PSK, 6.0)
    assert (device.number, len(changes)) == (8, 2), "the next number is free"


def test_a_server_of_nyrs_script_says_where_it_is_reached_and_translates():
    server = read_server(NYR, "wg0.conf")
    assert (server.endpoint_host, server.translates) == ("203.0.113.77", True)
    assert [*server.names.values()] == ["alice", "bob"]
    assert [one.number for one in facts_of(NYR).devices] == [2, 3]


@pytest.mark.parametrize(
    ("above", "more", "name"),
    [
        ("# alice\n", "", "alice"),
        ("", "\n# Alice Smith", "alice-smith"),
        ("", " # alice", "alice"),
        ("", "\n# Name = alice", "alice"),
        ("", "\n# friendly_name=alice", "alice"),
        ("### begin alice ###\n", "", "alice"),
        ("# Client: alice (5f1c)\n", "", "alice"),
        ("### Client alice\n\n", "", "alice"),
        ("# the ones at home\n\n", "\n# alice", "alice"),
        ("# registry\n", "", None),
        ("# Endpoint = alice:1\n", "", None),
        (f"# {PSK.to_text()}\n", "", None),
        ("# \u00fc\n", "", None),
        ("", "", None),
    ],
)
def test_names_are_in_comments_in_many_shapes(above, more, name):
    text = by_hand(peer(BOB, "10.0.0.9/32", more="\n# bob"), peer(ALICE, "10.0.0.2/32", more, above))
    names = read_server(text, "wg0.conf").names
    assert names[BOB] == "bob"
    assert names[ALICE] == (name or "peer-" + "".join(c for c in str(ALICE).lower() if c.isalnum())[:4])


def test_a_name_twice_is_made_two():
    many = [peer(key, f"10.0.0.{n}/32", above="# laptop\n") for n, key in enumerate(KEYS[:3], start=2)]
    assert [*read_server(by_hand(*many), "wg0.conf").names.values()] == ["laptop", "laptop-2", "laptop-3"]
    long = [peer(key, f"10.0.0.{n}/32", above=f"# {'ab ' * 30}\n") for n, key in enumerate(KEYS[:2], start=2)]
    assert [*read_server(by_hand(*long), "wg0.conf").names.values()] == ["ab-" * 20 + "ab", "ab-" * 20 + "a-2"]


def test_a_server_may_have_any_address_and_no_ipv6():
    found = facts_of(by_hand(peer(ALICE, "10.0.0.1/32"), interface="Address = 10.0.0.254/24\n"))
    network = found.network
    assert network.registry_addresses == (ip_address("10.0.0.254"), ip_address("fd99::fe"))
    rules = Membership([network, *found.devices])
    assert rules.by_address(ip_address("10.0.0.1")).public_key == ALICE
    for number in range(2, 254):
        key = PrivateKey(bytes([0, number]) + bytes(30)).public_key()
        changes, device = rules.add_device(f"d{number}", key, PSK, 6.0)
        rules.apply(changes)
        assert device.number != network.own_host


def test_an_endpoint_is_fixed_unless_wg_quick_saved_it():
    text = by_hand(peer(ALICE, f"10.0.0.2/32\nEndpoint = {HERE}"))
    assert facts_of(text).devices[0].endpoint == HERE
    saved = facts_of(text.replace("ListenPort", "SaveConfig = true\nListenPort"))
    assert saved.devices[0].endpoint is None
    assert saved.endpoints == {ALICE: HERE}


def test_the_interface_that_is_up_tells_where_peers_are_and_its_port():
    text = by_hand(peer(ALICE, "10.0.0.2/32"), peer(BOB, "10.0.0.3/32")).replace("ListenPort = 51820\n", "")
    seen = PeerStatus(ALICE, HERE, (), True, 0, None, None, None, None, 0, 0)
    running = DeviceStatus(SERVER.public_key(), 4444, 0, (seen, replace(seen, key=BOB, endpoint=None)), {})
    found = facts_of(text, running)
    assert found.network.listen_port == 4444
    assert found.endpoints == {ALICE: HERE}
    more = replace(running, peers=(*running.peers, replace(seen, key=CAROL)))
    assert facts_of(text, more).refusals == (
        f"{CAROL}: it is a peer of the interface that is up, and not in the file: `wg-quick save` writes it there",
    )
    other = replace(running, public_key=ALICE)
    assert "another private key" in facts_of(text, other).refusals[0]


@pytest.mark.parametrize(
    ("allowed", "why"),
    [
        ("10.0.0.2/32, 192.168.7.0/24", "has AllowedIPs 10.0.0.2/32, 192.168.7.0/24"),
        ("10.0.0.0/30", "has AllowedIPs 10.0.0.0/30"),
        ("fd00::2/128", "has AllowedIPs fd00::2/128"),
        ("", "has AllowedIPs none"),
        ("10.9.0.2/32", "10.9.0.2 is no host of 10.0.0.0/24"),
        ("10.0.0.255/32", "10.0.0.255 is no host"),
        ("10.0.0.1/32", "10.0.0.1 is the server's or another's too"),
        ("10.0.0.2/32, fd00::2/128", "has to be fd99::2"),
        ("10.0.0.2/32\nEndpoint = vpn.example.net:51820", "its Endpoint is a name"),
    ],
)
def test_a_peer_that_cannot_be_a_device_is_named_and_nothing_is_adopted(allowed, why):
    found = facts_of(by_hand(peer(ALICE, allowed, above="# alice\n"), peer(BOB, "10.0.0.3/32")))
    (refusal,) = found.refusals
    assert refusal.startswith(f"alice ({ALICE}): ")
    assert why in refusal
    assert (found.network, found.devices) == (None, ())


@pytest.mark.parametrize(
    ("interface", "why"),
    [
        ("Address = 10.0.0.1/32\n", "no host in a subnet"),
        ("Address = 10.0.0.0/24\n", "no host in a subnet"),
        ("Address = fd00::1/64\n", "no IPv4 address"),
        ("Address = 10.0.0.1/24, 10.1.0.1/24\n", "several IPv4"),
        ("Address = 10.0.0.1/24, fd00::2/64\n", "not the same host number"),
        ("Address = 10.0.0.1/24, fd00::1/126\n", "room for fewer"),
        ("Address = 10.0.0.1/24\nFwMark = 7\n", "FwMark"),
    ],
)
def test_a_server_that_cannot_be_a_registry_says_why(interface, why):
    (refusal,) = facts_of(by_hand(interface=interface)).refusals
    assert refusal.startswith("the server: ")
    assert why in refusal


def test_what_wg_would_not_take_is_named_by_its_line():
    with pytest.raises(ConfigError, match=r"wg0\.conf:5: Rubbish"):
        facts_of(by_hand(interface="PostUp = true\nRubbish = 1\n"))


def test_what_a_registry_exported_is_adopted_as_it_was(membership):
    add(membership)
    found = facts_of(registry_text(membership, {}, with_ipv6=True))
    network = membership.network
    assert found.refusals == ()
    assert (found.network.prefix4, found.network.prefix6) == (network.prefix4, network.prefix6)
    assert {one.name: (one.public_key, one.number, one.preshared_key, one.endpoint) for one in found.devices} == {
        one.name: (one.public_key, one.number, one.preshared_key, one.endpoint) for one in membership.members.values()
    }
