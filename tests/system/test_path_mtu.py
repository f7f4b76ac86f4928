"""The MTU of a tunnel on a host whose way out is narrower than Ethernet, and changes."""

import re

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import Network, await_
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")


def mtu(host, interface):
    found = re.search(r"mtu (\d+)", host.run(["ip", "link", "show", interface]).stdout)
    return int(found[1])


def test_a_pinned_member_has_what_its_ways_leave_and_follows_them():
    with Lab() as lab, Network(lab) as network:
        alice, bob = lab.hosts["alice"], lab.hosts["bob"]
        alice.run(["ip", "link", "set", "eth0", "mtu", "1492"])
        conf = bob.run(["cat", "/run/lab/bob.conf"]).stdout
        bob.write_file("/run/lab/bob.conf", conf.replace("[Interface]\n", "[Interface]\nMTU = 1300\n"))
        network.connect()
        assert [mtu(lab.hosts[name], name) for name in ("alice", "bob", "registry")] == [1412, 1300, 1420]
        ping = ["ping", "-q", "-c3", "-i0.1", "-W1", "-M", "do", "-s", "1272", "10.0.0.2"]
        assert " 0% packet loss" in alice.run(ping).stdout
        # the way to the registry alone is narrower
        default = alice.run(["ip", "route", "show", "default"]).stdout.split()
        alice.run(["ip", "route", "add", "198.51.100.0/24", "via", default[2], "mtu", "1400"])
        await_(lambda: mtu(alice, "alice") == 1320, "the MTU to follow the route")
        # as low as IPv6 goes, and back
        alice.run(["ip", "link", "set", "eth0", "mtu", "1320"])
        await_(lambda: mtu(alice, "alice") == 1280, "the floor")
        alice.run(["ip", "link", "set", "eth0", "mtu", "1500"])
        alice.run(["ip", "route", "del", "198.51.100.0/24"])
        await_(lambda: mtu(alice, "alice") == 1420, "the usual one")
        assert mtu(bob, "bob") == 1300


def test_a_managed_member_too_and_the_whole_of_it_crosses():
    with read_lab() as lab:
        lab.hosts["alice"].run(["ip", "link", "set", "eth0", "mtu", "1480"])
        mesh = Mesh(lab, "--endpoint", "198.51.100.10")
        mesh.join("alice")
        mesh.join("bob")
        assert mtu(lab.hosts["alice"], "mesh") == 1400
        assert mtu(lab.hosts["bob"], "mesh") == 1420
        await_(lambda: mesh.ping("alice", "bob"), "a path")
        ping = ["ping", "-q", "-c3", "-i0.1", "-W1", "-M", "do", "-s", "1372", mesh.address("bob")]
        assert " 0% packet loss" in lab.hosts["alice"].run(ping).stdout
