"""`join --engine external|kernel`: an interface brought up by hand, connected through the zone.

The kernel's runs where there is one, which test_kernel.py sees to.
"""

import shutil
import subprocess

import pytest

from tests.interop.engines import PEERS, need
from tests.system.network import DNS, PROGRAM, TUNNEL, ZONE, Network, await_
from wgdisco.lab.topology import Lab

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"),
]


BORINGTUN = [str(PEERS / "boringtun"), "--disable-drop-privileges", "--disable-connected-udp", "--log", "/dev/null"]


def has_kernel_wireguard() -> bool:
    """Whether this machine's kernel makes such an interface."""
    if subprocess.run(
        ["ip", "link", "add", "wgprobe0", "type", "wireguard"], capture_output=True, check=False
    ).returncode:
        return False
    subprocess.run(["ip", "link", "delete", "wgprobe0"], check=True)
    return True


def bring_up(network: Network, host: str, engine: str) -> None:
    """An interface wgx0 with the host's configuration and no endpoint but the registry's."""
    here = network.lab.hosts[host]
    if engine == "kernel":
        here.run(["ip", "link", "add", "wgx0", "type", "wireguard"])
    else:
        here.run([*(BORINGTUN if engine == "boringtun" else ["wireguard-go"]), "wgx0"])
        await_(lambda: here.run(["wg", "show", "wgx0"], check=False).returncode == 0, engine)
    # One section a call: with boringtun a peer without an endpoint has that of the peer before it
    strip = f"grep -v ^Address /run/lab/{host}.conf | csplit -sz -f /run/lab/part - '/^\\[Peer/' '{{*}}'"
    add = "for part in /run/lab/part*; do wg addconf wgx0 $part || exit 1; done"
    here.run(["sh", "-c", f"{strip} && {add}"])
    here.run(["ip", "address", "add", f"{TUNNEL[host]}/24", "dev", "wgx0"])
    here.run(["ip", "link", "set", "wgx0", "mtu", "1420", "up"])


def allowed_ips(network: Network, host: str) -> list[str]:
    """Sorted, for wireguard-go lists its peers in any order."""
    return sorted(network.lab.hosts[host].run(["wg", "show", "wgx0", "allowed-ips"]).stdout.splitlines())


def has_shaken_hands(network: Network, interface: str) -> bool:
    shown = network.lab.hosts["alice"].run(["wg", "show", interface, "latest-handshakes"], check=False).stdout
    return any(line.split()[1] != "0" for line in shown.splitlines())


def take_down(network: Network, host: str) -> None:
    network.lab.hosts[host].run(["ip", "link", "delete", "wgx0"])


def attach(network: Network, host: str, engine: str) -> None:
    command = [*PROGRAM, "join", "--engine", engine, "--interface", "wgx0", "--zone", ZONE, "--dns", DNS]
    network.timeline.start(network.lab.hosts[host], [*command, "--log", "json"])


def connect(engine: str, attached: tuple[str, ...]) -> None:
    """Both members reach each other, and a tunnel that was taken over outlives who took it."""
    with Lab() as lab, Network(lab) as network:
        for host in attached:
            bring_up(network, host, engine)
        network.start("registry")
        network.wait("registry", "started", seconds=60)
        for host in ("alice", "bob"):
            if host in attached:
                attach(network, host, "kernel" if engine == "kernel" else "external")
            else:
                network.start(host)
        network.wait("alice", "direct", "bob", seconds=90)
        network.wait("bob", "direct", "alice", seconds=90)
        assert network.ping("alice", "bob") == 3
        left = attached[0]
        before = allowed_ips(network, left)
        assert network.stop(left) == 0
        # The interface is left as it was found, and goes on
        assert allowed_ips(network, left) == before
        assert network.ping("alice", "bob") == 3
        for host in attached:
            take_down(network, host)


@pytest.mark.parametrize("attached", [("alice",), ("bob",), ("alice", "bob")], ids=["one side", "the other", "both"])
def test_direct_with_wireguard_go(attached):
    connect("external", attached)


@pytest.mark.parametrize("attached", [("alice",), ("bob",), ("alice", "bob")], ids=["one side", "the other", "both"])
def test_direct_with_boringtun(attached):
    need("boringtun")
    connect("boringtun", attached)


@pytest.mark.parametrize("attached", [("alice",), ("alice", "bob")], ids=["one side", "both sides"])
def test_direct_with_the_kernel(attached):
    if not has_kernel_wireguard():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")
    connect("kernel", attached)


def test_the_kernel_s_interface_of_a_conf():
    """Made and taken down as ours is; what a kill leaves is no trouble to the next start."""
    if not has_kernel_wireguard():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")
    with Lab() as lab, Network(lab) as network:
        network.start("registry")
        network.wait("registry", "started", seconds=60)
        with lab.hosts["alice"].popen(network.command("alice", "--engine", "kernel")) as killed:
            await_(lambda: has_shaken_hands(network, "alice"), "a handshake", 60)
            killed.kill()
        assert lab.hosts["alice"].run(["wg", "show", "alice"]).stdout
        for host in ("alice", "bob"):
            network.start(host, "--engine", "kernel")
        network.wait("alice", "direct", "bob", seconds=90)
        assert network.ping("alice", "bob") == 3
        assert network.stop("alice") == 0
        assert lab.hosts["alice"].run(["ip", "link", "show", "alice"], check=False).returncode


def test_no_engine_there():
    with Lab() as lab, Network(lab) as network:
        command = [*PROGRAM, "join", "--engine", "external", "--interface", "wgx0", "--zone", ZONE, "--dns", DNS]
        said = network.lab.hosts["alice"].run(command, check=False)
        assert said.returncode == 1
        assert "no engine answers for wgx0" in said.stderr
        assert len(said.stderr.splitlines()) == 1
