"""How long until two hosts behind NATs talk directly: wgdisco and Nebula, in the same lab, one after the other.

usage, as root and with Debian's package nebula:

    .venv/bin/python -m bench.time_to_direct [--types T,…] [--rtt MS] [--seeds N]

Nebula's lighthouse is where the registry is; its hosts are registered with it for a second before the first ping, with
`punchy.punch` and `punchy.respond` on. Both clocks start when a path is asked for (Nebula: at the first ping).
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wgdisco.lab import matrix
from wgdisco.lab.drawing import progress
from wgdisco.lab.internet import Internet
from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.topologies import REGISTRY, Pair, across_the_internet
from wgdisco.lab.verdict import PING_SIZE, parse_replies
from wgdisco.lab.wire import Conditions
from wgdisco.lab.world import HostProcess
from wgdisco.machine import boot_time

LIGHTHOUSE = "10.77.0.1"
DIRECTORY = "/run/nebula"
START_TIMEOUT = 10.0
REGISTERED = 1.0
PATIENCE = 8.0


class Nebula:
    """A lighthouse where the registry is, and fresh hosts for each pair."""

    def __init__(self, net: Internet, scratch: Path) -> None:
        self.net = net
        self._scratch = scratch
        self._number = 1
        self._cert("ca", "-name", "lab")
        self._lighthouse = self._start(REGISTRY, LIGHTHOUSE, am_lighthouse=True)

    def _cert(self, verb: str, *words: str) -> None:
        subprocess.run(["nebula-cert", verb, *words], cwd=self._scratch, check=True, capture_output=True)

    def _start(self, host: str, address: str, am_lighthouse: bool = False) -> HostProcess:
        self._cert("sign", "-name", address, "-ip", f"{address}/16")
        for target, source in (("ca.crt", "ca.crt"), ("host.crt", f"{address}.crt"), ("host.key", f"{address}.key")):
            self.net.hosts[host].write_file(f"{DIRECTORY}/{target}", (self._scratch / source).read_text())
        config = {
            "pki": {"ca": f"{DIRECTORY}/ca.crt", "cert": f"{DIRECTORY}/host.crt", "key": f"{DIRECTORY}/host.key"},
            "static_host_map": {} if am_lighthouse else {LIGHTHOUSE: [f"{self.net.plan.outside(REGISTRY)[0]}:4242"]},
            "lighthouse": {"am_lighthouse": am_lighthouse, "hosts": [] if am_lighthouse else [LIGHTHOUSE]},
            "listen": {"host": "0.0.0.0", "port": 4242 if am_lighthouse else 0},
            "punchy": {"punch": True, "respond": True},
            "tun": {"dev": "nebula1", "mtu": 1300},
            "logging": {"level": "info", "format": "json"},
            "firewall": {
                direction: [{"port": "any", "proto": "any", "host": "any"}] for direction in ("outbound", "inbound")
            },
        }
        self.net.hosts[host].write_file(f"{DIRECTORY}/config.yml", json.dumps(config))  # JSON is YAML
        return self.net.hosts[host].popen(
            ["nebula", "-config", f"{DIRECTORY}/config.yml"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def try_pair(self, pair: Pair) -> float | None:
        """Milliseconds from the first ping to its first answer, if that came directly."""
        addresses = {}
        with self._stopping([]) as running:
            for host in (pair.a, pair.b):
                self._number += 1
                addresses[host] = f"10.77.{self._number // 256}.{self._number % 256}"
                running.append(self._start(host, addresses[host]))
            for process in running:
                self._await_lighthouse(process)
            time.sleep(REGISTERED)
            return self._first_reply(pair, addresses[pair.b])

    def _first_reply(self, pair: Pair, address: str) -> float | None:
        since = boot_time()
        ping = ["ping", "-nD", "-i0.02", f"-s{PING_SIZE}", f"-w{PATIENCE:.0f}", address]
        with self.net.hosts[pair.a].popen(ping, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "time=" in line), "")
            process.send_signal(signal.SIGINT)
        replies = parse_replies(line, boot_time() - time.time())
        a, b = self.net.plan.outside(pair.a), self.net.plan.outside(pair.b)
        direct = [one for one in self.net.crossings(since) if one.length > PING_SIZE and one.source in a]
        if not replies or not all(one.destination in b for one in direct):
            return None
        return 1000 * (replies[0].at - since)

    def _await_lighthouse(self, process: HostProcess) -> None:
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT
        for line in process.stdout:
            if "Handshake message received" in line or time.monotonic() > deadline:
                return
        raise SystemExit("nebula ended")

    @contextmanager
    def _stopping(self, running: list[HostProcess]) -> Iterator[list[HostProcess]]:
        try:
            yield running
        finally:
            for process in running:
                process.stop()

    def close(self) -> None:
        """End the lighthouse."""
        self._lighthouse.stop()


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(NAT_TYPES))
    parser.add_argument("--rtt", type=float, default=40.0)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if shutil.which("nebula") is None or shutil.which("nebula-cert") is None:
        sys.exit("install Debian's package nebula, or unpack it and put its bin directory into PATH")
    topology = across_the_internet(args.types.split(","))
    report = matrix.Report(matrix.Settings(tuple(args.types.split(",")), ("T1",), args.seeds, args.rtt / 1000, 0.0))
    theirs: dict[Pair, list[float | None]] = {pair: [] for pair in topology.pairs}
    with Internet(topology.plan, Conditions((), delay=args.rtt / 2000)) as net:
        matrix.run_topology(net, topology, report, lambda cell: print(progress(cell), file=sys.stderr))
        with tempfile.TemporaryDirectory() as scratch:
            nebula = Nebula(net, Path(scratch))
            for _ in range(args.seeds):
                for pair, times in theirs.items():
                    times.append(nebula.try_pair(pair))
                    print(f"nebula {pair.type_a} x {pair.type_b}: {times[-1]}", file=sys.stderr)
            nebula.close()
    measured = report.measured["T1"]
    print(f"registry {measured.registry_ms:g} ms, peers {measured.peer_ms:g} ms away; median of {args.seeds}, ms\n")
    print(f"{'pair':<46} {'direct':>8} {'1st ping':>9} {'Nebula 1st ping':>16}")
    for cell in report.cells:
        ours = [matrix.percentiles(values) for values in (cell.times(), cell.first_replies())]
        reached = [value for value in theirs[cell.pair] if value is not None]
        columns = [*ours, matrix.percentiles(reached)]
        direct, first, other = ("-" if column is None else f"{column['p50']:.0f}" for column in columns)
        how_often = "" if len(reached) == args.seeds else f"  in {len(reached)} of {args.seeds}"
        print(f"{cell.pair.type_a + ' x ' + cell.pair.type_b:<46} {direct:>8} {first:>9} {other:>16}{how_often}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
