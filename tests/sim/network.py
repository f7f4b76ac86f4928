"""A virtual network on a virtual clock: a public core, links with delay and loss, and nothing that waits.

::

    host ── link ── gateway ── link ── core ── link ── host
                    (a NAT, or none)

Everything that happens is an entry of one event heap; the only randomness is the network's own, from its seed.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Protocol

from wgdisco.endpoint import Endpoint, IPAddress


@dataclass(frozen=True, slots=True)
class Datagram:
    """UDP over IP, as far as anybody here looks."""

    source: Endpoint
    destination: Endpoint
    data: bytes
    ttl: int = 64


@dataclass(frozen=True, slots=True)
class Crossing:
    """A datagram the core carried (or lost), and when."""

    at: float
    datagram: Datagram
    lost: bool


class Attached(Protocol):
    """What hangs at the core: a host with a public address, or a gateway."""

    def from_core(self, datagram: Datagram) -> None:
        """Take a datagram for an address of yours."""


class Clock:
    """When things happen. `now` is the boot-time clock of every machine; wall clocks are the machines' own."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at that time, or now if it is past."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._sequence), call))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let that much time pass, or as much as it takes until something holds; whether it does."""
        end = self.now + seconds
        while not until():
            if not self._heap or self._heap[0][0] > end:
                self.now = end
                return until()
            when, _, call = heapq.heappop(self._heap)
            self.now = when
            call()
        return True


class Network:
    """The core. It carries what is addressed to somebody attached, and drops the rest: private addresses above all."""

    def __init__(self, seed: int, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.random = random.Random(seed)
        self.loss = 0.0
        self.delay = 0.010  # of each link
        self.crossings: list[Crossing] = []
        self.blocked: set[frozenset[IPAddress]] = set()
        self.blocked_one_way: set[tuple[IPAddress, IPAddress]] = set()  # from, to
        self._attached: dict[IPAddress, Attached] = {}

    @property
    def now(self) -> float:
        return self.clock.now

    def attach(self, address: IPAddress, who: Attached) -> None:
        """From now on `who` has this public address."""
        assert Endpoint(address, 1).is_global, address
        assert address not in self._attached, address
        self._attached[address] = who

    def detach(self, address: IPAddress) -> None:
        """Nobody has this address any more."""
        del self._attached[address]

    def carry(self, datagram: Datagram) -> None:
        """Bring a datagram from one link of the core to another."""
        lost = self.random.random() < self.loss or datagram.ttl <= 1
        way = (datagram.source.address, datagram.destination.address)
        is_blocked = frozenset(way) in self.blocked or way in self.blocked_one_way
        self.crossings.append(Crossing(self.now, datagram, lost or is_blocked))
        if not self.crossings[-1].lost:
            arriving = replace(datagram, ttl=datagram.ttl - 1)
            self.clock.at(self.now + 2 * self.delay, lambda: self._arrive(arriving))

    def _arrive(self, datagram: Datagram) -> None:
        who = self._attached.get(datagram.destination.address)
        if who is not None:
            who.from_core(datagram)

    def between(self, one: IPAddress, other: IPAddress, since: float = 0.0) -> list[Crossing]:
        """What crossed the core between two public addresses, in either direction."""
        pair = {one, other}
        return [
            crossing
            for crossing in self.crossings
            if crossing.at >= since
            and {crossing.datagram.source.address, crossing.datagram.destination.address} == pair
        ]
