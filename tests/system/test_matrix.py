"""`wgdisco lab matrix`: pairs of NAT types with the real daemons are connected as theory says."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from wgdisco.lab.world import environment

pytestmark = pytest.mark.usefixtures("needs_lab")


def matrix(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wgdisco", "lab", "matrix", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=7200, env=environment())


def told_by(tmp_path, *arguments: str, misses: int = 0) -> dict:
    """The matrix's JSON; what failed, at most `misses`, is shown packet by packet."""
    failures = tmp_path / "failures"
    done = matrix("-o", "json", "--failures", str(failures), *arguments)
    seen = "".join(file.read_text() for file in failures.glob("*")) if failures.exists() else ""
    told = json.loads(done.stdout or "{}")
    missed = told.get("trials", 0) - told.get("passed", -1)
    assert missed <= misses, done.stderr + seen
    if missed:
        print(done.stderr + seen)
    assert told["schema"] == 1
    assert told["trials"] == done.stderr.count(" x ")
    return told


def test_every_pair_is_connected_as_theory_says(tmp_path) -> None:
    picture = tmp_path / "matrix.svg"
    told = told_by(tmp_path, "--seeds", "2", "--svg", str(picture))
    assert told["outcomes"] == {"lan": 0, "direct": 2 * 37, "relay": 2 * 18}
    assert 40.0 <= told["measured"]["T1"]["registry_ms"] < 100.0
    assert 40.0 <= told["measured"]["T1"]["peer_ms"] < 100.0
    assert picture.read_text().startswith("<svg")


OTHERS = {"T2": 2, "T3": 2, "T4": 2, "T6": 1, "T6b": 2, "T8": 2, "T9": 2, "T10": 2, "UDP": 2}


def test_other_networks(tmp_path) -> None:
    types = "full-cone,symmetric-random"
    told = told_by(tmp_path, "--topologies", ",".join(OTHERS), "--types", types)
    assert Counter(cell["topology"] for cell in told["cells"]) == OTHERS
    assert told["outcomes"]["lan"] == OTHERS["T3"]


def test_roaming(tmp_path) -> None:
    told = told_by(tmp_path, "--topologies", "T5", "--types", "port-restricted")
    assert told["gap_ms"]["roams"]["max"] <= 2000
    assert told["gap_ms"]["rebinds"]["max"] <= 2500
    assert told["gap_ms"]["both_roam"]["max"] <= 3000


BOTH_WAYS = pytest.mark.parametrize("engines", ["external,userspace", "userspace,external", "external,external"])
NEEDS_ANOTHER = pytest.mark.skipif(not shutil.which("wireguard-go"), reason="needs wireguard-go")


@NEEDS_ANOTHER
@BOTH_WAYS
def test_wireguard_go_is_led_as_our_own_engine_is(tmp_path, engines) -> None:
    told = told_by(tmp_path, "--types", "port-restricted,eim-other-port", "--engines", engines)
    assert told["outcomes"]["direct"] == 3


@pytest.mark.soak
@NEEDS_ANOTHER
@BOTH_WAYS
def test_every_pair_with_wireguard_go(tmp_path, engines) -> None:
    told = told_by(tmp_path, "--engines", engines)
    assert told["outcomes"] == {"lan": 0, "direct": 37, "relay": 18}
    print({name: value for name, value in told.items() if name != "cells"})


@pytest.mark.soak
@pytest.mark.parametrize("loss", ["0", "5", "20"])
def test_every_pair_fifty_times(tmp_path, loss) -> None:
    told = told_by(tmp_path, "--seeds", "50", "--loss", loss)
    print({name: value for name, value in told.items() if name != "cells"})


@pytest.mark.soak
def test_thirty_hosts_behind_one_nat(tmp_path) -> None:
    assert told_by(tmp_path, "--topologies", "T7", "--types", "port-restricted")["outcomes"]["direct"] == 30


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--types", "conical"], "there is no type 'conical': choose from public, firewall"),
        (["--topologies", "T0"], "there is no topology 'T0': choose from T1"),
        (["--types", ","], "there is no type ''"),
        (["--seeds", "0"], "--seeds is at least 1"),
        (["--loss", "100"], "--loss from 0 to 99"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], complaint: str) -> None:
    done = matrix(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
