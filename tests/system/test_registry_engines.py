"""`registry run` on an interface of another engine: wgsd's situation, and one command more.

The kernel's runs where there is one, which test_kernel.py sees to.
"""

import base64
import shutil

import pytest

from tests.system.network import DNS, PROGRAM, ZONE, Network, await_
from tests.system.test_external import allowed_ips, attach, bring_up, has_kernel_wireguard, take_down
from wgdisco.lab.topology import Lab

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"),
]


def run_registry(network: Network, *more: str) -> None:
    command = [*PROGRAM, "registry", "run", "--interface", "wgx0", "--zone", ZONE, "--dns", DNS, "--log", "json", *more]
    network.timeline.start(network.lab.hosts["registry"], command)
    network.wait("registry", "started", seconds=60)


def instance(network: Network, host: str) -> str:
    return base64.b32encode(network.keys[host].raw).decode().lower() + "._wireguard._udp." + ZONE


def connect(engine: str, attached: tuple[str, ...]) -> None:
    """What the registry's device sees is in the zone, both members are direct, and the interface is left as it was."""
    with Lab() as lab, Network(lab) as network:
        for host in ("registry", *attached):
            bring_up(network, host, engine)
        before = allowed_ips(network, "registry")
        run_registry(network)
        for host in ("alice", "bob"):
            if host in attached:
                attach(network, host, engine)
            else:
                network.start(host)
        for host in ("alice", "bob"):
            network.wait("registry", "published", host, seconds=60)
        network.wait("alice", "direct", "bob", seconds=90)
        network.wait("bob", "direct", "alice", seconds=90)
        assert network.ping("alice", "bob") == 3
        assert network.dig("alice", "+short", instance(network, "bob"), "SRV").strip()
        assert network.stop("registry") == 0
        assert allowed_ips(network, "registry") == before
        assert network.ping("alice", "registry") == 3
        for host in ("registry", *attached):
            take_down(network, host)


@pytest.mark.parametrize("attached", [(), ("alice", "bob")], ids=["the registry", "all three"])
def test_direct_with_wireguard_go(attached):
    connect("external", attached)


@pytest.mark.parametrize("attached", [(), ("alice", "bob")], ids=["the registry", "all three"])
def test_direct_with_the_kernel(attached):
    if not has_kernel_wireguard():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")
    connect("kernel", attached)


def test_peers_come_and_go_with_wg():
    """The zone has whom `wg set` makes a peer, from its first handshake on, and not whom it takes away."""
    with Lab() as lab, Network(lab) as network:
        bring_up(network, "registry", "external")
        registry, bob = lab.hosts["registry"], network.keys["bob"].to_text()
        registry.run(["wg", "set", "wgx0", "peer", bob, "remove"])
        run_registry(network, "--engine", "external", "--self")
        status = [*PROGRAM, "status"]
        await_(lambda: "engine: external" in registry.run(status, check=False).stdout, "the registry's status")
        network.start("alice")
        network.start("bob")
        network.wait("registry", "published", "alice")
        assert not network.dig("alice", "+short", instance(network, "bob"), "SRV").strip()
        registry.run(["wg", "set", "wgx0", "peer", bob, "allowed-ips", "10.0.0.2/32"])
        network.wait("registry", "published", "bob", seconds=30)
        network.wait("alice", "direct", "bob", seconds=60)
        ours = network.dig("alice", "+short", instance(network, "registry"), "SRV").split()
        assert ours[2] == "51820"
        allowed = network.dig("alice", "+short", instance(network, "registry"), "TXT")
        assert "allowed=10.0.0.254/32" in allowed
        registry.run(["wg", "set", "wgx0", "peer", bob, "remove"])
        await_(lambda: not network.dig("alice", "+short", instance(network, "bob"), "SRV").strip(), "bob to be gone")
        network.stop("registry")
        take_down(network, "registry")


def test_no_interface_there():
    with Lab() as lab:
        command = [*PROGRAM, "registry", "run", "--interface", "wgx0", "--zone", ZONE, "--dns", DNS]
        said = lab.hosts["registry"].run(command, check=False)
        assert (said.returncode, len(said.stderr.splitlines())) == (2, 1)
        assert "there is no interface wgx0 to take as it is" in said.stderr
        said = lab.hosts["registry"].run([*command, "--engine", "external"], check=False)
        assert (said.returncode, len(said.stderr.splitlines())) == (1, 1)
        assert "no engine answers for wgx0" in said.stderr
