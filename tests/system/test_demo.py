"""`wgdisco lab demo`: the main job on real packets, judged by what the core of the lab saw."""

import json
import shutil
import subprocess
import sys

import pytest

from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.nat import can_punch

pytestmark = pytest.mark.usefixtures("needs_lab")

# Both orders of a pair differ in who starts first; `make test` runs one, `make soak` the other too.
PAIRS = [
    (a, b)
    for number, a in enumerate(NAT_TYPES)
    for b in list(NAT_TYPES)[number:]
    if can_punch(NAT_TYPES[a].profile, NAT_TYPES[b].profile)
]


def demo(*arguments: str, program: tuple[str, ...] = (sys.executable,)) -> tuple[int, dict]:
    command = [*program, "-m", "wgdisco", "lab", "demo", "-o", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def check_direct(report: dict) -> None:
    assert report["schema"] == 1
    assert report["direct"] is True, report
    assert report["time_to_direct_ms"] < 5000
    assert report["first_ping_ms"] is not None
    assert report["registry_saw_payload"] is False
    assert report["registry_packets"] < 20
    for host in ("alice", "bob"):
        assert report["pings"][host] == {"sent": 200, "received": 200}
        assert report["direct_packets"][host] >= 400  # its own pings and its answers to the other's


def test_the_pair_of_the_walkthrough_is_direct_within_five_seconds():
    code, report = demo()
    check_direct(report)
    assert code == 0
    assert report["nat"] == {"alice": "eim-other-port", "bob": "port-restricted"}
    assert report["endpoints"]["alice"].startswith("192.0.2.10:")
    assert not report["endpoints"]["alice"].endswith(":51820"), "this NAT changes the port"
    assert report["endpoints"]["bob"] == "203.0.113.10:51820", "and this one keeps it"


@pytest.mark.skipif(not shutil.which("wireguard-go"), reason="needs wireguard-go")
@pytest.mark.parametrize("hosts", [("alice",), ("bob",), ("alice", "bob"), ("registry", "alice", "bob")], ids="+".join)
def test_with_wireguard_go_for_an_engine(hosts):
    code, report = demo(*(f"--engine={host}=external" for host in hosts))
    assert (code, report["direct"], report["registry_saw_payload"]) == (0, True, False), report


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--engine", "carol=kernel"], "write HOST=NAME"), (["--engine", "alice=steam"], "there is no engine 'steam'")],
)
def test_engines_that_cannot_be(arguments, complaint):
    command = [sys.executable, "-m", "wgdisco", "lab", "demo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert complaint in done.stderr


def test_with_the_direct_path_blocked_it_says_so():
    code, report = demo("--block-direct", "--timeout", "8")
    assert code == 1
    assert report["direct"] is False
    assert report["reason"]
    assert report["endpoints"] == {"alice": report["endpoints"]["alice"], "bob": "203.0.113.10:51820"}


def test_there_are_as_many_punchable_pairs_as_the_field_study_found():
    assert len(PAIRS) == 33


@pytest.mark.parametrize(("nat_a", "nat_b"), PAIRS)
def test_plain_punching_connects_the_pair(nat_a, nat_b):
    _, report = demo("--nat-a", nat_a, "--nat-b", nat_b, "--timeout", "20")
    check_direct(report)


@pytest.mark.soak
@pytest.mark.parametrize(("nat_a", "nat_b"), [(b, a) for a, b in PAIRS if a != b])
def test_plain_punching_connects_the_pair_started_the_other_way_round(nat_a, nat_b):
    _, report = demo("--nat-a", nat_a, "--nat-b", nat_b, "--timeout", "20")
    check_direct(report)
