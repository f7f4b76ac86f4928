"""Which peer is meant, what is still missing, and what a person is told."""

from dataclasses import replace

import pytest

from wgdisco import cli
from wgdisco.api import PeerReport, StatusReport
from wgdisco.errors import LocalError
from wgdisco.seeing_verbs import find_peer, indirect, missing_online, pong_line
from wgdisco.status import render_netcheck


def peer(name, path, reason=None, address="10.9.0.2/32"):
    return PeerReport(
        public_key=f"key of {name}",
        path=path,
        reason=reason,
        endpoint="203.0.113.7:41424",
        endpoint_from="zone",
        allowed_ips=[] if address is None else [address],
        latest_handshake=None,
        rx_bytes=0,
        tx_bytes=0,
        persistent_keepalive=0,
        preshared_key=False,
        name=name,
    )


def report(*peers, settled=True):
    return StatusReport("member", "home", None, 1, "x.", "e", "v", list(peers), {}, settled=settled)


REGISTRY = replace(peer("registry", "direct"), allowed_ips=["10.9.0.1/32", "10.9.0.77/32"])
BOB = peer("bob", "direct")
NEXT = peer("bob", "idle", "not yet tried", None)  # the key bob announced, without addresses of its own


def test_a_peer_is_found_by_name_and_by_address():
    reports = [report(REGISTRY, NEXT, BOB), report(peer("carol", "relay", None, "10.8.0.9/32"))]
    assert find_peer(reports, "bob") == find_peer(reports, "10.9.0.2")
    assert find_peer(reports, "bob").name == "bob"
    assert str(find_peer(reports, "carol").address) == "10.8.0.9"
    behind = find_peer(reports, "10.9.0.77")  # a device: it is reached by the registry, and is not it
    assert (behind.key, behind.name, str(behind.address)) == (REGISTRY.public_key, "10.9.0.77", "10.9.0.77")
    for nobody in ("erin", "10.9.0.3", "::1", ""):
        with pytest.raises(LocalError, match="there is no peer"):
            find_peer(reports, nobody)


@pytest.mark.parametrize(
    ("path", "reason", "rtt", "said"),
    [
        ("direct", None, 0.0123, "direct in 12 ms"),
        ("lan", None, 0.00123, "lan in 1.2 ms"),
        ("relay", "both NATs port-dependent", 0.08, "relay (both NATs port-dependent) in 80 ms"),
    ],
)
def test_a_pong_is_one_line(path, reason, rtt, said):
    bob = peer("bob", path, reason)
    line = pong_line(find_peer([report(bob)], "bob"), bob, rtt)
    assert line == f"pong from bob (10.9.0.2) via 203.0.113.7:41424 {said}"


def test_online_is_when_the_registry_and_all_who_are_online_are_reached():
    assert missing_online(report(REGISTRY, BOB)) == []
    gone = peer("dave", "punching", "peer offline")
    assert missing_online(report(REGISTRY, BOB, gone)) == []
    tried = peer("carol", "punching", "no UDP answer")
    assert missing_online(report(REGISTRY, tried, settled=False)) == ["carol is punching (no UDP answer)"]
    alone = replace(REGISTRY, path="punching", reason="peer offline")
    assert missing_online(report(alone, settled=False)) == ["registry is punching (peer offline)"]
    assert missing_online(report(settled=False)) == ["the registry of home does not answer inside the tunnel"]


def test_direct_is_when_nobody_online_is_reached_otherwise():
    relayed = peer("carol", "relay", "no UDP answer", "10.9.0.3/32")
    gone = peer("dave", "stale", "peer offline", "10.9.0.4/32")
    here = report(replace(REGISTRY, path="relay"), NEXT, BOB, relayed, gone)
    assert indirect(here, None) == [relayed]
    assert indirect(here, find_peer([here], "bob")) == []
    assert indirect(here, find_peer([here], "dave")) == [gone]


FOUND = {
    "schema": 1,
    "interface": "home",
    "udp": "tls",
    "registry": "127.0.0.1:5",
    "ipv4": {"works": True, "reflexive": ["192.0.2.1:5", "192.0.2.1:6"]},
    "ipv6": {"works": None, "reflexive": []},
    "nat": {
        "mapping": "address-and-port-dependent",
        "filtering": None,
        "delta": -1,
        "preserves_port": False,
        "block": [5, 6],
        "hairpinning": None,
        "classic": None,
        "lifetime": {"at_least": 33.75, "below": 41.25},
    },
    "keepalive": 27,
    "relay": {"rtt_ms": 41.26},
    "peers": [
        {"name": "bob", "online": True, "nat": "eim/apdf/-", "lan": ["192.168.1.7:5"], "expected": "lan"},
        {"name": "carol", "online": True, "nat": None, "lan": [], "expected": None},
        {"name": "dave", "online": False, "nat": "eim/eif/-", "lan": [], "expected": "direct"},
    ],
}


def test_a_netcheck_is_a_table():
    assert render_netcheck(FOUND).splitlines() == [
        "UDP:            no: the registry is reached by TLS (127.0.0.1:5)",
        "IPv4:           seen at 192.0.2.1:5, 192.0.2.1:6",
        "IPv6:           not looked at: the registry or this host has no such address",
        "mapping:        address-and-port-dependent, ports -1 apart",
        "filtering:      unknown",
        "port block:     5 to 6",
        "port preserved: no",
        "hairpinning:    unknown",
        "lifetime:       34 to 41 s; one packet each 27 s",
        "NAT type:       unknown",
        "near:           bob at 192.168.1.7:5",
        "relay:          41.3 ms",
        "",
        "PEER   NAT         EXPECTED",
        "bob    eim/apdf/-  lan",
        "carol  -           unknown",
        "dave   eim/eif/-   offline",
    ]
    nothing = FOUND["nat"] | {"mapping": None, "block": None, "lifetime": {"at_least": None, "below": None}}
    blind = FOUND | {"udp": None, "registry": None, "nat": nothing, "relay": {"rtt_ms": None}, "peers": []}
    said = render_netcheck(blind)
    assert "UDP:            the registry is not reached\n" in said
    assert "lifetime:       not measured yet; one packet each 27 s\n" in said


@pytest.mark.parametrize(
    "words", [["ping", "bob", "-c", "0"], ["ping", "bob", "--timeout", "nan"], ["wait", "--timeout", "-1"], ["ping"]]
)
def test_bad_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.build_parser().parse_args(words)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
