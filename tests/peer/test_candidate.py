from ipaddress import ip_address, ip_network

import pytest

from wgdisco.api import CandidateKind, CandidateRecord
from wgdisco.endpoint import Endpoint
from wgdisco.peer.candidate import (
    Candidate,
    local_preference,
    ordered,
    own_candidates,
    parse_candidates,
    priority,
)

HOST, REFLEXIVE, MAPPED = CandidateKind.HOST, CandidateKind.SERVER_REFLEXIVE, CandidateKind.PORT_MAPPED
TUNNEL = (ip_network("10.77.0.0/16"),)
SEEN = Endpoint.from_text("203.0.113.7:41424")


def made(kind: CandidateKind, text: str, now: float = 0.0, rank: int = 0) -> Candidate:
    return Candidate.create(kind, Endpoint.from_text(text), now, rank)


def published(addresses=(), reflexive=(), mapped=()) -> list[tuple[str, str]]:
    found = own_candidates(
        [ip_address(text) for text in addresses],
        40000,
        [Endpoint.from_text(text) for text in reflexive],
        [Endpoint.from_text(text) for text in mapped],
        TUNNEL,
        5.0,
    )
    assert list(found) == list(ordered(found))
    assert {candidate.seen_at for candidate in found} <= {5.0}
    return [(candidate.kind.value, candidate.endpoint.to_text()) for candidate in found]


@pytest.mark.parametrize(
    ("kind", "preference", "component", "expected"),
    [
        # the values of an ordinary WebRTC host candidate, and RFC 8839's example of a server-reflexive one
        (HOST, 65535, 1, 2130706431),
        (REFLEXIVE, 65535, 1, 1694498815),
        (HOST, 65535, 2, 2130706430),
        (CandidateKind.RELAYED, 0, 256, 0),
    ],
)
def test_priority_is_the_rfc_s(kind, preference, component, expected):
    assert priority(kind, preference, component) == expected


def test_kinds_come_in_order_and_ipv6_first_within_a_kind():
    kinds = [HOST, CandidateKind.PEER_REFLEXIVE, MAPPED, REFLEXIVE, CandidateKind.RELAYED]
    wanted = [made(kind, text) for kind in kinds for text in ("[2001:db8::1]:1", "192.0.2.1:1")]
    wanted = [
        Candidate(one.kind, Endpoint(one.endpoint.address, n + 1), one.priority, 0.0) for n, one in enumerate(wanted)
    ]
    assert list(ordered(reversed(wanted))) == wanted
    assert local_preference(ip_address("2001:db8::1"), 30000) > local_preference(ip_address("192.0.2.1"))
    assert local_preference(ip_address("192.0.2.1"), 1 << 20) == 0


def test_an_endpoint_comes_once_as_its_best_kind_and_as_fresh_as_seen():
    (only,) = ordered([made(REFLEXIVE, "192.0.2.1:1", 9.0), made(HOST, "192.0.2.1:1", 2.0)])
    assert (only.kind, only.seen_at) == (HOST, 9.0)
    assert len(ordered([made(HOST, f"192.0.2.1:{port}") for port in range(1, 12)], 8)) == 8


def test_a_record_is_what_was_told():
    candidate = made(MAPPED, "[2001:db8::7]:51820", 3.0)
    assert Candidate.parse(candidate.to_record(), 3.0) == candidate
    assert candidate.to_record() == CandidateRecord("map", "[2001:db8::7]:51820", candidate.priority)


def test_what_cannot_be_is_left_out_of_what_is_told():
    good = [CandidateRecord("host", f"192.168.1.{n}:7", n) for n in range(1, 12)]
    bad = [CandidateRecord("guess", "192.0.2.1:1", 1), CandidateRecord("host", "192.0.2.1", 1)]
    found = parse_candidates([*bad, *good], 1.0)
    assert [candidate.priority for candidate in found] == [11, 10, 9, 8, 7, 6, 5, 4]


def test_hosts_reflexive_and_mapped_are_published():
    assert published(["192.168.1.5", "2001:db8::5", "fd00::5"], ["203.0.113.7:41424"], ["203.0.113.7:40000"]) == [
        ("host", "[2001:db8::5]:40000"),
        ("host", "[fd00::5]:40000"),
        ("host", "192.168.1.5:40000"),
        ("map", "203.0.113.7:40000"),
        ("srflx", "203.0.113.7:41424"),
    ]


def test_what_nobody_reaches_is_not_published():
    useless = ["127.0.0.1", "::1", "169.254.9.9", "fe80::1%eth0", "10.77.0.2", "0.0.0.0", "224.0.0.251"]
    assert published(useless, ["10.77.3.4:9"], ["127.0.0.1:40000"]) == []


def test_without_a_nat_a_host_says_its_address_once():
    assert published(["198.51.100.5"], ["198.51.100.5:40000"]) == [("host", "198.51.100.5:40000")]


def test_many_addresses_leave_places_for_the_other_kinds():
    many = [f"192.168.{n}.5" for n in range(20)]
    reflexive = [f"203.0.113.{n}:9" for n in range(1, 6)]
    found = published(many, reflexive, ["203.0.113.9:40000"])
    assert [kind for kind, _ in found] == ["host"] * 5 + ["map"] + ["srflx"] * 2
    assert found[0] == ("host", "192.168.0.5:40000")
    assert ("srflx", "203.0.113.1:9") in found
    assert [kind for kind, _ in published([], reflexive)] == ["srflx"] * 5
    assert len(published([], [f"203.0.113.{n}:9" for n in range(1, 20)])) == 8
