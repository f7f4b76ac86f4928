"""`registry run` on an interface of another engine: wgsd's situation, and one command more.

The kernel's runs where there is one, which test_kernel.py sees to.
"""

import base64
import json
import shutil
import subprocess
import sys

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import DNS, PROGRAM, ZONE, Network, await_
from tests.system.test_external import allowed_ips, attach, bring_up, has_kernel_wireguard, take_down
from tests.system.test_ports import let_out
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


def test_as_wgsd_whatever_endpoint_the_device_has():
    """`--wgsd-exact`: also one that no handshake came from; and an interface that goes ends it, in one line."""
    with read_lab() as lab, Network(lab) as network:
        bring_up(network, "registry", "external")
        registry, bob = lab.hosts["registry"], network.keys["bob"].to_text()
        registry.run(["wg", "set", "wgx0", "peer", bob, "endpoint", "203.0.113.77:4242"])
        command = [*PROGRAM, "registry", "run", "--interface", "wgx0", "--zone", ZONE, "--dns", DNS, "--wgsd-exact"]
        said = registry.run(["setpriv", "--reuid=65534", "--clear-groups", *command], check=False)
        assert (said.returncode, len(said.stderr.splitlines())) == (1, 1)
        assert "run as root" in said.stderr
        daemon = Daemon(registry, command)
        daemon.wait_for("started")
        # the zone's server is a process of its own, which a busy machine starts in its own time
        question = ["dig", "@198.51.100.10", "+norecurse", "+time=1", "+short", instance(network, "bob"), "SRV"]
        await_(lambda: " 4242 " in lab.hosts["alice"].run(question, check=False).stdout, "the endpoint", 20.0)
        take_down(network, "registry")
        assert daemon.process.wait(10) == 1
        assert "wgx0" in daemon.err[-1]
        assert "Traceback" not in "".join(daemon.err)


OURS = [sys.executable, "-c", "import sys; from wgdisco.tunnel.cli import main; sys.exit(main())"]


@pytest.mark.parametrize("program", [["wireguard-go"], OURS], ids=["wireguard-go", "wgdisco-tunnel"])
def test_a_conf_on_an_interface_that_a_program_made(program):
    with Lab() as lab, Network(lab) as network:
        registry = lab.hosts["registry"]
        registry.run([*program, "wgx0"])
        await_(lambda: registry.run(["wg", "show", "wgx0"], check=False).returncode == 0, "the program")
        network.start("registry", "--engine", "external", "--interface", "wgx0")
        network.wait("registry", "started")
        network.start("alice")
        network.wait("registry", "published", "alice")
        await_(lambda: network.ping("alice", "registry") == 3, "the registry to answer")
        assert network.stop("registry") == 0
        assert "peer" not in registry.run(["wg", "show", "wgx0"]).stdout
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


class MeshOn(Mesh):
    """A registry of members on an engine that is not ours, run by way of the command `by`."""

    def __init__(self, lab, engine, *init, by=()):
        self._engine, self._by = engine, by
        super().__init__(lab, *init, patience=6 if engine == "kernel" else 1)

    def start_registry(self):
        if self._engine == "external":
            self.bring_up("registry")
        command = [*self._by, *PROGRAM, "registry", "run", "--engine", self._engine]
        self.daemon = Daemon(self.lab.hosts["registry"], command)
        self.daemon.wait_for("started", 20.0 * self.patience)

    def bring_up(self, host):
        """Have wireguard-go's interface there, once."""
        here = self.lab.hosts[host]
        if here.run(["wg", "show", "mesh"], check=False).returncode:
            here.run(["wireguard-go", "mesh"])
            await_(lambda: here.run(["wg", "show", "mesh"], check=False).returncode == 0, "wireguard-go")


def members(engine: str) -> None:
    """By join link: direct, revoked at once, found again after a kill, and the device is left without keys."""
    with read_lab() as lab:
        mesh = MeshOn(lab, engine)
        registry = lab.hosts["registry"]
        for host in ("alice", "bob"):
            mesh.join(host)
        assert mesh.ping("alice", "bob", count=10) >= 8
        is_direct = lambda: mesh.peers("alice").get("bob", {}).get("path") == "direct"  # noqa: E731
        await_(is_direct, "alice to reach bob", 20.0 * mesh.patience)
        assert engine in registry.run([*PROGRAM, "status"]).stdout
        mesh.stop_registry("kill")
        assert mesh.ping("alice", "bob") == 3
        mesh.start_registry()
        await_(lambda: mesh.registry("list").count(" live ") == 2, "both to be seen again", 30.0 * mesh.patience)
        mesh.registry("revoke", "bob")
        await_(lambda: len(registry.run(["wg", "show", "mesh", "peers"]).stdout.split()) == 1, "bob to be gone", 5.0)
        mesh.stop_registry()
        shown = registry.run(["wg", "show", "mesh"], check=False)
        assert "peer" not in shown.stdout
        assert (shown.returncode == 0) is (engine == "external")  # the kernel's is gone
        if engine == "kernel":
            mesh.start_registry()
            mesh.stop_registry("kill")
            assert registry.run(["wg", "show", "mesh", "peers"]).stdout
            mesh.registry("uninstall", "--yes")
            assert registry.run(["ip", "link", "show", "mesh"], check=False).returncode


