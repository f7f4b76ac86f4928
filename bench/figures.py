"""What is measured of a tunnel: each figure a function, with its unit in its name. Traffic is iperf3's and ping's.

A run of iperf3 lasts `seconds`; who calls has warmed the tunnel up before (`warm_up`).
"""

import json
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.engines import MTU, Tunnel
from wgdisco.errors import LocalError
from wgdisco.lab.world import HostProcess

MSS = MTU - 52  # TCP with timestamps over IPv4
DATAGRAM = 1372
SMALL = 64
LOSS = 0.01
PROBE = 0.5
REFINEMENTS = 3
MOST = 20e9
PING_INTERVAL = "0.011"  # below 10 ms ping does not sleep, and takes a processor from the engines
Figures = dict[str, float]


@contextmanager
def iperf_server(tunnel: Tunnel) -> Iterator[None]:
    """iperf3 listens in b for as long as this lasts."""
    command = ["iperf3", "-s", "--forceflush", "-B", tunnel.address("b")]
    with tunnel.hosts["b"].popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert server.stdout is not None
            _await_line(server, "Server listening")
            yield
        finally:
            server.kill()


def _await_line(process: HostProcess, text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise LocalError(f"iperf3 ended before it said {text!r}")


def iperf(tunnel: Tunnel, *options: str, timeout: float = 60.0) -> dict[str, Any]:
    """The `end` of a report of iperf3, from a to b."""
    command = ["iperf3", "-J", *options, "-c", tunnel.address("b")]
    for _ in range(20):
        said = tunnel.hosts["a"].run(command, check=False, timeout=timeout).stdout
        report: dict[str, Any] = json.loads(said)
        error = report.get("error", "")
        if not error:
            end: dict[str, Any] = report["end"]
            return end
        if "busy" not in error and "refused" not in error:
            break
        time.sleep(0.1)  # it has not yet done with the run before
    raise LocalError(f"iperf3: {error}")


def warm_up(tunnel: Tunnel, seconds: int) -> None:
    """Traffic that does not count."""
    iperf(tunnel, "-t", str(seconds))


def tcp(tunnel: Tunnel, seconds: int) -> Figures:
    """One stream, Gbit/s; and what it cost each end, µs of processor time for a full packet."""
    before = {host: tunnel.cpu(host) for host in tunnel.pids}
    received = iperf(tunnel, "-t", str(seconds))["sum_received"]
    packets = received["bytes"] / MSS
    figures = {"tcp_gbit": received["bits_per_second"] / 1e9}
    for host, end in (("a", "sender"), ("b", "receiver")):
        if host in before:
            figures[f"cpu_{end}_us"] = (tunnel.cpu(host) - before[host]) * 1e6 / packets
    return figures


def tcp_four(tunnel: Tunnel, seconds: int) -> Figures:
    """Four streams, Gbit/s."""
    return {"tcp_four_gbit": iperf(tunnel, "-t", str(seconds), "-P", "4")["sum_received"]["bits_per_second"] / 1e9}


def tcp_reverse(tunnel: Tunnel, seconds: int) -> Figures:
    """One stream from b to a, Gbit/s."""
    return {"tcp_reverse_gbit": iperf(tunnel, "-t", str(seconds), "-R")["sum_received"]["bits_per_second"] / 1e9}


def tcp_both(tunnel: Tunnel, seconds: int) -> Figures:
    """One stream each way at once, both together, Gbit/s."""
    end = iperf(tunnel, "-t", str(seconds), "--bidir")
    ways = (end["sum_received"], end["sum_received_bidir_reverse"])
    return {"tcp_both_gbit": sum(way["bits_per_second"] for way in ways) / 1e9}


def _socket_buffer() -> int:
    """Bytes iperf3 may ask for, so that what its receiver is too late for is not the engine's loss."""
    allowed = [int(Path(f"/proc/sys/net/core/{way}mem_max").read_text()) for way in "rw"]
    return min(*allowed, 2 << 20)


def _flood(tunnel: Tunnel, size: int, *options: str) -> tuple[float, float, float]:
    """UDP from a to b: datagrams a second sent, and received, and the fraction that was lost."""
    (stream,) = iperf(tunnel, "-u", "-l", str(size), "-w", str(_socket_buffer()), *options)["streams"]
    found = stream["udp"]
    sent, lost, lasted = found["packets"], found["lost_packets"], found["seconds"]
    return sent / lasted, (sent - lost) / lasted, lost / sent if sent else 1.0


def udp_large(tunnel: Tunnel, _seconds: int) -> Figures:
    """The highest rate at which less than 1 % of datagrams of 1372 bytes is lost, received, Gbit/s.

    The rate is doubled until more is lost or iperf3 cannot send so much, and then the interval is halved three times.
    """
    best, low, high, rate = 0.0, 0.0, MOST, 4e8
    for _ in range(10 + REFINEMENTS):
        sent, received, loss = _flood(tunnel, DATAGRAM, "-b", f"{rate:.0f}", "-n", f"{rate * PROBE / 8:.0f}")
        if loss < LOSS:
            best, low = max(best, received * DATAGRAM * 8), rate
            if sent * DATAGRAM * 8 < 0.9 * rate:
                break
        else:
            high = rate
        if low and high < low * 1.15:
            break
        rate = (low * high) ** 0.5 if low and high < MOST else rate * 2 if low else rate / 2
    return {"udp_gbit": best / 1e9}


def udp_small(tunnel: Tunnel, seconds: int) -> Figures:
    """Datagrams of 64 bytes received a second when as many are sent as can be, thousands."""
    return {"udp_small_kpps": _flood(tunnel, SMALL, "-b", "0", "-t", str(seconds))[1] / 1e3}


def _ping(tunnel: Tunnel, prefix: str, count: int) -> Figures:
    command = ["ping", "-n", "-c", str(count), "-i", PING_INTERVAL, "-W", "1", tunnel.address("b")]
    said = tunnel.hosts["a"].run(command, check=False).stdout
    times = sorted(float(time) * 1e3 for time in re.findall(r"time=([0-9.]+) ms", said))
    if len(times) < count / 2:
        raise LocalError(f"{len(times)} of {count} pings were answered")
    return {f"{prefix}_p50_us": statistics.median(times), f"{prefix}_p99_us": times[int(len(times) * 0.99)]}


def ping_idle(tunnel: Tunnel, _seconds: int) -> Figures:
    """Round trips without other traffic, µs."""
    return _ping(tunnel, "ping_idle", 120)


def ping_loaded(tunnel: Tunnel, seconds: int) -> Figures:
    """Round trips while one stream takes all it can, µs."""
    command = ["iperf3", "-t", str(seconds + 1), "-c", tunnel.address("b")]
    with tunnel.hosts["a"].popen(command, stdout=subprocess.DEVNULL) as load:
        time.sleep(0.5)
        figures = _ping(tunnel, "ping_loaded", 80 * seconds)
        load.wait(60)
    return figures


def memory(tunnel: Tunnel, _seconds: int) -> Figures:
    """Resident memory after all else, MiB, of the larger end."""
    return {"rss_mib": max(tunnel.rss(host) for host in tunnel.pids)} if tunnel.pids else {}


# In this order, in every round
FIGURES = {
    "tcp": tcp,
    "ping_idle": ping_idle,
    "tcp_four": tcp_four,
    "tcp_reverse": tcp_reverse,
    "tcp_both": tcp_both,
    "udp_large": udp_large,
    "udp_small": udp_small,
    "ping_loaded": ping_loaded,
    "memory": memory,
}


def measure(tunnel: Tunnel, names: Sequence[str], seconds: int) -> tuple[Figures, list[str]]:
    """The figures of those names; and what could not be measured, with why."""
    found: Figures = {}
    failed = []
    with iperf_server(tunnel):
        if set(names) - {"ping_idle", "memory"}:
            warm_up(tunnel, 1)
        for name in names:
            try:
                found |= FIGURES[name](tunnel, seconds)
            except (LocalError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
                failed.append(f"{name}: {error}")
    return found, failed
