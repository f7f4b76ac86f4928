"""What is said of a delegation, for each thing that can be wrong with it."""

from dataclasses import replace
from ipaddress import ip_address

import dns.name
import dns.rdataset
import pytest

from wgdisco.registry.delegation import Delegation, Served, Server, ds_of, findings, is_private, parent_lines

ZONE = dns.name.from_text("wg.example.test.")
PARENT = dns.name.from_text("example.test.")
NS1, NS2 = (dns.name.from_text(f"ns{number}.wg.example.test.") for number in (1, 2))
ONE, TWO = ip_address("198.51.100.53"), ip_address("2001:db8::53")
DS = "22813 13 2 006257e9db8ad5e56f9d3b7913d0b4f696d6e6ce90ef51b82083058f8ea19eb3"
SERVED = Served(ZONE, 100, {NS1: (ONE,), NS2: (TWO,)})
FOUND = Delegation(PARENT, frozenset({NS1, NS2}), {NS1: frozenset({str(ONE)}), NS2: frozenset({str(TWO)})})
SERVERS = (Server(NS1, ONE, 100, 100), Server(NS2, TWO, 100, 100))


def failures(served=SERVED, found=FOUND, servers=SERVERS):
    return [f"{one.what}: {one.said}" for one in findings(served, found, servers) if not one.ok]


def test_the_lines_for_the_parent():
    assert parent_lines(SERVED, [DS]) == [
        "wg.example.test. IN NS ns1.wg.example.test.",
        "wg.example.test. IN NS ns2.wg.example.test.",
        "ns1.wg.example.test. IN A 198.51.100.53",
        "ns2.wg.example.test. IN AAAA 2001:db8::53",
        f"wg.example.test. IN DS {DS}",
    ]


def test_all_is_well():
    assert failures() == []
    assert [one.what for one in findings(SERVED, FOUND, SERVERS)] == [
        "delegation",
        "glue of ns1.wg.example.test.",
        "glue of ns2.wg.example.test.",
        "ns1.wg.example.test. at 198.51.100.53",
        "ns2.wg.example.test. at 2001:db8::53",
        "DS",
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Delegation(PARENT), "delegation: example.test. does not know the zone"),
        (Delegation(dns.name.root, said="no server of . answers"), "delegation: no server of . answers"),
        (replace(FOUND, servers=frozenset({NS1})), "delegation: example.test. lacks ns2.wg.example.test."),
        (
            replace(FOUND, servers=FOUND.servers | {PARENT}),
            "delegation: example.test. names example.test., which is none",
        ),
        (replace(FOUND, glue={NS1: FOUND.glue[NS1]}), "glue of ns2.wg.example.test.: example.test. has none"),
        (
            replace(FOUND, glue={**FOUND.glue, NS1: frozenset({"192.0.2.1"})}),
            "glue of ns1.wg.example.test.: example.test. has 192.0.2.1 instead of 198.51.100.53",
        ),
        (replace(FOUND, ds=frozenset({DS})), "DS: example.test. has one and nobody signs"),
    ],
)
def test_at_the_parent(found, said):
    (failure,) = failures(found=found)
    assert failure.startswith(said)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (replace(SERVERS[0], udp=None, tcp=None), "no answer for the zone by UDP"),
        (replace(SERVERS[0], tcp=None), "answers by UDP and not by TCP"),
        (replace(SERVERS[0], udp=99), "has serial 99, the registry 100"),
        (replace(SERVERS[0], udp=0xFFFFFFF0), "has serial 4294967280, the registry 100"),
    ],
)
def test_at_a_server(server, said):
    (failure,) = failures(servers=(server, SERVERS[1]))
    assert failure.startswith(f"ns1.wg.example.test. at 198.51.100.53: {said}")


def test_a_server_that_nothing_leads_to_is_not_looked_at():
    assert failures(servers=(SERVERS[0], Server(NS2, TWO, None, None, is_reachable=False))) == []


@pytest.mark.parametrize(
    ("given", "followed"),
    [
        ({}, True),
        ({ONE: 100}, True),
        ({ONE: 101, TWO: 100}, True),
        ({ONE: 100, TWO: 99}, False),
        ({ONE: 2**32 - 1}, False),
    ],
)
def test_it_is_followed_when_none_was_given_an_older_serial_last(given, followed):
    assert replace(SERVED, given=given).is_followed() is followed


class TestSigned:
    SERVERS = tuple(replace(one, ds=frozenset({DS}), udp=7, tcp=7) for one in SERVERS)
    FOUND = replace(FOUND, ds=frozenset({DS}))

    def test_is_well_whatever_serial_it_counts(self):
        assert failures(found=self.FOUND, servers=self.SERVERS) == []

    def test_is_known_by_what_it_was_given(self):
        served = replace(SERVED, given={ONE: 99, TWO: 100})
        (failure,) = failures(served, self.FOUND, self.SERVERS)
        assert failure.startswith("ns1.wg.example.test. at 198.51.100.53: has serial 99")

    def test_without_ds(self):
        assert failures(servers=self.SERVERS) == [
            "DS: the zone is signed, and example.test. has none: have the line put there"
        ]

    def test_with_that_of_another_key(self):
        (failure,) = failures(found=replace(FOUND, ds=frozenset({"1 13 2 00"})), servers=self.SERVERS)
        assert failure.startswith("DS: example.test. has one of no key at 198.51.100.53")

    def test_by_one_server_alone(self):
        (failure,) = failures(found=self.FOUND, servers=(self.SERVERS[0], SERVERS[1]))
        assert failure == "DS: 2001:db8::53 does not sign, and 198.51.100.53 does"


@pytest.mark.parametrize(("flags", "count"), [(256, 0), (257, 1), (257 | 128, 0)])
def test_ds_is_of_the_keys_that_sign_keys_and_are_not_revoked(flags, count):
    keys = dns.rdataset.from_text("IN", "DNSKEY", 60, f"{flags} 3 13 {'A' * 86}==")
    found = ds_of(ZONE, keys)
    assert len(found) == count
    assert all(one.split()[1:3] == ["13", "2"] for one in found)
    assert ds_of(ZONE, None) == frozenset()


@pytest.mark.parametrize(
    ("name", "private"),
    [("wg.internal.", True), ("home.arpa.", True), ("wg.example.com.", False), ("internal.example.com.", False)],
)
def test_a_private_zone_is_nobodys_to_delegate(name, private):
    assert is_private(dns.name.from_text(name)) is private
