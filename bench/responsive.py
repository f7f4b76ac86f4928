"""How soon a registry and a member answer while the tunnel between them carries all it can.

usage, as root: python -m bench.responsive [--seconds N] [--to DIRECTORY]

Both daemons' control sockets are asked for their status, and the registry's DNS server for the zone, 50 times a second:
first idle, then while iperf3 sends both ways at once, and who asks competes for the same processors.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import record
from bench.document import ECHO
from bench.network import INTERFACE, REGISTRY, Network
from wgdisco.errors import LocalError

ZONE = "wg.internal."
MEMBER = "m1"


def _ask(network: Network, seconds: int) -> dict[str, dict[str, float]]:
    """Milliseconds to an answer, by what was asked."""
    control = f"/run/wgdisco/{INTERFACE}.sock"
    probes = {
        "status of the registry": (REGISTRY, ["status", control]),
        "status of the member": (MEMBER, ["status", control]),
        "DNS of the registry": (REGISTRY, ["dns", network.address(REGISTRY), ZONE]),
        ECHO: (MEMBER, ["echo"]),
    }
    running = {
        what: network.hosts[host].popen(
            [sys.executable, "-m", "bench.probe", *words, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for what, (host, words) in probes.items()
    }
    found = {}
    for what, process in running.items():
        said, complaint = process.communicate(timeout=seconds + 30)
        if process.returncode != 0:
            raise LocalError(f"{what}: {complaint.strip().splitlines()[-1]}")
        times = sorted(json.loads(said))
        found[what] = {
            "p50_ms": statistics.median(times),
            "p99_ms": times[int(len(times) * 0.99)],
            "max_ms": times[-1],
            "asked": len(times),
        }
    return found


def _under_load(network: Network, seconds: int) -> tuple[dict[str, Any], float]:
    """The same while iperf3 sends both ways; and how much it sent, Gbit/s in all."""
    address = network.address(REGISTRY)
    with network.hosts[REGISTRY].popen(["iperf3", "-s", "-1", "-B", address], stdout=subprocess.DEVNULL) as server:
        time.sleep(0.5)
        send = ["iperf3", "-J", "--bidir", "-t", str(seconds + 4), "-c", address]
        with network.hosts[MEMBER].popen(send, stdout=subprocess.PIPE) as client:
            time.sleep(1)
            found = _ask(network, seconds)
            said, _ = client.communicate(timeout=60)
        server.kill()
    report = json.loads(said)
    if "error" in report:
        raise LocalError(f"iperf3: {report['error']}")
    end = report["end"]
    sums = (end["sum_received"], end["sum_received_bidir_reverse"])
    return found, sum(one["bits_per_second"] for one in sums) / 1e9


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    record.check_tools("iperf3")
    about = record.machine()
    with Network(1) as network:
        network.join(MEMBER)
        idle = _ask(network, args.seconds)
        loaded, rate = _under_load(network, args.seconds)
    results = {"gbit": rate, "idle": idle, "loaded": loaded}
    print(json.dumps(results, indent=1), file=sys.stderr)
    record.update(args.to, "responsive", results, about)
    return 0


if __name__ == "__main__":
    record.run(main)
