"""Members on one Ethernet segment, in namespaces, speaking mDNS for real."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from wgdisco.lab.world import World

pytestmark = pytest.mark.usefixtures("needs_lab")

HOSTS = {"alice": "192.168.1.1", "bob": "192.168.1.2", "carol": "192.168.1.3"}
SEEDS = {"alice": "1", "bob": "2", "carol": "3"}
# two that are there find each other within this time (seconds)
SOON = 2.0


class Member:
    """A process that speaks mDNS, and what it says."""

    def __init__(self, host, port: int, known: str, *on: str, seed: str | None = None) -> None:
        seed = seed or SEEDS[host.name]
        command = [sys.executable, "-m", "tests.dnssd.io.lan_member", seed, str(port), known]
        pipe = subprocess.PIPE
        on = on or (f"eth0={HOSTS[host.name]}",)
        self.process = host.popen([*command, *on], stdin=pipe, stdout=pipe, stderr=pipe)
        assert self.said()["says"] == "started"

    def said(self) -> dict:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self) -> tuple[list[dict], str]:
        """End it; what it said that was not asked for yet, and its log."""
        self.process.terminate()
        stdout, stderr = self.process.communicate(timeout=5)
        assert self.process.returncode == 0, stderr
        return [json.loads(line) for line in stdout.splitlines()], stderr


class Segment:
    """Hosts on one switch, each with eth0."""

    def __init__(self, world: World) -> None:
        self.hosts = world.hosts
        self.members: list[Member] = []
        switch = self.hosts["switch"]
        self.batch("switch", "link add br0 type bridge", "link set br0 up")
        for name, address in HOSTS.items():
            self.batch(name, "link set lo up", f"link add eth0 type veth peer name {name} netns {switch.inner_pid}")
            self.batch(name, f"address add {address}/24 dev eth0", "link set eth0 up")
            self.batch("switch", f"link set {name} master br0", f"link set {name} up")

    def batch(self, host: str, *lines: str) -> None:
        self.hosts[host].run(["ip", "-batch", "-"], text="\n".join(lines) + "\n")

    def start(self, name: str, port: int, known: str, *on: str) -> Member:
        self.members.append(Member(self.hosts[name], port, known, *on))
        return self.members[-1]


@pytest.fixture
def lan():
    with World([*HOSTS, "switch"]) as world:
        segment = Segment(world)
        yield segment
        for member in segment.members:
            member.process.kill()
            member.process.communicate()


def found(seed: str, *endpoints: str) -> dict:
    return {"says": "found", "key": int(seed), "endpoints": list(endpoints)}


def test_members_find_each_other_and_say_goodbye(lan):
    # carol is announced to both, and nobody knows her
    carol = lan.start("carol", 40003, "9")
    alice = lan.start("alice", 40001, "2")
    bob = lan.start("bob", 40002, "1")
    started_at = time.monotonic()
    assert alice.said() == found("2", "192.168.1.2:40002")
    assert bob.said() == found("1", "192.168.1.1:40001")
    assert time.monotonic() - started_at < SOON
    bob.tell("port 41002")
    assert alice.said() == found("2", "192.168.1.2:41002", "192.168.1.2:40002")
    assert alice.said() == found("2", "192.168.1.2:41002")
    bob.stop()
    assert alice.said() == {"says": "gone", "key": 2}
    (ended,), log = alice.stop()
    assert ended == {"says": "ended", "drops": {"announcement of a stranger": 1}}
    assert log == ""
    (ended,), _ = carol.stop()
    assert ended["drops"]["announcement of a stranger"] >= 2


def test_interfaces_come_and_go(lan):
    alice = lan.start("alice", 40001, "2", "eth0=192.168.1.1")
    lan.batch("bob", "address add fd00::2/64 dev eth0 nodad")
    bob = lan.start("bob", 40002, "1", "eth0=192.168.1.2,fd00::2")
    assert alice.said() == found("2", "192.168.1.2:40002", "[fd00::2]:40002")
    assert bob.said() == found("1", "192.168.1.1:40001")
    bob.tell("off")
    assert bob.said() == {"says": "off"}
    assert alice.said() == {"says": "gone", "key": 2}
    assert bob.said() == {"says": "gone", "key": 1}
    bob.tell("on eth0=192.168.1.2")
    assert alice.said() == found("2", "192.168.1.2:40002")
    assert bob.said() == found("1", "192.168.1.1:40001")


def test_another_interface_hears_nothing(lan):
    """Alice also sits on a café's network, where another program of hers has joined the group."""
    alice = lan.start("alice", 40001, "2")
    lan.batch("alice", f"link add cafe type veth peer name eth1 netns {lan.hosts['bob'].inner_pid}")
    lan.batch("alice", "address add 192.168.9.1/24 dev cafe", "link set cafe up")
    lan.batch("alice", "address add 224.0.0.251 dev cafe autojoin")
    lan.batch("bob", "address add 192.168.9.2/24 dev eth1", "link set eth1 up")
    bob = lan.start("bob", 40002, "1", "eth1=192.168.9.2")
    with pytest.raises(subprocess.TimeoutExpired):
        bob.process.communicate(timeout=1.5)
    (ended,), _ = alice.stop()
    assert ended["drops"] == {}


