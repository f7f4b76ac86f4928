"""Daemons killed at any moment: the next one that ends in order, or the verb that gives up, leaves the host as it was.
So does one that is told to end at any moment.

What is compared is all there is to see of the host (`host_state.py`), whichever part of the program changed it.
"""

import random
import signal
import time

import pytest

from tests.system.host_state import differences, host_state
from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM, await_
from tests.system.resolvers import give_openresolv, give_resolved
from tests.system.test_firewall import NFT
from tests.system.test_full_tunnel import FullTunnel

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

    def send(self, how, dice):
        """At a moment of its start, or shortly after; once it is up if there are no dice."""
        if dice is None:
            daemon = self.start()
        else:
            daemon = Daemon(self.host, self.command())
            time.sleep(dice.uniform(0.6, 1.2) * self.usual)
        daemon.process.send_signal(how)
        daemon.process.wait(15)
        assert "Traceback" not in "".join(daemon.err)

    def changed(self, *, stored=False):
        lines = differences(self.before, host_state(self.host))
        return [line for line in lines if stored or STORED not in line]

    def times(self, count, dice):
        """Kill one that is up, then as the dice say, the ways by turns; after each, end one at such a moment."""
        for number in range(count):
            self.send(signal.SIGKILL, dice if number else None)
            self.left += bool(self.changed())
            way = self.ways[number % len(self.ways)]
            stored = self.go_way(way)
            assert self.changed(stored=stored) == [], way
            self.send(signal.SIGTERM, dice)
            assert self.changed() == [], "told to end"
        print(f"\n{count} kills, of which {self.left} left something behind")
        assert self.left


class NamedTunnel(FullTunnel):
    """alice looks names up inside it."""

    def _conf(self, host, private, keepalive):
        text = super()._conf(host, private, keepalive)
        return text.replace("\n", "\nDNS = 10.0.0.2, corp.example\n", 1) if host == "alice" else text


class Pinned(Killed):
    """Everything is routed into the tunnel."""

    ways = ("down", "start")

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
                self.mesh.registry("revoke", f"m{self.invited}")  # else what it offered stays its own
                self.link = self.invite()
            return was_member  # of one that was not yet the key waits for the next try with its link
        return False


class Offering(Managed):
    """What is behind it is open to members, and so is the Internet."""

    ways = ("leave", "down", "start")
    offers = "192.168.1.0/24,exit"
    approved = None

    def command(self):
        return [*PROGRAM, "join", self.link, "--firewall", "auto", "--offer", self.offers]

    def start(self):
        daemon = super().start()
        if self.link != self.approved:
            await_(lambda: "(offered)" in self.mesh.registry("list"), "the offer")
            self.mesh.registry("approve", f"m{self.invited}", self.offers)
            self.approved = self.link
        await_(lambda: self.host.run(["ls", "/run/wgdisco/mesh.forwarding"], check=False).returncode == 0, "forwarding")
        return daemon


class Abroad(Managed):
    """It goes to the Internet by bob."""

    ways = ("down", "start", "leave")

    def __init__(self, mesh):
        mesh.join("bob", "--offer", "exit")
        await_(lambda: "(offered)" in mesh.registry("list"), "the offer")
        mesh.registry("approve", "bob", "exit")
        super().__init__(mesh)

    def command(self):
        return [*PROGRAM, "join", self.link, "--firewall", "auto", "--exit", "bob"]

    def start(self):
        daemon = super().start()
        await_(lambda: "lookup 51820" in self.host.run(["ip", "-6", "rule"]).stdout, "the last of the rules")
        return daemon


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
    with read_lab() as lab, FullTunnel(lab) as network:
        Pinned(network).times(count, random.Random(count))


def kill_named(count):
    """Pinned, with name servers that either resolver is told of."""
    for give in (give_openresolv, give_resolved):
        with read_lab() as lab, NamedTunnel(lab) as network:
            give(lab.hosts["alice"])
            Pinned(network).times(count, random.Random(count))


def kill_managed(count):
    with read_lab() as lab:
        Managed(Mesh(lab)).times(count, random.Random(count))


def kill_offering(count):
    with read_lab() as lab:
        Offering(Mesh(lab)).times(count, random.Random(count))


def kill_abroad(count):
    with read_lab() as lab:
        Abroad(Mesh(lab)).times(count, random.Random(count))


def kill_registry(count):
    with read_lab() as lab:
        Registry(lab).times(count, random.Random(count))


def test_2_kills_of_a_member_that_routes_everything_leave_nothing():
    kill_pinned(2)


def test_a_kill_of_a_member_with_name_servers_leaves_nothing():
    kill_named(1)


def test_3_kills_of_a_member_leave_nothing():
    kill_managed(3)


def test_2_kills_of_an_exit_leave_nothing():
    kill_offering(2)


def test_2_kills_of_who_uses_an_exit_leave_nothing():
    kill_abroad(2)


def test_2_kills_of_a_registry_leave_nothing():
    kill_registry(2)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("kill", "count"),
    [
        (kill_pinned, 20),
        (kill_named, 10),
        (kill_managed, 20),
        (kill_offering, 10),
        (kill_abroad, 10),
        (kill_registry, 20),
    ],
)
def test_100_kills_leave_nothing(kill, count):
    kill(count)
