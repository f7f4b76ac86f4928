import json
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.errors import ConfigError, LocalError
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.registry.facts import Kind, Member, Network
from wgdisco.registry.membership import Membership
from wgdisco.registry.stock import (
    DeviceFacts,
    DeviceRequest,
    add_device,
    device_conf,
    device_facts,
    direct_devices,
    registry_dns,
)
from wgdisco.tunnel.conf import parse_conf

REGISTRY = PrivateKey(bytes(31) + b"\x11")
PHONE = PrivateKey(bytes(31) + b"\x12")
VPS = PrivateKey(bytes(31) + b"\x13").public_key()
LAPTOP = PrivateKey(bytes(31) + b"\x14").public_key()
PSK = PresharedKey(b"p" * 32)
NETWORK = Network(
    "mesh",
    "wg.internal.",
    REGISTRY,
    51820,
    ("vpn.example.net:51820", "198.51.100.10:51820"),
    IPv4Network("10.7.8.0/24"),
    IPv6Network("fd77::/64"),
    next_host=4,
)


@pytest.fixture
def membership():
    vps = Member("vps", VPS, 2, ("all", "ops"), 0.0, proven=True, endpoint=Endpoint.from_text("192.0.2.7:51820"))
    return Membership([NETWORK, vps, Member("laptop", LAPTOP, 3, ("all",), 0.0, proven=True)])


def add(membership, **more):
    changes, facts = add_device(membership, DeviceRequest("phone", PHONE.public_key(), PSK, **more), 5.0)
    membership.apply(changes)
    return facts


def test_the_file_is_one_that_wg_quick_reads(membership):
    text = device_conf(add(membership), PSK, PHONE)
    conf = parse_conf(text, "phone.conf")
    assert conf.device.private_key == PHONE
    assert conf.addresses == (ip_interface("10.7.8.4/32"), ip_interface("fd77::4/128"))
    assert conf.mtu == 1280
    (registry,) = conf.device.peers
    assert registry.public_key == REGISTRY.public_key()
    assert registry.preshared_key == PSK
    assert registry.allowed_ips == (ip_network("10.7.8.0/24"), ip_network("fd77::/64"))
    assert registry.persistent_keepalive == 25
    assert conf.endpoint_names == {REGISTRY.public_key(): ("vpn.example.net", 51820)}
    assert "DNS" not in text


def test_the_registry_knows_the_device_and_who_may_see_it(membership):
    add(membership)
    phone = membership.by_name("phone")
    assert (phone.kind, phone.proven, phone.preshared_key) == (Kind.DEVICE, True, PSK)
    assert {member.name for member in membership.visible_to(phone)} == {"vps", "laptop"}


def test_full_tunnel_and_dns_are_there_when_asked_for(membership):
    facts = add(membership, full_tunnel=True)
    text = device_conf(facts, PSK, PHONE, registry_dns(facts))
    assert "AllowedIPs = 0.0.0.0/0, ::/0\n" in text
    assert "DNS = 10.7.8.1, fd77::1, wg.internal\n" in text
    assert text.index("DNS") < text.index("[Peer]")
    assert membership.by_name("phone").full_tunnel


def test_a_key_made_on_the_device_leaves_a_line_that_every_reader_refuses(membership):
    text = device_conf(add(membership), PSK, None)
    assert text.splitlines()[1].startswith("PrivateKey = REPLACE")
    with pytest.raises(ConfigError, match="PrivateKey"):
        parse_conf(text, "phone.conf")


class TestDirectTo:
    def test_the_member_is_a_further_peer(self, membership):
        conf = parse_conf(device_conf(add(membership, direct_to=("vps", "vps")), PSK, PHONE), "phone.conf")
        vps = conf.device.peers[1]
        assert len(conf.device.peers) == 2
        assert (vps.public_key, vps.preshared_key) == (VPS, None)
        assert vps.endpoint == Endpoint.from_text("192.0.2.7:51820")
        assert vps.allowed_ips == (ip_network("10.7.8.2/32"), ip_network("fd77::2/128"))
        assert vps.persistent_keepalive == 25

    def test_the_member_learns_of_it_and_nobody_else_does(self, membership):
        add(membership, direct_to=("vps",))
        names = [device.name for device in direct_devices(membership, membership.by_name("vps"))]
        assert names == ["phone"]
        assert direct_devices(membership, membership.by_name("laptop")) == ()

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"direct_to": ("laptop",)}, "registry set laptop endpoint"),
            ({"direct_to": ("nobody",)}, "no member 'nobody'"),
            ({"direct_to": ("vps",), "groups": ("guests",)}, "none of the groups guests"),
        ],
    )
    def test_what_cannot_work_is_refused_and_changes_nothing(self, membership, request_, said):
        with pytest.raises(LocalError, match=said):
            add(membership, **request_)
        assert len(membership.members) == 2

    def test_it_follows_a_new_name_and_ends_with_a_revocation(self, membership):
        add(membership, direct_to=("vps",))
        membership.apply(membership.rename("vps", "server"))
        assert membership.by_name("phone").direct_to == ("server",)
        assert device_facts(membership, membership.by_name("phone")).direct[0].name == "server"
        membership.apply(membership.revoke("server", 9.0)[0])
        assert membership.by_name("phone").direct_to == ()
        membership.apply(membership.revoke("phone", 9.0)[0])
        assert {member.name for member in membership.members.values()} == {"laptop"}


def test_request_and_facts_cross_the_control_socket(membership):
    request = DeviceRequest("phone", PHONE.public_key(), PSK, ("all",), ("vps",), True)
    assert DeviceRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    facts = add(membership, direct_to=("vps",))
    assert DeviceFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize("made", [DeviceRequest, DeviceFacts])
def test_another_versions_objects_are_refused_without_showing_them(made):
    with pytest.raises(LocalError) as error:
        made.from_json({"name": "phone", "public_key": PSK.to_text(), "preshared_key": 7})
    assert PSK.to_text() not in str(error.value)


def test_no_secret_shows_in_a_repr(membership):
    request = DeviceRequest("phone", PHONE.public_key(), PSK)
    assert PSK.to_text() not in repr(request) + repr(add(membership))


def test_the_file_has_what_is_behind_members_at_the_peer_it_is_reached_by(membership):
    lan, office, secret = (ip_network(text) for text in ("192.168.7.0/24", "fd01::/64", "10.1.0.0/16"))
    vps = Member("vps", VPS, 2, ("all",), 0.0, proven=True, endpoint=Endpoint.from_text("203.0.113.9:51820"))
    laptop = Member("laptop", LAPTOP, 3, ("all",), 0.0, proven=True)
    other = Member("other", PrivateKey(bytes(31) + b"\x15").public_key(), 4, ("guests",), 0.0, proven=True)
    exits = ip_network("0.0.0.0/0")
    behind = [(vps, (lan,)), (laptop, (office, exits)), (other, (secret,))]
    members = [replace(member, offers=subnets, approved=subnets) for member, subnets in behind]
    one = Membership([replace(NETWORK, next_host=5), *members])
    _, facts = add_device(one, DeviceRequest("phone", PHONE.public_key(), PSK, direct_to=("vps",)), 0.0)
    assert DeviceFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    registry, direct = parse_conf(device_conf(facts, PSK, PHONE), "phone.conf").device.peers
    assert registry.allowed_ips == (NETWORK.prefix4, NETWORK.prefix6, office)
    assert direct.allowed_ips[2:] == (lan,)
