"""A registry's API over real sockets on loopback, without its device: its prefix is 127.9.8.0/24, so that each member
has its address."""

import asyncio
import json
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import aiohttp

from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Member, Network, Put
from wgdisco.registry.io.administration import Administration
from wgdisco.registry.io.commands import Commands
from wgdisco.registry.io.feed import Feed
from wgdisco.registry.io.http import ApiServer
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.page import Page
from wgdisco.registry.io.store import Store
from wgdisco.registry.io.view import ViewApi
from wgdisco.registry.membership import Membership
from wgdisco.registry.view import View
from wgdisco.tunnel.config import DeviceConfig, PeerConfig

NETWORK = Network(
    "mesh",
    "wg.internal.",
    PrivateKey(bytes(range(32))),
    51820,
    ("198.51.100.10:51820",),
    IPv4Network("127.9.8.0/24"),
    IPv6Network("fd00:9:8::/64"),
)
REGISTRY = "127.9.8.1"
ENROL = "127.9.9.5"


def key(number):
    return PublicKey(bytes([number]) * 32)


def member(number, name, *groups, **fields):
    return Member(name, key(number), number, groups or ("all",), 0.0, **{"proven": True, **fields})


ALICE, BOB, EVE = member(2, "alice"), member(3, "bob", "all", "dev"), member(4, "eve", "other")


class Registry:
    """The parts of a managed registry that the API is over, without its device."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.membership = ledger.membership
        self.directory = Directory(DeviceConfig(), ())
        self.serial = 1000
        self.feed = Feed(self.membership, self.directory)
        self.api = ApiServer(ledger, self.directory, self.feed, ["wg.internal.", "registry.wg.internal."])
        self.shown = View(self.membership, self.directory, {})
        self.view = ViewApi(ledger, self.api.gate, self.api.router, self.shown)
        self.view.serial = lambda: self.serial
        Administration(ledger, self.api.gate, self.api.router, Commands(ledger, self.directory, self.feed))
        Page(self.api.gate, self.api.router)
        self.port = 0
        ledger.follow = self._follow
        self._known = {}
        self._learn()

    def _learn(self):
        self._known = {k: m for k, m in self.membership.members.items() if m.proven}
        self.directory.set_peers([PeerConfig(k) for k in self._known], 0.0)

    async def _follow(self, changes):
        before = self._known
        self._learn()
        self.serial += 1
        numbers = {change.fact.number for change in changes if isinstance(change.fact, Member)}
        now = self.membership.members.values()
        self.feed.refresh([m for m in [*now, *before.values()] if m.number in numbers], facts=True)
        self.view.follow()

    async def put(self, *changes):
        await self.ledger.change(lambda: (list(changes), None))

    @asynccontextmanager
    async def request(self, source, method, path, **options):
        connector = aiohttp.TCPConnector(local_addr=(source, 0), force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://{REGISTRY}:{self.port}{path}"
            async with session.request(method, url, **options) as response:
                yield response

    async def ask(self, source, method, path, **options):
        async with self.request(source, method, path, **options) as response:
            body = await response.read()
            return response.status, json.loads(body) if response.content_type == "application/json" else body


def run(tmp_path, scenario, *facts):
    async def main():
        store = Store.open(tmp_path / "registry.db")
        everything = [NETWORK, ALICE, BOB, EVE, *facts]
        await store.commit(map(Put, everything))
        registry = Registry(Ledger(store, Membership(store.load())))
        (registry.port,) = await registry.api.start([IPv4Address(REGISTRY)], None, 0)
        try:
            await scenario(registry)
        finally:
            registry.view.close()
            await registry.api.close()
            await registry.ledger.close()

    asyncio.run(main())
