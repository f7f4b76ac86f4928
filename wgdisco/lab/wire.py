"""The lab's Internet with delay and loss: one process that routes between TUN devices in the hosts' namespaces.

Each router's outside interface is a TUN; what is sent there comes to this process, which counts its TTL down, loses it
or holds it for the delay, and writes it to the TUN its destination hangs at. It records every packet, so it is the
proof of which way the traffic went too. Run as `python -m wgdisco.lab.wire LINKS` in the core; LINKS is a JSON list of
`[pid, interface name]`. On standard input comes a JSON object a line:

* `{"conditions": {…}}`: from now on; see `Conditions`
* `{"flush": n}`: forget the connections tracked where link n is: what its NAT has mapped
* `{"mark": n}`: write `mark n` after all that was recorded before
"""

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Self

from wgdisco.endpoint import SITE_LOCAL, IPAddress, IPNetwork
from wgdisco.lab.packets import ICMP, ICMP6, Crossing, Header, aged, parse, time_exceeded
from wgdisco.machine import boot_time

HOPS = 4
# linux/if_tun.h, linux/sched.h, linux/netlink.h, linux/netfilter/nfnetlink_conntrack.h
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2
_NLM_F_REQUEST_ACK = 5
_MTU = 65536
_AT_ONCE = 64
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the Internet is like. `routes` say at which link a network hangs; `blocked` pairs of networks lose all UDP.

    `delay` is of each packet on its way through, in seconds: half a round trip. `hops` are the routers it passes.
    `one_way` names destinations that get nothing at all, as an address whose host is gone.
    """

    routes: tuple[tuple[IPNetwork, int], ...]
    delay: float = 0.0
    loss: float = 0.0
    hops: int = HOPS
    seed: int = 0
    blocked: tuple[tuple[IPNetwork, IPNetwork], ...] = ()
    dead: tuple[IPNetwork, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it goes to the process."""
        return {
            "routes": [[str(network), link] for network, link in self.routes],
            "delay": self.delay,
            "loss": self.loss,
            "hops": self.hops,
            "seed": self.seed,
            "blocked": [[str(one), str(other)] for one, other in self.blocked],
            "dead": [str(network) for network in self.dead],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` gives."""
        return cls(
            routes=tuple((ip_network(network), link) for network, link in data["routes"]),
            delay=data["delay"],
            loss=data["loss"],
            hops=data["hops"],
            seed=data["seed"],
            blocked=tuple((ip_network(one), ip_network(other)) for one, other in data["blocked"]),
            dead=tuple(map(ip_network, data["dead"])),
        )


@dataclass(slots=True)
class Router:
    """What the process decides, without its waiting: where a packet goes, when, and whether at all."""

    conditions: Conditions
    _random: random.Random = field(init=False, repr=False)
    _links: dict[bytes, int | None] = field(default_factory=dict, repr=False)
    _fates: dict[tuple[bytes, bytes], str | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.conditions.seed)

    def judge(self, header: Header) -> str:
        """The fate of a packet: `sent`, or why not."""
        key = header.source, header.destination
        if key not in self._fates:
            self._fates[key] = self._refusal(ip_address(header.source), ip_address(header.destination))
        refusal = self._fates[key]
        if refusal is not None and (refusal != "blocked" or header.protocol not in (ICMP, ICMP6)):
            return refusal
        if header.ttl <= self.conditions.hops:
            return "ttl"
        if self.conditions.loss and self._random.random() < self.conditions.loss:
            return "lost"
        return "sent"

    def link(self, destination: bytes) -> int | None:
        """At which link an address hangs, by the longest prefix; None: nowhere."""
        if destination not in self._links:
            address = ip_address(destination)
            fitting = [
                (network.prefixlen, link)
                for network, link in self.conditions.routes
                if network.version == address.version and address in network
            ]
            self._links[destination] = max(fitting)[1] if fitting else None
        return self._links[destination]

    def _refusal(self, source: IPAddress, destination: IPAddress) -> str | None:
        """Why nothing, or (`blocked`) no more than pings pass between two addresses."""
        if _is_in(source, SITE_LOCAL) or self.link(destination.packed) is None:
            return "unroutable"
        if _is_in(destination, self.conditions.dead):
            return "unroutable"
        for one, other in self.conditions.blocked:
            if (_is_in(source, (one,)) and _is_in(destination, (other,))) or (
                _is_in(source, (other,)) and _is_in(destination, (one,))
            ):
                return "blocked"
        return None


def _is_in(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(network.version == address.version and address in network for network in networks)


class Process:
    """The process: TUN devices, the packets in flight, and the record."""

    def __init__(self, links: list[tuple[int, str]]) -> None:
        """Open a TUN of that name in the network namespace of each process."""
        self._tuns: list[int] = []
        self._trackers: list[socket.socket] = []
        with open("/proc/self/ns/net", "rb") as home:
            for pid, name in links:
                with open(f"/proc/{pid}/ns/net", "rb") as there:
                    _enter(there.fileno())
                try:
                    self._tuns.append(_open_tun(name))
                    self._trackers.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER))
                finally:
                    _enter(home.fileno())
        self._router = Router(Conditions(()))
        self._in_flight: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._record: list[str] = []
        self._commands = b""
        self._router_addresses = {4: ip_address("198.51.100.1"), 6: ip_address("2001:db8:ffff::1")}

    def run(self) -> None:
        """Until standard input closes."""
        self._say("ready")
        waited = [0, *self._tuns]
        while True:
            timeout = max(0.0, self._in_flight[0][0] - boot_time()) if self._in_flight else None
            for descriptor in select.select(waited, [], [], timeout)[0]:
                if descriptor:
                    self._receive(descriptor)
                elif not self._obey():
                    return
            self._deliver()
            if self._record:
                self._say(*self._record)
                self._record.clear()

    def _receive(self, tun: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(tun, _MTU)
            except OSError:  # nothing waits, or the interface is down
                return
            header = parse(packet)
            if header is not None:
                self._take(packet, header, self._tuns.index(tun))

    def _take(self, packet: bytes, header: Header, came_from: int) -> None:
        now = boot_time()
        if header.protocol == ICMP6 and header.destination[0] == 0xFF:
            return  # neighbour and router solicitations end at the link
        fate = self._router.judge(header)
        self._record.append(Crossing.of(packet, header, now, fate).to_text())
        conditions = self._router.conditions
        if fate == "ttl" and header.protocol not in (ICMP, ICMP6):
            self._send(time_exceeded(packet, self._router_addresses[header.version]), came_from, now + conditions.delay)
        elif fate == "sent":
            link = self._router.link(header.destination)
            assert link is not None, "judged"
            self._send(aged(packet, conditions.hops), link, now + conditions.delay)

    def _send(self, packet: bytes, link: int, at: float) -> None:
        self._number += 1
        heapq.heappush(self._in_flight, (at, self._number, self._tuns[link], packet))

    def _deliver(self) -> None:
        now = boot_time()
        while self._in_flight and self._in_flight[0][0] <= now:
            _, _, tun, packet = heapq.heappop(self._in_flight)
            with contextlib.suppress(OSError):  # the interface is down
                os.write(tun, packet)

    def _obey(self) -> bool:
        """Do what is asked for; False at the end of standard input."""
        data = os.read(0, _MTU)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case {"conditions": conditions}:
                    self._router = Router(Conditions.from_json(conditions))
                case {"flush": link}:
                    _flush(self._trackers[link])
                case {"mark": number}:
                    self._record.append(f"mark {number}")
        return bool(data)

    @staticmethod
    def _say(*lines: str) -> None:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _open_tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def _flush(tracker: socket.socket) -> None:
    """Forget every tracked connection in the namespace the socket was opened in."""
    tracker.send(struct.pack("=IHHIIBBH", 20, _CT_DELETE, _NLM_F_REQUEST_ACK, 1, 0, socket.AF_UNSPEC, 0, 0))
    tracker.recv(_MTU)


def main() -> None:
    """See the module's docstring."""
    with contextlib.suppress(OSError):  # as near to a network card as a process comes; not allowed to everyone
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    Process([(int(pid), str(name)) for pid, name in json.loads(sys.argv[1])]).run()


if __name__ == "__main__":
    main()
