"""A network to look at: the registry's real API and page with members that differ, for a browser in a host of its own.

Run in a lab's host: `python -m tests.page.shown_network MEMBERS`. It prints its address, and then takes lines of JSON:
`{"paths": NAME, "word": …, "reason": …}` has a member report its paths anew, `{"traffic": BYTES}` has all of them send,
`{"role": ROLE}` gives who looks another role. The browser's own address is that of `desk`, the first member and an
admin, or with `--as NAME` another's.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from tests.registry.io.api_registry import NETWORK, REGISTRY, Registry, member
from wgdisco.endpoint import Endpoint
from wgdisco.machine import boot_time
from wgdisco.paths import PathRecord
from wgdisco.registry.facts import Kind, Member, Put, Role
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.store import Store
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.events import DeviceStatus, PeerHandshake, PeerStatus

PORT = 8000
FEW = ("desk", "nas", "phone")
PLACES = ("berlin", "lyon", "oslo", "porto", "riga", "turin", "vaasa", "york")
NATS = ("eim/apdf/-", "eim/apdf/-", "eim/eif/-", "eim/adf/-", "apdm/apdf/1", "apdm/apdf/-", None)
SAMPLES = 60


@dataclass
class One:
    """A member, and where it stands."""

    member: Member
    place: int
    nat: str | None
    endpoint: str
    is_online: bool
    is_walled: bool = False
    rx: int = 0
    tx: int = 0
    paths: list[PathRecord] = field(default_factory=list)


def few():
    """Three that reach each other in three ways."""
    rows = [
        (0, "eim/apdf/-", "203.0.113.7:41641"),
        (1, "apdm/apdf/1", "192.0.2.70:51820"),
        (2, "apdm/apdf/2", "198.51.100.23:20417"),
    ]
    roles = (Role.ADMIN, Role.MEMBER, Role.MEMBER)
    made = zip(FEW, roles, rows, range(2, 5), strict=True)
    return [One(member(number, name, role=role), *row, True) for name, role, row, number in made]


def many(count, rng):
    """`count` members at as many places as it takes."""
    found = []
    for number in range(2, count + 2):
        place = rng.randrange(max(4, count // 9))
        nat = NATS[place % len(NATS)]
        name = "desk" if number == 2 else f"{PLACES[place % len(PLACES)]}-{number:03}"
        groups = ("all",) if number % 5 else ("all", "lab")
        role, kind = (Role.ADMIN if number == 2 else Role.MEMBER), (Kind.DEVICE if number % 40 == 7 else Kind.MEMBER)
        endpoint = f"203.0.{113 + place // 250}.{place % 250 + 1}:{rng.randrange(20000, 60000)}"
        is_online = number == 2 or rng.random() > 0.08
        found.append(
            One(member(number, name, *groups, role=role, kind=kind), place, nat, endpoint, is_online, place == 3)
        )
    return found


def path(one, other, rng, now):
    """How one would reach the other."""
    peer, counts = other.member.public_key.to_text(), (rng.randrange(1 << 12, 1 << 28), rng.randrange(1 << 12, 1 << 26))
    at = int(now) - rng.randrange(120)
    hard = [(one.nat or "").startswith("apdm"), (other.nat or "").startswith("apdm")]
    if not other.is_online:
        return PathRecord(peer, "punching", "peer offline")
    if one.place == other.place:
        endpoint = f"192.168.{one.place}.{other.member.number}:51820"
        return PathRecord(peer, "lan", None, endpoint, round(rng.uniform(0.2, 1.9), 2), at, *counts)
    if one.is_walled or other.is_walled:
        return PathRecord(peer, "relay", "no UDP answer", None, round(rng.uniform(30, 90), 1), at, *counts)
    if all(hard):
        return PathRecord(peer, "relay", "both NATs port-dependent", None, round(rng.uniform(30, 90), 1), at, *counts)
    return PathRecord(peer, "direct", None, other.endpoint, round(rng.uniform(4, 60), 1), at, *counts)


class Shown:
    """The registry with `people`; their traffic is made up as time goes on."""

    def __init__(self, registry, people, seed):
        self.registry = registry
        self.people = {one.member.name: one for one in people}
        self.rng = random.Random(seed)
        registry.view.status = self.status
        registry.view.rest = lambda _status: {
            "drops": {"mac1": 12},
            "relay": {"is_there": True, "packets": 81, "bytes": 69_120},
        }

    def status(self):
        now, unix = boot_time(), time.time()
        peers = []
        for one in self.people.values():
            ago = (one.member.number * 7) % 110 if one.is_online else 4000 * one.member.number
            peers.append(
                PeerStatus(
                    one.member.public_key, None, (), True, 0, now - ago, unix - ago, now - ago, None, one.rx, one.tx
                )
            )
        return DeviceStatus(None, 51820, 0, tuple(peers), {})

    def traffic(self, most):
        for one in self.people.values():
            if one.is_online:
                one.rx += int(self.rng.paretovariate(1.6) * most * 0.1) if self.rng.random() < 0.7 else 148
                one.tx += int(self.rng.paretovariate(1.6) * most * 0.07) if self.rng.random() < 0.7 else 92

    def report(self, one, word=None, reason=None):
        others = [other for other in self.people.values() if other is not one and other.member.kind is Kind.MEMBER]
        if len(others) > 20:  # not all talk to all
            others = [other for other in others if other.place == one.place or self.rng.random() < 0.8]
        now = time.time()
        paths = [path(one, other, random.Random(f"{sorted((one.place, other.place))}"), now) for other in others]
        if word is not None:
            paths = [PathRecord(told.peer, word, reason, None, 41.5, int(now), 9, 9) for told in paths]
        self.registry.shown.reports.take(self.registry.membership, one.member, paths, now)

    def begin(self):
        for one in self.people.values():
            if one.is_online:
                event = PeerHandshake(one.member.public_key, Endpoint.from_text(one.endpoint), boot_time())
                self.registry.directory.observe_event(event)
                self.registry.directory.tell(one.member.public_key, [], one.nat)
                if one.member.kind is Kind.MEMBER:
                    self.report(one)
        for _ in range(SAMPLES):
            self.traffic(1 << 16)
            self.registry.shown.sample(self.status())

    async def take(self, line):
        asked = json.loads(line)
        if "traffic" in asked:
            self.traffic(asked["traffic"])
        elif "role" in asked:
            member = next(iter(self.people.values())).member
            await self.registry.put(Put(replace(member, role=Role(asked["role"]))))
        else:
            self.report(self.people[asked["paths"]], asked["word"], asked["reason"])


async def serve(people, seed, is_live):
    """Until standard input ends."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(Path(directory) / "registry.db")
        await store.commit([Put(NETWORK), *(Put(one.member) for one in people)])
        registry = Registry(Ledger(store, Membership(store.load())))
        shown = Shown(registry, people, seed)
        shown.begin()
        await registry.api.start([IPv4Address(REGISTRY)], None, PORT)
        print(f"http://{REGISTRY}:{PORT}/", flush=True)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        live = asyncio.ensure_future(go_on(shown)) if is_live else None
        while line := await reader.readline():
            await shown.take(line)
        if live is not None:
            live.cancel()
        registry.view.close()
        await registry.api.close()
        await registry.ledger.close()


async def go_on(shown):
    """Traffic each second, as of a network in use."""
    while True:
        shown.traffic(1 << 15)
        await asyncio.sleep(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("members", type=int)
    parser.add_argument("--as", dest="viewer")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    people = few() if asked.members == len(FEW) else many(asked.members, random.Random(asked.seed))
    names = {one.member.name: one.member for one in people}
    viewer = names[asked.viewer] if asked.viewer else people[0].member
    own = f"127.9.8.{viewer.number}"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # what is sent there comes from the address of who looks
    subprocess.run(["ip", "route", "replace", "local", REGISTRY, "dev", "lo", "src", own, "table", "local"], check=True)
    asyncio.run(serve(people, asked.seed, asked.live))


if __name__ == "__main__":
    main()
