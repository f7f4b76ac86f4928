"""Subnets behind members, joined; each has a real host behind it. carol is in no group of theirs.

::

    shelf 10.1.0.9, fd01:1::9 ── alice ── NAT ── Internet ── NAT ── bob ── 10.2.0.9, fd01:2::9 shelf
                                       registry · carol · dave's phone, a stock device

alice's shelf has alice as its gateway. Bob's has no route to anybody beyond its link.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")

SITES = {"alice": 1, "bob": 2}
SERVE = """
import http.server as h
s = h.HTTPServer(("", 80), h.SimpleHTTPRequestHandler); print("up", flush=True); s.serve_forever()
"""
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=3).status)"
LOOKS = (
    "ip -4 rule",
    "ip -6 rule",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "nft list tables",
    "sysctl net.ipv4.conf.all.src_valid_mark net.ipv4.conf.site.forwarding net.ipv6.conf.all.forwarding",
)


class Sites(Mesh):
    """The network above."""

    def __init__(self, lab):
        super().__init__(lab)
        for host, number in SITES.items():
            self.run(host, "ip netns add shelf")
            self.run(host, "ip link add site type veth peer name eth0 netns shelf")
            for end, last in (("", 1), ("-n shelf", 9)):
                link = "eth0" if end else "site"
                self.run(host, f"ip {end} link set {link} addrgenmode none up")
                self.run(host, f"ip {end} link set lo up")
                self.run(host, f"ip {end} address add 10.{number}.0.{last}/24 dev {link}")
                self.run(host, f"ip {end} address add fd01:{number}::{last}/64 dev {link} nodad")
        self.run("alice", "ip -n shelf route add default via 10.1.0.1")
        self.run("alice", "ip -n shelf route add default via fd01:1::1")

    def run(self, host, command):
        return self.lab.hosts[host].run(command.split(), check=False).stdout

    def reaches(self, host, to, inside=""):
        return " 0% packet loss" in self.run(host, f"{inside} ping -q -c2 -i0.1 -W1 {to}")

    def state(self, host):
        return {look: self.run(host, look) for look in LOOKS}

    def registry_address(self):
        return self.run("registry", "ip -br -4 address show dev mesh").split()[2].partition("/")[0]

    def wait_for(self, what, text):
        await_(what, text, 30)

    def come_to_reach(self, host, to, inside=""):
        self.wait_for(lambda: self.reaches(host, to, inside), f"{host} to reach {to}")


IN_SHELF = "ip netns exec shelf"


def again(sites, host, *words):
    """Down, and up again with other options; what the network is to be called."""
    network = json.loads(sites.registry("list", "-o", "json"))["network"]
    sites.verb(host, "down")
    sites.stay(host, "up", network, *words)
    sites.members[host].wait_for("PEER ")


@pytest.fixture(scope="module")
def sites():
    with read_lab("eim-other-port", *["port-restricted"] * 3) as lab:
        sites = Sites(lab)
        sites.before = {host: sites.state(host) for host in SITES}
        sites.join("alice", "--offer", "10.1.0.0/24,fd01:1::/64")
        sites.join("bob", "--offer", "10.2.0.0/24,fd01:2::/64")
        sites.join("carol", link=sites.registry("invite", "carol", "--group", "guests"))
        yield sites


def test_an_offer_is_only_an_offer(sites):
    sites.wait_for(lambda: "10.2.0.0/24" in sites.registry("show", "bob"), "the offers at the registry")
    assert "10.1.0.0/24,fd01:1::/64 (offered)" in sites.registry("list")
    assert "dev eth0" in sites.run("bob", "ip route get 10.1.0.9")
    assert not sites.reaches("bob", "10.1.0.9")
    assert sites.run("alice", "cat /proc/sys/net/ipv4/conf/site/forwarding") == "0\n"


def test_site_to_site(sites):
    """Hosts behind reach hosts behind, by both IP versions; members reach them too."""
    for host, number in SITES.items():
        sites.registry("approve", host, f"10.{number}.0.0/24,fd01:{number}::/64")
    for target in ("10.1.0.9", "fd01:1::9"):
        sites.come_to_reach("bob", target)
    for target in ("10.2.0.9", "fd01:2::9"):
        sites.come_to_reach("alice", target, IN_SHELF)
    assert sites.peers("alice")["bob"]["path"] == "direct"
    server = sites.lab.hosts["bob"].popen([*IN_SHELF.split(), sys.executable, "-c", SERVE], stdout=-1, stderr=-1)
    assert server.stdout.readline() == "up\n"
    command = [*IN_SHELF.split(), sys.executable, "-c", FETCH, "http://10.2.0.9/"]
    assert sites.lab.hosts["alice"].run(command).stdout == "200\n"
    server.kill()
    server.communicate()


def test_who_is_in_no_common_group_gets_neither_routes_nor_allowed_ips(sites):
    assert "dev eth0" in sites.run("carol", "ip route get 10.1.0.9")
    assert "10.1.0.0/24" not in sites.run("carol", "wg show all allowed-ips")
    assert "10.1.0.0/24" in sites.run("bob", "wg show all allowed-ips")


def test_a_host_on_such_a_subnet_itself_stays_on_it(sites):
    sites.run("bob", "ip link add visited type veth peer name other")
    sites.run("bob", "ip address add 10.1.0.77/24 dev visited")
    sites.run("bob", "ip link set other up")
    sites.run("bob", "ip link set visited up")
    assert "dev visited" in sites.run("bob", "ip route get 10.1.0.9")
    sites.wait_for(lambda: "10.1.0.0/24" in sites.verb("bob", "status"), "a note in the status")
    sites.run("bob", "ip link delete visited")
    sites.come_to_reach("bob", "10.1.0.9")


def test_a_stock_device_reaches_them_through_the_registry_and_so_they_it(sites):
    missing = [tool for tool in ("wireguard-go", "wg-quick") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert "dev eth0" in sites.run("registry", "ip route get 10.1.0.9 from 198.51.100.10")
    go = "env WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick"
    for name, group, reached in (("guest", "guests", False), ("phone", "all", True)):
        text = sites.registry("add", name, "--conf", "--group", group)
        assert ("10.1.0.0/24" in text) == reached
        if not reached:
            text = text.replace("AllowedIPs = ", "AllowedIPs = 10.1.0.0/24, ")
        sites.lab.hosts["dave"].write_file("/run/lab/phone.conf", text)
        sites.run("dave", f"{go} up /run/lab/phone.conf")
        sites.come_to_reach("dave", sites.registry_address())
        if reached:
            sites.come_to_reach("dave", "10.1.0.9")
            sites.come_to_reach("dave", "fd01:1::9")
            sites.come_to_reach("alice", sites.address("phone"), IN_SHELF)
        else:
            assert not sites.reaches("dave", "10.1.0.9")
        sites.run("dave", f"{go} down /run/lab/phone.conf")


def test_what_is_taken_back_is_gone_in_the_middle_of_a_flow(sites):
    command = ["ping", "-n", "-i", "0.1", "10.1.0.9"]
    with sites.lab.hosts["bob"].popen(command, stdout=subprocess.PIPE) as flow:
        assert [flow.stdout.readline() for _ in range(3)]
        sites.registry("approve", "alice", "10.1.0.0/24", "--not")
        sites.wait_for(lambda: "dev eth0" in sites.run("bob", "ip route get 10.1.0.9"), "the route to go")
        assert "ip daddr 10.1.0.0/24" not in sites.run("alice", "nft list ruleset")
        flow.terminate()
        flow.stdout.read()
    assert not sites.reaches("bob", "10.1.0.9")
    sites.come_to_reach("bob", "fd01:1::9")
    sites.registry("approve", "alice", "10.1.0.0/24")
    sites.come_to_reach("bob", "10.1.0.9")


def test_the_relay_leads_there_too(sites):
    sites.lab.block_direct()
    again(sites, "bob")
    sites.wait_for(lambda: sites.peers("alice")["bob"]["path"] == "relay", "the relay")
    sites.come_to_reach("alice", "10.2.0.9", IN_SHELF)
    sites.lab.unblock_direct()


WHO = """
import http.server as h
class Who(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.client_address[0].encode())
s = h.HTTPServer(("", 7000), Who); print("up", flush=True); s.serve_forever()
"""
ASK = "import urllib.request as u; print(u.urlopen('http://198.51.100.10:7000/', timeout=2).read().decode())"


@pytest.fixture(scope="module")
def beyond(sites):
    """A server in the Internet that says who asks, and what bob's shelf stands for: the Internet of IPv6."""
    sites.run("bob", "ip -n shelf address add 2001:db8:7::7/128 dev lo")
    sites.run("bob", "ip -6 route add default via fd01:2::9")
    server = sites.lab.hosts["registry"].popen([sys.executable, "-c", WHO], stdout=-1, stderr=-1)
    assert server.stdout.readline() == "up\n"
    yield lambda host: sites.lab.hosts[host].run([sys.executable, "-c", ASK], check=False).stdout.strip()
    server.kill()
    server.communicate()


