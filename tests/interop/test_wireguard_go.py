"""Our engine and Debian's wireguard-go, both driven by `wg`, on two ends of a veth.

::

    ours  10.9.0.1, fd09::1 ── tunnel ── 10.9.0.2, fd09::2  theirs
          192.0.2.1, 2001:db8::1  ── veth ──  192.0.2.2, 2001:db8::2
"""

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.transfer import digest
from wgdisco.lab.world import Host, HostProcess, World

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed"),
    pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed"),
]

TRANSFER = str(Path(__file__).with_name("transfer.py"))
MEGABYTES = 100
OUTER = {"ipv4": ("192.0.2.1", "192.0.2.2"), "ipv6": ("[2001:db8::1]", "[2001:db8::2]")}
ENGINES = {
    "ours": [sys.executable, "-c", "from wgdisco.tunnel.cli import main; raise SystemExit(main())", "-f", "wgt0"],
    "theirs": ["wireguard-go", "-f", "wgt0"],
}


@dataclass
class Tunnel:
    ours: Host
    theirs: Host

    def host(self, name: str) -> Host:
        return self.ours if name == "ours" else self.theirs

    def handshake_time(self, name: str) -> int:
        return int(self.host(name).run(["wg", "show", "wgt0", "latest-handshakes"]).stdout.split()[1])

    def transfer(self, sender: str, receiver: str, address: str) -> str:
        command = [sys.executable, TRANSFER, "receive", address, "7000", str(MEGABYTES)]
        with self.host(receiver).popen(command, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout.readline() == "listening\n"
                self.host(sender).run([sys.executable, TRANSFER, "send", address, "7000", str(MEGABYTES)], timeout=120)
                return server.communicate(timeout=60)[0].strip()
            finally:
                server.kill()


def _await(condition, what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)


def _answers(host: Host, engine: HostProcess) -> bool:
    assert engine.poll() is None, f"the engine ended: {engine.stderr.read()}"
    return host.run(["wg", "show", "wgt0"], check=False).returncode == 0


@contextmanager
def tunnel(outer: str = "ipv4", initiator: str = "ours", preshared: bool = False):
    """Both engines up and configured; only the initiator knows where the other is."""
    with World(["ours", "theirs"]) as world:
        hosts = {"ours": world.hosts["ours"], "theirs": world.hosts["theirs"]}
        hosts["ours"].run(
            ["ip", "link", "add", "veth0", "type", "veth", "peer", "veth0", "netns", str(hosts["theirs"].inner_pid)]
        )
        engines = []
        keys = {name: hosts["ours"].run(["wg", "genkey"]).stdout for name in hosts}
        public = {name: hosts["ours"].run(["wg", "pubkey"], text=key).stdout.strip() for name, key in keys.items()}
        psk = hosts["ours"].run(["wg", "genpsk"]).stdout.strip()
        try:
            for number, (name, host) in enumerate(hosts.items(), 1):
                other = "theirs" if name == "ours" else "ours"
                host.run(["ip", "link", "set", "lo", "up"])
                host.run(["ip", "addr", "add", f"192.0.2.{number}/24", "dev", "veth0"])
                host.run(["ip", "addr", "add", f"2001:db8::{number}/64", "dev", "veth0", "nodad"])
                host.run(["ip", "link", "set", "veth0", "up"])
                engine = host.popen(
                    ENGINES[name],
                    stderr=subprocess.PIPE,
                    env={"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "silent"},
                )
                engines.append(engine)
                _await(lambda h=host, e=engine: _answers(h, e), f"{name}'s engine")
                endpoint = f"Endpoint = {OUTER[outer][2 - number]}:51820\n" if name == initiator else ""
                host.run(
                    ["wg", "setconf", "wgt0", "/dev/stdin"],
                    text=f"[Interface]\nPrivateKey = {keys[name]}ListenPort = 51820\n"
                    f"[Peer]\nPublicKey = {public[other]}\n"
                    f"AllowedIPs = 10.9.0.{3 - number}/32, fd09::{3 - number}/128\n{endpoint}"
                    + (f"PresharedKey = {psk}\n" if preshared else ""),
                )
                host.run(["ip", "addr", "add", f"10.9.0.{number}/24", "dev", "wgt0"])
                host.run(["ip", "addr", "add", f"fd09::{number}/64", "dev", "wgt0", "nodad"])
                host.run(["ip", "link", "set", "wgt0", "mtu", "1420", "up"])
            yield Tunnel(hosts["ours"], hosts["theirs"])
        finally:
            for engine in engines:
                engine.stop()
                engine.stderr.close()


@pytest.mark.parametrize("preshared", [False, True], ids=["plain", "psk"])
@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_pings_and_streams_cross_intact(initiator, outer, preshared):
    responder = "theirs" if initiator == "ours" else "ours"
    with tunnel(outer, initiator, preshared) as it:
        number = {"ours": 1, "theirs": 2}
        for version in ("10.9.0.", "fd09::"):
            it.host(initiator).run(["ping", "-c", "3", "-i", "0.1", "-W", "2", f"{version}{number[responder]}"])
            it.host(responder).run(["ping", "-c", "3", "-i", "0.1", "-W", "2", f"{version}{number[initiator]}"])
        assert it.handshake_time("ours") > 0
        assert it.transfer("ours", "theirs", "10.9.0.2") == digest(MEGABYTES)
        assert it.transfer("theirs", "ours", "fd09::1") == digest(MEGABYTES)


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_a_wrong_preshared_key_never_connects(initiator):
    with tunnel(initiator=initiator, preshared=True) as it:
        it.ours.run(["sh", "-c", "wg genpsk | wg set wgt0 peer $(wg show wgt0 peers) preshared-key /dev/stdin"])
        other = "10.9.0.2" if initiator == "ours" else "10.9.0.1"
        assert it.host(initiator).run(["ping", "-c", "3", "-i", "0.2", "-W", "1", other], check=False).returncode == 1


def test_a_rekey_under_traffic_loses_nothing():
    """REKEY_AFTER_TIME is 120 s: both directions of initiating run side by side through a real one."""
    with tunnel(initiator="ours") as first, tunnel(initiator="theirs") as second:
        command = ["ping", "-q", "-i", "0.1", "-c", "1280", "-W", "2"]
        runs = [
            first.ours.popen([*command, "10.9.0.2"], stdout=subprocess.PIPE),
            second.theirs.popen([*command, "10.9.0.1"], stdout=subprocess.PIPE),
        ]
        _await(lambda: first.handshake_time("ours") and second.handshake_time("theirs"), "the first handshakes")
        before = first.handshake_time("ours"), second.handshake_time("theirs")
        for run in runs:
            output = run.communicate(timeout=180)[0]
            assert "1280 packets transmitted, 1280 received" in output, output
        assert first.handshake_time("ours") > before[0]
        assert second.handshake_time("theirs") > before[1]
