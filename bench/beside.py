"""What a tunnel loses to 20,000 DNS questions a second at the registry it ends at, and how soon those are answered.

usage, as root: python -m bench.beside [--rounds N] [--seconds N] [--to DIRECTORY]

One stream of iperf3 from a member to its registry, in turns: alone; while dnsperf asks the registry, at its address
inside the tunnel, from its own host; while dnsperf asks Knot as much, which has nothing to do with the tunnel; and
while it asks a mirror beside the registry, which says the same back. All of it shares the processors, dnsperf too: what
the tunnel keeps beside the mirror is what asking alone leaves to it, whoever answers.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import record
from bench.dns import COOKIE, LOAD, Peers, knot, processor_time
from bench.network import INTERFACE, PROGRAM, REGISTRY, Network
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.lab.world import Host

ZONE = "wg.internal."
MEMBER = "m1"
# of the load, before and after what is measured
MARGIN = 1
ALONE, OURS, KNOT, MIRROR = "alone", "ours", "knot", "mirror"
MIRROR_PORT = 5399


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    record.check_tools("iperf3", "dnsperf", "knotd", "cc")
    about = record.machine()
    results = asyncio.run(measure(args.rounds, args.seconds))
    print(json.dumps(results, indent=1), file=sys.stderr)
    record.update(args.to, "beside", results, about)
    return 0


async def measure(rounds: int, seconds: int) -> dict[str, Any]:
    """All of it."""
    peers = Peers(100)
    with tempfile.TemporaryDirectory() as name, Network(1) as network:
        directory = Path(name)
        network.join(MEMBER)
        (directory / "knots").write_text("\n".join(peers.questions()) + "\n")
        (directory / "ours").write_text("\n".join(_questions(network)) + "\n")
        registry, address = network.hosts[REGISTRY], network.address(REGISTRY)
        registry.popen([_mirror(directory), address, str(MIRROR_PORT)])
        async with knot(peers, directory, cores=None) as (_, port):
            asked = {
                ALONE: None,
                OURS: (registry, address, 53, directory / "ours"),
                KNOT: (None, "127.0.0.1", port, directory / "knots"),
                MIRROR: (registry, address, MIRROR_PORT, directory / "ours"),
            }
            found = [{what: _run(network, load, seconds) for what, load in asked.items()} for _ in range(rounds)]
    times = sorted(time_ for one in found for time_ in one[OURS]["times"])
    return {
        "seconds": seconds,
        "load": statistics.median(one[OURS]["answers"] for one in found),
        "gbit": {what: [one[what]["gbit"] for one in found] for what in asked},
        "answer_p50_ms": statistics.median(times),
        "answer_p99_ms": times[int(len(times) * 0.99)],
        "server_processor": statistics.median(one[OURS]["processor"] for one in found),
    }


def _mirror(directory: Path) -> str:
    made = str(directory / "mirror")
    subprocess.run(["cc", "-O2", "-o", made, Path(__file__).with_name("mirror.c")], check=True)
    return made


Load = tuple[Host | None, str, int, Path]  # from which host (None: where this runs), whom, and what is asked


def _run(network: Network, load: Load | None, seconds: int) -> dict[str, Any]:
    """Gbit/s of the tunnel, and beside `load` the answers a second, and milliseconds to some of the registry's."""
    address, server = network.address(REGISTRY), _zone_server(network)
    found: dict[str, Any] = {}
    with ExitStack() as running:
        listening = ["iperf3", "-s", "-1", "-B", address]
        running.enter_context(_started(network.hosts[REGISTRY], listening))
        asking = None
        if load is not None:
            host, at, port, questions = load
            words = ["-s", at, "-p", str(port), "-d", str(questions), "-l", str(seconds + 3 * MARGIN), "-Q", str(LOAD)]
            asking = _started(host, ["dnsperf", *words, "-c", "8", "-q", "200", "-e", "-E", f"10:{COOKIE}"])
        time.sleep(MARGIN)
        probing = None
        if load is not None:
            probe = [sys.executable, "-m", "bench.probe", "dns", address, ZONE, str(seconds)]
            probing = _started(network.hosts[REGISTRY], probe)
        before = processor_time(server)
        sent = _said(_started(network.hosts[MEMBER], ["iperf3", "-J", "-t", str(seconds), "-c", address]))
        found["processor"] = (processor_time(server) - before) / seconds
        found["gbit"] = _gbit(sent)
        if probing is not None:
            found["times"] = json.loads(_said(probing))
        if asking is not None:
            found["answers"] = _answers(_said(asking))
            if found["answers"] < 0.95 * LOAD:
                raise LocalError(f"of {LOAD} questions a second {found['answers']:.0f} were answered")
    return found


def _started(host: Host | None, command: list[str]) -> subprocess.Popen[str]:
    if host is None:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return host.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _said(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=60)
    if process.returncode != 0:
        raise LocalError(said.strip()[-300:])
    return said


def _gbit(report: str) -> float:
    return float(json.loads(report)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _answers(report: str) -> float:
    rate = re.search(r"Queries per second:\s+([0-9.]+)", report)
    if rate is None:
        raise LocalError(f"dnsperf: {report[-300:]}")
    return float(rate[1])


def _questions(network: Network) -> list[str]:
    """As many of each type as in bench.dns, nearly: there are two hosts and one instance."""
    listed = network.hosts[REGISTRY].run([*PROGRAM, "registry", "list", "-o", "json"]).stdout
    key = PublicKey.from_text(next(one["public_key"] for one in json.loads(listed)["members"]))
    instance = f"{key.to_label()}._wireguard._udp.{ZONE}"
    each = ((f"{instance} SRV", 8), (f"{instance} TXT", 6), (f"{MEMBER}.{ZONE} A", 4))
    other = [f"_wireguard._udp.{ZONE} PTR", f"nobody.{ZONE} A"]
    return [line for line, share in each for _ in range(share)] + other


def _zone_server(network: Network) -> int:
    """The registry's child that serves the zone."""
    registry = network.pids[REGISTRY]
    for task in Path(f"/proc/{registry}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"zone_server" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise LocalError(f"the registry of {INTERFACE} has no server of its zone")


if __name__ == "__main__":
    record.run(main)
