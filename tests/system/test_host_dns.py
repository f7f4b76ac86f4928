"""`DNS` of a `.conf` on hosts with a real resolver: who is asked while it is up, and that all is as before after.

::

    alice 10.0.0.1 ── NAT ── Internet ── NAT ── 10.0.0.2 bob, a name server
"""

import signal
import sys
from pathlib import Path

import pytest

from tests.system.members import Daemon, read_lab
from tests.system.network import Network, await_, complaint
from tests.system.resolvers import give_openresolv, give_resolved
from wgdisco.machine import boot_time

pytestmark = pytest.mark.usefixtures("needs_lab")

SERVER = Path(__file__).with_name("name_server.py")
NAME = "www.example.net"
LOOKS = ("cat /etc/resolv.conf", "resolvectl dns", "resolvectl domain", "resolvconf -l", "ls -A /run/wgdisco")


class Names(Network):
    """alice asks bob for names."""

    def _conf(self, host, private, keepalive):
        text = super()._conf(host, private, keepalive)
        return text.replace("\n", "\nDNS = 10.0.0.2, corp.example\n", 1) if host == "alice" else text

    def run(self, command):
        return self.lab.hosts["alice"].run(command.split(), check=False).stdout

    def state(self):
        return {look: self.run(look) for look in LOOKS}

    def looked_up(self):
        return NAME in self.run(f"getent hosts {NAME}")

    def kill(self):
        """Start alice and kill it once the resolver was told."""
        process = self.lab.hosts["alice"].popen(self.command("alice"), stdout=-1, stderr=-1)
        await_(
            lambda: "10.0.0.2" in self.run("cat /etc/resolv.conf") + self.run("resolvectl dns alice"), "the resolver"
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module", params=["openresolv", "resolved"])
def network(request):
    with read_lab() as lab, Names(lab) as network:
        alice = lab.hosts["alice"]
        {"openresolv": give_openresolv, "resolved": give_resolved}[request.param](alice)
        alice.run(["mkdir", "-p", "/run/wgdisco"])
        network.tool = request.param
        network.start("registry")
        network.wait("registry", "started")
        network.start("bob")
        network.wait("registry", "handshake", "bob")
        network.server = Daemon(lab.hosts["bob"], [sys.executable, str(SERVER), "10.0.0.2", "53"])
        network.server.wait_for("listening")
        yield network


def test_all_names_are_asked_for_inside_the_tunnel_until_it_goes(network):
    before = network.state()
    assert not network.looked_up()
    network.start("alice")
    network.wait("alice", "direct", "bob")
    assert network.looked_up()
    network.server.wait_for(f"udp {NAME}. 1")
    if network.tool == "openresolv":
        assert network.run("cat /etc/resolv.conf").splitlines()[1:] == ["search corp.example", "nameserver 10.0.0.2"]
    else:
        assert network.run("resolvectl dns alice").endswith(": 10.0.0.2\n")
        assert network.run("resolvectl domain alice").endswith(": corp.example ~.\n")
    assert network.stop("alice") == 0
    assert network.state() == before


def test_what_a_killed_one_left_is_undone_at_the_next_start_before_names_are_looked_up(network):
    """The next has no DNS, and an endpoint by name, which only the usual name server has."""
    before = network.state()
    alice = network.lab.hosts["alice"]
    network.kill()
    left = network.state()
    assert left["ls -A /run/wgdisco"] != before["ls -A /run/wgdisco"]
    if network.tool == "openresolv":
        assert "10.0.0.2" in left["cat /etc/resolv.conf"]
    usual = Daemon(alice, [sys.executable, str(SERVER), "172.31.0.53", "53", "198.51.100.10"])
    usual.wait_for("listening")
    conf = network.run("cat /run/lab/alice.conf")
    plain = conf.replace("DNS = 10.0.0.2, corp.example\n", "").replace("198.51.100.10:51820", "reg.example.net:51820")
    alice.write_file("/run/lab/alice.conf", plain)
    began = boot_time()
    network.start("alice")
    network.wait("alice", "started", after=began)
    assert "reg.example.net" in "".join(usual.out)
    assert "10.0.0.2" not in str(network.state())
    network.stop("alice")
    usual.process.stop()
    alice.write_file("/run/lab/alice.conf", conf)
    assert network.state() == before


def test_none_leaves_the_resolver_alone(network):
    before = network.state()
    began = boot_time()
    network.start("alice", "--host-dns", "none")
    network.wait("alice", "started", after=began)
    assert network.run("cat /etc/resolv.conf") == before["cat /etc/resolv.conf"]
    assert "10.0.0.2" not in network.run("resolvectl dns alice")
    network.stop("alice")
    assert network.state() == before


def test_without_a_resolver_one_line_says_what_to_do(network):
    """On bob nothing is installed that could be told."""
    bob = network.lab.hosts["bob"]
    conf = bob.run(["cat", "/run/lab/bob.conf"]).stdout.replace("\n", "\nDNS = 10.0.0.1\n", 1)
    bob.write_file(
        "/run/lab/other.conf", conf.replace("51820\nPriv", "51821\nPriv").replace("10.0.0.2/24", "10.9.0.2/24")
    )
    command = network.command("bob")
    command[command.index("/run/lab/bob.conf")] = "/run/lab/other.conf"
    done = bob.run([*command, "--host-dns", "resolvconf"], check=False)
    assert done.returncode == 1
    assert complaint(done.stderr) == (
        "wgdisco: cannot use the name servers of other: there is no resolvconf here: install openresolv, or give"
        " --host-dns none"
    )
