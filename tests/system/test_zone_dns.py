"""A managed member's host looks the zone's names up at the registry, and all others where it always did.

::

    alice ── NAT ── Internet ── registry, the zone's server inside the tunnel
"""

import sys
from pathlib import Path

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import await_
from tests.system.resolvers import give_openresolv, give_resolved

pytestmark = pytest.mark.usefixtures("needs_lab")

SERVER = Path(__file__).with_name("name_server.py")
OUTSIDE = "www.example.net"
OWN = "alice.wg.internal"
LOOKS = ("cat /etc/resolv.conf", "resolvectl dns", "resolvectl domain", "resolvconf -l", "ls -A /run/wgdisco")


class Names:
    def __init__(self, lab, give):
        self.alice = lab.hosts["alice"]
        give(self.alice)
        self.alice.run(["mkdir", "-p", "/run/wgdisco"])
        self.mesh = Mesh(lab, "--endpoint", "198.51.100.10")
        self.usual = Daemon(self.alice, [sys.executable, str(SERVER), "172.31.0.53", "53"])
        self.usual.wait_for("listening")

    def run(self, command):
        return self.alice.run(command.split(), check=False).stdout

    def state(self):
        return {look: self.run(look) for look in LOOKS}

    def stop(self):
        self.mesh.verb("alice", "down")
        self.mesh.members["alice"].process.wait()


def test_systemd_resolved_asks_the_registry_for_the_zone_alone():
    with read_lab() as lab:
        names = Names(lab, give_resolved)
        before = names.state()
        names.mesh.join("alice")
        await_(lambda: "wg.internal" in names.run("resolvectl domain mesh"), "the zone", 30)
        assert names.run("resolvectl domain mesh").endswith(": ~wg.internal\n")
        assert names.run("resolvectl default-route mesh").endswith(": no\n")
        assert names.mesh.address("alice") in names.run(f"getent ahostsv4 {OWN}")
        assert "192.0.2.80" in names.run(f"getent hosts {OUTSIDE}")
        asked = "".join(names.usual.out)
        assert OUTSIDE in asked
        assert "wg.internal" not in asked
        names.stop()
        assert names.state() == before

        # killed, and the next one told to leave it alone
        names.mesh.stay("alice", "up")
        await_(lambda: "wg.internal" in names.run("resolvectl domain mesh"), "the zone", 30)
        names.mesh.members["alice"].process.kill()
        names.mesh.members["alice"].process.wait()
        names.mesh.stay("alice", "join", "--network", "mesh", "--host-dns", "none")
        names.mesh.members["alice"].wait_for("PEER ")
        assert "wg.internal" not in names.run("resolvectl domain")
        assert "mesh.dns" not in names.run("ls -A /run/wgdisco")
        names.stop()
        assert names.state() == before


def test_resolvconf_is_told_when_that_is_asked_for():
    """Others stay as they are: a name that the registry refuses, the usual server is asked for."""
    with read_lab() as lab:
        names = Names(lab, give_openresolv)
        before = names.state()
        names.mesh.join("alice")
        now = names.state()
        assert {look: now[look] for look in LOOKS[:4]} == {look: before[look] for look in LOOKS[:4]}
        names.stop()

        names.mesh.stay("alice", "join", "--network", "mesh", "--host-dns", "resolvconf")
        await_(lambda: names.run("cat /etc/resolv.conf").count("nameserver") >= 2, "the registry's addresses", 30)
        names.mesh.members["alice"].wait_for("PEER ")
        assert names.mesh.address("alice") in names.run(f"getent ahostsv4 {OWN}")
        assert "192.0.2.80" in names.run(f"getent hosts {OUTSIDE}")
        assert "wg.internal" not in "".join(names.usual.out)
        names.stop()
        assert names.state() == before
