"""Many members in one process: one UDP socket with all their addresses, one TUN interface with all their inner ones.

It runs in a namespace of its own, reads what to do as lines of JSON, and answers each with one:
`begin`, `listen`, `move`, `renew`, `enrol`, `rest`, `status`.
"""

import asyncio
import heapq
import json
import random
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from ipaddress import ip_network
from itertools import count, islice
from typing import Any

from bench import population
from bench.crowd_stream import INSIDE, Stream
from bench.walker import REGISTRY, Walker
from wgdisco.invitation import (
    ENROL_NETWORK,
    ENROL_REGISTRY_ADDRESS,
    JoinLink,
    enrol_address,
    enrol_private_key,
    member_preshared_key,
)
from wgdisco.keys import PrivateKey
from wgdisco.registry.facts import MTU
from wgdisco.tunnel.burst import Frames, Room
from wgdisco.tunnel.io.ancillary import SOL_UDP, UDP_GRO
from wgdisco.tunnel.io.syscalls import DatagramReceiver
from wgdisco.tunnel.io.tun import Tun
from wgdisco.tunnel.io.udp import A_CALL

INTERFACE = "crowd"
KEEPALIVE = 25
PATIENCE = 60.0
CONNECT_TIMEOUT = 5.0
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE, _IP_PKTINFO = 33, 32, 8
_BUFFER = 64 << 20
_A_TURN = 16
_QUEUE = 20_000  # packets that may wait for the simulator
_LINES = f"""
link set {INTERFACE} mtu {MTU} txqueuelen {_QUEUE} up
route add local {population.PREFIX4} dev lo
route add {INSIDE} dev {INTERFACE} table 100
rule add to {INSIDE} lookup 100 pref 10
rule add lookup local pref 20
rule del pref 0
route add local {ENROL_NETWORK} dev lo
route add {ENROL_REGISTRY_ADDRESS} dev {INTERFACE}
route add local {population.OUTER} dev lo
"""


