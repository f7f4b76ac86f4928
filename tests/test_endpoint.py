from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from wgdisco.endpoint import Endpoint, parse_address

GOOD = [
    ("192.0.2.1:51820", IPv4Address("192.0.2.1"), 51820),
    ("192.0.2.1:1", IPv4Address("192.0.2.1"), 1),
    ("192.0.2.1:65535", IPv4Address("192.0.2.1"), 65535),
    ("[2001:db8::1]:51820", IPv6Address("2001:db8::1"), 51820),
    ("[fe80::1%eth0]:51820", IPv6Address("fe80::1%eth0"), 51820),
    ("[::]:9", IPv6Address("::"), 9),
]
BAD = [
    "",
    ":",
    "192.0.2.1",
    "192.0.2.1:",
    "192.0.2.1:0",
    "192.0.2.1:65536",
    "192.0.2.1:-1",
    "192.0.2.1:+1",
    "192.0.2.1: 1",
    "192.0.2.1:1 ",
    "192.0.2.1:0x10",
    "192.0.2.1:\u0661",
    "192.0.2.1:1_0",
    "192.0.2.1:" + "9" * 5000,
    "192.0.2.256:1",
    "192.0.2:1",
    "192.0.02.1:1",
    "[192.0.2.1]:1",
    "2001:db8::1:1",
    "2001:db8::1",
    "[2001:db8::1]",
    "[2001:db8::1:1",
    "2001:db8::1]:1",
    "[2001:db8::g]:1",
    "[fe80::1%]:1",
    "host.example:1",
    "[]:1",
]


@pytest.mark.parametrize(("text", "address", "port"), GOOD)
def test_text_comes_back(text, address, port):
    endpoint = Endpoint.from_text(text)
    assert (endpoint.address, endpoint.port) == (address, port)
    assert endpoint.to_text() == str(endpoint) == text


@pytest.mark.parametrize("text", BAD)
def test_text_that_is_no_endpoint(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the address parser's own words differ
        Endpoint.from_text(text)


def test_mapped_addresses_are_ipv4():
    assert parse_address("::ffff:192.0.2.1") == IPv4Address("192.0.2.1")
    assert Endpoint.from_text("[::ffff:192.0.2.1]:5") == Endpoint.from_text("192.0.2.1:5")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_run_from_1_to_65535(port):
    with pytest.raises(ValueError, match="between 1 and 65535"):
        Endpoint(IPv4Address("192.0.2.1"), port)


@pytest.mark.parametrize(
    ("address", "private", "is_global"),
    [
        ("192.0.2.1", False, True),  # documentation: the lab's public addresses
        ("198.51.100.1", False, True),
        ("203.0.113.1", False, True),
        ("8.8.8.8", False, True),
        ("2001:db8::1", False, True),
        ("10.0.0.1", True, False),
        ("9.255.255.255", False, True),
        ("11.0.0.0", False, True),
        ("172.15.255.255", False, True),
        ("172.16.0.0", True, False),
        ("172.31.255.255", True, False),
        ("172.32.0.0", False, True),
        ("192.168.0.0", True, False),
        ("192.169.0.0", False, True),
        ("100.63.255.255", False, True),
        ("100.64.0.0", True, False),
        ("100.127.255.255", True, False),
        ("100.128.0.0", False, True),
        ("127.0.0.1", True, False),
        ("127.255.255.255", True, False),
        ("169.254.1.1", True, False),
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
        ("::1", True, False),
        ("::2", False, True),
        ("fe80::1", True, False),
        ("febf::1", True, False),
        ("fec0::1", False, True),
        ("fc00::1", True, False),
        ("fdff::1", True, False),
        ("::", False, False),
        ("ff02::fb", False, False),
    ],
)
def test_what_is_private_and_what_may_be_published(address, private, is_global):
    endpoint = Endpoint(ip_address(address), 1)
    assert endpoint.is_private is private
    assert endpoint.is_global is is_global
