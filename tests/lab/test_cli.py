"""`lab demo` and `lab exec` as processes: a lab that is kept, looked into, and ended by a signal."""

import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace
from wgdisco.lab.topology import Lab
from wgdisco.lab.world import environment

pytestmark = pytest.mark.usefixtures("needs_lab")

# A program that keeps all waiting: it starts, and never gets anywhere.
RUN = """
import argparse, sys
from wgdisco.errors import WgdiscoError
from wgdisco.lab import cli, scenario
said = '{"schema": 1, "event": "started"}'
scenario.Demo.__init__.__defaults__ = (("sh", "-c", f"echo '{said}' >&2; sleep 1000"),)
parser = argparse.ArgumentParser()
cli.add_parser(parser.add_subparsers())
args = parser.parse_args()
try:
    sys.exit(args.run(args))
except WgdiscoError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
COMMAND = ["env", "--default-signal=INT", sys.executable, "-c", RUN, "lab"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo(number: signal.Signals, code: int) -> None:
    mark = f"DEMO_OF_A_TEST={secrets.token_hex(8)}"  # everything of this demo has it, and nothing of other tests' labs
    with subprocess.Popen(
        ["env", mark, *COMMAND, "demo", "--nat-a", "public"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        assert process.stderr is not None
        while "alice" not in (line := process.stderr.readline()):
            assert line, "the demo ended"
        assert len(running_with(mark)) > 1
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stderr.read().endswith("interrupted: the lab is gone\n")
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert running_with(mark) == []


def running_with(variable: str) -> list[str]:
    """Processes that have this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found


def lab_exec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "exec", *arguments], capture_output=True, check=False, env=environment(), text=True, timeout=20
    )


@in_namespace  # where no other test makes one meanwhile
def test_exec_looks_into_the_lab_made_last() -> None:
    with Lab("port-restricted", "public"):
        assert "inet 192.168.1.10/24" in lab_exec("alice", "ip", "addr").stdout
        assert lab_exec("bob", "sh", "-c", "exit 9").returncode == 9
        refused = lab_exec("carol", "true")
        assert refused.returncode == 3
        assert refused.stderr == "the lab has no host 'carol': it has alice, bob, core, nat-a, nat-b, registry\n"


def test_unknown_nat_type_is_a_usage_error() -> None:
    done = subprocess.run(
        [*COMMAND, "demo", "--nat-a", "conical"], capture_output=True, check=False, env=environment(), text=True
    )
    assert done.returncode == 2
    assert "'conical'" in done.stderr