class Crowd:
    """See the module's docstring. `counts` are of all members together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._room = Room()
        self._tun = Tun.open(INTERFACE)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            self._udp.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._udp.setsockopt(SOL_UDP, UDP_GRO, 1)
        self._receiver = DatagramReceiver()
        self._udp.bind(("0.0.0.0", population.PORT))
        subprocess.run(["ip", "-batch", "-"], input=_LINES, text=True, check=True)
        self.walkers: dict[int, Walker] = {}
        self._by_inner: dict[bytes, Walker] = {}
        self._by_outer: dict[bytes, Walker] = {}
        self._streams: dict[int, Stream] = {}
        self._heap: list[tuple[float, int, Walker]] = []
        self._sequence = count()
        self._moves: dict[bytes, tuple[int, float]] = {}
        self._told: dict[int, list[float]] = {}
        self._opening: set[asyncio.Future[None]] = set()
        self._timer = self._loop.call_later(0.05, self._fire)
        self._loop.add_reader(self._udp.fileno(), self._udp_readable)
        self._loop.add_reader(self._tun.fd, self._tun_readable)

    # Members

    def add(self, walker: Walker) -> Walker:
        """One more."""
        self.walkers[walker.number] = walker
        self._by_inner[walker.inner] = walker
        self._by_outer[walker.outer] = walker
        return walker

    def walker(self, number: int) -> Walker:
        """The member of that host number, at its place."""
        known = self.walkers.get(number)
        if known is not None:
            return known
        keys = population.private_key(number), population.private_key(1).public_key(), population.preshared_key(number)
        return self.add(
            Walker(
                number,
                population.inner(number),
                population.OUTER[number].packed,
                keys,
                (ip_network(INSIDE),),
                self._room,
                KEEPALIVE,
            )
        )

    async def begin(self, numbers: range, rate: float) -> dict[str, Any]:
        """They come, so many a second at most."""
        began = self._loop.time()
        for number in numbers:
            walker = self.walker(number)
            walker.begin(self._now())
            self._settle(walker)
            await self._pace(began, number - numbers.start + 1, rate)
        await self._until(lambda: all(self.walkers[number].handshakes for number in numbers))
        return {"seconds": self._loop.time() - began}

    async def listen(self, numbers: range, rate: float) -> dict[str, Any]:
        """Each opens a stream of events; until all have had their snapshots."""
        began, had = self._loop.time(), self.counts["stream bytes"]
        for number in numbers:
            self._opening.add(asyncio.ensure_future(self._open(number)))
            await self._pace(began, number - numbers.start + 1, rate)
        await self._until(
            lambda: all(number in self._streams and self._streams[number].is_ready for number in numbers), PATIENCE
        )
        return {"seconds": self._loop.time() - began, "bytes": self.counts["stream bytes"] - had}

    async def _open(self, number: int) -> None:
        former = self._streams.get(number)
        if former is not None:
            former.close()
        self._streams[number] = stream = Stream(self, number)
        local = str(population.inner(number)), 0
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._loop.create_connection(lambda: stream, str(INSIDE), 80, local_addr=local)
        except (OSError, TimeoutError):
            self.counts["not connected"] += 1
            self.reopen(number)

    def reopen(self, number: int) -> None:
        """A stream that was cut begins anew some seconds later, as a member's does."""
        self._loop.call_later(
            random.uniform(2, 8), lambda: self._opening.add(asyncio.ensure_future(self._open(number)))
        )

    async def move(self, numbers: range, moves: int, gap: float) -> dict[str, Any]:
        """Some of them move, one each `gap` seconds; after how many ms each of the others in its group is told."""
        self._moves.clear()
        self._told.clear()
        half = population.OUTER.num_addresses // 2
        for move in range(moves):
            walker = self.walkers[numbers[move * len(numbers) // moves]]
            place = population.OUTER[int.from_bytes(walker.outer, "big") - int(population.OUTER[0]) ^ half]
            del self._by_outer[walker.outer]
            walker.outer = place.packed
            self._by_outer[walker.outer] = walker
            self._told[move] = []
            self._moves[f"{place}:{population.PORT}".encode()] = move, self._loop.time()
            walker.touch(self._now())
            self._settle(walker)
            await asyncio.sleep(gap)
        listening = len(numbers) - 1
        await self._until(lambda: all(len(told) >= listening for told in self._told.values()), 10, must=False)
        return {
            "ms": [1000 * late for told in self._told.values() for late in told],
            "last_ms": [1000 * max(told, default=0.0) for told in self._told.values()],
            "missed": sum(listening - len(told) for told in self._told.values()),
        }

    def told(self, stream: Stream, endpoints: list[bytes]) -> None:
        """A stream says where members are now."""
        now = self._loop.time()
        for endpoint in endpoints:
            move = self._moves.get(endpoint)
            if move is not None:
                self._told[move[0]].append(now - move[1])

    async def renew(self, numbers: range, seconds: float, window: int) -> dict[str, Any]:
        """All the handshakes that can be had, `window` at a time."""
        began = now = self._loop.time()
        before = self._handshakes()
        waiting: dict[int, tuple[int, float]] = {}
        turn = 0
        while now - began < seconds:
            for number in [n for n, (was, at) in waiting.items() if self.walkers[n].handshakes > was or now - at > 1]:
                del waiting[number]
            while len(waiting) < window:
                number = numbers[turn % len(numbers)]
                turn += 1
                if number not in waiting:
                    walker = self.walkers[number]
                    waiting[number] = walker.handshakes, now
                    walker.begin(self._now())
                    self._settle(walker)
            await asyncio.sleep(0.001)
            now = self._loop.time()
        return {"handshakes": self._handshakes() - before, "seconds": now - began}

    def _handshakes(self) -> int:
        return sum(walker.handshakes for walker in self.walkers.values())

    async def enrol(self, links: list[str], first: int, at_once: int) -> dict[str, Any]:
        """Join by link: the one-time key, then the member's own; at most `at_once` at a time."""
        began = self._loop.time()
        places = asyncio.Semaphore(at_once)
        took: list[float] = []

        async def one(number: int, link: str) -> None:
            async with places:
                start = self._loop.time()
                await self._enrol(number, JoinLink.from_text(link))
                took.append(1000 * (self._loop.time() - start))

        await asyncio.gather(*(one(first + number, link) for number, link in enumerate(links)))
        return {"seconds": self._loop.time() - began, "ms": took}

    async def _enrol(self, number: int, link: JoinLink) -> None:
        outer = population.OUTER[number].packed
        once = enrol_private_key(link.secret), link.registry_key, None
        asker = Walker(
            -number, enrol_address(link.secret), outer, once, (ip_network(ENROL_REGISTRY_ADDRESS),), self._room, 0
        )
        self.add(asker)
        asker.begin(self._now())
        self._settle(asker)
        own = population.private_key(number)
        body = json.dumps({"schema": 1, "public_key": own.public_key().to_text(), "name": None})
        reply = await self._ask(asker, str(ENROL_REGISTRY_ADDRESS), "POST", "/v1/enrol", body)
        del self.walkers[-number], self._by_inner[asker.inner]
        addresses = json.loads(reply)["member"]["addresses"]
        address = next(text for text in addresses if "." in text)
        await self._become(number, address, own, link)

    async def _become(self, number: int, address: str, own: PrivateKey, link: JoinLink) -> None:
        keys = own, link.registry_key, member_preshared_key(link.secret)
        inner = population.PREFIX4[int.from_bytes(socket.inet_aton(address), "big") - int(population.PREFIX4[0])]
        outer = population.OUTER[number].packed
        walker = self.add(Walker(number, inner, outer, keys, (ip_network(INSIDE),), self._room, KEEPALIVE))
        walker.begin(self._now())
        self._settle(walker)
        await self._until(lambda: bool(walker.handshakes))

    async def _ask(self, walker: Walker, host: str, method: str, path: str, body: str) -> bytes:
        """One request; its answer's body."""
        local = socket.inet_ntoa(walker.inner), 0
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, 80, local_addr=local)
            try:
                writer.write(
                    f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                    f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise OSError(f"{method} {path}: {head[:100]!r} {answer[:200]!r}")
        return answer

    def status(self) -> dict[str, Any]:
        """What there is now."""
        drops: Counter[str] = Counter()
        for walker in self.walkers.values():
            drops.update(walker.drops())
        return {
            **self.counts,
            "members": len(self.walkers),
            "handshakes": self._handshakes(),
            "drops": dict(drops),
            "processor": time.process_time(),
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    # Input and output

    def _now(self) -> float:
        return self._loop.time()

    def _udp_readable(self) -> None:
        now = self._now()
        for _ in range(_A_TURN):
            try:
                arrived = self._receiver.receive(self._udp)
            except BlockingIOError:
                return
            for datagrams, _ in arrived:
                assert datagrams.local is not None
                walker = self._by_outer.get(datagrams.local.packed)
                if walker is None:
                    self.counts["for nobody"] += 1
                    continue
                for frames in walker.receive(datagrams, now):
                    self._tun.write(frames)
                self._settle(walker)
            if len(arrived) < A_CALL:
                return

    def _tun_readable(self) -> None:
        now = self._now()
        for frames in self._tun.read():
            for at in range(frames.first, frames.first + frames.count):
                one = Frames(frames.data, frames.spans, at, 1)
                walker = self._by_inner.get(one.source or b"")
                if walker is None:
                    self.counts["from nobody"] += 1
                    continue
                walker.send(one, now)
                self._settle(walker)

    def _settle(self, walker: Walker) -> None:
        for data in walker.datagrams():
            control = [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + walker.outer + bytes(4))]
            try:
                self._udp.sendmsg([data], control, 0, (str(REGISTRY.address), REGISTRY.port))
            except OSError as error:
                self.counts[f"not sent: {error.strerror}"] += 1
        self._room.clear()
        deadline = walker.get_timer()
        if deadline is not None and (walker.armed is None or deadline < walker.armed):
            walker.armed = deadline
            heapq.heappush(self._heap, (deadline, next(self._sequence), walker))

    def _fire(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            deadline, _, walker = heapq.heappop(self._heap)
            if walker.armed == deadline:
                walker.armed = None
                walker.handle_timer(now)
                self._settle(walker)
        self._timer = self._loop.call_later(0.02, self._fire)

    async def _pace(self, began: float, done: int, rate: float) -> None:
        await asyncio.sleep(max(0.0, began + done / rate - self._loop.time()))

    async def _until(self, condition: Any, patience: float = PATIENCE, *, must: bool = True) -> None:
        deadline = self._loop.time() + patience
        while not condition():
            if self._loop.time() > deadline:
                if must:
                    raise TimeoutError(f"waited in vain: {self.status()}")
                return
            await asyncio.sleep(0.05)


async def _answer(crowd: Crowd, asked: dict[str, Any]) -> dict[str, Any]:
    numbers = range(asked.get("first", 0), asked.get("last", 0))
    match asked["do"]:
        case "begin":
            return await crowd.begin(numbers, asked["rate"])
        case "listen":
            return await crowd.listen(numbers, asked["rate"])
        case "move":
            return await crowd.move(numbers, asked["moves"], asked["gap"])
        case "renew":
            return await crowd.renew(numbers, asked["seconds"], asked["window"])
        case "enrol":
            return await crowd.enrol(asked["links"], asked["first"], asked["at_once"])
        case "rest":
            await asyncio.sleep(asked["seconds"])
            return crowd.status()
        case _:
            return crowd.status()


async def main() -> None:
    """See the module's docstring."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd()
    lines = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(json.dumps({}), flush=True)
    while line := await lines.readline():
        try:
            said = await _answer(crowd, json.loads(line))
        except (OSError, TimeoutError) as error:
            said = {"error": repr(error)}
        print(json.dumps(said), flush=True)
    print(json.dumps(dict(islice(crowd.counts.items(), 10))), file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
