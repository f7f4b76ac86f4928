"""A device that sends all its DNS to the registry keeps its internet, once the registry forwards.

::

    alice (10.x, all names at the registry) ── NAT ── Internet ── registry ── its own name server, 172.31.0.53
"""

import sys
from pathlib import Path

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import await_
from tests.system.resolvers import give_usual

pytestmark = pytest.mark.usefixtures("needs_lab")

SERVER = Path(__file__).with_name("name_server.py")
NAME = "www.example.net"


def test_names_of_other_zones_are_looked_up_for_members_alone():
    with read_lab() as lab:
        alice, registry = lab.hosts["alice"], lab.hosts["registry"]
        give_usual(registry)
        usual = Daemon(registry, [sys.executable, str(SERVER), "172.31.0.53", "53"])
        usual.wait_for("listening")
        mesh = Mesh(lab, "--endpoint", "198.51.100.10")
        mesh.join("alice")
        inside = mesh.address("alice").rpartition(".")[0] + ".1"

        def dig(host, *question):
            return host.run(["dig", f"@{inside}", "+time=2", "+tries=2", *question], check=False).stdout

        def is_passed_on():
            return "192.0.2.80" in dig(alice, NAME)

        assert "status: REFUSED" in dig(alice, NAME)
        assert "recursion requested but not available" in dig(alice, NAME)

        mesh.registry("set", "forward-dns", "on")
        await_(is_passed_on, "names of other zones")
        assert "status: NOERROR" in dig(alice, "alice.wg.internal")
        assert "status: NXDOMAIN" in dig(alice, "nobody.wg.internal")
        # too large for a datagram: dig comes by TCP
        assert dig(alice, NAME, "TXT").count("x" * 250) == 8
        assert "192.0.2.80" in dig(alice, "+tcp", "+noedns", NAME)
        assert "status: NXDOMAIN" in dig(alice, "printer.local")
        asked = "".join(usual.out)
        assert f"udp {NAME}. 1" in asked.lower()
        assert f"tcp {NAME}. 16" in asked.lower()
        assert "wg.internal" not in asked.lower()
        assert ".local" not in asked.lower()
        # the host itself has its own resolver, and could otherwise ask itself in circles
        assert "status: REFUSED" in dig(registry, NAME)
        # nobody outside is answered at all
        assert "no servers could be reached" in dig(lab.hosts["bob"], "+time=1", "+tries=1", NAME)

        # its name server is gone: that is said, and the zone is served all the same
        usual.process.kill()
        usual.process.wait()
        assert "status: SERVFAIL" in dig(alice, NAME)
        assert "status: NOERROR" in dig(alice, "alice.wg.internal")
        mesh.registry("set", "forward-dns", "off")
        await_(lambda: "status: REFUSED" in dig(alice, NAME), "to be refused again")
