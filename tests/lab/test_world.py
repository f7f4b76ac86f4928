"""Whatever way the process that made a lab ends, nothing of the lab is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from wgdisco.lab.topology import Lab
from wgdisco.lab.world import World, environment, find_holders

pytestmark = pytest.mark.usefixtures("needs_lab")

# where the tests run in the background, signals that a shell has its jobs ignore are heeded again
HOLD_A_LAB = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from wgdisco.lab.topology import Lab
with Lab("port-restricted", "public") as lab, lab.capture():
    lab.hosts["alice"].popen(["sh", "-c", "trap '' TERM INT HUP; setsid sleep 1000 & sleep 1000"])
    print(lab.identifier, flush=True)
    time.sleep(1000)
"""


def namespaces(pid: str | int) -> set[str]:
    """The PID, network and mount namespaces of a process; none once it has ended."""
    try:
        return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "net", "mnt")}
    except OSError:
        return set()


def in_use() -> dict[str, set[str]]:
    """Namespace → processes in it, over the whole machine."""
    found: dict[str, set[str]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        for namespace in namespaces(directory.name):
            found.setdefault(namespace, set()).add(directory.name)
    return found


def left_over(lab_namespaces: set[str], seconds: float = 5.0) -> dict[str, set[str]]:
    """What is still in use of `lab_namespaces` after up to `seconds`; empty as soon as nothing is."""
    end = time.monotonic() + seconds
    while True:
        still = {namespace: pids for namespace, pids in in_use().items() if namespace in lab_namespaces}
        if not still or time.monotonic() > end:
            return still
        time.sleep(0.02)


@contextmanager
def process_with_a_lab() -> Iterator[tuple[subprocess.Popen[str], set[str]]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LAB], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        assert process.stdout is not None
        identifier = process.stdout.readline().strip()
        holders = find_holders(identifier)
        assert len(holders) == 6, process.stderr and process.stderr.read()
        lab_namespaces = set[str]().union(*(namespaces(holder.pid) for holder in holders)) - namespaces("self")
        assert len(lab_namespaces) == 13  # one PID namespace, six of each of the others
        try:
            yield process, lab_namespaces
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number: signal.Signals) -> None:
    with process_with_a_lab() as (process, lab_namespaces):
        process.send_signal(number)
        process.wait(30)
        assert left_over(lab_namespaces) == {}


def test_nothing_is_left_after_an_end_or_an_error() -> None:
    for error in (None, RuntimeError):
        with suppress(RuntimeError), Lab("public", "public") as lab:
            lab_namespaces = set[str]().union(*(namespaces(host.pid) for host in lab.hosts.values()))
            background = lab.hosts["bob"].popen(["sleep", "1000"])
            if error is not None:
                raise error
        assert background.wait(5) != 0
        assert left_over(lab_namespaces - namespaces("self")) == {}


def test_signals_and_exit_statuses_are_the_process_own() -> None:
    with World(["host"]) as world:
        host = world.hosts["host"]
        assert host.run(["sh", "-c", "exit 7"], check=False).returncode == 7
        script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
        with host.popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert process.stop() == 3
            assert process.stdout.read() == "told\n"
        with host.popen(["sh", "-c", "trap '' TERM; echo ready; sleep 1000"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert process.stop(timeout=0.1) == -signal.SIGKILL


def test_a_command_that_takes_too_long_is_ended() -> None:
    with World(["host"]) as world:
        with pytest.raises(subprocess.TimeoutExpired):
            world.hosts["host"].run(["sleep", "1000"], timeout=0.1)
        assert "sleep 1000" not in world.hosts["host"].run(["ps", "-eo", "args"]).stdout