def test_an_exit_is_used_by_who_asks_for_it_once_it_is_approved(sites, beyond):
    sites.wait_for(lambda: beyond("alice") == "192.0.2.10", "the usual way")
    again(sites, "bob", "--offer", "10.2.0.0/24,fd01:2::/64,exit")
    again(sites, "alice", "--exit", "bob")
    sites.wait_for(lambda: "exit (offered)" in sites.registry("list"), "the offer")
    assert not beyond("alice")  # it goes nowhere rather than by another way
    assert "bob is not approved as an exit" in sites.verb("alice", "status")
    sites.registry("approve", "bob", "exit")
    sites.wait_for(lambda: beyond("alice") == "203.0.113.10", "alice to come from bob's address")
    sites.come_to_reach("alice", "2001:db8:7::7")
    assert "dev mesh table 51820" in sites.run("alice", "ip route get 8.8.8.8")
    sites.wait_for(lambda: sites.peers("alice")["bob"]["path"] == "direct", "a direct path")
    assert sites.peers("alice")["registry"]["path"] == "direct"


def test_an_exit_leads_to_the_internet_and_not_into_its_own_lan(sites, beyond):
    sites.come_to_reach("alice", "192.168.1.1")  # alice's own LAN
    sites.come_to_reach("bob", "192.168.2.1")
    assert not sites.reaches("alice", "192.168.2.1")
    sites.come_to_reach("alice", "10.2.0.9")  # which is approved


