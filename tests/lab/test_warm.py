"""A forked wgdisco is in its host, hears signals, tells its exit status, and ends with whoever started it."""

import signal
import subprocess

import pytest

from wgdisco.errors import LocalError
from wgdisco.lab.warm import Warm
from wgdisco.lab.world import World

pytestmark = pytest.mark.usefixtures("needs_lab")


def said(process) -> str:
    with process.stderr as lines:
        return lines.read()


def await_up(process) -> None:
    """Until it says that it has started, whatever it says before."""
    said = []
    for line in iter(process.stderr.readline, ""):
        said.append(line)
        if '"started"' in line:
            return
    raise AssertionError(f"it ended: {said}")


def test_children_of_the_warm_process_are_programs_in_their_hosts() -> None:
    with World(["core", "one", "other"]) as world:
        warm = Warm(world.hosts["core"])
        refused = warm.start(world.hosts["one"], ["status"])
        assert "wgdisco: no wgdisco daemon runs here" in said(refused)
        assert refused.wait() == 3
        assert refused.stop() == 3
        init = ["registry", "init", "--endpoint", "192.0.2.1", "--firewall", "none"]
        made = warm.start(world.hosts["one"], init)
        text = said(made)
        assert made.wait() == 0, text
        running = warm.start(world.hosts["one"], ["registry", "run", "--log", "json"])
        await_up(running)
        assert "mesh" in world.hosts["one"].run(["ip", "link"]).stdout
        for elsewhere in ("other", "core"):
            assert "mesh" not in world.hosts[elsewhere].run(["ip", "link"]).stdout
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.01)
        assert running.stop() == 0
        assert said(running) is not None
        assert "mesh" not in world.hosts["one"].run(["ip", "link"]).stdout
        warm.close()


def test_children_end_with_the_connection_and_with_the_warm_process() -> None:
    with World(["core", "host"]) as world:
        warm = Warm(world.hosts["core"])
        init = ["registry", "init", "--endpoint", "192.0.2.1", "--firewall", "none"]
        made = warm.start(world.hosts["host"], init)
        said(made)
        assert made.wait() == 0
        running = warm.start(world.hosts["host"], ["registry", "run", "--log", "json"])
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        said(running)
        for ends in (lambda: None, world.close):
            running = warm.start(world.hosts["host"], ["registry", "run", "--log", "json"])
            await_up(running)
            ends()
            if ends is world.close:
                assert running.wait() == -signal.SIGKILL
            else:
                running._connection.close()
            said(running)
        with pytest.raises(LocalError, match="warm process is gone"):
            warm.start(world.hosts["host"], ["status"])
        warm.close()
