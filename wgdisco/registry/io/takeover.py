"""Taking the place of the server that a network was adopted from, while it runs: nobody who is connected notices.

A peer's session is with the process that has its keys, so a registry needs new ones, and until it has them those of the
server have to go on. Both run on the one port (`tunnel.io.beside`), each on its own interface with the same addresses:

1. The registry greets every peer where the server last saw it. A peer that answers sends by the new session from then
   on, and takes what still comes by the old one.
2. What goes to that peer is routed to the registry's interface, by a route to it alone.
3. When all that were connected have moved, the server is told to stop (by `registry init`, or by hand).
4. The registry has the port to itself, and greets all again: who agreed on a session with the server meanwhile.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.machine import interface_exists
from wgdisco.registry.adopt import connected
from wgdisco.registry.facts import Kind, Member
from wgdisco.registry.io.store import Observation
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.link import Link, family, if_there

LOG = logging.getLogger(__name__)

LOOK_INTERVAL = 0.01  # how long nobody has the port, at most
LINGERING = 200  # looks, for how long an interface may outlive its port
PATIENCE = 10.0  # two attempts at a handshake
SETTLING = 1.0  # for what is under way by sessions of before
_RP_FILTER = Path("/proc/sys/net/ipv4/conf")
_STRICT, _LOOSE = "1", "2"


class Takeover:
    """One, from start to end. `moved` names the devices that are with us; `missing`, once known, those that are not."""

    def __init__(self, predecessor: str, engine: Engine, link: Link, membership: Membership) -> None:
        self.predecessor = predecessor
        self.moved: list[str] = []
        self.missing: list[str] | None = None
        self.is_done = False
        self._engine = engine
        self._link = link
        self._membership = membership
        self._arrived: asyncio.Queue[Member] = asyncio.Queue()
        self._routed: list[Member] = []
        self._filters: dict[Path, str] = {}

    def begin(self) -> None:
        """Peers may come: what they send is forwarded, and the server hears of no new sessions."""
        self._engine.hear_beside()

    def heard(self, member: Member) -> None:
        """A peer has a session with us."""
        if member.kind is Kind.DEVICE and member.name not in self.moved:
            self.moved.append(member.name)
            self._arrived.put_nowait(member)

    async def run(self, met: list[Observation]) -> None:
        """Until the server is gone and its port ours; `met` is whom it knew."""
        waited_for = connected(self._membership.members.values(), {one.key: one.at for one in met})
        clock = asyncio.get_running_loop().time
        patience, settled = clock() + PATIENCE, clock()
        async with AsyncIPRoute() as netlink:
            try:
                self._loosen()
                while not self._engine.take_port():
                    await asyncio.sleep(LOOK_INTERVAL)
                    while not self._arrived.empty():
                        await self._route(netlink, "add", self._arrived.get_nowait())
                        settled = clock() + SETTLING
                    missing = waited_for.difference(self.moved)
                    if self.missing is None and clock() >= (patience if missing else settled):
                        self._say(sorted(missing))
                for _ in range(LINGERING):  # its routes go before those that lead past them
                    if not interface_exists(self.predecessor):
                        break
                    await asyncio.sleep(LOOK_INTERVAL)
            finally:
                for member in self._routed:
                    await self._route(netlink, "del", member)
                self._tighten()
        for peer in self._engine.status().peers:
            if peer.endpoint is not None and peer.handshake_at is not None:
                self._engine.initiate(peer.key, (peer.endpoint,))
        self.is_done = True
        LOG.info("the server is gone, its port is ours", extra={"fields": {"server": self.predecessor}})

    def report(self) -> dict[str, Any]:
        """How far it is, as JSON: `ready` for the server to stop, `done`, and who has `moved` or is `missing`."""
        is_ready = self.missing is not None
        return {"ready": is_ready, "done": self.is_done, "moved": self.moved, "missing": self.missing or []}

    def _say(self, missing: list[str]) -> None:
        self.missing = missing
        fields = {"server": self.predecessor, "devices": len(self.moved), "missing": ", ".join(missing) or "none"}
        LOG.info("ready to take the server's place: stop it now", extra={"fields": fields})

    async def _route(self, netlink: AsyncIPRoute, verb: str, member: Member) -> None:
        if verb == "add":
            self._routed.append(member)
        network = self._membership.network
        for address, own in zip(network.addresses(member.number), network.registry_addresses, strict=True):
            route = {
                "dst": f"{address}/{32 if address.version == 4 else 128}",
                "oif": self._link.index,
                "prefsrc": str(own),
            }
            try:
                await if_there(netlink.route(verb, family=family(address.version), **route))
            except NetlinkError as error:  # no IPv6, or the route is there
                LOG.debug("no route to %s: %s", address, error)

    def _loosen(self) -> None:
        """What comes by one of both interfaces while the way back is the other is no forgery."""
        for name in ("all", self.predecessor, self._engine.interface):
            path = _RP_FILTER / name / "rp_filter"
            with suppress(OSError):
                self._filters[path] = path.read_text().strip()
        if _STRICT in self._filters.values():
            for name in (self.predecessor, self._engine.interface):
                self._write(_RP_FILTER / name / "rp_filter", _LOOSE)

    def _tighten(self) -> None:
        for path, value in self._filters.items():
            if path.parent.name != "all":
                self._write(path, value)

    def _write(self, path: Path, value: str) -> None:
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except FileNotFoundError:
            pass  # the interface is gone
        except OSError as error:
            LOG.warning("cannot set %s to %s: %s", path, value, error.strerror)
