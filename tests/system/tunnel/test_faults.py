"""What goes wrong underneath a tunnel, done to real engines: it goes on, or ends cleanly, with one clear line.

::

    n1  wg1 10.9.0.1 ── tunnel ── 10.9.0.2 wg2  n2
        192.0.2.1    ──  veth  ──  192.0.2.2
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import TUNNEL, Bed, Tunnel, new_key, new_psk
from wgdisco.tunnel.messages import INITIATION_SIZE, RESPONSE_SIZE

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("wg") is None, reason="wg (wireguard-tools) is not installed"),
]

VERBOSE = {"LOG_LEVEL": "verbose"}
PORT = 51820
RIGHT = "+0"
LIBFAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.fixture
def bed():
    with Bed("n1", "n2") as bed:
        bed.veth("n1", "eth0", "n2", "eth0")
        bed.address("n1", "eth0", "192.0.2.1/24")
        bed.address("n2", "eth0", "192.0.2.2/24")
        yield bed


def configure(tunnel: Tunnel, number: int, peer: Tunnel, *settings: str | int) -> None:
    """The tunnel's half: who it is, who the other is and where, addresses, up."""
    other = 3 - number
    tunnel.set("private-key", tunnel.key, "listen-port", PORT)
    tunnel.set(
        "peer", peer.public, "endpoint", f"192.0.2.{other}:{PORT}", "allowed-ips", f"10.9.0.{other}/32", *settings
    )
    tunnel.addresses(f"10.9.0.{number}/24")
    tunnel.up()


def pair(bed: Bed) -> tuple[Tunnel, Tunnel]:
    """Two of ours with a session."""
    wg1, wg2 = bed.tunnel("wg1", "n1", env=VERBOSE), bed.tunnel("wg2", "n2", env=VERBOSE)
    configure(wg1, 1, wg2)
    configure(wg2, 2, wg1)
    assert bed.ping("n1", "10.9.0.2", wait=5) == 1
    return wg1, wg2


def ended(tunnel: Tunnel) -> str:
    """Wait for the engine to end, well; what it said."""
    tunnel.bed.tunnels.remove(tunnel)
    assert tunnel.process.wait(10) == 0
    return tunnel.words()


def stopped(*tunnels: Tunnel) -> None:
    """End engines that had something to say."""
    for tunnel in tunnels:
        tunnel.process.terminate()
        ended(tunnel)


@contextmanager
def stock(bed: Bed, name: str, host: str):
    """A Debian wireguard-go instead of one of ours."""
    if shutil.which("wireguard-go") is None:
        pytest.skip("wireguard-go is not installed")
    environment = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "silent"}
    with started(bed, name, host, ["wireguard-go", "-f", name], environment) as tunnel:
        yield tunnel


def socket_of(tunnel: Tunnel) -> Path:
    return Path(f"/proc/{tunnel.home.pid}/root/run/wireguard/{tunnel.name}.sock")


class TestTheInterface:
    def test_deleted_underneath_it_ends_with_one_line_and_leaves_nothing(self, bed):
        wg1, wg2 = pair(bed)
        bed.ip("n1", "link", "del", "wg1")
        assert ended(wg1).count("interface wg1 was deleted") == 1
        assert not socket_of(wg1).exists()
        stopped(wg2)

    @pytest.mark.rule("E7", "M1", "D4", "T12")
    def test_moved_to_another_network_namespace_it_is_followed_there(self, bed):
        wg1, wg2 = pair(bed)
        with elsewhere(bed, "n1") as other:
            bed.ip("n1", "link", "set", "wg1", "netns", other)
            there = ["nsenter", "--net=/proc/" + other + "/ns/net"]
            for command in ("addr add 10.9.0.1/24 dev wg1", "link set wg1 mtu 1300 up"):
                bed.run("n1", *there, "ip", *command.split())
            bed.run("n1", *there, "ping", "-c", "1", "-W", "5", "10.9.0.2")
            assert bed.ping("n2", "10.9.0.1") == 1
            sent = wg1.transfer(wg2.public)[1]
            bed.run("n1", *there, "ping", "-c", "1", "-W", "5", "-s", "1272", "10.9.0.2")
            assert wg1.transfer(wg2.public)[1] == sent + 32 + 1300, "padded to the MTU it has there, not to 1312"
        # nothing holds that namespace any more: it goes, and the interface with it
        assert "interface wg1 was deleted" in ended(wg1)
        assert not socket_of(wg1).exists()
        stopped(wg2)


