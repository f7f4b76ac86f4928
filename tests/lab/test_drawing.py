"""A matrix as people see it: text, picture, and one trial packet by packet."""

import xml.etree.ElementTree as ET
from ipaddress import IPv4Address

import pytest

from wgdisco.api import PathWord
from wgdisco.lab.drawing import progress, sequence, to_svg, to_text
from wgdisco.lab.matrix import Cell, Measured, Report, Settings, percentiles
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.packets import UDP, Crossing
from wgdisco.lab.topologies import Pair
from wgdisco.lab.trial import Trial
from wgdisco.lab.verdict import Verdict

A, B = IPv4Address("192.0.2.10"), IPv4Address("203.0.113.10")
NAMES = {A: "alice", B: "bob"}


def trial(pair: Pair, outcome: Outcome | None, time: float | None, *faults: str) -> Trial:
    word = None if outcome is None else PathWord(outcome.value)
    technique = {Outcome.DIRECT: "published", Outcome.RELAY: "relay"}.get(outcome) if outcome else None
    verdict = Verdict(
        outcome,
        (word, word),
        technique,
        asked_at=10.0,
        time_to_direct_ms=time,
        first_reply_ms=None if time is None else time + 40.0,
        packets=(3, 2),
        faults=list(faults),
    )
    crossings = [
        Crossing(10.0 + at, fate, *way, UDP, ttl, length, head)
        for at, fate, way, ttl, length, head in (
            (0.001, "sent", (A, 1, B, 2), 63, 176, bytes([1, 0, 0, 0])),
            (0.002, "ttl", (B, 2, A, 1), 1, 38, b"?"),
            (0.003, "sent", (A, 1, B, 9), 63, 60, bytes([4, 0, 0, 0])),
            (0.004, "sent", (A, 1, B, 2), 63, 796, bytes([4, 0, 0, 0])),
        )
    ]
    return Trial(pair, verdict, crossings, NAMES, "what they said\n")


@pytest.fixture
def report() -> Report:
    report = Report(Settings(("public", "open-input"), ("T1",), 2, 0.04, 0.0))
    report.measured["T1"] = Measured(40.5, 40.7)
    for type_a, type_b, expected, trials in (
        ("public", "public", Outcome.DIRECT, ((Outcome.DIRECT, 60.0), (Outcome.DIRECT, 70.0))),
        ("public", "open-input", Outcome.RELAY, ((Outcome.RELAY, None), (Outcome.RELAY, None))),
        ("open-input", "open-input", Outcome.DIRECT, ((Outcome.DIRECT, 80.0), (None, None, "nothing <at> all"))),
    ):
        pair = Pair("a", "b", type_a, type_b, expected)
        report.cells.append(Cell("T1", pair, [trial(pair, *one) for one in trials]))
    return report


def test_text(report: Report) -> None:
    lines = to_text(report).splitlines()
    assert lines[:4] == [
        "T1: registry 40.5 ms, peers 40.7 ms away; times in ms",
        "                           pub       oi",
        "public                    = 60        R",
        "open-input                         !1/2",
    ]
    assert "as theory says   5 of 6" in lines
    assert "packets to punch at most 3 a side" in lines
    assert lines[-1] == "T1 open-input x open-input nothing <at> all"


def test_json(report: Report) -> None:
    told = report.to_json()
    assert (told["schema"], told["trials"], told["passed"]) == (1, 6, 5)
    assert told["outcomes"] == {"lan": 0, "direct": 3, "relay": 2}
    assert told["time_to_direct_ms"] == {"min": 60.0, "p50": 70.0, "p90": 80.0, "p99": 80.0, "max": 80.0}
    assert [cell["passed"] for cell in told["cells"]] == [2, 2, 1]
    assert told["cells"][2]["trials"][1]["faults"] == ["nothing <at> all"]
    assert told["measured"] == {"T1": {"registry_ms": 40.5, "peer_ms": 40.7}}


def test_svg_is_well_formed_and_has_a_box_a_cell(report: Report) -> None:
    root = ET.fromstring(to_svg(report))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}rect")) == 3
    assert {"= 60", "R", "!1/2"} <= {text.text for text in root.findall(f"{space}text")}


def test_progress(report: Report) -> None:
    assert progress(report.cells[0]) == "T1 public x public: published after 70 ms (first reply 110 ms)"
    assert progress(report.cells[2]) == "T1 open-input x open-input: nothing FAULT: nothing <at> all"


def test_sequence_names_hosts_and_leaves_pings_and_strangers_out(report: Report) -> None:
    lines = sequence(report.cells[2].trials[1]).splitlines()
    assert lines[0] == "fault: nothing <at> all"
    assert lines[2].split() == ["1.0", "alice:1", "-->", "bob:2", "initiation", "ttl", "63"]
    assert lines[3].split() == ["2.0", "bob:2", "--x", "alice:1", "datagram", "10", "ttl", "1", "ttl"]
    assert lines[4].strip() == "and 1 packets of pings"
    assert lines[-1] == "what they said"


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([]) is None
    assert percentiles([5.0]) == {"min": 5.0, "p50": 5.0, "p90": 5.0, "p99": 5.0, "max": 5.0}
    assert percentiles(list(range(1, 101))) == {"min": 1, "p50": 50, "p90": 90, "p99": 99, "max": 100}
