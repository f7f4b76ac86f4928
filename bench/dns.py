"""The zone's server beside Knot DNS, each on one processor, in turns; and how soon it says that a peer has moved.

10,000 peers; of the questions 40 % are SRV, 30 % TXT, 20 % A, 5 % PTR of 15 instances and 5 % of names that are not
there; every one with EDNS and a cookie. dnsperf has the other processor.

usage: python -m bench.dns [--peers N] [--rounds N] [--seconds N] [--to DIRECTORY]
"""

import argparse
import asyncio
import os
import random
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import dns.message

from bench import record
from wgdisco.dnssd.feed import Audience, Setup
from wgdisco.dnssd.instance import txt_data
from wgdisco.dnssd.io.process import ZoneProcess
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.registry.directory import Directory
from wgdisco.registry.io.daemon import serials
from wgdisco.registry.io.publisher import Publisher
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import PathSeen

ZONE = "wg.example."
GROUP_SIZE = 15
CHANGES = 100  # a second
LOAD = 20_000  # questions a second, for how soon a change shows
MOVES = 400
SERVER, ASKER = {0}, {1}
COOKIE = "0123456789abcdef"
QUESTIONS = 100_000


class Peers:
    """Peers of a directory, as if a device had seen them, and their zone."""

    def __init__(self, count: int) -> None:
        self._random = random.Random(8)
        self.keys = [PublicKey(self._random.randbytes(32)) for _ in range(count)]
        allowed = [(ip_network((IPv4Address("10.64.0.2") + number, 32)),) for number in range(count)]
        config = DeviceConfig(
            None, 51820, 0, tuple(PeerConfig(key, allowed_ips=own) for key, own in zip(self.keys, allowed, strict=True))
        )
        self.directory = Directory(config, ())
        for key in self.keys:
            self.directory.observe_event(self._moved(key))
        self.publisher = Publisher(_NoDevice(), self.directory, ZoneNames.from_text(ZONE), serials(), "bench")  # type: ignore[arg-type]
        names = {key: f"member-{number}" for number, key in enumerate(self.keys)}
        self.publisher.named = names.get
        members = [
            ZoneMember(names[key], (allowed[number][0].network_address,), ("all", f"g{number // GROUP_SIZE}"))
            for number, key in enumerate(self.keys)
        ]
        roster = Roster.create(members)
        self.publisher.roster = lambda: roster
        self.publisher.publish(changed=True)

    def move_one(self) -> tuple[PublicKey, int]:
        """One peer is seen somewhere else: its key and its port now."""
        key = self._random.choice(self.keys)
        seen = self._moved(key)
        self.directory.observe_event(seen)
        self.publisher.publish()
        return key, seen.endpoint.port

    def _moved(self, key: PublicKey) -> PathSeen:
        return PathSeen(key, Endpoint(IPv4Address("203.0.113.7"), self._random.randint(1024, 65535)), boot_time())

    def questions(self) -> Iterator[str]:
        """Lines for dnsperf."""
        names = self.publisher.zone.names
        for _ in range(QUESTIONS):
            key = self._random.choice(self.keys)
            kind = self._random.choices(("SRV", "TXT", "A", "PTR", None), (40, 30, 20, 5, 5))[0]
            match kind:
                case "SRV" | "TXT":
                    yield f"{names.instance(key)} {kind}"
                case "A":
                    yield f"{names.host(key)} A"
                case "PTR":
                    group = self._random.randrange(max(1, len(self.keys) // GROUP_SIZE))
                    yield f"{names.subtype(f'g{group}')} PTR"
                case _:
                    yield f"nobody-{self._random.randrange(1 << 30)}.{ZONE} A"

    def zone_file(self) -> Iterator[str]:
        """The same for Knot, in the format of RFC 1035."""
        zone = self.publisher.zone
        names = zone.names
        yield f"{ZONE} 5 IN SOA {names.name_server} {names.hostmaster} 1 3600 600 86400 5"
        yield f"{ZONE} 3600 IN NS {names.name_server}"
        yield f"{names.name_server} 3600 IN A 127.0.0.1"
        for number, one in enumerate(zone.instances.values()):
            # RFC 1035 has no "=" in names as they are written
            instance, host = str(names.instance(one.key)).replace("=", "\\061"), names.host(one.key)
            strings = " ".join(f'"{string.decode()}"' for string in txt_data(one).strings)
            yield f"{instance} 5 IN SRV 0 0 {one.endpoint.port} {host}"
            yield f"{instance} 5 IN TXT {strings}"
            yield f"{instance} 5 IN A {one.endpoint.address}"
            yield f"{host} 5 IN A {one.endpoint.address}"
            yield f"{names.service} 5 IN PTR {instance}"
            yield f"{names.subtype(f'g{number // GROUP_SIZE}')} 5 IN PTR {instance}"


class _NoDevice:
    """There is none: what it would have seen is told to the directory."""

    interface = "bench"


KNOT = """server:
    listen: 127.0.0.1@{port}
    rundir: {directory}
    pidfile: {directory}/knot.pid
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {directory}
template:
  - id: default
    storage: {directory}
    global-module: mod-cookies
    zonefile-load: whole
    journal-content: none
zone:
  - domain: {zone}
    file: {directory}/zone
"""


@asynccontextmanager
async def knot(peers: Peers, directory: Path, cores: str | None = "0") -> AsyncIterator[tuple[int, int]]:
    """Knot with the same zone, on these cores alone; its process and port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "zone").write_text("\n".join(peers.zone_file()) + "\n")
    (directory / "knot.conf").write_text(KNOT.format(port=port, directory=directory, zone=ZONE))
    process = await asyncio.create_subprocess_exec(
        *(() if cores is None else ("taskset", "-c", cores)),
        *("knotd", "-c", directory / "knot.conf"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        query = dns.message.make_query(ZONE, "SOA").to_wire()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.5)
            asker.connect(("127.0.0.1", port))
            for _ in range(60):
                with suppress(OSError):
                    asker.send(query)
                    if asker.recv(4096)[3] & 0xF == 0:
                        break
                await asyncio.sleep(0.2)
            else:
                raise LocalError("Knot does not answer")
        yield process.pid, port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def ours(peers: Peers) -> AsyncIterator[ZoneProcess]:
    """The process that serves the zone."""
    server = ZoneProcess(peers.publisher.zone, Setup(ZONE, Profile.STRICT, ()))
    peers.publisher.follow = server.follow
    server.bind(IPv4Address("127.0.0.1"), 0, Audience.ALL)
    running = asyncio.create_task(server.run())
    try:
        await server.started()
        assert server.pid is not None
        os.sched_setaffinity(server.pid, SERVER)
        yield server
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.close()


async def dnsperf(port: int, questions: Path, seconds: int, limit: int | None = None) -> float:
    """Answers a second."""
    process = await asyncio.create_subprocess_exec(
        *("taskset", "-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", questions, "-l", str(seconds)),
        *("-c", "8", "-q", "200", "-e", "-E", f"10:{COOKIE}", *(() if limit is None else ("-Q", str(limit)))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out = (await process.communicate())[0].decode()
    found = re.search(r"Queries per second:\s+([0-9.]+)", out)
    lost = re.search(r"Queries lost:\s+(\d+)", out)
    if found is None or lost is None:
        raise LocalError(f"dnsperf: {out[-300:]}")
    if int(lost[1]):
        print(f"lost: {lost[1]}", file=sys.stderr)
    return float(found[1])


async def rates(pid: int, port: int, questions: Path, seconds: int) -> tuple[float, float]:
    """Answers a second, and a second of the server's processor time."""
    before = processor_time(pid)
    rate = await dnsperf(port, questions, seconds)
    return rate, rate * seconds / (processor_time(pid) - before)


def processor_time(pid: int) -> float:
    """What a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def moving(peers: Peers) -> None:
    """Peers move, CHANGES a second."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        peers.move_one()
        due += 1 / CHANGES
        await asyncio.sleep(max(0.0, due - loop.time()))


async def shown_after(peers: Peers, port: int) -> tuple[list[float], list[float]]:
    """Of MOVES moves, after how many ms each is in an answer; and how many each answer took."""
    after, answers = [], []
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        asker.connect(("127.0.0.1", port))
        for _ in range(MOVES):
            began = time.perf_counter()
            key, moved = peers.move_one()
            query = dns.message.make_query(peers.publisher.zone.names.instance(key), "SRV").to_wire()
            while True:
                asked = time.perf_counter()
                await loop.sock_sendall(asker, query)
                async with asyncio.timeout(5):
                    reply = await loop.sock_recv(asker, 512)
                now = time.perf_counter()
                answers.append(1000 * (now - asked))
                # after the question: pointer, type, class, TTL, size, priority, weight
                at = len(query) + 16
                if int.from_bytes(reply[at : at + 2], "big") == moved:
                    break
            after.append(1000 * (now - began))
            await asyncio.sleep(0.02)
    return after, answers


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of them do not pass."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def resident(pid: int) -> float:
    """The most memory it ever had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


async def measure(count: int, rounds: int, seconds: int) -> dict[str, Any]:
    """All of it."""
    os.sched_setaffinity(0, ASKER)
    peers = Peers(count)
    found: dict[str, list[tuple[float, float]]] = {"knot": [], "wgdisco": [], "moving": []}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        questions = directory / "questions"
        questions.write_text("\n".join(peers.questions()) + "\n")
        async with knot(peers, directory) as (other, other_port), ours(peers) as server:
            port, pid = server.endpoints[0].port, server.pid
            assert pid is not None
            for _ in range(rounds):
                found["knot"].append(await rates(other, other_port, questions, seconds))
                found["wgdisco"].append(await rates(pid, port, questions, seconds))
                changing = asyncio.create_task(moving(peers))
                found["moving"].append(await rates(pid, port, questions, seconds))
                changing.cancel()
                print({what: all_[-1] for what, all_ in found.items()}, file=sys.stderr)
            loading = asyncio.create_task(dnsperf(port, questions, MOVES // 25, LOAD))
            await asyncio.sleep(1)
            after, answers = await shown_after(peers, port)
            rate = await loading
            memory = resident(pid)
    a_second = {what: [rate for rate, _ in all_] for what, all_ in found.items()}
    return {
        "peers": count,
        "seconds": seconds,
        "rounds": a_second,
        "medians": {what: statistics.median(all_) for what, all_ in a_second.items()},
        "processor": {what: statistics.median(rate for _, rate in all_) for what, all_ in found.items()},
        "ratio": [mine / theirs for mine, theirs in zip(a_second["wgdisco"], a_second["knot"], strict=True)],
        "moving": [moved / still for moved, still in zip(a_second["moving"], a_second["wgdisco"], strict=True)],
        "load": rate,
        "shown_p50_ms": percentile(after, 0.5),
        "shown_p99_ms": percentile(after, 0.99),
        "answer_p50_ms": percentile(answers, 0.5),
        "answer_p99_ms": percentile(answers, 0.99),
        "rss_mib": memory,
    }


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    record.check_tools("knotd", "dnsperf", "taskset")
    about = record.machine()
    results = asyncio.run(measure(args.peers, args.rounds, args.seconds))
    print(results, file=sys.stderr)
    record.update(args.to, "dns", results, about)
    return 0


if __name__ == "__main__":
    record.run(main)
