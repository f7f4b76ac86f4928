from ipaddress import ip_address, ip_network

import pytest

from wgdisco.api import CandidateKind, CandidateRecord
from wgdisco.endpoint import Endpoint
from wgdisco.peer.candidate import LOCAL_PREFERENCE_MAX, priority
from wgdisco.registry.candidates import SEEN_HOST_PRIORITY, SEEN_PRIORITY, validate, with_seen

TUNNEL = (ip_network("10.77.0.0/16"), ip_network("fd77::/64"))
SEEN = Endpoint.from_text("203.0.113.7:41424")
PROVEN = [ip_address("198.51.100.1"), ip_address("2001:db8::7"), ip_address("127.0.0.1"), ip_address("10.77.0.9")]


def told(kind: str, endpoint: str) -> list[CandidateRecord]:
    return validate([CandidateRecord(kind, endpoint, 5)], SEEN, PROVEN, TUNNEL)


@pytest.mark.parametrize(
    ("kind", "endpoint"),
    [
        ("host", "192.168.1.5:40000"),
        ("host", "100.64.3.3:1"),
        ("host", "[fd00::5]:40000"),
        ("host", "[2001:db8::7]:40000"),
        ("host", "203.0.113.7:40000"),
        ("map", "203.0.113.7:9"),
        ("map", "100.64.3.3:9"),
        ("srflx", "203.0.113.7:41424"),
        ("srflx", "203.0.113.7:1"),
        ("srflx", "198.51.100.1:41424"),
    ],
)
def test_proven_and_private_addresses_are_told(kind, endpoint):
    assert told(kind, endpoint) == [CandidateRecord(kind, endpoint, 5)]


@pytest.mark.parametrize(
    ("kind", "endpoint"),
    [
        ("host", "198.51.100.2:53"),
        ("host", "[2001:db8::8]:53"),
        ("map", "198.51.100.2:53"),
        ("srflx", "198.51.100.2:53"),
        ("srflx", "192.168.1.5:40000"),
        ("prflx", "203.0.113.7:41424"),
        ("relay", "203.0.113.7:41424"),
        ("guess", "203.0.113.7:41424"),
        ("host", "127.0.0.1:40000"),
        ("host", "[::1]:40000"),
        ("host", "169.254.1.1:40000"),
        ("host", "[fe80::5]:40000"),
        ("host", "[fe80::5%eth0]:40000"),
        ("host", "[fd00::5%eth0]:40000"),
        ("host", "224.0.0.251:5353"),
        ("host", "[ff02::fb]:5353"),
        ("host", "0.0.0.0:9"),
        ("host", "255.255.255.255:9"),
        ("host", "10.77.0.9:9"),
        ("host", "[fd77::9]:9"),
        ("host", "[::ffff:198.51.100.2]:9"),
        ("srflx", "192.0.2.1:51820"),
        ("host", "192.168.1.5:0"),
        ("host", "192.168.1.5"),
    ],
)
def test_what_could_aim_at_others_is_not_told(kind, endpoint):
    assert told(kind, endpoint) == []


def test_an_endpoint_is_told_once_and_eight_in_all():
    records = [CandidateRecord("host", f"192.168.2.{n // 2 + 1}:9", n) for n in range(40)]
    kept = validate(records, None, [], TUNNEL)
    assert [record.priority for record in kept] == [0, 2, 4, 6, 8, 10, 12, 14]


def test_where_the_registry_sees_it_comes_first():
    host = CandidateRecord("host", "192.168.1.5:40000", 9)
    assert with_seen([host], SEEN) == [CandidateRecord("srflx", "203.0.113.7:41424", SEEN_PRIORITY), host]
    assert with_seen([host], None) == [host]
    assert with_seen([host], Endpoint.from_text("192.168.1.5:40000")) == [host]
    (private,) = with_seen([], Endpoint.from_text("192.168.1.5:40000"))
    assert (private.kind, private.priority) == ("host", SEEN_HOST_PRIORITY)
    assert with_seen([], Endpoint.from_text("127.0.0.1:40000")) == []
    assert len(with_seen([host] * 8, SEEN)) == 8


def test_priorities_are_those_of_rfc_8445():
    assert priority(CandidateKind.SERVER_REFLEXIVE, LOCAL_PREFERENCE_MAX) == SEEN_PRIORITY
    assert priority(CandidateKind.HOST, LOCAL_PREFERENCE_MAX) == SEEN_HOST_PRIORITY


def test_what_it_said_of_its_former_address_is_not_told():
    told = [CandidateRecord("srflx", text, 1) for text in ("203.0.113.7:1", "198.51.100.9:1", "[2001:db8::9]:1")]
    assert [one.endpoint for one in with_seen(told, SEEN)] == ["203.0.113.7:41424", "203.0.113.7:1", "[2001:db8::9]:1"]
    assert with_seen(told, Endpoint.from_text("192.168.1.5:40000"))[1:] == told