def test_noise_is_counted_and_does_no_harm(lan):
    alice = lan.start("alice", 40001, "2")
    noise = [sys.executable, "-m", "tests.dnssd.io.lan_noise", "7", "800", HOSTS["carol"]]
    lan.hosts["carol"].run(noise)
    lan.start("bob", 40002, "1")
    assert alice.said() == found("2", "192.168.1.2:40002")
    (*_, ended), log = alice.stop()
    assert log == ""
    # how many come through is the machine's affair
    assert ended["drops"]["malformed announcement"] > 0
    assert ended["drops"]["announcement of a stranger"] > 0


HOLD_PORT = "import socket, time; s = socket.socket(2, 2); s.bind(('', 5353)); print(1, flush=True); time.sleep(60)"


@pytest.mark.parametrize("trouble", ["eth0=192.168.77.77", "eth9=fd00::9", "port taken"])
def test_where_mdns_does_not_work_a_line_says_so_and_nothing_ends(lan, trouble):
    if trouble == "port taken":
        holder = lan.hosts["alice"].popen([sys.executable, "-c", HOLD_PORT], stdout=subprocess.PIPE)
        assert holder.stdout.readline() == "1\n"
        alice = lan.start("alice", 40001, "2")
        assert "no mDNS on eth0" in alice.process.stderr.readline()
        holder.terminate()
        holder.communicate()
    else:
        alice = lan.start("alice", 40001, "2", trouble)
        assert f"no mDNS on {trouble[:4]}" in alice.process.stderr.readline()
    alice.tell("off")
    assert alice.said() == {"says": "off"}
    alice.tell("on eth0=192.168.1.1")
    lan.start("bob", 40002, "1")
    assert alice.said() == found("2", "192.168.1.2:40002")


def test_two_programs_of_one_host_share_the_port(lan):
    alice = lan.start("alice", 40001, "2,3")
    lan.start("bob", 40002, "1")
    assert alice.said() == found("2", "192.168.1.2:40002")
    lan.members.append(Member(lan.hosts["bob"], 40003, "1", "eth0=192.168.1.2", seed="3"))
    assert alice.said() == found("3", "192.168.1.2:40003")
    assert lan.members[-1].said() == found("1", "192.168.1.1:40001")


AVAHI = """
[server]
use-ipv6=no
enable-dbus=no
disallow-other-stacks=no
"""


def test_avahi_shares_the_port_too(lan):
    if shutil.which("avahi-daemon", path="/usr/sbin") is None:
        pytest.skip("avahi-daemon is not installed; its package would start it here")
    host = lan.hosts["alice"]
    host.write_file("/run/avahi.conf", AVAHI)
    host.run(["mkdir", "/run/avahi-daemon"])
    command = ["avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "-f", "/run/avahi.conf"]
    avahi = host.popen(command, stderr=subprocess.PIPE)
    try:
        assert any("startup complete" in line for line in avahi.stderr)
        alice, bob = lan.start("alice", 40001, "2"), lan.start("bob", 40002, "1")
        assert alice.said() == found("2", "192.168.1.2:40002")
        assert bob.said() == found("1", "192.168.1.1:40001")
        assert avahi.poll() is None
    finally:
        avahi.terminate()
        avahi.communicate()
