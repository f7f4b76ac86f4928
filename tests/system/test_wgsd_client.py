"""The real wgsd-client reads our zone, and sets what it reads on a WireGuard that is not ours."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.system.members import Daemon, read_lab
from tests.system.network import DNS, ZONE, Network, await_
from tests.system.test_external import bring_up, take_down
from wgdisco.lab.topology import Lab

BUILT = Path(__file__).parents[2] / ".peers/wgsd-client"
CLIENT = str(BUILT) if BUILT.exists() else shutil.which("wgsd-client")

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(CLIENT is None, reason="needs wgsd-client, which `scripts/peers wgsd` builds where Go finds it"),
    pytest.mark.skipif(not shutil.which("wireguard-go"), reason="needs wireguard-go"),
]


def endpoints(host):
    shown = host.run(["wg", "show", "wgx0", "endpoints"]).stdout.splitlines()
    return dict(line.split("\t") for line in shown)


def test_it_finds_the_peer_of_the_walkthrough():
    with Lab() as lab, Network(lab) as network:
        alice, bob = lab.hosts["alice"], network.keys["bob"].to_text()
        bring_up(network, "alice", "external")
        network.start("registry")
        network.wait("registry", "started")
        network.start("bob")
        network.wait("registry", "published", "bob")
        assert endpoints(alice)[bob] == "(none)"
        said = alice.run([CLIENT, "-device", "wgx0", "-dns", DNS, "-zone", ZONE]).stderr
        assert "no SRV records found" in said  # of the registry's own key, as with wgsd
        assert endpoints(alice)[bob] == "203.0.113.10:51820"
        await_(lambda: network.ping("alice", "bob") == 3, "bob to answer", 30.0)
        take_down(network, "alice")


def test_it_reads_200_peers_with_every_extension():
    with read_lab() as lab:
        alice = lab.hosts["alice"]
        served = Daemon(alice, [sys.executable, "-m", "tests.system.many_instances", ZONE, "5300", "200"])
        served.wait_for("serving")
        told = dict(line.split() for line in served.out if " " in line)
        alice.run(["wireguard-go", "wgx0"])
        await_(lambda: alice.run(["wg", "show", "wgx0"], check=False).returncode == 0, "wireguard-go")
        peers = "".join(f"[Peer]\nPublicKey = {key}\n" for key in told)
        alice.run(["sh", "-c", "cat > /run/peers && wg addconf wgx0 /run/peers"], text=peers)
        alice.run([CLIENT, "-device", "wgx0", "-dns", "127.0.0.1:5300", "-zone", ZONE], timeout=60)
        assert endpoints(alice) == told
        assert len(told) == 200
        alice.run(["ip", "link", "delete", "wgx0"])
        served.process.kill()
        served.process.wait()