def test_who_does_not_ask_for_an_exit_goes_out_as_ever(sites, beyond):
    sites.wait_for(lambda: beyond("carol") == "198.18.3.10", "the usual way")
    assert "0.0.0.0/0" not in sites.run("carol", "wg show all allowed-ips")
    again(sites, "alice", "--exit", "none")
    sites.wait_for(lambda: beyond("alice") == "192.0.2.10", "the usual way")
    assert "0.0.0.0/0" not in sites.run("alice", "wg show all allowed-ips")


def test_a_kill_leaves_nothing_after_the_next_start_and_stop(sites):
    network = json.loads(sites.registry("list", "-o", "json"))["network"]
    for how in (signal.SIGKILL, signal.SIGTERM):
        sites.members["alice"].process.send_signal(how)
        sites.members["alice"].process.wait()
        if how == signal.SIGKILL:
            assert sites.state("alice") != sites.before["alice"]
            sites.stay("alice", "join", "--network", network, "--offer", "none", "--foreground")
            sites.members["alice"].wait_for("PEER ")
    assert sites.state("alice") == sites.before["alice"]


@pytest.mark.soak
def test_20_kills_while_it_comes_up_leave_nothing(sites):
    """Of one that offers two subnets which are approved, and sends everything to bob."""
    network, dice = json.loads(sites.registry("list", "-o", "json"))["network"], random.Random(20)
    left = 0
    sites.wait_for(lambda: "10.1.0.0/24" in sites.registry("show", "alice"), "the offer")
    sites.registry("approve", "alice", "10.1.0.0/24,fd01:1::/64")
    sites.verb("alice", "down")
    for _ in range(20):
        sites.stay("alice", "up", network, "--offer", "10.1.0.0/24,fd01:1::/64", "--exit", "bob")
        sites.members["alice"].wait_for("started")
        time.sleep(dice.uniform(0.0, 1.0))
        sites.members["alice"].process.kill()
        sites.members["alice"].process.wait()
        left += sites.state("alice") != sites.before["alice"]
        sites.verb("alice", "down")
        assert sites.state("alice") == sites.before["alice"]
    assert left


def test_where_rules_cannot_be_made_there_is_no_exit_rather_than_one_that_leaks(sites):
    alice, nft = sites.lab.hosts["alice"], str(Path(shutil.which("nft", path="/usr/sbin:/sbin")).resolve())
    sites.members["alice"].process.terminate()
    sites.members["alice"].process.wait()
    alice.write_file("/run/nft", "#!/bin/sh\necho 'Error: out of order' >&2; exit 1\n")
    sites.run("alice", "chmod 755 /run/nft")
    sites.run("alice", f"mount --bind /run/nft {nft}")
    done = alice.run([*PROGRAM, "up", "--exit", "bob"], check=False, timeout=60)
    sites.run("alice", f"umount {nft}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "wgdisco: nft refused our rules: Error: out of order"
    assert sites.state("alice") == sites.before["alice"]