@contextmanager
def elsewhere(bed: Bed, host: str):
    """A process of the host in another network namespace: its pid as the host has it."""
    holder = bed[host].popen(
        ["unshare", "--net", "sh", "-c", "echo $$; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        yield holder.stdout.readline().strip()
        holder.communicate()


class TestSending:
    """What the kernel refuses is dropped and said once; nothing is forgotten, and all is well when it lets us again."""

    @contextmanager
    def recovers(self, bed: Bed, wg1: Tunnel, wg2: Tunnel, said: str):
        handshake = wg1.handshake(wg2.public)
        assert bed.ping("n1", "10.9.0.2", "-i", "0.1", count=3, wait=0.3) == 0
        yield
        assert bed.ping("n1", "10.9.0.2", "-i", "0.1", count=3, wait=2) == 3
        assert wg1.handshake(wg2.public) == handshake, "in the session it had"
        stopped(wg1, wg2)
        assert wg1.words().count(said) == 1

    def test_a_firewall_forbids_it(self, bed):
        wg1, wg2 = pair(bed)
        bed.run("n1", "nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }")
        bed.run("n1", "nft", "add rule ip t c udp dport 51820 drop")
        with self.recovers(bed, wg1, wg2, "Operation not permitted: a firewall of this host forbids it"):
            bed.run("n1", "nft", "delete table ip t")

    def test_there_is_no_way(self, bed):
        wg1, wg2 = pair(bed)
        bed.ip("n1", "addr", "del", "192.0.2.1/24", "dev", "eth0")
        with self.recovers(bed, wg1, wg2, "Network is unreachable"):
            bed.address("n1", "eth0", "192.0.2.1/24")

    def test_the_interface_outside_is_down(self, bed):
        wg1, wg2 = pair(bed)
        bed.ip("n1", "link", "set", "eth0", "down")
        with self.recovers(bed, wg1, wg2, "Network is unreachable"):
            bed.ip("n1", "link", "set", "eth0", "up")

    def test_signals_interrupt_what_it_waits_in(self, bed):
        wg1, wg2 = pair(bed)
        with bed["n1"].popen(["ping", "-q", "-c", "100", "-i", "0.01", "10.9.0.2"], stdout=subprocess.PIPE) as pings:
            while pings.poll() is None:
                wg1.process.send_signal(signal.SIGSTOP)
                wg1.process.send_signal(signal.SIGCONT)
                os.kill(wg1.process.pid, signal.SIGCONT)  # nsenter stops with what it runs
                time.sleep(0.002)
            assert " 100 received" in pings.stdout.read()
        stopped(wg1, wg2)


# The engine as it is, in a process that moves to another time namespace when it is told to: that is what a suspension
# of the machine looks like from inside, the boot-time clock ahead by so much and the monotonic one not at all.
_SUSPENDS = """
import ctypes, os, signal, sys
from wgdisco.tunnel.cli import main
libc, there = ctypes.CDLL(None, use_errno=True), os.open(sys.argv.pop(1), os.O_RDONLY)
def suspend(*_):
    assert libc.setns(there, 0x80) == 0, os.strerror(ctypes.get_errno())
signal.signal(signal.SIGUSR1, suspend)
raise SystemExit(main())
"""


@pytest.mark.rule("T11", "Z1")
def test_suspended_for_ten_minutes_the_next_packet_begins_a_handshake(bed):
    hold = ["unshare", "--time", "--boottime", "600", "--fork", "sh", "-c", "echo $$; exec cat"]
    with bed["n1"].popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as later:
        pid = later.stdout.readline().strip()
        if not pid:
            pytest.skip(f"no time namespace can be made here: {later.stderr.read().strip()}")
        command = [sys.executable, "-c", _SUSPENDS, f"/proc/{pid}/ns/time", "-f", "wg1"]
        with started(bed, "wg1", "n1", command, VERBOSE) as wg1:
            wg2 = bed.tunnel("wg2", "n2", env=VERBOSE)
            configure(wg1, 1, wg2)
            configure(wg2, 2, wg1)
            # longer than the 20 ms within which a second initiation would be refused (rule H10)
            assert bed.ping("n1", "10.9.0.2", "-i", "0.1", count=2, wait=5) == 2
            before = wg1.transfer(wg2.public)
            wg1.process.send_signal(signal.SIGUSR1)
            assert bed.ping("n1", "10.9.0.2", wait=5) == 1
            packet = 32 + 96  # 84 bytes, padded
            received, sent = (after - was for after, was in zip(wg1.transfer(wg2.public), before, strict=True))
            assert (received, sent) == (RESPONSE_SIZE + packet, INITIATION_SIZE + packet)
            assert wg1.words().count("the machine was suspended: new handshakes seconds=600") == 1
        stopped(wg2)
        later.communicate()


@contextmanager
def started(bed: Bed, name: str, host: str, command: list[str], environment: dict[str, str]):
    """An engine that is none of the bed's own."""
    with tempfile.TemporaryFile("w+") as said:
        process = bed[host].popen(command, stdout=said, stderr=said, env=environment)
        tunnel = Tunnel(bed, name, bed[host], bed[host], process, said)
        try:
            await_(lambda: socket_of(tunnel).exists(), f"{name}'s engine", 20)
            yield tunnel
        finally:
            process.stop()


@pytest.mark.skipif(LIBFAKETIME is None, reason="libfaketime (faketime) is not installed")
class TestAWrongClock:
    """Rebooted with another clock, against a Debian wireguard-go that remembers the latest timestamp it saw (rule H9).

    The engine alone keeps nothing on disk: with an earlier clock than before it is refused, as every WireGuard is,
    until its clock is right or the other side begins. (`wgdisco join` keeps its timestamps, and is not refused.)
    """

    def boot(self, bed: Bed, key, peer: Tunnel, clock: str) -> Tunnel:
        """Our end, its clock by what /run/clock says, as libfaketime reads it; that one is read again and again."""
        bed["n1"].write_file("/run/clock", clock)
        environment = {
            "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": "/run/clock",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        wg1 = bed.tunnel("wg1", "n1", env=VERBOSE | environment)
        wg1.key = key
        configure(wg1, 1, peer)
        return wg1

    def off(self, wg1: Tunnel) -> str:
        wg1.process.terminate()
        return ended(wg1)

    @pytest.mark.rule("H9")
    def test_booted_in_1970(self, bed):
        key = new_key()
        with stock(bed, "wg2", "n2") as wg2:
            wg1 = self.boot(bed, key, wg2, RIGHT)
            configure(wg2, 2, wg1)
            assert bed.ping("n1", "10.9.0.2", wait=5) == 1
            assert "clock" not in self.off(wg1)
            wg1 = self.boot(bed, key, wg2, "@1970-01-02 00:00:00")
            assert bed.ping("n1", "10.9.0.2", wait=1) == 0
            bed["n1"].write_file("/run/clock", RIGHT)
            assert bed.ping("n1", "10.9.0.2", wait=8) == 1, "the next attempt, 5 s after the first"
            assert self.off(wg1).count("this host's clock says 1970-01-02") == 1

    @pytest.mark.rule("H9")
    def test_booted_in_2035(self, bed):
        key = new_key()
        with stock(bed, "wg2", "n2") as wg2:
            wg1 = self.boot(bed, key, wg2, "@2035-01-01 00:00:00")
            configure(wg2, 2, wg1)
            assert bed.ping("n1", "10.9.0.2", wait=5) == 1
            bed["n1"].write_file("/run/clock", RIGHT)
            assert bed.ping("n1", "10.9.0.2", wait=1) == 1, "what it has stands"
            self.off(wg1)
            wg1 = self.boot(bed, key, wg2, RIGHT)
            assert bed.ping("n1", "10.9.0.2", wait=1) == 0, "who was seen in 2035 is refused until then"
            for key in (new_key(), wg2.key):  # ends its session with who we were before
                wg2.set("private-key", key)
            await_(lambda: bed.ping("n2", "10.9.0.1"), "the other side to begin", 10)
            assert bed.ping("n1", "10.9.0.2", wait=1) == 1
            self.off(wg1)


class TestItCannotStart:
    """One line that says what to do, the exit code, and nothing left behind."""

    def fails(self, bed: Bed, command: list[str], said: str) -> None:
        done = bed["n1"].run([*command, "-f", "wg1"], check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"wgdisco-tunnel: {said}")
        assert done.stderr.count("\n") == 1
        assert "wg1" not in bed.ip("n1", "link")
        assert bed.run("n1", "ls", "-A", "/run/wireguard", check=False) == ""

    def test_no_tun_device(self, bed):
        hidden = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs tmpfs /dev/net; exec "$@"', "sh"]
        self.fails(bed, [*hidden, *TUNNEL], "no TUN device: load it with 'modprobe tun'")

    def test_no_privilege(self, bed):
        less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
        self.fails(bed, [*less, *TUNNEL], "no permission to create interface wg1: run as root")

    def test_the_name_is_taken(self, bed):
        bed.ip("n1", "link", "add", "wg1", "type", "veth", "peer", "name", "other")
        done = bed["n1"].run([*TUNNEL, "-f", "wg1"], check=False)
        assert done.returncode == 1
        assert done.stderr == (
            "wgdisco-tunnel: interface wg1 exists and is no TUN interface: choose another name, or delete it\n"
        )


def test_no_key_is_in_the_log(bed):
    wg1, wg2 = bed.tunnel("wg1", "n1", env=VERBOSE), bed.tunnel("wg2", "n2", env=VERBOSE)
    psk = new_psk()
    configure(wg1, 1, wg2, "preshared-key", psk)
    configure(wg2, 2, wg1, "preshared-key", new_psk())
    assert bed.ping("n1", "10.9.0.2", wait=0.5) == 0  # a handshake that fails
    wg2.set("peer", wg1.public, "preshared-key", psk)
    assert bed.ping("n1", "10.9.0.2", wait=8) == 1
    assert bed["n1"].run(["wg", "show", "wg1", "dump"]).stdout.count(psk.to_text()) == 1
    wg1.set("peer", wg2.public, "remove")
    for tunnel in (wg1, wg2):
        bed.ip(tunnel.host, "link", "del", tunnel.name)
        said = ended(tunnel)
        assert "was deleted" in said, "it does speak"
        for secret in (wg1.key, wg2.key, psk):
            assert secret.to_text() not in said
            assert secret.raw.hex() not in said
            assert repr(secret.raw)[2:-1] not in said
