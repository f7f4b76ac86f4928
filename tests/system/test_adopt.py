"""A hub of wg-quick and wireguard-go becomes a registry under running pings; its three stock peers are told nothing."""

import re
import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from tests.system.machine import machine
from tests.system.members import Daemon, read_lab
from tests.system.network import PROGRAM, await_
from tests.system.test_units import daemon as daemon_of
from wgdisco.keys import PresharedKey, PrivateKey

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(
        shutil.which("wireguard-go") is None or shutil.which("wg-quick") is None,
        reason="wireguard-go or wg-quick is not installed",
    ),
]
CONF = "/run/lab/wg0.conf"
PEERS = {"alice": 2, "bob": 3, "carol": 9}
HUB = "10.66.66.1"
BEYOND = "203.0.113.1"  # the Internet, that the hub translates to
CAP_NET_RAW = 1 << 13
SLOW = 120.0  # an emulated machine, for the kernel's WireGuard


ENGINE = "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go"
# What systemd is told so that the server's own unit runs wireguard-go
DROP_IN = f"[Service]\nEnvironment={ENGINE}\n"


def wg_quick(host, verb):
    host.run(["env", ENGINE, "wg-quick", verb, CONF])


def set_up(hosts):
    """As an installer does it: clients that know a hub on a public address, and are up; and the hub's file."""
    server = PrivateKey(secrets.token_bytes(32))
    text = (
        f"[Interface]\nAddress = {HUB}/24,fd42:42:42::1/64\nListenPort = 61234\nPrivateKey = {server.to_text()}\n"
        "PostUp = sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
        "PostUp = nft add table ip hooks\n"
        "PostUp = nft 'add chain ip hooks post { type nat hook postrouting priority 100; }'\n"
        "PostUp = nft add rule ip hooks post oifname eth0 masquerade\n"
        "PostDown = nft delete table ip hooks\n"
    )
    for name, number in PEERS.items():
        private, shared = PrivateKey(secrets.token_bytes(32)), PresharedKey(secrets.token_bytes(32))
        own = f"10.66.66.{number}/32,fd42:42:42::{number}/128"
        text += (
            f"\n### Client {name}\n[Peer]\nPublicKey = {private.public_key()}\n"
            f"PresharedKey = {shared.to_text()}\nAllowedIPs = {own}\n"
        )
        client = (
            f"[Interface]\nAddress = {own}\nPrivateKey = {private.to_text()}\n"
            f"[Peer]\nPublicKey = {server.public_key()}\nPresharedKey = {shared.to_text()}\n"
            f"Endpoint = 198.51.100.10:61234\nAllowedIPs = 10.66.66.0/24,fd42:42:42::/64,{BEYOND}\n"
            "PersistentKeepalive = 25\n"
        )
        hosts[name].write_file(CONF, client)
        wg_quick(hosts[name], "up")
    return text


