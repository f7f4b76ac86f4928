"""AllowedIPs 0.0.0.0/0 and ::/0 in a pinned `.conf`: a member as the way to the Internet of another.

::

    alice 10.0.0.1, fd00::1 ── NAT ── Internet ── NAT ── 10.0.0.2, fd00::2 bob ── 192.0.2.7, 2001:db8:7::7
                                    registry
"""

import pytest

from tests.system.network import Network
from wgdisco.lab.topology import Lab
from wgdisco.machine import boot_time

pytestmark = pytest.mark.usefixtures("needs_lab")

BEYOND = ("192.0.2.7", "2001:db8:7::7")
OWN = {"alice": "fd00::1", "bob": "fd00::2"}
LOOKS = (
    "ip -4 rule",
    "ip -6 rule",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "nft list tables",
    "cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
    "ls -A /run/wgdisco",
)


class FullTunnel(Network):
    """alice sends everything to bob."""

    def _conf(self, host, private, keepalive):
        text = super()._conf(host, private, keepalive)
        if host in OWN:
            text = text.replace("\nListenPort", f", {OWN[host]}/64\nListenPort", 1)
        if host == "alice":
            text = text.replace("AllowedIPs = 10.0.0.2/32", "AllowedIPs = 0.0.0.0/0, ::/0")
        if host == "bob":
            text = text.replace("AllowedIPs = 10.0.0.1/32", "AllowedIPs = 10.0.0.1/32, fd00::1/128")
        return text

    def run(self, host, command):
        return self.lab.hosts[host].run(command.split(), check=False).stdout

    def reaches(self, address):
        return " 0% packet loss" in self.run("alice", f"ping -q -c2 -i0.1 -W1 {address}")

    def up_and_down(self):
        """Start and stop alice; how long it took to come up."""
        began = boot_time()
        self.start("alice")
        up = self.wait("alice", "started", after=began).at - began
        self.stop("alice")
        return up

    def state(self):
        return {look: self.run("alice", look) for look in LOOKS}


@pytest.fixture(scope="module")
def network():
    with Lab() as lab, FullTunnel(lab) as network:
        for address in BEYOND:
            lab.hosts["bob"].run(["ip", "address", "add", address, "dev", "lo"])
        lab.hosts["alice"].run(["mkdir", "-p", "/run/wgdisco"])
        network.start("registry")
        network.wait("registry", "started")
        network.start("bob")
        network.wait("registry", "handshake", "bob")
        yield network


def test_everything_goes_to_bob_but_the_lan_and_wireguards_own_datagrams(network):
    """Also where a strict reverse-path filter drops what comes by another way than the answer would go."""
    network.run("alice", "ip route add 10.55.0.0/16 via 192.168.1.1")
    for name in ("all", "eth0"):
        network.run("alice", f"sysctl -qw net.ipv4.conf.{name}.rp_filter=1")
    before = network.state()
    assert not any(map(network.reaches, BEYOND))
    network.start("alice")
    network.wait("alice", "direct", "bob")
    assert all(map(network.reaches, BEYOND))
    for address in (*BEYOND, "198.51.100.10"):
        assert "dev alice table 51820" in network.run("alice", f"ip route get {address}")
    for address in ("192.168.1.77", "10.55.0.1"):
        assert "dev eth0" in network.run("alice", f"ip route get {address}")
    assert "dev eth0" in network.run("alice", "ip route get 198.51.100.10 mark 51820")
    assert network.run("alice", "wg show alice fwmark") == "0xca6c\n"
    # One that looped would grow with every round.
    sent = [int(line.split()[2]) for line in network.run("alice", "wg show alice transfer").splitlines()]
    assert sum(sent) < 20_000
    network.stop("alice")
    assert network.state() == before


def test_table_off_and_a_table_of_ones_own(network):
    conf = network.run("alice", "cat /run/lab/alice.conf")
    before = network.state()
    for table, routes in (("off", set()), ("7001", {"default", "10.0.0.254"}), ("default", {"default", "10.0.0.254"})):
        text = conf.replace("[Interface]\n", f"[Interface]\nTable = {table}\n")
        network.lab.hosts["alice"].write_file("/run/lab/alice.conf", text)
        network.start("alice")
        network.status("alice")
        assert network.run("alice", "ip rule") == before["ip -4 rule"]
        listed = network.run("alice", "ip route show table all dev alice").splitlines()
        assert {line.split()[0] for line in listed if "proto kernel" not in line} == routes
        assert all(f"table {table}" in line for line in listed if "proto kernel" not in line)
        network.stop("alice")
        assert network.state() == before
    network.lab.hosts["alice"].write_file("/run/lab/alice.conf", conf)
