"""`wgdisco lab matrix`: pairs of NAT types with the real daemons are connected as theory says."""

import json
import subprocess
import sys

import pytest

from wgdisco.lab.world import environment

pytestmark = pytest.mark.usefixtures("needs_lab")


def matrix(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wgdisco", "lab", "matrix", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment())


def test_pairs_are_direct_as_theory_says(tmp_path) -> None:
    picture, failures = tmp_path / "matrix.svg", tmp_path / "failures"
    types = "port-restricted,open-input"
    done = matrix("--types", types, "-o", "json", "--svg", str(picture), "--failures", str(failures))
    seen = "".join(file.read_text() for file in failures.glob("*")) if failures.exists() else ""
    assert done.returncode == 0, done.stderr + seen
    told = json.loads(done.stdout)
    assert (told["schema"], told["trials"], told["passed"]) == (1, 3, 3)
    assert told["outcomes"] == {"lan": 0, "direct": 3, "relay": 0}
    assert 40.0 <= told["measured"]["T1"]["registry_ms"] < 60.0
    assert 40.0 <= told["measured"]["T1"]["peer_ms"] < 60.0
    assert told["packets_a_side"]["max"] <= 20
    assert picture.read_text().startswith("<svg")
    assert done.stderr.count("T1 ") == 3


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
