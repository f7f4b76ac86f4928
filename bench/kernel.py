"""What it costs to look at a device that is not ours, and how late a handshake is heard of.

usage, as root: python -m bench.kernel [--peers N…] [--seconds N] [--handshakes N] [--to DIRECTORY | --only ENGINE]

Peers are configured and quiet but for one, which begins handshakes from a namespace of its own. Times are in
milliseconds; `wg show dump` runs in turn with the looks. wireguard-go is measured here, the kernel's WireGuard on
Debian's kernel in qemu, where a processor is emulated: of that only ratios mean something.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

from bench import record
from wgdisco.errors import LocalError
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import PeerHandshake
from wgdisco.tunnel.io.external import ExternalWireGuard
from wgdisco.tunnel.io.kernel import KernelWireGuard
from wgdisco.tunnel.io.polled import PolledDevice

OURS, THEIRS = PrivateKey(bytes([8] * 31 + [64])), PrivateKey(bytes([9] * 31 + [64]))
PORT = 51820
OTHER = "bench-peer"
TURNS = 20
ALONE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
ENGINES = ("external", "kernel")
# Handshakes come at all times of a second
APART = 0.37

Client = KernelWireGuard | ExternalWireGuard


def run(*words: str, told: str = "") -> None:
    """Run a command that says nothing."""
    subprocess.run(words, input=told, text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """How long it took, and of a core in this thread, in milliseconds."""
    began, used = time.perf_counter(), time.thread_time()
    work()
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.thread_time() - used)


class Pair:
    """A device here with many peers, and the one peer that speaks, in a namespace of its own. Both go at the end."""

    def __init__(self, engine: str, peers: int) -> None:
        run("ip", "netns", "add", OTHER)
        run("ip", "link", "add", "bench-here", "type", "veth", "peer", "name", "bench-there", "netns", OTHER)
        for host, side, address in (((), "here", "192.0.2.1/24"), (("-n", OTHER), "there", "192.0.2.2/24")):
            run("ip", *host, "address", "add", address, "dev", f"bench-{side}")
            run("ip", *host, "link", "set", f"bench-{side}", "up")
        for host, enter, interface in (((), (), "bench0"), (("-n", OTHER), ("ip", "netns", "exec", OTHER), "bench1")):
            if engine == "external":
                run(*enter, "wireguard-go", interface)
                _await(Path(f"/var/run/wireguard/{interface}.sock").exists)
            else:
                run("ip", *host, "link", "add", interface, "type", "wireguard")
            run("ip", *host, "link", "set", interface, "up")
        self._wg = ("ip", "netns", "exec", OTHER, "wg", "set", "bench1")
        run(*self._wg, "private-key", "/dev/stdin", told=THEIRS.to_text())
        self.client: Client = ExternalWireGuard("bench0") if engine == "external" else KernelWireGuard.attach("bench0")
        everybody = (PeerConfig(THEIRS.public_key()), *map(quiet_peer, range(peers - 1)))
        self.client.apply(DeviceConfig(OURS, PORT, 0, everybody))
        self.engines = _processes(b"wireguard-go\0bench0\0")

    def shake_hands(self) -> None:
        """Have the peer forget us and begin anew."""
        ours = OURS.public_key().to_text()
        run(*self._wg, "peer", ours, "remove")
        run(*self._wg, "peer", ours, "endpoint", f"192.0.2.1:{PORT}", "persistent-keepalive", "25")

    def close(self) -> None:
        """Take all of it away; wireguard-go ends with its interface."""
        run("ip", "link", "delete", "bench0")
        run("ip", "-n", OTHER, "link", "delete", "bench1")
        run("ip", "link", "delete", "bench-here")
        run("ip", "netns", "delete", OTHER)


def quiet_peer(number: int) -> PeerConfig:
    """A peer that is nowhere."""
    network = IPv4Network((10 << 24 | number, 32))
    return PeerConfig(PublicKey(b"\1" + number.to_bytes(31, "big")), None, None, (network,))


def looks(client: Client) -> dict[str, float]:
    """Looks at peers that do nothing, in turn with `wg show dump`, and with `wg` for nothing."""
    client.status()
    rows = []
    for _ in range(TURNS):
        look, of_a_core = timed(client.status)
        dump, _ = timed(lambda: run("wg", "show", client.interface, "dump"))
        nothing, _ = timed(lambda: run("wg", "--version"))
        rows.append((look, of_a_core, dump, nothing))
    look, of_a_core, dump, nothing = map(statistics.median, zip(*rows, strict=True))
    return {
        "look_ms": look,
        "look_cpu_ms": of_a_core,
        "wg_show_dump_ms": dump,
        "wg_version_ms": nothing,
    }


def processor_time(pids: list[int]) -> float:
    """In seconds, so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def follow(device: PolledDevice, lags: list[float]) -> None:
    """Take the events, and note how old handshakes are, in milliseconds."""
    async for event in device.events():
        if isinstance(event, PeerHandshake):
            peer = next(one for one in device.status().peers if one.key == event.key)
            if peer.handshake_unix is not None:
                lags.append(1e3 * (time.time() - peer.handshake_unix))


