"""Two WireGuard engines, both driven by `wg`, on two ends of a veth.

::

    here  10.9.0.1, fd09::1 ── tunnel ── 10.9.0.2, fd09::2  there
          192.0.2.1, 2001:db8::1  ── veth ──  192.0.2.2, 2001:db8::2

Here is always ours; there is whichever of `ENGINES` a test asks for.
"""

import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.transfer import digest
from tests.system.network import await_
from wgdisco.lab.world import Host, World

TRANSFER = str(Path(__file__).with_name("transfer.py"))
PEERS = Path(__file__).parents[2] / ".peers"
OUTER = {"ipv4": ("192.0.2.1", "192.0.2.2"), "ipv6": ("[2001:db8::1]", "[2001:db8::2]")}
NUMBER = {"here": 1, "there": 2}
OTHER = {"here": "there", "there": "here"}
ENGINES = {
    "ours": [sys.executable, "-c", "from wgdisco.tunnel.cli import main; raise SystemExit(main())", "-f", "wgt0"],
    "debian": ["wireguard-go", "-f", "wgt0"],
    "current": [str(PEERS / "wireguard-go"), "-f", "wgt0"],
    "boringtun": [str(PEERS / "boringtun"), "-f", "wgt0", "--disable-drop-privileges", "--log", "/dev/null"],
}
MISSING = {
    "debian": "wireguard-go is not installed",
    "current": "`scripts/peers wireguard-go` has not built it",
    "boringtun": "`scripts/peers boringtun` has not built it",
}
needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed")


def need(engine: str) -> None:
    """Skip, saying why, where that engine is not."""
    if shutil.which(ENGINES[engine][0]) is None:
        pytest.skip(MISSING[engine])


@dataclass
class Tunnel:
    hosts: dict[str, Host]

    def ping(self, sender: str, version: int, size: int = 56, count: int = 3, check: bool = True) -> int:
        """Ping the other end inside; the exit code."""
        number = NUMBER[OTHER[sender]]
        address = f"10.9.0.{number}" if version == 4 else f"fd09::{number}"
        command = ["ping", "-q", "-c", str(count), "-i", "0.02", "-W", "2", "-s", str(size), address]
        return self.hosts[sender].run(command, check=check).returncode

    def handshake_time(self, name: str) -> int:
        return int(self.hosts[name].run(["wg", "show", "wgt0", "latest-handshakes"]).stdout.split()[1])

    def transfer(self, sender: str, version: int, megabytes: int) -> None:
        """Send a stream to the other end inside, and see that it comes as it was."""
        receiver = OTHER[sender]
        address = f"10.9.0.{NUMBER[receiver]}" if version == 4 else f"fd09::{NUMBER[receiver]}"
        command = [sys.executable, TRANSFER, "receive", address, "7000", str(megabytes)]
        with self.hosts[receiver].popen(command, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout.readline() == "listening\n"
                self.hosts[sender].run([sys.executable, TRANSFER, "send", address, "7000", str(megabytes)], timeout=120)
                assert server.communicate(timeout=60)[0].strip() == digest(megabytes)
            finally:
                server.kill()


def _answers(host, engine):
    assert engine.poll() is None, f"the engine ended: {engine.stderr.read()}"
    return host.run(["wg", "show", "wgt0"], check=False).returncode == 0


@contextmanager
def tunnel(engine="debian", initiator="here", outer="ipv4", preshared=False, mtu=1420):
    """Both engines up and configured; only the initiator knows where the other is."""
    need(engine)
    with World(["here", "there"]) as world:
        hosts = world.hosts
        hosts["here"].run(
            ["ip", "link", "add", "veth0", "type", "veth", "peer", "veth0", "netns", str(hosts["there"].inner_pid)]
        )
        engines = []
        keys = {name: hosts["here"].run(["wg", "genkey"]).stdout for name in hosts}
        public = {name: hosts["here"].run(["wg", "pubkey"], text=key).stdout.strip() for name, key in keys.items()}
        psk = hosts["here"].run(["wg", "genpsk"]).stdout.strip()
        try:
            # The current wireguard-go sends nothing more once segments are above the path MTU; Debian's makes none.
            outer_mtu = 9000 if engine == "current" else 1500
            for name, number in NUMBER.items():
                host = hosts[name]
                host.run(["ip", "-batch", "-"], text=_OUTER.format(number, outer_mtu))
                process = host.popen(
                    ENGINES["ours" if name == "here" else engine],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "silent"},
                )
                engines.append(process)
                await_(lambda h=host, e=process: _answers(h, e), f"the engine {name}", 30)
                endpoint = f"Endpoint = {OUTER[outer][2 - number]}:51820\n" if name == initiator else ""
                host.run(
                    ["wg", "setconf", "wgt0", "/dev/stdin"],
                    text=f"[Interface]\nPrivateKey = {keys[name]}ListenPort = 51820\n"
                    f"[Peer]\nPublicKey = {public[OTHER[name]]}\n"
                    f"AllowedIPs = 10.9.0.{3 - number}/32, fd09::{3 - number}/128\n{endpoint}"
                    + (f"PresharedKey = {psk}\n" if preshared else ""),
                )
                host.run(["ip", "-batch", "-"], text=_INNER.format(number, mtu))
            yield Tunnel(hosts)
        finally:
            for process in engines:
                process.stop()
                process.stderr.close()


_OUTER = """
link set lo up
addr add 192.0.2.{0}/24 dev veth0
addr add 2001:db8::{0}/64 dev veth0 nodad
link set veth0 mtu {1} up
"""
_INNER = """
link set wgt0 mtu {1}
addr add 10.9.0.{0}/24 dev wgt0
addr add fd09::{0}/64 dev wgt0 nodad
link set wgt0 up
"""
