from dataclasses import replace
from ipaddress import ip_interface

import pytest

from wgdisco.endpoint import parse_address
from wgdisco.peer.interfaces import (
    DefaultRoute,
    Link,
    LocalAddress,
    LocalNetwork,
    MdnsPolicy,
    is_of_interest,
    mdns_interfaces,
)

LINKS = (
    Link("lo", None, True),
    Link("eth0", None, True),
    Link("wlan0", None, True),
    Link("down0", None, False),
    Link("mesh", "tun", True),
    Link("other", "wireguard", True),
    Link("docker0", "bridge", True),
    Link("veth9", "veth", True, "docker0"),
    Link("br0", "bridge", True),
    Link("eth2", None, True, "br0"),
    Link("veth8", "veth", True, "br0"),
)
HOME = DefaultRoute("wlan0", 4, parse_address("192.168.1.1"), 600, "02:00:00:00:00:01")


def at(interface: str, text: str, *, settled: bool = True) -> LocalAddress:
    one = ip_interface(text)
    return LocalAddress(interface, one.ip, one.network, settled)


ADDRESSES = (
    at("lo", "127.0.0.1/8"),
    at("lo", "203.0.113.99/32"),
    at("eth0", "10.1.1.5/24"),
    at("eth0", "fe80::5/64"),
    at("eth0", "169.254.3.3/16"),
    at("eth0", "fd00::5/64"),
    at("wlan0", "192.168.1.5/24"),
    at("wlan0", "2001:db8::5/64"),
    at("wlan0", "2001:db8::6/64", settled=False),
    at("down0", "192.168.2.5/24"),
    at("mesh", "10.77.0.5/16"),
    at("other", "10.78.0.5/16"),
    at("docker0", "172.17.0.1/16"),
    at("br0", "192.168.3.1/24"),
)
LOCAL = LocalNetwork(LINKS, ADDRESSES, (HOME,))


def texts(addresses) -> list[str]:
    return [str(address.address) for address in addresses]


def test_addresses_others_may_try_begin_with_those_that_lead_out():
    # an address on the loopback interface that is none of loopback's is a server's own: it is routed to it
    assert texts(LOCAL.usable()) == [
        "192.168.1.5",
        "2001:db8::5",
        "203.0.113.99",
        "10.1.1.5",
        "fd00::5",
        "192.168.3.1",
    ]


def test_a_bridge_with_the_way_out_is_no_bridge_for_guests():
    by_docker0 = replace(LOCAL, routes=(DefaultRoute("docker0", 4, parse_address("172.17.0.254")),))
    assert texts(by_docker0.usable())[0] == "172.17.0.1"


def test_the_default_gateway_is_the_best_and_ipv4_s_first():
    other = DefaultRoute("eth0", 4, parse_address("10.1.1.1"), 900)
    six = DefaultRoute("eth0", 6, parse_address("fe80::1"), 10)
    assert replace(LOCAL, routes=(six, HOME, other)).default_gateway() == HOME
    assert replace(LOCAL, routes=(six,)).default_gateway() == six
    assert LocalNetwork().default_gateway() is None


def test_a_network_is_known_by_its_gateway_or_its_prefix():
    assert LOCAL.network_id("wlan0") == "02:00:00:00:00:01@wlan0"
    assert LOCAL.network_id("eth0") == "10.1.1.0/24@eth0"
    assert LOCAL.network_id("down0") is None
    unknown = replace(LOCAL, routes=(replace(HOME, mac=None),))
    assert unknown.network_id("wlan0") is None
    point_to_point = replace(LOCAL, routes=(replace(HOME, gateway=None, mac=None),))
    assert point_to_point.network_id("wlan0") == "192.168.1.0/24@wlan0"


def test_a_gateway_that_shows_its_hardware_address_is_no_change():
    assert replace(LOCAL, routes=(replace(HOME, mac=None),)) == LOCAL


def test_mdns_is_spoken_where_a_member_was_met():
    def where(policy: MdnsPolicy, met=()) -> dict[str, list[str]]:
        found = mdns_interfaces(LOCAL, policy, met)
        return {interface: [str(address) for address in addresses] for interface, addresses in found.items()}

    home, wired, bridged = {"wlan0": ["192.168.1.5"]}, {"eth0": ["10.1.1.5", "fd00::5"]}, {"br0": ["192.168.3.1"]}
    assert where(MdnsPolicy()) == {}
    assert where(MdnsPolicy(), {"02:00:00:00:00:01@wlan0"}) == home
    assert where(MdnsPolicy(), {"02:00:00:00:00:02@wlan0"}) == {}
    assert where(MdnsPolicy(everywhere=True)) == {**home, **wired, **bridged}
    assert where(MdnsPolicy(everywhere=True, not_on=("eth0", "br0"))) == home
    assert where(MdnsPolicy(everywhere=True, nowhere=True)) == {}


def message(kind: int, prefix_size: int, more: int = 0) -> bytes:
    header = (28 + more).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10)
    return header + bytes([2, prefix_size]) + bytes(10 + more)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (message(24, 24), False),
        (message(25, 32), False),
        (message(24, 0), True),
        (message(25, 1), True),
        (message(24, 24) + message(25, 0), True),
        (message(24, 24, 4) + message(24, 24, 8), False),
        (message(24, 24, 2) + bytes(2) + message(20, 24), True),
        (message(16, 0), True),
        (message(21, 64), True),
        (message(24, 24)[:-1], True),
        (bytes(16), True),
        (b"", False),
    ],
)
def test_only_default_routes_are_of_interest_among_routes(messages, expected):
    assert is_of_interest(messages) is expected
