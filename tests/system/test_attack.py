"""A device under a flood of forged initiations goes on serving the peers it has, and lets new ones in.

::

    friend   10.9.0.2 ── tunnel ─┐
             192.0.2.2 ── veth ── 192.0.2.1     target, our engine   10.9.0.1
    newcomer 10.9.0.3 ── tunnel ─┤                 │
             192.0.3.2 ── veth ── 192.0.3.1        │
    attacker 192.0.4.2 ── veth ── 192.0.4.1 ───────┘  default route: replies to forged sources go there
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.network import await_
from wgdisco.lab.world import World

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed"),
    pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed"),
]

FLOOD = str(Path(__file__).with_name("flood.py"))
# What else runs on this machine is not the attacker's doing: where it is allowed, these two come first.
FIRST = ["sh", "-c", 'chrt -r -p 1 $$ 2>/dev/null; exec "$@"', "first"]
OURS = [*FIRST, sys.executable, "-c", "from wgdisco.tunnel.cli import main; raise SystemExit(main())", "-f", "wgt0"]
STOCK = ["wireguard-go", "-f", "wgt0"]
OUTSIDE = ["friend", "newcomer", "attacker"]
INSIDE = {"target": "10.9.0.1", "friend": "10.9.0.2", "newcomer": "10.9.0.3"}
RATE, SECONDS = 20_000, 12
PINGS = 1000  # 100 a second, within the flood
GROWTH = 32 << 10  # KiB
# What comes out of the target towards its forged sources
COUNTERS = """
table inet seen {
    counter cookies {}
    counter others {}
    chain input { type filter hook prerouting priority 0;
        udp sport 51820 udp length 72 counter name cookies
        udp sport 51820 udp length != 72 counter name others
    }
}
"""


class Scene:
    """The hosts, their engines, and who of them has a tunnel."""

    def __init__(self, world):
        self.hosts = world.hosts
        self.engines = {}
        target = self.hosts["target"]
        keys = {name: target.run(["wg", "genkey"]).stdout.strip() for name in INSIDE}
        self.public = {name: target.run(["wg", "pubkey"], text=key).stdout.strip() for name, key in keys.items()}
        for host in self.hosts.values():
            host.run(["ip", "link", "set", "lo", "up"])
        for number, name in enumerate(OUTSIDE, 2):
            host = self.hosts[name]
            peer = ["type", "veth", "peer", "eth0", "netns", str(host.inner_pid)]
            target.run(["ip", "link", "add", name, *peer])
            for end, link, address in ((target, name, 1), (host, "eth0", 2)):
                end.run(["ip", "addr", "add", f"192.0.{number}.{address}/24", "dev", link])
                end.run(["ip", "link", "set", link, "up"])
        target.run(["ip", "route", "add", "default", "via", "192.0.4.2"])
        self.hosts["attacker"].run(["nft", "-f", "-"], text=COUNTERS)
        for name, private in keys.items():
            self._start(name, private)
        # The target cannot begin: it is told of no endpoint.
        for name in ("friend", "newcomer"):
            self.set("target", name)
        self.set("friend", "target", "endpoint", "192.0.2.1:51820")

    def _start(self, name, private):
        host = self.hosts[name]
        self.engines[name] = host.popen(
            OURS if name == "target" else STOCK, env={"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        )
        await_(lambda: host.run(["wg", "show", "wgt0"], check=False).returncode == 0, f"{name}'s engine")
        host.run(["wg", "set", "wgt0", "listen-port", "51820", "private-key", "/dev/stdin"], text=private)
        host.run(["ip", "addr", "add", f"{INSIDE[name]}/24", "dev", "wgt0"])
        host.run(["ip", "link", "set", "wgt0", "up"])

    def set(self, name, peer, *more):
        about = ["peer", self.public[peer], "allowed-ips", f"{INSIDE[peer]}/32", *more]
        self.hosts[name].run(["wg", "set", "wgt0", *about])

    def attack(self, *more):
        key = base64.b64decode(self.public["target"]).hex()
        command = [*FIRST, sys.executable, FLOOD, "192.0.4.1", "51820", key, *more]
        return self.hosts["attacker"].popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self):
        """What a forged initiation is answered with."""
        with self.attack() as process:
            return process.communicate(timeout=10)[0].strip()

    def counted(self, counter):
        ruleset = self.hosts["attacker"].run(["nft", "-j", "list", "counter", "inet", "seen", counter]).stdout
        return json.loads(ruleset)["nftables"][-1]["counter"]["packets"]

    def memory(self):
        """What the target has resident, in KiB."""
        entered = self.engines["target"].pid
        pid = Path(f"/proc/{entered}/task/{entered}/children").read_text().strip()
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])

    def close(self):
        for engine in self.engines.values():
            engine.stop()


@pytest.mark.rule("C2", "C3", "C5", "H19")
def test_a_flood_of_forged_initiations_harms_no_tunnel_and_keeps_nobody_out():
    with World(["target", *OUTSIDE]) as world:
        scene = Scene(world)
        friend, newcomer = scene.hosts["friend"], scene.hosts["newcomer"]
        try:
            friend.run(["ping", "-c", "1", "-W", "5", INSIDE["target"]])
            assert scene.ask() == "silence"
            before = scene.memory()
            with scene.attack(str(RATE), str(SECONDS)) as flood:
                assert flood.stdout.readline() == "ready\n"
                flood.stdin.write("\n")
                flood.stdin.flush()
                began = time.monotonic()
                pings = friend.popen(
                    ["ping", "-q", "-i", "0.01", "-c", str(PINGS), "-W", "1", INSIDE["target"]], stdout=subprocess.PIPE
                )
                await_(lambda: scene.ask() == "cookie", "a cookie", 5)
                scene.set("newcomer", "target", "endpoint", "192.0.3.1:51820")
                came = newcomer.run(["ping", "-c", "1", "-W", "12", INSIDE["target"]], check=False, timeout=20)
                waited = time.monotonic() - began
                sent = json.loads(flood.communicate(timeout=30)[0])
            output = pings.communicate(timeout=10)[0]
            pings.stdout.close()
            growth = scene.memory() - before
            rate = sent["sent"] / sent["seconds"]
            assert rate >= 0.99 * RATE, f"this machine sent only {rate:.0f} a second"
            assert came.returncode == 0, f"the newcomer is not in after {waited:.1f} s"
            assert waited <= SECONDS, "the newcomer came in after the flood"
            received = int(re.search(r"(\d+) received", output)[1])
            assert received >= 0.99 * PINGS, output
            assert growth < GROWTH
            assert scene.counted("cookies") > 0
            assert scene.counted("others") == 0
            await_(lambda: scene.ask() == "silence", "the end of load", 5)
        finally:
            scene.close()
