"""The watcher in a namespace of its own, whose interfaces we change."""

import json
import subprocess
import sys

import pytest

from wgdisco.lab.world import World
from wgdisco.machine import boot_time

pytestmark = pytest.mark.usefixtures("needs_lab")

SETUP = """
ip link set lo up
ip link add eth0 type veth peer name far0
ip link add eth1 type veth peer name far1
for link in eth0 far0 eth1 far1; do ip link set $link up; done
ip address add 192.168.1.5/24 dev eth0
ip address add 10.1.1.5/24 dev eth1
ip route add default via 192.168.1.1 metric 100
"""
# a change must be told this soon after it was made (seconds)
SOON = 1.0  # 15 ms on a quiet machine


class Watched:
    """A host and what the watcher in it says."""

    def __init__(self, host) -> None:
        self.host = host
        host.run(["sh", "-ec", SETUP])
        self._watcher = host.popen([sys.executable, "-m", "tests.peer.io.watcher"], stdout=subprocess.PIPE)

    def told(self):
        line = self._watcher.stdout.readline()
        assert line, "the watcher ended"
        return json.loads(line)

    def close(self):
        self._watcher.stop()
        self._watcher.stdout.close()

    def after(self, command: str):
        """What is told after a change, which must be soon; the clock starts before the command does."""
        self.host.run(["sh", "-ec", command])
        made_at = boot_time()
        told = self.told()
        assert told["at"] - made_at < SOON
        return told


@pytest.fixture
def watched():
    with World(["host"]) as world:
        watched = Watched(world.hosts["host"])
        yield watched
        watched.close()


def test_changes_are_told_soon(watched):
    first = watched.told()
    assert first["usable"] == ["192.168.1.5", "10.1.1.5"]
    assert first["gateway"] == "192.168.1.1 eth0"
    added = watched.after("ip address add 192.168.1.6/24 dev eth0")
    assert added["usable"] == ["192.168.1.5", "192.168.1.6", "10.1.1.5"]
    removed = watched.after("ip address del 192.168.1.6/24 dev eth0")
    assert removed["usable"] == first["usable"]
    batch = "(echo route del default; echo route add default via 10.1.1.1) | ip -batch -"
    flipped = watched.after(batch)
    if flipped["gateway"] is None:  # the machine was busy between the two
        flipped = watched.told()
    assert flipped["gateway"] == "10.1.1.1 eth1"
    assert flipped["usable"] == ["10.1.1.5", "192.168.1.5"]
    down = watched.after("ip link set far0 down")
    assert down["usable"] == ["10.1.1.5"]


def test_what_changes_nothing_is_not_told(watched):
    first = watched.told()
    # many routes of no interest, and an interface of our own
    routes = "for n in $(seq 1 1000); do echo route add 10.9.$((n / 250)).$((n % 250))/32 via 192.168.1.1; done"
    watched.host.run(["sh", "-ec", f"({routes}) | ip -batch -"])
    watched.host.run(
        [
            "sh",
            "-ec",
            "ip link add mesh type veth peer name hidden; ip link set mesh up; ip address add 10.77.0.1/16 dev mesh",
        ]
    )
    told = watched.after("ip route replace default via 192.168.1.254 metric 100")
    assert told["gateway"] == "192.168.1.254 eth0"
    assert "mesh" not in told["links"]
    assert told["usable"] == first["usable"]
