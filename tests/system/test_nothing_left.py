"""Daemons killed at any moment: the next one that ends in order, or the verb that gives up, leaves the host as it was.

What is compared is all there is to see of the host (`host_state.py`), whichever part of the program changed it.
"""

import random
import signal
import time

import pytest

from tests.system.host_state import differences, host_state
from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM
from tests.system.test_firewall import NFT
from tests.system.test_full_tunnel import FullTunnel
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")
STORED = "find /var/lib/wgdisco -mindepth 1"


class Killed:
    """A host on which a daemon is killed, and `ways` by which the host is to be as before."""

    ways: tuple[str, ...] = ()

    def __init__(self, lab, host):
        self.host = lab.hosts[host]
        self.host.run(["mkdir", "-p", "/run/wgdisco", "/run/wireguard"])
        self.before = host_state(self.host)
        self.usual = 0.0
        self.left = 0

    def command(self):
        raise NotImplementedError

    def go_way(self, way):
        raise NotImplementedError

    def run(self, *words):
        done = self.host.run([*PROGRAM, *words], check=False)
        assert "Traceback" not in done.stderr
        return done

    def start(self):
        """A daemon that has come up."""
        began = time.monotonic()
        daemon = Daemon(self.host, self.command())
        daemon.wait_for("started", 30)
        self.usual = time.monotonic() - began
        return daemon

    def start_and_stop(self):
        process = self.start().process
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0

    def kill(self, dice):
        """At a moment of its start, or shortly after; once it is up if there are no dice."""
        if dice is None:
            process = self.start().process
        else:
            process = Daemon(self.host, self.command()).process
            time.sleep(dice.uniform(0.6, 1.2) * self.usual)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.left += bool(self.changed())

    def changed(self, *, stored=False):
        lines = differences(self.before, host_state(self.host))
        return [line for line in lines if stored or STORED not in line]

    def times(self, count, dice):
        """Each way once with a daemon that was up, then by turns with one killed at a moment that the dice say."""
        for number in range(count):
            self.kill(None if number < len(self.ways) else dice)
            way = self.ways[number % len(self.ways)]
            stored = self.go_way(way)
            assert self.changed(stored=stored) == [], way
        print(f"\n{count} kills, of which {self.left} left something behind")
        assert self.left >= len(self.ways)


class Pinned(Killed):
    """Everything is routed into the tunnel."""

    ways = ("start", "down")

    def __init__(self, network):
        super().__init__(network.lab, "alice")
        self._command = network.command("alice")

    def command(self):
        return self._command

    def go_way(self, way):
        if way == "start":
            self.start_and_stop()
        else:
            self.run("down", "alice")


class Managed(Killed):
    """The host's firewall drops, and nobody is let in."""

    ways = ("start", "down", "leave")

    def __init__(self, mesh):
        mesh.lab.hosts["alice"].run(["sh", "-ec", NFT])
        super().__init__(mesh.lab, "alice")
        self.mesh = mesh
        self.invited = 0
        self.link = self.invite()

    def invite(self):
        self.invited += 1
        return self.mesh.registry("invite", f"m{self.invited}")

    def command(self):
        return [*PROGRAM, "join", self.link, "--firewall", "auto", "--block-incoming"]

    def go_way(self, way):
        if way == "start":
            self.start_and_stop()
        elif way == "down":
            self.run("down")
        else:
            was_member = "left " in self.run("leave", "--yes").stdout
            if was_member:
                self.link = self.invite()
            return was_member  # of one that was not yet the key waits for the next try with its link
        return False


class Registry(Killed):
    """A hub that forwards, to the Internet too, and the host's firewall drops."""

    ways = ("start", "uninstall")

    def __init__(self, lab):
        lab.hosts["registry"].run(["sh", "-ec", NFT])
        super().__init__(lab, "registry")
        self.init()

    def init(self):
        assert self.run("registry", "init").returncode == 0
        assert self.run("registry", "add", "phone", "--full-tunnel").returncode == 0

    def command(self):
        return [*PROGRAM, "registry", "run"]

    def go_way(self, way):
        if way == "start":
            self.start_and_stop()
            return False
        assert self.run("registry", "uninstall", "--yes").returncode == 0
        assert self.changed(stored=True) == []
        self.init()
        self.start_and_stop()
        return False


def kill_pinned(count):
    with read_lab(), Lab() as lab, FullTunnel(lab) as network:
        Pinned(network).times(count, random.Random(count))


def kill_managed(count):
    with read_lab() as lab:
        Managed(Mesh(lab)).times(count, random.Random(count))


def kill_registry(count):
    with read_lab() as lab:
        Registry(lab).times(count, random.Random(count))


def test_4_kills_of_a_member_that_routes_everything_leave_nothing():
    kill_pinned(4)


def test_5_kills_of_a_member_leave_nothing():
    kill_managed(5)


def test_3_kills_of_a_registry_leave_nothing():
    kill_registry(3)


@pytest.mark.soak
@pytest.mark.parametrize("kill", [kill_pinned, kill_managed, kill_registry])
def test_100_kills_leave_nothing(kill):
    kill(100)