def test_members_with_wireguard_go():
    members("external")


def test_members_with_the_kernel():
    if not has_kernel_wireguard():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")
    members("kernel")


COUNT = """
import socket
listener = socket.create_server(('', 7002))
print(flush=True)
connection, count = listener.accept()[0], 0
while data := connection.recv(65536):
    count += len(data)
print(count)
"""
SEND = "import socket, sys; socket.create_connection((sys.argv[1], 7002), 10).sendall(bytes(int(sys.argv[2])))"


def sent(mesh: Mesh, host: str, to: str, size: int) -> bool:
    """Whether so many bytes arrive in one stream, in bursts that come as one where no wire is between."""
    with mesh.lab.hosts[to].popen([sys.executable, "-c", COUNT], stdout=subprocess.PIPE) as counter:
        counter.stdout.readline()
        mesh.lab.hosts[host].run([sys.executable, "-c", SEND, mesh.address(to), str(size)])
        return int(counter.stdout.readline()) == size


def relayed(engine: str, *others: str) -> None:
    """Two members that no punching brings together talk by the registry's port, whose engine knows nothing of it.

    Alice's network lets nothing out but to a further port. `others` are members on that engine too.
    """
    with read_lab("symmetric-random", "symmetric-random") as lab:
        let_out(lab.hosts["nat-a"], "udp dport { 443, 53 }")
        mesh = MeshOn(lab, engine, "--also-port", "443")
        for host in ("alice", "bob"):
            if host in others and engine == "external":
                mesh.bring_up(host)
            mesh.join(host, *(["--engine", engine] if host in others else []))
        await_(lambda: mesh.ping("alice", "bob", 1), "a ping", 20.0 * mesh.patience)
        assert [mesh.ping("bob", "alice", 20), mesh.ping("alice", "bob", 20)] == [20, 20]
        assert sent(mesh, "alice", "bob", 2_000_000)
        paths = {host: mesh.peers(host)[other] for host, other in (("alice", "bob"), ("bob", "alice"))}
        assert {peer["path"] for peer in paths.values()} == {"relay"}
        assert {host: peer["endpoint"].partition(":")[2] for host, peer in paths.items()} == {
            "alice": "443",
            "bob": "51820",
        }
        assert json.loads(mesh.registry("show", "alice", "-o", "json"))["relayed_tx_bytes"] >= 40 * 128
        bob = mesh.address("bob")
        mesh.registry("revoke", "bob")
        assert mesh.ping("alice", bob, 1) == 0
        mesh.stop_registry()


def test_relayed_with_wireguard_go():
    relayed("external")


@pytest.mark.soak
def test_relayed_with_wireguard_go_at_all_three():
    relayed("external", "alice", "bob")


@pytest.mark.soak
def test_by_tls_with_wireguard_go():
    """A member without UDP: to the engine it is on the loopback, and the relay serves it there."""
    with read_lab("symmetric-random", "port-restricted") as lab:
        let_out(lab.hosts["nat-a"], "tcp dport 443")
        mesh = MeshOn(lab, "external", "--tls-port", "443")
        for host in ("alice", "bob"):
            mesh.join(host)
        await_(lambda: mesh.ping("alice", "bob", 1), "a ping", 20.0)
        assert sent(mesh, "alice", "bob", 500_000)
        assert mesh.peers("alice")["bob"]["endpoint"].startswith("127.0.0.1:")
        mesh.stop_registry()


def test_relayed_with_the_kernel():
    if not has_kernel_wireguard():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")
    relayed("kernel")


def test_without_the_capability_there_is_no_relay_and_that_is_said():
    """CAP_NET_RAW."""
    with read_lab() as lab:
        mesh = MeshOn(lab, "external", by=("setpriv", "--bounding-set", "-net_raw"))
        mesh.daemon.wait_for("no relay: ")
        told = lab.hosts["registry"].run([*PROGRAM, "status"]).stdout
        assert "note: no relay: beside an engine that is not ours" in told
        mesh.stop_registry()
