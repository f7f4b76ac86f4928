"""Stock devices with the files they are given, and the registry between them.

::

    phone ─ 192.0.2.10 ─┐
    tablet ─ …11 ───────┼─ 192.0.2.1 registry 203.0.113.1 ── 203.0.113.2 server (and 169.254.169.254)
    guest ─ …12 ────────┘

All of phone, tablet and guest are brought up by wg-quick with wireguard-go. The server has no route to the tunnel.
"""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.network import await_
from wgdisco.lab.world import World

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed"),
    pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick is not installed"),
]

PROCESS = str(Path(__file__).with_name("hub_process.py"))
DEVICES = {"phone": (["all"], True), "tablet": (["all", "ops"], False), "guest": (["guests"], False)}
ADDRESS = {"registry": 1, "phone": 2, "tablet": 3, "guest": 4}
SERVER = """
import socket, sys
s = socket.socket(); s.bind(("", 80)); s.listen()
raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(0x0800))
print("listening", flush=True)
while True:
    packet, _ = raw.recvfrom(65535)
    tcp = packet[20:]
    if packet[9] == 6 and tcp[13] & 0x3F == 2 and tcp[20:22] == bytes([2, 4]):
        print(socket.inet_ntoa(packet[12:16]), int.from_bytes(tcp[22:24], "big"), flush=True)
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"
SERVE = """
import socket
servers = [socket.create_server(("", port)) for port in (80, 81)]; print("listening", flush=True)
while True: servers[0].accept()[0].close()
"""


@contextmanager
def running(host, *command):
    """A process that is killed at the end of the block, whatever ends it."""
    with host.popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


class Network:
    """The hosts above; `registry` is the hub's process while it runs."""

    def __init__(self, world: World, directory: Path) -> None:
        self.hosts = world.hosts
        self.directory = directory
        (directory / "devices.json").write_text(json.dumps(DEVICES))
        registry = self.hosts["registry"]
        registry.run(["ip", "link", "add", "br0", "type", "bridge"])
        for name, address in (("phone", 10), ("tablet", 11), ("guest", 12)):
            self._link(name, name)
            registry.run(["ip", "link", "set", name, "master", "br0"])
            self.hosts[name].run(["ip", "addr", "add", f"192.0.2.{address}/24", "dev", "eth0"])
            self.hosts[name].run(["ip", "route", "add", "default", "via", "192.0.2.1"])
        self._link("uplink", "server")
        registry.run(["ip", "link", "set", "br0", "up"])
        registry.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "br0"])
        registry.run(["ip", "addr", "add", "203.0.113.1/24", "dev", "uplink"])
        registry.run(["ip", "route", "add", "default", "via", "203.0.113.2"])
        for address in ("203.0.113.2/24", "169.254.169.254/32"):
            self.hosts["server"].run(["ip", "addr", "add", address, "dev", "eth0"])
        registry.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"])

    def _link(self, name: str, host: str) -> None:
        peer = str(self.hosts[host].inner_pid)
        self.hosts["registry"].run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", peer])
        self.hosts["registry"].run(["ip", "link", "set", name, "up"])
        self.hosts[host].run(["ip", "link", "set", "lo", "up"])
        self.hosts[host].run(["ip", "link", "set", "eth0", "up"])

    def start(self) -> None:
        self.registry = self.hosts["registry"].popen(
            [sys.executable, PROCESS, str(self.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.registry.stdout.readline() == "up\n"

    def end(self, kill: bool = False) -> int:
        """Its exit status; without `kill` it ends because its input does."""
        with self.registry as process:  # closes the pipes
            if kill:
                process.send_signal(signal.SIGKILL)
            else:
                process.stdin.close()
            return process.wait(10)

    def regroup(self, name: str, *groups: str) -> None:
        self.registry.stdin.write(f"{name} {' '.join(groups)}\n")
        self.registry.stdin.flush()
        assert self.registry.stdout.readline() == "done\n"

    def bring_up(self, name: str, host: str | None = None) -> None:
        self.hosts[host or name].run(
            ["wg-quick", "up", str(self.directory / f"{name}.conf")],
            timeout=30,
        )

    def ping(self, source: str, to: str, count: int = 2) -> bool:
        command = ["ping", "-q", "-c", str(count), "-i", "0.1", "-W", "1", to]
        return self.hosts[source].run(command, check=False).returncode == 0

    def reaches(self, source: str, to: str) -> list[bool]:
        return [self.ping(source, f"{prefix}{ADDRESS[to]}") for prefix in ("10.7.8.", "fd77::")]

    def tables(self) -> str:
        return self.hosts["registry"].run(["nft", "list", "tables"]).stdout

    def sysctls(self) -> list[str]:
        paths = ("ipv4/conf/uplink/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/br0/forwarding")
        return self.hosts["registry"].run(["cat", *(f"/proc/sys/net/{path}" for path in paths)]).stdout.split()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with World(["registry", "server", *DEVICES]) as world:
        it = Network(world, tmp_path_factory.mktemp("hub"))
        it.start()
        for name in DEVICES:
            it.bring_up(name)
            await_(lambda n=name: it.ping(n, "10.7.8.1", 1), f"{name} to reach the registry")
        yield it
        it.end()


def test_devices_of_a_group_reach_each_other_through_the_hub(network):
    assert network.reaches("phone", "tablet") == [True, True]
    assert network.reaches("tablet", "phone") == [True, True]


def test_devices_without_a_common_group_do_not(network):
    for one, other in (("phone", "guest"), ("guest", "phone"), ("tablet", "guest"), ("guest", "tablet")):
        assert network.reaches(one, other) == [False, False], (one, other)


def test_all_reach_the_registry(network):
    assert [network.reaches(name, "registry") for name in DEVICES] == [[True, True]] * 3


def test_a_change_of_groups_holds_at_once_in_the_middle_of_a_flow(network):
    network.regroup("guest", "guests", "ops")
    assert network.reaches("guest", "tablet") == [True, True]
    assert network.reaches("guest", "phone") == [False, False]
    with running(network.hosts["guest"], "ping", "-n", "-i", "0.1", "10.7.8.3") as flow:
        for _ in range(3):
            flow.stdout.readline()
        network.regroup("guest", "guests")
        assert network.reaches("guest", "tablet") == [False, False]
    assert network.reaches("phone", "tablet") == [True, True]


def test_a_full_tunnel_reaches_the_internet_under_the_registrys_address_with_a_clamped_mss(network):
    """The phone is set to an MTU that no path here carries; what arrives is what 1280 allows."""
    network.hosts["phone"].run(["ip", "link", "set", "phone", "mtu", "1420"])
    with running(network.hosts["server"], sys.executable, "-c", SERVER) as server:
        assert server.stdout.readline() == "listening\n"
        network.hosts["phone"].run([sys.executable, "-c", CONNECT, "203.0.113.2", "80"])
        assert server.stdout.readline().split() == ["203.0.113.1", "1240"]
    network.hosts["phone"].run(["ip", "link", "set", "phone", "mtu", "1280"])


def test_nobody_else_leaves_by_the_uplink(network):
    assert network.ping("phone", "203.0.113.2")
    tablet = network.hosts["tablet"]
    key = tablet.run(["wg", "show", "tablet", "peers"]).stdout.strip()
    tablet.run(["wg", "set", "tablet", "peer", key, "allowed-ips", "10.7.8.0/24,fd77::/64,203.0.113.2/32"])
    tablet.run(["ip", "route", "add", "203.0.113.2", "dev", "tablet"])
    assert network.reaches("tablet", "registry") == [True, True]
    assert not network.ping("tablet", "203.0.113.2")


def test_a_full_tunnel_does_not_reach_the_clouds_metadata_service(network):
    network.hosts["registry"].run(["ip", "route", "add", "169.254.169.254", "dev", "uplink"])
    assert network.hosts["registry"].run(["ping", "-q", "-c", "1", "-W", "1", "169.254.169.254"]).returncode == 0
    assert not network.ping("phone", "169.254.169.254")


def test_the_tunnels_addresses_are_not_to_be_had_from_the_lan(network):
    guest = network.hosts["guest"]
    assert network.ping("guest", "192.0.2.1")
    guest.run(["ip", "route", "add", "10.7.8.1/32", "via", "192.0.2.1", "dev", "eth0"])
    assert not network.ping("guest", "10.7.8.1")
    guest.run(["ip", "route", "del", "10.7.8.1/32", "via", "192.0.2.1"])
    assert network.ping("guest", "10.7.8.1")


def test_who_is_being_enrolled_reaches_that_one_port_and_nothing_else(network):
    server = network.hosts["server"]

    def connects(address, port):
        return server.run([sys.executable, "-c", CONNECT, address, port], check=False).returncode == 0

    with running(network.hosts["registry"], sys.executable, "-c", SERVE) as process:
        assert process.stdout.readline() == "listening\n"
        network.bring_up("joiner", "server")
        await_(lambda: connects("169.254.119.103", "80"), "the enrolment port")
        assert not connects("169.254.119.103", "81")
        assert not connects("10.7.8.1", "80")
        assert not network.ping("server", "10.7.8.1")
        assert not network.ping("server", "10.7.8.3")
    server.run(["wg-quick", "down", str(network.directory / "joiner.conf")])


def test_nothing_is_left_after_an_exit_nor_after_a_kill_and_another_start(network):
    assert "wgdisco_mesh" in network.tables()
    assert network.sysctls() == ["1", "1", "1"]
    before = ["0", "0", "0"]
    network.end(kill=True)
    assert "wgdisco_mesh" in network.tables()  # harmless: it speaks of an interface that is gone
    network.start()
    assert network.tables().count("wgdisco_mesh") == 1
    # A device shakes hands anew once its data has gone unanswered for 15 s; keepalives alone do not make it.
    for name in ("tablet", "phone"):
        await_(lambda n=name: network.ping(n, "10.7.8.1", 1), f"{name} to reach the registry again", 40)
    assert network.reaches("phone", "tablet") == [True, True]
    assert network.end() == 0
    assert "wgdisco" not in network.tables()
    assert network.sysctls() == before, "what they were before the first start"


def test_switches_are_as_they_were_after_an_exit(network):
    for path in ("ipv4/conf/uplink/forwarding", "ipv6/conf/all/forwarding"):
        network.hosts["registry"].run(["sh", "-c", f"echo 0 >/proc/sys/net/{path}"])
    network.hosts["registry"].run(["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/br0/forwarding"])
    advertised = ["ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "uplink", "proto", "ra"]
    network.hosts["registry"].run(advertised)
    accept_ra = ["cat", "/proc/sys/net/ipv6/conf/uplink/accept_ra"]
    assert network.hosts["registry"].run(accept_ra).stdout == "1\n"
    network.start()
    assert network.sysctls() == ["1", "1", "1"]
    assert network.hosts["registry"].run(accept_ra).stdout == "2\n"
    assert network.end() == 0
    assert network.sysctls() == ["0", "0", "1"]
    assert network.hosts["registry"].run(accept_ra).stdout == "1\n"
