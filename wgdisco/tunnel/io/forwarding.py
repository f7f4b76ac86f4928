"""Forwarding switched on and put back: sysctls, and the default routes that they depend on.

What the switches were before is kept in /run, which a reboot forgets as it forgets them: the daemon that starts after
one that was killed puts them back in the end, and so does `registry uninstall`.
"""

import contextlib
import logging
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
from wgdisco.tunnel.io.kept import kept_path, read_kept, write_kept
from wgdisco.tunnel.io.nft import Table
from wgdisco.tunnel.nft import HubRules

LOG = logging.getLogger(__name__)

_SYSCTL = Path("/proc/sys/net")
# Root reads what the daemons' user wrote: no other switch is turned by it
_SWITCH = re.compile(r"ipv[46]/conf/[^/]+/(forwarding|accept_ra)")
_SUFFIX = "forwarding"
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
        self._kept = kept_path(interface, _SUFFIX)
        self._before: dict[str, str] = {}

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
        self._before = _load(self._kept) | self._before
        self._keep()  # also where all are on: from now on they are needed here
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
        """Put back what was there, here or in a process that was killed; another interface of ours that needs it too
        does so in the end."""
        before = _load(self._kept) | self._before
        if before and not self._hand_over(before):
            for path, value in settings_to_restore(before).items():
                with contextlib.suppress(LocalError):  # an interface that is gone took its switch along
                    _write(path, value)
        self._before = {}
        with contextlib.suppress(OSError):
            self._kept.unlink()

    def _hand_over(self, before: dict[str, str]) -> bool:
        """Leave it to another; False when there is none."""
        for path in self._kept.parent.glob(f"*.{_SUFFIX}"):
            if path != self._kept:
                write_kept(path, before | _load(path))
                return True
        return False

    def _keep(self) -> None:
        try:
            write_kept(self._kept, self._before)
        except LocalError as error:
            LOG.debug("what the switches were is not kept: %s", error)


class Hub:
    """The registry's forwarding: its table and the switches. Make it with `hub`."""

    def __init__(self, interface: str) -> None:
        self._table = Table(interface)
        self._forwarding = Forwarding(interface)
        self._said = ""

    async def apply(self, rules: HubRules) -> None:
        """Have the kernel do as `rules` say; first the rules, then the switches.

        Where these are not for us to turn (a container's /proc/sys is read-only) nothing passes, and that is said once.
        """
        routes = await default_routes()
        await self._table.load(rules.to_text())
        try:
            self._forwarding.switch_on(routes, rules.needs_uplink)
        except LocalError as error:
            if str(error) != self._said:
                LOG.warning("stock devices are not reached, nor what is behind members: %s", error)
                self._said = str(error)

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


def _load(path: Path) -> dict[str, str]:
    """What the switches were, by their paths."""
    found = (read_kept(path) or {}).items()
    return {name: str(value) for name, value in found if _SWITCH.fullmatch(name) and str(value) in {"0", "1", "2"}}


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
        whole = "net.ipv4.ip_forward" if path.startswith("ipv4/") else name  # what interfaces made later begin with
        raise LocalError(
            f"cannot set {name} to {value} ({error.strerror}): set it in /etc/sysctl.d, or start the container with"
            f" '--sysctl {whole}={value}'"
        ) from error


def _forwarding_ipv6() -> list[Path]:
    """The switches of single interfaces that are on."""
    paths = [path for path in (_SYSCTL / "ipv6/conf").glob("*/forwarding") if path.parent.name != "all"]
    return [path for path in paths if path.read_text().strip() == "1"]
