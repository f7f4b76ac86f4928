"""Whether a run counts as direct is for the core's record of packets to say."""

from ipaddress import IPv4Address

import pytest

from wgdisco.lab.capture import UDP, Packet
from wgdisco.lab.scenario import Report, judge

ALICE, BOB, REGISTRY = (IPv4Address(text) for text in ("192.0.2.10", "203.0.113.10", "198.51.100.10"))
OUTSIDE = {"alice": ALICE, "bob": BOB}
TCP = 6


def packets(
    source: IPv4Address, destination: IPv4Address, number: int, length: int = 1212, **fields: int
) -> list[Packet]:
    kept = {"protocol": UDP, "source_port": 51820, "destination_port": 51820} | fields
    return [Packet(1.0, source, destination, length=length, segments=1, first_byte=4, **kept)] * number


def judged(*groups: list[Packet]) -> Report:
    report = Report(nat={"alice": "public", "bob": "public"})
    judge([packet for group in groups for packet in group], OUTSIDE, REGISTRY, report)
    return report


DIRECT = packets(ALICE, BOB, 200) + packets(BOB, ALICE, 200)


def test_two_hundred_each_way_are_direct() -> None:
    report = judged(DIRECT, packets(ALICE, REGISTRY, 19, length=60))
    assert report.direct
    assert report.reason is None
    assert report.direct_packets == {"alice": 200, "bob": 200}
    assert report.registry_packets == 19
    assert not report.registry_saw_payload


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ([DIRECT[1:]], "only 199 packets of the pings from alice straight to bob"),
        ([DIRECT[:-1]], "only 199 packets of the pings from bob straight to alice"),
        ([packets(ALICE, BOB, 200, length=60), packets(BOB, ALICE, 200)], "only 0 packets of the pings from alice"),
        ([packets(ALICE, BOB, 200, protocol=TCP), packets(BOB, ALICE, 200)], "only 0 packets of the pings from alice"),
        ([DIRECT, packets(ALICE, REGISTRY, 20, length=60)], "20 packets to or from the registry"),
        ([DIRECT, packets(REGISTRY, BOB, 1)], "the registry saw payload"),
        ([], "only 0 packets"),
    ],
)
def test_what_keeps_a_run_from_being_direct(groups: list[list[Packet]], reason: str) -> None:
    report = judged(*groups)
    assert not report.direct
    assert reason in str(report.reason)
    assert reason in report.to_text()


def test_a_long_answer_of_the_zone_is_no_payload() -> None:
    assert judged(DIRECT, packets(REGISTRY, BOB, 1, source_port=53)).direct


def test_json_of_a_run_that_came_to_nothing() -> None:
    assert Report(nat={"alice": "public", "bob": "firewall"}, reason="no").to_json() == {
        "schema": 1,
        "direct": False,
        "reason": "no",
        "time_to_direct_ms": None,
        "first_ping_ms": None,
        "registry_saw_payload": False,
        "nat": {"alice": "public", "bob": "firewall"},
        "endpoints": {},
        "pings": {},
        "direct_packets": {},
        "registry_packets": None,
    }
