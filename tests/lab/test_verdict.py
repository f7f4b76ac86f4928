"""What a trial came to is for the core's record and the pings to say; the daemons are only compared with it."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from wgdisco.api import PathWord
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.packets import TCP, UDP, Crossing
from wgdisco.lab.timeline import Said
from wgdisco.lab.verdict import At, Observed, Reply, Side, judge, parse_replies

A, B, C, REGISTRY = (IPv4Address(text) for text in ("192.0.2.10", "203.0.113.10", "198.18.1.10", "198.51.100.10"))
REGISTRY_KEY, KEY = "R" * 44, "K" * 44
RTT = 0.04
INITIATION = struct.pack("<I", 1) + bytes(20)


def packet(
    at: float, source: IPv4Address, destination: IPv4Address, length: int = 796, head: bytes = INITIATION, **fields: int
) -> Crossing:
    ports = {"source_port": 4000 if source == A else 5000, "destination_port": 4000 if destination == A else 5000}
    ports |= {"source_port": 51820} if source == REGISTRY else {}
    ports |= {"destination_port": 51820} if destination == REGISTRY else {}
    return Crossing(at, "sent", source, (ports | fields)["source_port"], destination,
                    (ports | fields)["destination_port"], UDP, 63, length, head)  # fmt: skip


def side(name: str, outside: IPv4Address, *events: tuple[float, str]) -> Side:
    said = [Said(name, 1.0, "registry reachable"), Said(name, 1.0, "direct", {"peer": REGISTRY_KEY})]
    said += [Said(name, at, event, {"peer": KEY, "endpoint": "x", "endpoints": ["x"]}) for at, event in events]
    return Side(name, (outside,), tuple(said), REGISTRY_KEY)


def exchange(one: IPv4Address, other: IPv4Address, times: range) -> list[Crossing]:
    return [packet(at / 100, *way) for at in times for way in ((one, other), (other, one))]


def replies(first: int, last: int) -> tuple[Reply, ...]:
    return tuple(Reply(number, number / 50, 40.0) for number in range(first, last))


PUBLISHED = [packet(0.5, A, REGISTRY, 148), packet(0.5, B, REGISTRY, 148)]
DIRECT = Observed(
    asker=side("a", A, (1.1, "ordered"), (1.1, "punching"), (1.2, "direct")),
    other=side("b", B, (1.25, "direct")),
    registry=At(frozenset((REGISTRY,))),
    crossings=[*PUBLISHED, packet(1.15, A, B, 148), packet(1.18, B, A, 120), *exchange(A, B, range(126, 200, 2))],
    replies=replies(64, 100),
    until=2.0,
    window=0.4,
    rtt=RTT,
)


def test_direct_at_the_published_endpoints() -> None:
    verdict = judge(DIRECT, Outcome.DIRECT)
    assert verdict.faults == []
    assert (verdict.outcome, verdict.technique) == (Outcome.DIRECT, "published")
    assert verdict.claims == (PathWord.DIRECT, PathWord.DIRECT)
    assert verdict.time_to_direct_ms == 100.0
    assert verdict.first_reply_ms == 180.0
    assert verdict.packets == (1, 1)
    assert (verdict.lost_pings, verdict.relayed_after) == (0, 0)


def test_the_clock_starts_when_both_are_registered() -> None:
    late = replace(DIRECT.other, said=(Said("b", 1.15, "registry reachable"), *DIRECT.other.said[1:]))
    assert judge(replace(DIRECT, other=late), Outcome.DIRECT).time_to_direct_ms == 50.0


def test_direct_from_a_port_the_registry_has_not_seen() -> None:
    moved = [
        replace(one, source_port=6000) if (one.source, one.destination) == (A, B) else one for one in DIRECT.crossings
    ]
    assert judge(replace(DIRECT, crossings=moved), Outcome.DIRECT).technique == "peer-reflexive"


def relayed(claim: str = "relay") -> Observed:
    ways = [*exchange(A, REGISTRY, range(126, 200, 2)), *exchange(REGISTRY, B, range(126, 200, 2))]
    return replace(
        DIRECT,
        asker=side("a", A, (1.1, "ordered"), (1.2, claim)),
        other=side("b", B, (1.25, claim)),
        crossings=[*PUBLISHED, *ways],
    )


def test_relay() -> None:
    verdict = judge(relayed(), Outcome.RELAY)
    assert (verdict.outcome, verdict.technique, verdict.faults) == (Outcome.RELAY, "relay", [])
    assert verdict.time_to_direct_ms is None
    assert verdict.time_to_relay_ms == 100.0
    assert verdict.first_reply_ms == 180.0


def test_a_relay_is_as_good_where_it_is_allowed() -> None:
    assert judge(relayed(), Outcome.DIRECT, or_else=Outcome.RELAY).faults == []
    assert judge(DIRECT, Outcome.DIRECT, or_else=Outcome.RELAY).faults == []
    assert judge(relayed("direct"), Outcome.DIRECT, or_else=Outcome.RELAY).faults != []


@pytest.mark.parametrize("claim", ["relay", "direct"])
def test_a_relay_is_no_direct_path_whatever_the_daemons_say(claim: str) -> None:
    assert judge(relayed(claim), Outcome.DIRECT).faults[0] == "relay instead of direct"


def test_a_direct_path_that_daemons_call_otherwise_is_a_fault() -> None:
    other = side("b", B, (1.25, "relay"))
    faults = judge(replace(DIRECT, other=other), Outcome.DIRECT).faults
    assert faults == ["the daemons say direct and relay, the core saw direct"]


def test_payload_at_the_registry_after_direct_is_a_fault() -> None:
    stray = [*DIRECT.crossings, packet(1.45, A, REGISTRY), packet(1.47, REGISTRY, B)]
    verdict = judge(replace(DIRECT, crossings=stray), Outcome.DIRECT)
    assert verdict.outcome is Outcome.DIRECT
    assert verdict.faults == ["2 packets of payload at the registry after both were direct"]
    before = [*DIRECT.crossings, packet(1.3, A, REGISTRY), packet(1.32, REGISTRY, B)]
    assert judge(replace(DIRECT, crossings=before), Outcome.DIRECT).faults == []


def test_what_the_registry_says_itself_is_no_payload_whatever_its_size() -> None:
    said = [packet(1.9, REGISTRY, A, head=b"one"), packet(1.9, B, REGISTRY, head=b"other")]
    elsewhere = [packet(1.9, REGISTRY, C), packet(1.9, C, REGISTRY)]
    assert judge(replace(DIRECT, crossings=[*DIRECT.crossings, *said, *elsewhere]), Outcome.DIRECT).faults == []


def test_where_one_side_cannot_be_seen_all_of_that_size_is_payload() -> None:
    ways = exchange(REGISTRY, B, range(126, 200, 2))
    beside = replace(relayed(), registry=At(frozenset((REGISTRY,)), frozenset((51820,))), crossings=[*PUBLISHED, *ways])
    assert judge(beside, Outcome.RELAY).faults == []
    in_tls = [replace(one, protocol=TCP, head=b"") for one in exchange(A, REGISTRY, range(126, 200, 2))]
    unlike = [replace(one, head=b"?") for one in ways]
    assert judge(replace(relayed(), crossings=[*PUBLISHED, *in_tls, *unlike]), Outcome.RELAY).faults == []


def test_other_long_packets_are_no_payload() -> None:
    told = [*DIRECT.crossings, packet(1.9, REGISTRY, A, 780), packet(1.9, REGISTRY, B, 1308)]
    assert judge(replace(DIRECT, crossings=told), Outcome.DIRECT).faults == []


def test_pings_that_the_core_does_not_see_stay_in_the_lan() -> None:
    for claim, outcome, technique in (("lan", Outcome.LAN, "lan"), ("direct", Outcome.DIRECT, "hairpin")):
        sides = {"asker": side("a", A, (1.1, "ordered"), (1.2, claim)), "other": side("b", A, (1.2, claim))}
        verdict = judge(replace(DIRECT, crossings=PUBLISHED, **sides), outcome)
        assert (verdict.outcome, verdict.technique, verdict.faults) == (outcome, technique, [])


def test_no_answers_are_nothing() -> None:
    verdict = judge(replace(DIRECT, replies=replies(64, 70)), Outcome.DIRECT)
    assert verdict.outcome is None
    assert verdict.faults == ["nothing instead of direct"]


def test_lost_pings_are_those_between_answered_ones() -> None:
    gap = tuple(reply for reply in DIRECT.replies if reply.number not in (70, 80, 81))
    assert judge(replace(DIRECT, replies=gap), Outcome.DIRECT).lost_pings == 3


def test_nobody_asked() -> None:
    silent = {"asker": side("a", A), "other": side("b", B)}
    verdict = judge(replace(DIRECT, **silent, crossings=[], replies=()), Outcome.RELAY)
    assert (verdict.outcome, verdict.asked_at, verdict.claims) == (None, None, (None, None))


def test_what_ping_prints() -> None:
    output = (
        "PING 10.1.1.3 (10.1.1.3) 700(728) bytes of data.\n"
        "[1795749487.184308] 708 bytes from 10.1.1.3: icmp_seq=3 ttl=64 time=12.3 ms\n"
        "[1795749487.204308] 708 bytes from 10.1.1.3: icmp_seq=4 ttl=64 time=9 ms\n"
        "\n--- 10.1.1.3 ping statistics ---\n4 packets transmitted, 2 received, 50% packet loss, time 60ms\n"
    )
    first, second = parse_replies(output, -1795749480.0)
    assert (first.number, first.milliseconds, second.number, second.milliseconds) == (3, 12.3, 4, 9.0)
    assert first.at == pytest.approx(7.184308)


def test_the_silence_after_an_event() -> None:
    def silent_for(times: list[float], until: float = 2.0) -> float | None:
        heard = tuple(Reply(number, at, 40.0) for number, at in enumerate(times))
        return judge(replace(DIRECT, replies=heard, event_at=1.5, until=until), Outcome.DIRECT).gap_ms

    assert silent_for([1.0, 1.3, 1.48, 1.6, 1.62, 1.9, 1.99]) == 280.0
    assert silent_for([1.48, 1.6], until=2.1) == 500.0
    assert judge(DIRECT, Outcome.DIRECT).gap_ms is None


def test_the_relay_may_carry_what_an_event_interrupted() -> None:
    stray = [*DIRECT.crossings, packet(1.55, A, REGISTRY), packet(1.57, REGISTRY, B)]
    assert judge(replace(DIRECT, crossings=stray, event_at=1.5), Outcome.DIRECT).faults == []
