"""Where the time of a packet goes: the burst by itself, and the engine at work, by what runs and by whose function.

usage, as root: python -m bench.remains [--seconds N] [--to DIRECTORY]

The engine's processes are sampled by perf (Debian's linux-perf) while one stream of TCP, and then a flood of datagrams
of 64 bytes, goes from one to the other; shares of the samples times the processor time of a packet are its parts.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import burst, core, record
from bench.engines import ENGINES, INTERFACE, Bed, Engine, Tunnel
from bench.figures import MSS, SMALL, iperf, iperf_server, warm_up

# The system call that a sample's stack of kernel functions names
CALLS = {
    "sendmsg": "UDP send, with what the other end's stack does until its socket",
    "recvmsg": "UDP receive",
    "ksys_read": "TUN read",
    "do_readv": "TUN read",
    "ksys_write": "TUN write, with what the stack above does until its socket",
    "do_writev": "TUN write, with what the stack above does until its socket",
    "epoll": "waiting",
    "select": "waiting",
}
LIBRARIES = {
    "libcrypto": "sealing and opening (libcrypto)",
    "_native": "cutting, merging, copies, checksums and lanes (_burst.c, _lanes.c)",
}
COUNTED = ("read", "write", "sendmsg", "recvmsg", "recvmmsg", "epoll_wait")
RARE = 1000  # packets for one call that is not part of their way
PYTHON = "Python"
OTHER = "scheduler, interrupts and other calls"
TRAFFIC: dict[str, tuple[str, ...]] = {"TCP": (), "64 bytes": ("-u", "-b", "0", "-l", str(SMALL))}


def classify(stack: list[str]) -> str:
    """What a sample is part of; `stack` are lines of perf script, innermost first."""
    kernel = [line for line in stack if "[kernel" in line]
    for line in kernel:
        for call, what in CALLS.items():
            if call in line:
                return what
    if kernel:
        return OTHER
    for library, what in LIBRARIES.items():
        if library in stack[0]:
            return what
    return PYTHON


def _samples(path: str) -> Counter[str]:
    said = subprocess.run(["perf", "script", "-i", path], capture_output=True, text=True, check=True).stdout
    stacks = (block.splitlines()[1:] for block in re.split(r"\n\n+", said))
    return Counter(classify(stack) for stack in stacks if stack)


@contextmanager
def _perf(pid: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """perf watches that process for as long as this lasts, and has ended behind it."""
    command = ["perf", *words, "-p", str(pid)]
    watching = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield watching
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait()


def _counts(stat: subprocess.Popen[str]) -> dict[str, int]:
    """Calls by name that `perf stat` counted; none where it cannot count."""
    assert stat.stderr is not None
    rows = [line.split(",") for line in stat.stderr.read().splitlines()]
    return {row[2].rpartition("_enter_")[2]: int(row[0]) for row in rows if len(row) > 2 and row[0].isdigit()}


def _parts(tunnel: Tunnel, options: tuple[str, ...], seconds: int, scratch: str) -> dict[str, Any]:
    """By end: µs of processor time a packet, in all and by part; and packets for each call of a kind."""
    counting = ["stat", "-x,", *(word for call in COUNTED for word in ("-e", f"syscalls:sys_enter_{call}"))]
    parts = {}
    with ExitStack() as watching:
        for host, pid in tunnel.pids.items():
            watching.enter_context(_perf(pid, "record", "-q", "-F", "999", "-g", "-o", f"{scratch}/{host}.perf"))
        stats = {host: watching.enter_context(_perf(pid, *counting)) for host, pid in tunnel.pids.items()}
        before = {host: tunnel.cpu(host) for host in tunnel.pids}
        end = iperf(tunnel, "-t", str(seconds), *options)
        used = {host: tunnel.cpu(host) - before[host] for host in tunnel.pids}
    if "-u" in options:
        found = end["streams"][0]["udp"]
        packets = {"a": found["packets"], "b": found["packets"] - found["lost_packets"]}
    else:
        packets = dict.fromkeys("ab", end["sum_received"]["bytes"] / MSS)
    for host, name in (("a", "sender"), ("b", "receiver")):
        samples = _samples(f"{scratch}/{host}.perf")
        cost = used[host] * 1e6 / packets[host]
        parts[name] = {
            "us": cost,
            "samples": samples.total(),
            "parts": {what: cost * count / samples.total() for what, count in samples.most_common()},
            "packets_a_call": {
                call: packets[host] / count
                for call, count in _counts(stats[host]).items()
                if count * RARE > packets[host]
            },
        }
    return parts


def _functions(bed: Bed, options: tuple[str, ...], seconds: int) -> dict[str, dict[str, float]]:
    """By end: share of the processor time by function of ours, with what it calls in C."""
    command = (sys.executable, "-m", "bench.sampled", "/run/met.json", "-f", INTERFACE)
    with bed.running(Engine("sampled", "wgdisco", command)) as tunnel, iperf_server(tunnel):
        warm_up(tunnel, 1)
        for pid in tunnel.pids.values():
            os.kill(pid, signal.SIGUSR1)
        iperf(tunnel, "-t", str(seconds), *options)
    shares = {}
    for host, name in (("a", "sender"), ("b", "receiver")):
        met = Counter(json.loads(bed.hosts[host].run(["cat", "/run/met.json"]).stdout))
        shares[name] = {function: count / met.total() for function, count in met.most_common(14)}
    return shares


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    record.check_tools("iperf3", "wg", "ping")
    about = record.machine()
    results: dict[str, Any] = {"burst": burst.costs(), "core": core.costs(), "parts": {}, "functions": {}}
    with Bed() as bed, tempfile.TemporaryDirectory() as scratch:
        if shutil.which("perf") is None:
            results["skipped"] = "perf is not installed (Debian: linux-perf)"
        else:
            with bed.running(ENGINES["compiled"]) as tunnel, iperf_server(tunnel):
                warm_up(tunnel, 1)
                for traffic, options in TRAFFIC.items():
                    results["parts"][traffic] = _parts(tunnel, options, args.seconds, scratch)
        for traffic, options in TRAFFIC.items():
            results["functions"][traffic] = _functions(bed, options, args.seconds)
    print(json.dumps(results, indent=1), file=sys.stderr)
    record.update(args.to, "remains", results, about)
    return 0


if __name__ == "__main__":
    record.run(main)
