"""A hub of wg-quick and wireguard-go becomes a registry under running pings; its three stock peers are told nothing."""

import re
import secrets
import shutil
import subprocess
import time
from itertools import pairwise

import pytest

from tests.system.members import Daemon, read_lab
from tests.system.network import PROGRAM, await_
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


def wg_quick(host, verb):
    host.run(["env", "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go", "wg-quick", verb, CONF])


def set_up(hosts):
    """As an installer does it: a hub on a public address, and clients that know it alone."""
    server = PrivateKey(secrets.token_bytes(32))
    text = (
        f"[Interface]\nAddress = {HUB}/24,fd42:42:42::1/64\nListenPort = 61234\nPrivateKey = {server.to_text()}\n"
        "PostUp = sysctl -q net.ipv4.ip_forward=1\n"
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
            "Endpoint = 198.51.100.10:61234\nAllowedIPs = 10.66.66.0/24,fd42:42:42::/64\nPersistentKeepalive = 25\n"
        )
        hosts[name].write_file(CONF, client)
    hosts["registry"].write_file(CONF, text)
    for name in ("registry", *PEERS):
        wg_quick(hosts[name], "up")


class Pings:
    """20 a second; which were answered, and when."""

    def __init__(self, host, to):
        command = ["ping", "-D", "-n", "-i", "0.05", "-W", "1", to]
        self.process = host.popen(command, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        self.process.stdout.readline()

    def end(self):
        """Answered sequence numbers and their times."""
        self.process.terminate()
        with self.process.stdout as out:
            found = re.findall(r"^\[([0-9.]+)\].* icmp_seq=(\d+) .*time=", out.read(), re.MULTILINE)
        self.process.wait()
        return [(float(at), int(number)) for at, number in found]


def test_a_hub_is_adopted_under_running_pings():
    with read_lab("port-restricted", "port-restricted", "port-restricted") as lab:
        hub = lab.hosts["registry"]
        set_up(lab.hosts)
        for name, to in (("alice", HUB), ("bob", "10.66.66.9")):
            await_(lambda n=name, t=to: not lab.hosts[n].run(["ping", "-c1", "-W1", t], check=False).returncode, name)
        pings = {"alice to the hub": Pings(lab.hosts["alice"], HUB)}
        pings["bob to carol"] = Pings(lab.hosts["bob"], "10.66.66.9")

        said = hub.run([*PROGRAM, "registry", "init", "--adopt", CONF]).stderr
        assert "not taken over: PostUp" in said
        assert f"wg-quick down {CONF}" in said
        daemon = Daemon(hub, [*PROGRAM, "registry", "run"])
        daemon.wait_for("ready to take the server's place")
        ready_at = time.time()
        wg_quick(hub, "down")
        daemon.wait_for("its port is ours")
        taken_at = time.time()
        time.sleep(2)

        for what, running in pings.items():
            answered = running.end()
            (first, last), gap = (answered[0][1], answered[-1][1]), max(b[0] - a[0] for a, b in pairwise(answered))
            lost = last - first + 1 - len(answered)
            print(f"\n{what}: {lost} of {last - first + 1} pings lost, at most {gap:.2f} s between answers", end="")
            assert answered[-1][0] > taken_at + 1, "it goes on"
            assert lost == 0
        print(f"; the port was the registry's {taken_at - ready_at:.2f} s after the server was told to stop")

        listed = hub.run([*PROGRAM, "registry", "list"]).stdout
        for name, number in PEERS.items():
            assert re.search(rf"^{name} +10\.66\.66\.{number} +all +device +live", listed, re.MULTILINE), listed


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
