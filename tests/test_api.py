import json
from dataclasses import MISSING, fields, replace

import pytest

from wgdisco.api import SCHEMA, CandidatesRequest, PathWord, PeerReport, Reason, StatusReport, StunRecord, to_json

PEER = PeerReport(
    public_key="a" * 43 + "=",
    path="punching",
    reason="no UDP answer",
    endpoint="[2001:db8::1]:51820",
    endpoint_from="zone",
    allowed_ips=["10.0.0.2/32"],
    latest_handshake=1700000000.5,
    rx_bytes=1,
    tx_bytes=2,
    persistent_keepalive=25,
    preshared_key=True,
)
REPORT = StatusReport(
    role="member",
    interface="alice",
    public_key=None,
    listen_port=51820,
    zone="example.com.",
    engine="userspace (reference)",
    version="0.1.0",
    peers=[PEER, replace(PEER, reason=None, endpoint=None, endpoint_from=None, latest_handshake=None)],
    drops={"bad mac1": 3},
)


def over_the_wire(report: StatusReport) -> dict:
    return json.loads(json.dumps(report.to_json()))


def test_what_is_sent_is_what_is_read():
    data = over_the_wire(REPORT)
    assert data["schema"] == SCHEMA == 1
    assert data["peers"][0]["latest_handshake"] == 1700000000.5
    assert StatusReport.from_json(data) == REPORT


def test_what_a_later_version_tells_besides_is_passed_over():
    data = over_the_wire(REPORT)
    data["uptime"] = 7
    data["peers"][0]["rtt_ms"] = 12
    assert StatusReport.from_json(data) == REPORT


@pytest.mark.parametrize("data", [None, [], "status", 7, {}, {"schema": 2}, {"schema": "1"}])
def test_another_schema_is_an_error_that_says_what_to_do(data):
    with pytest.raises(ValueError, match="restart it"):
        StatusReport.from_json(data)


REQUIRED = [
    *(field.name for field in fields(StatusReport) if field.default is MISSING and field.default_factory is MISSING),
    *(f"peers.{field.name}" for field in fields(PeerReport) if field.default is MISSING),
]


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field):
    data = over_the_wire(REPORT)
    outer, _, inner = field.partition(".")
    if inner:
        del data["peers"][0][inner]
    else:
        del data[outer]
    with pytest.raises(ValueError, match=f"incomplete.*{inner or outer}"):
        StatusReport.from_json(data)


@pytest.mark.parametrize("peers", [None, 7, [None], ["text"], [[1]], {"a": 1}])
def test_peers_that_are_none_are_an_error(peers):
    with pytest.raises(ValueError, match="incomplete"):
        StatusReport.from_json({**over_the_wire(REPORT), "peers": peers})


def test_the_words_are_the_closed_lists_of_the_format():
    assert [word.value for word in PathWord] == ["idle", "punching", "direct", "lan", "relay", "stale"]
    assert [reason.value for reason in Reason] == [
        "peer offline",
        "registry unreachable",
        "no UDP answer",
        "both NATs port-dependent",
        "host firewall",
        "clock",
        "revoked",
        "version",
        "not yet tried",
    ]


STUN = StunRecord(["198.51.100.10:3478", "[2001:db8::1]:3478"], "1f.0123", "secret", 3600)


def test_a_stun_record_is_read_as_it_was_sent():
    assert StunRecord.from_json(json.loads(json.dumps(to_json(STUN)))) == STUN
    assert "secret" not in repr(STUN)


def test_a_heartbeat_is_within_its_bounds():
    for seconds in (None, 15, 75):
        asked = CandidatesRequest([], None, seconds)
        assert CandidatesRequest.from_json(json.loads(json.dumps(to_json(asked)))) == asked
    for seconds in (14, 76, 0, True, 20.0, "20"):
        with pytest.raises(ValueError, match="heartbeat: a number from 15 to 75"):
            CandidatesRequest.from_json({"schema": 1, "candidates": [], "heartbeat": seconds})


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"endpoints": "198.51.100.10:3478"},
        {"endpoints": ["198.51.100.10"]},
        {"endpoints": [3478]},
        {"endpoints": ["198.51.100.10:3478"] * 17},
        {"username": None},
        {"password": 1},
        {"username": "x" * 300},
        {"lifetime": 0},
        {"lifetime": True},
        {"lifetime": "3600"},
    ],
)
def test_another_stun_record_is_refused(change):
    with pytest.raises(ValueError, match=r"."):
        StunRecord.from_json(to_json(STUN) | change)


@pytest.mark.parametrize(
    "nat", ["", "eim", "eim/apdf/-\n", "eim/apdf/99", "\U0001f600" * 64, "x" * 300, 7, ["eim/apdf/-"]]
)
def test_what_a_member_says_of_its_nat_is_a_profile_or_refused(nat):
    """It is published in the zone, where a text of more than 255 bytes would keep the whole answer from going out."""
    with pytest.raises(ValueError, match=r"nat: a text|is not a NAT profile"):
        CandidatesRequest.from_json({"schema": 1, "candidates": [], "nat": nat})
    assert CandidatesRequest.from_json({"schema": 1, "candidates": [], "nat": "eim/apdf/-"}).nat == "eim/apdf/-"