async def driven(pair: Pair, seconds: float, handshakes: int) -> dict[str, float]:
    """A device followed: percent of a core while nothing happens, and how late handshakes are heard of."""
    device = PolledDevice(pair.client)
    lags: list[float] = []
    following = asyncio.create_task(follow(device, lags))
    await asyncio.sleep(2)
    everyone = [os.getpid(), *pair.engines]
    began, ours, all_of_it = time.monotonic(), processor_time([os.getpid()]), processor_time(everyone)
    await asyncio.sleep(seconds)
    passed = time.monotonic() - began
    idle = 100 * (processor_time([os.getpid()]) - ours) / passed
    idle_all = 100 * (processor_time(everyone) - all_of_it) / passed
    for _ in range(handshakes):
        await asyncio.to_thread(pair.shake_hands)
        await asyncio.sleep(APART)
    await asyncio.sleep(2)
    await device.close()
    await following
    lags.sort()
    return {
        "idle_percent": idle,
        "idle_percent_with_engine": idle_all,
        "handshakes": len(lags),
        "handshake_p50_ms": statistics.median(lags) if lags else float("nan"),
        "handshake_max_ms": max(lags, default=float("nan")),
    }


def measured(engine: str, peers: int, seconds: float, handshakes: int) -> dict[str, float]:
    """All of it with so many peers."""
    pair = Pair(engine, peers)
    try:
        return looks(pair.client) | asyncio.run(driven(pair, seconds, handshakes))
    finally:
        pair.close()


def _processes(command: bytes) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # it ended meanwhile
            if process.name.isdigit() and (process / "cmdline").read_bytes() == command:
                found.append(int(process.name))
    return found


def _await(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        if time.monotonic() > until:
            raise LocalError("wireguard-go does not start")
        time.sleep(0.05)


def measured_alone(engine: str, counts: list[int], seconds: float, handshakes: int) -> list[dict[str, float]]:
    """The same in namespaces of their own (`external`), or in a machine of its own."""
    words = [*map(str, counts), "--seconds", str(seconds), "--handshakes", str(handshakes)]
    command = [sys.executable, "-m", "bench.kernel", "--only", engine, "--peers", *words]
    where = [str(record.ROOT / "scripts/kernel-vm"), "--seconds", "900"] if engine == "kernel" else []
    ran = subprocess.run([*where, *ALONE, *command], stdout=subprocess.PIPE, text=True, check=False)
    print(ran.stdout, file=sys.stderr)
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode or len(found) != len(counts):
        raise LocalError(f"{engine} was not measured")
    return found


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 1000, 5000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--handshakes", type=int, default=20)
    parser.add_argument("--to", type=Path, default=record.DOCS)
    parser.add_argument("--only", choices=ENGINES, help=argparse.SUPPRESS)  # in namespaces that were made for it
    args = parser.parse_args()
    if args.only is None:
        record.check_tools("wg", "ip", "unshare", "wireguard-go")
        about = record.machine()
        results = {engine: measured_alone(engine, args.peers, args.seconds, args.handshakes) for engine in ENGINES}
        record.update(args.to, "looks", results, about)
        return 0
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("ip", "link", "set", "lo", "up")
    for peers in args.peers:
        found = {"peers": peers} | measured(args.only, peers, args.seconds, args.handshakes)
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    record.run(main)