class Pings:
    """20 a second, as large as the tunnel takes and not to be fragmented; which were answered, and when."""

    def __init__(self, host, to):
        size = str(1392 if "." in to else 1372)
        await_(lambda: not host.run(["ping", "-c1", "-W1", to], check=False).returncode, f"{to} to answer")
        command = ["ping", "-D", "-n", "-i", "0.05", "-W", "1", "-s", size, "-M", "do", to]
        # of a pipe that nobody reads it would wait for room
        self.out = tempfile.TemporaryFile("w+")  # noqa: SIM115  __exit__ closes it
        self.process = host.popen(command, stdout=self.out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        with self.out as out:
            out.seek(0)
            found = re.findall(r"^\[([0-9.]+)\].* icmp_seq=(\d+) .*time=", out.read(), re.MULTILINE)
        self.answered = [(float(at), int(number)) for at, number in found]

    def ends(self):
        """Time and sequence number of the first answer, and of the last."""
        return self.answered[0], self.answered[-1]


@contextmanager
def running_pings(hosts):
    """Through the hub and to it, while the block lasts and two seconds longer; none may be lost."""
    with ExitStack() as stack:
        pings = {
            f"{name} to {to}": stack.enter_context(Pings(hosts[name], to))
            for name, to in (("alice", HUB), ("bob", "10.66.66.9"), ("bob", BEYOND), ("carol", "fd42:42:42::2"))
        }
        yield
        ended = time.time()
        time.sleep(2)
    for what, running in pings.items():
        (first, last), gap = running.ends(), max(b[0] - a[0] for a, b in pairwise(running.answered))
        sent = last[1] - first[1] + 1
        lost = sent - len(running.answered)
        print(f"\n{what}: {lost} of {sent} pings lost, at most {gap:.3f} s between answers", end="")
        assert last[0] > ended + 1, "it goes on"
        assert lost == 0, [(a, b) for a, b in pairwise(running.answered) if b[1] - a[1] > 1]


def assert_all_are_live(listed):
    for name, number in PEERS.items():
        assert re.search(rf"^{name} +10\.66\.66\.{number} +all +device +live", listed, re.MULTILINE), listed


def test_a_hub_is_adopted_under_running_pings():
    with read_lab("port-restricted", "symmetric-random", "full-cone") as lab:
        hub = lab.hosts["registry"]
        hub.write_file(CONF, set_up(lab.hosts))
        wg_quick(hub, "up")
        has_socket = not hub.run(["test", "-S", "/run/wireguard/wg0.sock"], check=False).returncode
        print(f"\na hub of {'wireguard-go' if has_socket else 'the kernel'}", end="")
        with running_pings(lab.hosts):
            said = hub.run([*PROGRAM, "registry", "init", "--adopt", CONF], timeout=SLOW).stderr
            assert "not taken over: PostUp, PostDown" in said
            assert "its peers reach the Internet through it, and will" in said
            assert f"wg-quick down {CONF}" in said
            again = hub.run([*PROGRAM, "registry", "init"], timeout=SLOW).stderr
            assert "nothing was changed" in again
            assert "wg-quick down wg0" in again
            daemon = Daemon(hub, [*PROGRAM, "registry", "run"])
            daemon.wait_for("ready to take the server's place", SLOW)
            assert "devices=3" in daemon.err[-1]
            wg_quick(hub, "down")
            daemon.wait_for("its port is ours", SLOW)
        assert_all_are_live(hub.run([*PROGRAM, "registry", "list"], timeout=SLOW).stdout)
        assert hub.run(["ip", "route", "show", "10.66.66.2"]).stdout == "", "what led past the server is gone"
        assert "th,64,8" not in hub.run(["nft", "list", "table", "inet", "wgdisco_mesh"]).stdout


@pytest.mark.soak
@pytest.mark.parametrize("early", [0.0, 1.0, 2.0, 3.0])
def test_a_hub_is_adopted_while_its_peers_renew_their_sessions(early):
    """When they are two minutes old peers begin new ones, and the server that is to go hears of it too.

    It stays for seconds after it could have gone: what it agreed on meanwhile has to be replaced.
    """
    with read_lab("port-restricted", "symmetric-random", "full-cone") as lab:
        hub = lab.hosts["registry"]
        hub.write_file(CONF, set_up(lab.hosts))
        wg_quick(hub, "up")
        with running_pings(lab.hosts):
            began = time.time()
            hub.run([*PROGRAM, "registry", "init", "--adopt", CONF])
            time.sleep(120 - early - (time.time() - began))
            daemon = Daemon(hub, [*PROGRAM, "registry", "run"])
            daemon.wait_for("ready to take the server's place")
            time.sleep(3)
            wg_quick(hub, "down")
            daemon.wait_for("its port is ours")
        assert_all_are_live(hub.run([*PROGRAM, "registry", "list"]).stdout)


def test_a_server_under_systemd_is_adopted_by_one_command():
    with read_lab("port-restricted", "symmetric-random", "full-cone") as lab, machine(lab.hosts["registry"]) as hub:
        hub.run("sh", "-ec", "umask 077; mkdir -p /etc/wireguard; cat >/etc/wireguard/wg0.conf", text=set_up(lab.hosts))
        unit = "/etc/systemd/system/wg-quick@wg0.service.d"
        hub.run("sh", "-ec", f"mkdir {unit}; cat >{unit}/engine.conf; systemctl daemon-reload", text=DROP_IN)
        hub.run("systemctl", "enable", "--now", "wg-quick@wg0")
        with running_pings(lab.hosts):
            done = hub.run("wgdisco", "registry", "init", "--adopt", "wg0", check=False)
            assert done.returncode == 0, done.stderr + hub.journal("wgdisco-registry")
        assert "wg0 is stopped for good; the registry has its place, and 3 connected devices" in done.stderr
        assert_all_are_live(hub.run("wgdisco", "registry", "list").stdout)
        assert hub.run("systemctl", "is-enabled", "wg-quick@wg0", check=False).stdout == "disabled\n"
        assert "wg0:" not in hub.run("ip", "link").stdout
        hub.run("systemctl", "restart", "wgdisco-registry")
        _, capabilities = daemon_of(hub, "wgdisco-registry")
        assert not capabilities & CAP_NET_RAW, "what it takes to take over is not kept"


def test_a_server_with_a_peer_that_cannot_be_a_device_stays_as_it_is():
    with read_lab() as lab:
        hub = lab.hosts["registry"]
        key, site = (PrivateKey(secrets.token_bytes(32)).public_key() for _ in range(2))
        hub.write_file(
            CONF,
            f"[Interface]\nAddress = {HUB}/24\nPrivateKey = {PrivateKey(secrets.token_bytes(32)).to_text()}\n"
            f"[Peer]\n# alice\nPublicKey = {key}\nAllowedIPs = 10.66.66.2/32\n"
            f"[Peer]\n# office\nPublicKey = {site}\nAllowedIPs = 10.66.66.3/32, 192.168.7.0/24\n",
        )
        done = hub.run([*PROGRAM, "registry", "init", "--adopt", CONF], check=False)
        assert done.returncode == 1
        first, last = done.stderr.splitlines()
        assert first.startswith(f"wgdisco: office ({site}): ")
        assert last.endswith("nothing was changed")
        assert hub.run([*PROGRAM, "registry", "list"], check=False).returncode == 2, "there is no network"
