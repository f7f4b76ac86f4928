"""Forwarding switched on and put back: sysctls, and the default routes that they depend on.

What the switches were before is kept in /run, which a reboot forgets as it forgets them: the daemon that starts after
one that was killed puts them back in the end, and so does `registry uninstall`.
"""

import contextlib
import json
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.errors import LocalError
from wgdisco.tunnel.forwarding import (
    ALL_IPV6,
    DefaultRoute,
    forwarding_settings,
    settings_to_restore,
    settings_to_write,
    uplinks,
)
from wgdisco.tunnel.io.control import DIRECTORY, make_directory
from wgdisco.tunnel.io.nft import Table, list_ruleset
from wgdisco.tunnel.nft import HubRules, table_name

LOG = logging.getLogger(__name__)

_SYSCTL = Path("/proc/sys/net")
# Root reads what the daemons' user wrote: no other switch is turned by it
_SWITCH = re.compile(r"ipv[46]/conf/[^/]+/(forwarding|accept_ra)")
_RT_TABLE_MAIN = 254
_RTPROT_RA = 9  # linux/rtnetlink.h


async def default_routes() -> list[DefaultRoute]:
    """The default routes of the main table, in the kernel's order; LocalError when it does not tell."""
    found = []
    async with AsyncIPRoute() as netlink:
        try:
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                async for route in await netlink.route("dump", family=family, table=_RT_TABLE_MAIN):
                    if route["dst_len"] or route.get_attr("RTA_DST"):
                        continue
                    hops = route.get_attr("RTA_MULTIPATH") or []
                    for index in filter(None, [route.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops)]):
                        link = await netlink.link("get", index=index)
                        name = str(link[0].get_attr("IFLA_IFNAME"))
                        found.append(DefaultRoute(version, name, route["proto"] == _RTPROT_RA))
        except NetlinkError as error:
            raise LocalError(f"cannot list the default routes: {error}") from error
    return found


class Forwarding:
    """The switches that were turned, and what they were before."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._kept = DIRECTORY / f"{interface}.forwarding"
        self._before = self._load()

    def switch_on(
        self,
        routes: list[DefaultRoute],
        uplink: bool,
        through: Iterable[str] = (),
        versions: Collection[int] = (4, 6),
    ) -> None:
        """Let packets through, as `forwarding_settings` says; LocalError when the system refuses. May be repeated."""
        wanted = forwarding_settings(self.interface, routes, uplink, through, versions)
        present = {path: value for path in wanted if (value := _read(path)) is not None}
        for path, value in settings_to_write(wanted, present).items():
            before = {path: present[path]}
            if path == ALL_IPV6:
                # It is written through to every interface: those that were on already shall be on again afterwards.
                before = {str(p.relative_to(_SYSCTL)): "1" for p in _forwarding_ipv6()} | before
            for name, value_before in before.items():
                self._before.setdefault(name, value_before)
            self._keep()
            _write(path, value)

    async def restore(self) -> None:
        """Put back what was there; left as it is while another of our tables needs it too."""
        if not self._before:
            return
        if await _others(self.interface):
            self._before.clear()
        for path, value in settings_to_restore(self._before).items():
            with contextlib.suppress(LocalError):  # an interface that is gone took its switch along
                _write(path, value)
        self._before.clear()
        self._keep()

    def _load(self) -> dict[str, str]:
        try:
            kept = json.loads(self._kept.read_text())
        except (OSError, ValueError):
            return {}
        found = kept.items() if isinstance(kept, dict) else ()
        return {name: str(value) for name, value in found if _SWITCH.fullmatch(name) and str(value) in {"0", "1", "2"}}

    def _keep(self) -> None:
        try:
            if self._before:
                make_directory(self._kept.parent)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(self._kept, flags, 0o644), "w") as file:
                    json.dump(self._before, file)
            else:
                self._kept.unlink(missing_ok=True)
        except OSError as error:
            LOG.debug("what the switches were is not kept: %s", error)


class Hub:
    """The registry's forwarding: its table and the switches. Make it with `hub`."""

    def __init__(self, interface: str) -> None:
        self._table = Table(interface)
        self._forwarding = Forwarding(interface)

    async def apply(self, rules: HubRules) -> None:
        """Have the kernel do as `rules` say; first the rules, then the switches."""
        routes = await default_routes()
        await self._table.load(rules.to_text())
        self._forwarding.switch_on(routes, rules.needs_uplink)

    async def uplinks(self) -> dict[int, tuple[str, ...]]:
        """What `HubRules.uplinks` is now."""
        return uplinks(await default_routes(), self._table.interface)

    async def close(self) -> None:
        """Stop forwarding, then take the rules out."""
        try:
            await self._forwarding.restore()
        finally:
            await self._table.remove()


@asynccontextmanager
async def hub(interface: str) -> AsyncIterator[Hub]:
    """A hub on an interface that exists; nothing of it is left at the end of the block."""
    it = Hub(interface)
    try:
        yield it
    finally:
        await it.close()


def _read(path: str) -> str | None:
    try:
        return (_SYSCTL / path).read_text().strip()
    except OSError:
        return None


def _write(path: str, value: str) -> None:
    try:
        (_SYSCTL / path).write_text(value)
    except OSError as error:
        name = "net." + path.replace("/", ".")
        raise LocalError(f"cannot set {name} to {value} ({error.strerror}): set it in /etc/sysctl.d") from error


def _forwarding_ipv6() -> list[Path]:
    """The switches of single interfaces that are on."""
    paths = [path for path in (_SYSCTL / "ipv6/conf").glob("*/forwarding") if path.parent.name != "all"]
    return [path for path in paths if path.read_text().strip() == "1"]


async def _others(interface: str) -> bool:
    """Whether other interfaces have tables of ours."""
    names = {item["table"]["name"] for item in await list_ruleset() if "table" in item}
    return any(name.startswith("wgdisco_") for name in names - {table_name(interface)})
