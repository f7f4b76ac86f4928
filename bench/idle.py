"""What a member costs that nobody uses: `wgdisco join` in a network of 21 members that know each other.

usage, as root: python -m bench.idle [--peers N] [--seconds N] [--to DIRECTORY]
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from bench import record
from bench.engines import Tunnel
from bench.network import Network

SETTLED = 30.0


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    about = record.machine()
    with Network(args.peers + 1) as network:
        for name in network.members:
            network.join(name)
            print(f"{name} has joined", file=sys.stderr)
        time.sleep(SETTLED)
        daemons = Tunnel(network.hosts, "", network.pids)
        first = {name: daemons.cpu(name) for name in network.members}
        time.sleep(args.seconds)
        used = {name: 100 * (daemons.cpu(name) - first[name]) / args.seconds for name in network.members}
        memory = {name: daemons.rss(name) for name in network.members}
    results = {
        "peers": args.peers,
        "seconds": args.seconds,
        "cpu_percent": statistics.median(used.values()),
        "cpu_percent_max": max(used.values()),
        "rss_mib": statistics.median(memory.values()),
        "rss_mib_max": max(memory.values()),
    }
    print(json.dumps(results, indent=1), file=sys.stderr)
    record.update(args.to, "idle", results, about)
    return 0


if __name__ == "__main__":
    record.run(main)
