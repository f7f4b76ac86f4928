"""Members on one LAN, with the real daemons and a registry on it that goes away."""

from contextlib import contextmanager

import pytest

from tests.system.members import READERS, Mesh
from tests.system.network import await_
from wgdisco.lab.world import World

pytestmark = pytest.mark.usefixtures("needs_lab")

HOSTS = {"registry": "192.168.1.10", "alice": "192.168.1.1", "bob": "192.168.1.2"}


class Home:
    """Hosts on one switch, without a way out."""

    def __init__(self, world: World) -> None:
        self.hosts = world.hosts
        self.batch("switch", "link add br0 type bridge", "link set br0 up")
        for name, address in HOSTS.items():
            self.batch(name, "link set lo up")
            self.batch(name, f"link add eth0 type veth peer name {name} netns {self.hosts['switch'].inner_pid}")
            self.batch(name, f"address add {address}/24 dev eth0", "link set eth0 up")
            self.batch("switch", f"link set {name} master br0", f"link set {name} up")

    def batch(self, host: str, *lines: str) -> None:
        self.hosts[host].run(["ip", "-batch", "-"], text="\n".join(lines) + "\n")


@contextmanager
def home():
    before = len(READERS)
    with World([*HOSTS, "switch"]) as world:
        yield Home(world)
    while len(READERS) > before:
        READERS.pop().join()


def test_members_that_both_moved_find_each_other_without_the_registry():
    with home() as lab:
        mesh = Mesh(lab, "--endpoint", f"{HOSTS['registry']}:51820")
        for host in ("alice", "bob"):
            mesh.join(host, "--mdns")
        bob = mesh.address("bob")
        mesh.stop_registry()
        for host in ("alice", "bob"):
            mesh.members[host].process.stop()
            lab.batch(host, "address flush dev eth0 scope global", f"address add {HOSTS[host]}7/24 dev eth0")
        for host in ("alice", "bob"):
            mesh.stay(host, "up", "--log", "json")
        await_(lambda: mesh.ping("alice", bob, 1), "bob at his new address", 15)
        path = mesh.peers("alice")["bob"]
        assert (path["path"], path["endpoint"].split(":")[0]) == ("lan", f"{HOSTS['bob']}7")
