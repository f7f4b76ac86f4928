"""One registry and its limit: thousands of members, played by one process (bench/crowd.py), at a real daemon.

usage, as root: python -m bench.registry [--quick] [--only PART …] [--to DIRECTORY]

Parts: handshakes, mesh (1,000 members that all see each other, all listening), steady (10,000 in groups of 100, some
listening, then the registry restarted), join. --quick: a shorter look at each.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import population, record
from bench.engines import await_, process_in
from wgdisco.errors import LocalError
from wgdisco.lab.world import HostProcess, World

PROGRAM = [sys.executable, "-m", "wgdisco"]
FIRST = population.FIRST
RATE, LISTEN_RATE = 400.0, 120.0
MET = "/run/met.json"
LARGEST = 12
TICKS = os.sysconf("SC_CLK_TCK")


class Scene:
    """A registry whose store has `count` members in groups, and a crowd to play them."""

    def __init__(self, count: int, group_size: int) -> None:
        self.count = count
        self._world = World(["registry", "crowd"])
        self.registry, self._crowd_host = self._world.hosts["registry"], self._world.hosts["crowd"]
        self._daemon: HostProcess | None = None
        self.pid = 0
        try:
            self._lay()
            self.registry.run([sys.executable, "-m", "bench.population", str(count), str(group_size)], timeout=120)
            self.start()
            self._crowd = self._crowd_host.popen(
                [sys.executable, "-m", "bench.crowd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._said()
        except BaseException:
            self._world.close()
            raise

    def _lay(self) -> None:
        other = self._crowd_host
        self.registry.run(
            ["ip", "-batch", "-"],
            text="link set lo up\n"
            f"link add eth0 txqueuelen 20000 type veth peer name eth0 netns {other.inner_pid}\n"
            f"addr add {population.OUTSIDE}/30 dev eth0\nlink set eth0 up\n"
            f"route add {population.OUTER} dev eth0 via inet 198.18.0.2 onlink\n",
        )
        other.run(
            ["ip", "-batch", "-"],
            text="link set lo up\naddr add 198.18.0.2/30 dev eth0\nlink set eth0 up\n"
            f"route add default via {population.OUTSIDE}\n",
        )

    def start(self) -> float:
        """Run the daemon; seconds until it answers."""
        began = time.monotonic()
        command = [sys.executable, "-m", "bench.sampled_registry", MET, "registry", "run"]
        self._daemon = self.registry.popen(command, stderr=subprocess.DEVNULL)
        self.pid = process_in(self._daemon)
        await_(lambda: _status(self.registry.pid) is not None, "the registry to start")
        return time.monotonic() - began

    def stop(self, *, kill: bool = False) -> None:
        """End the daemon."""
        assert self._daemon is not None
        if kill:
            self._daemon.kill()
            self._daemon.wait()
        else:
            self._daemon.stop(30)

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Have the crowd do that."""
        assert self._crowd.stdin is not None
        self._crowd.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._crowd.stdin.flush()
        return self._said()

    def all(self, do: str, **more: Any) -> dict[str, Any]:
        """Have all members do that."""
        return self.ask(do, first=FIRST, last=FIRST + self.count, **more)

    def _said(self) -> dict[str, Any]:
        assert self._crowd.stdout is not None
        line = self._crowd.stdout.readline()
        said: dict[str, Any] = json.loads(line or '{"error": "the crowd is gone"}')
        if "error" in said:
            raise LocalError(said["error"])
        return said

    def processor(self) -> float:
        """Seconds of it that the daemon has used, without its zone's server."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @contextmanager
    def sampled(self) -> Iterator[dict[str, float]]:
        """Meanwhile it is noted where the daemon's time goes; afterwards: the largest parts, by function."""
        shares: dict[str, float] = {}
        os.kill(self.pid, signal.SIGUSR1)
        yield shares
        os.kill(self.pid, signal.SIGUSR2)
        path = Path(f"/proc/{self.registry.pid}/root{MET}")
        await_(path.exists, "what was met")
        met = Counter(json.loads(path.read_text()))
        shares |= {function: number / met.total() for function, number in met.most_common(LARGEST)}

    def rss(self) -> float:
        """MiB of the daemon."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def report(self) -> dict[str, Any]:
        """What `wgdisco status` says."""
        found = _status(self.registry.pid)
        assert found is not None
        return found

    def close(self) -> None:
        """End all of it."""
        self._world.close()
        for pipe in (self._crowd.stdin, self._crowd.stdout):
            assert pipe is not None
            pipe.close()


class _Control(http.client.HTTPConnection):
    def __init__(self, directory: str) -> None:
        super().__init__("localhost", timeout=60)
        self._directory = directory

    def connect(self) -> None:
        """By its directory: a path through /proc may be longer than an address takes."""
        self.sock = socket.socket(socket.AF_UNIX)
        directory = os.open(self._directory, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{population.NAME}.sock")
        finally:
            os.close(directory)


def _status(host: int) -> dict[str, Any] | None:
    """What a daemon says at its control socket; None where there is none."""
    with closing(_Control(f"/proc/{host}/root/run/wgdisco")) as control:
        try:
            control.request("GET", "/v1/status")
            found: dict[str, Any] = json.loads(control.getresponse().read())
        except OSError:
            return None
        return found


@contextmanager
def scene(count: int, group_size: int) -> Iterator[Scene]:
    """For as long as it is wanted."""
    one = Scene(count, group_size)
    try:
        yield one
    finally:
        one.close()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    mesh: int = 1000
    moves: int = 60
    steady: int = 10_000
    listening: int = 2500  # of them
    steady_seconds: int = 60
    handshake_seconds: int = 10
    joins: int = 300
    known: int = 1000  # members before others join, or renew


QUICK = Sizes(moves=20, steady_seconds=30, handshake_seconds=5, joins=100)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of them do not pass."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def tell(what: str, found: dict[str, Any]) -> dict[str, Any]:
    """Say so at once."""
    print(what, {key: value for key, value in found.items() if not isinstance(value, list)}, file=sys.stderr)
    return found


def fan_out(one: Scene, moves: int, gap: float) -> dict[str, Any]:
    """How soon all who listen are told that one has moved."""
    before = one.processor()
    with one.sampled() as shares:
        found = one.all("move", moves=moves, gap=gap)
    return {
        "functions": shares,
        "p50_ms": percentile(found["ms"], 0.5),
        "p99_ms": percentile(found["ms"], 0.99),
        "last_p50_ms": percentile(found["last_ms"], 0.5),
        "last_max_ms": max(found["last_ms"]),
        "missed": found["missed"],
        "moves": moves,
        "processor_ms": 1000 * (one.processor() - before) / moves,
        "each_ms": [percentile(found["ms"], share / 100) for share in range(0, 100, 5)] + [max(found["ms"], default=0)],
    }


def handshakes(sizes: Sizes) -> dict[str, Any]:
    """What a core answers."""
    with scene(sizes.known, 100) as one:
        one.all("begin", rate=RATE)
        before = one.processor()
        with one.sampled() as shares:
            found = one.all("renew", seconds=sizes.handshake_seconds, window=min(48, sizes.known))
        used = max(one.processor() - before, 1 / TICKS)
        return tell(
            "handshakes",
            {
                "a_second": found["handshakes"] / found["seconds"],
                "a_core": found["handshakes"] / used,
                "processor_ms": 1000 * used / found["handshakes"],
                "drops": one.report()["drops"],
                "functions": shares,
            },
        )


def mesh(sizes: Sizes) -> dict[str, Any]:
    """All see each other."""
    with scene(sizes.mesh, sizes.mesh) as one:
        empty = one.rss()
        one.all("begin", rate=RATE)
        known = one.rss()
        before = one.processor()
        listened = one.all("listen", rate=LISTEN_RATE)
        used = one.processor() - before
        one.ask("rest", seconds=3)
        found = {
            "members": sizes.mesh,
            "snapshots_s": listened["seconds"],
            "snapshots_processor_s": used,
            "snapshots_mib": listened["bytes"] / (1 << 20),
            "rss_mib": [empty, known, one.rss()],
            **fan_out(one, sizes.moves, 1.0),
            "drops": one.report()["drops"],
        }
        return tell("mesh", found)


def steady(sizes: Sizes) -> dict[str, Any]:
    """Many, in groups, that keep what they have; then the registry is restarted."""
    with scene(sizes.steady, 100) as one:
        empty = one.rss()
        before = one.processor()
        came = one.all("begin", rate=RATE)
        came_used = one.processor() - before
        known = one.rss()
        listening = min(sizes.listening, sizes.steady)
        listened = one.ask("listen", first=FIRST, last=FIRST + listening, rate=LISTEN_RATE)
        one.ask("rest", seconds=5)
        first, crowd_first = one.processor(), one.ask("status")
        with one.sampled() as shares:
            crowd_last = one.ask("rest", seconds=sizes.steady_seconds)
        used = one.processor() - first
        found = {
            "members": sizes.steady,
            "listening": listening,
            "came_s": came["seconds"],
            "came_processor_s": came_used,
            "listened_s": listened["seconds"],
            "seconds": sizes.steady_seconds,
            "functions": shares,
            "processor_percent": 100 * used / sizes.steady_seconds,
            "handshakes_s": (crowd_last["handshakes"] - crowd_first["handshakes"]) / sizes.steady_seconds,
            "rss_mib": [empty, known, one.rss()],
            "drops": one.report()["drops"],
            "crowd_percent": 100 * (crowd_last["processor"] - crowd_first["processor"]) / sizes.steady_seconds,
            "cut": crowd_last.get("streams cut", 0),
        }
        moved = one.ask("move", first=FIRST, last=FIRST + min(100, sizes.steady), moves=sizes.moves, gap=0.2)
        found["group_p50_ms"], found["group_p99_ms"] = (percentile(moved["ms"], share) for share in (0.5, 0.99))
        tell("steady", found)
        found["restart"] = restarted(one)
        return found


def restarted(one: Scene) -> dict[str, Any]:
    """Killed and back: how soon it knows everybody again."""
    one.stop(kill=True)
    began = time.monotonic()
    up = one.start()
    curve: list[list[float]] = []
    while time.monotonic() - began < 120:
        live = sum(peer["path"] in ("direct", "lan") for peer in one.report()["peers"])
        curve.append([time.monotonic() - began, live])
        if live >= one.count:
            break
        one.ask("rest", seconds=2)
    return tell("restart", {"up_s": up, "all_s": curve[-1][0], "live": curve[-1][1], "curve": curve})


def join(sizes: Sizes) -> dict[str, Any]:
    """By real links, into a network that has 1,000 members."""
    with scene(sizes.known, 100) as one:
        one.all("begin", rate=RATE)
        before, began = one.processor(), time.monotonic()
        said = one.registry.run([sys.executable, "-m", "bench.inviting", str(sizes.joins)], timeout=300).stdout
        invited, invited_used = time.monotonic() - began, one.processor() - before
        before = one.processor()
        joined = one.ask("enrol", links=json.loads(said), first=FIRST + one.count, at_once=8)
        used = one.processor() - before
        return tell(
            "join",
            {
                "members": one.count,
                "joins": sizes.joins,
                "a_second": sizes.joins / joined["seconds"],
                "p50_ms": statistics.median(joined["ms"]),
                "p99_ms": percentile(joined["ms"], 0.99),
                "processor_ms": 1000 * used / sizes.joins,
                "invitations_s": sizes.joins / invited,
                "invitation_processor_ms": 1000 * invited_used / sizes.joins,
                "drops": one.report()["drops"],
            },
        )


PARTS = {"handshakes": handshakes, "mesh": mesh, "steady": steady, "join": join}


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    about = record.machine()
    sizes = QUICK if args.quick else Sizes()
    before = args.to / "performance.json"
    known = json.loads(before.read_text()).get("registry", {}) if before.exists() else {}
    results = {name: found for name, found in known.items() if name in PARTS}
    for name in args.only:
        results[name] = PARTS[name](sizes)
        record.update(args.to, "registry", results, about)  # what comes after may fail
    return 0


if __name__ == "__main__":
    record.run(main)
