"""The interface's MTU, where no `.conf` gives one: from the routes to the peers' endpoints, and after them.

A path's own, which routers tell, is part of a route here: the kernel keeps it there.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.endpoint import LOOPBACK, Endpoint, IPAddress, in_any, parse_address
from wgdisco.errors import LocalError
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io import netlink
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.path_mtu import mtu_for

LOG = logging.getLogger(__name__)

# Only looked up, never sent to: they are nobody's, so the answer is the default route
_ANYWHERE = (parse_address("192.0.2.1"), parse_address("2001:db8::1"))
_WAYS_MAX = 64
# Endpoints are looked at that often, in seconds; and what changes together is looked at together
_INTERVAL, _PAUSE = 30.0, 2.0
_GROUPS = 0x1 | 0x40 | 0x400  # RTMGRP_ LINK, IPV4_ROUTE, IPV6_ROUTE
_BUFFER_SIZE = 65536


async def path_mtu(endpoints: Iterable[Endpoint | None], mark: int = 0, without: int | None = None) -> int:
    """For an interface whose peers are there, WireGuard's datagrams bearing `mark`; for the default route without any.

    Ways through the link of index `without` do not count.
    """
    addresses = {endpoint.address for endpoint in endpoints if endpoint is not None}
    outside = list(islice((one for one in addresses if not in_any(one, LOOPBACK)), _WAYS_MAX))
    async with AsyncIPRoute() as asked:
        ways = [await _way(asked, address, mark, without) for address in outside or _ANYWHERE[:1]]
        if not any(ways):
            ways = [await _way(asked, address, mark, without) for address in _ANYWHERE]
    return mtu_for(way for way in ways if way is not None)


async def _way(asked: Any, address: IPAddress, mark: int, without: int | None) -> int | None:
    try:
        (route, *_) = await asked.route("get", dst=str(address).partition("%")[0], **({"mark": mark} if mark else {}))
        index = route.get_attr("RTA_OIF")
        if index is None or index == without:
            return None
        metrics = route.get_attr("RTA_METRICS")
        mtu = None if metrics is None else metrics.get_attr("RTAX_MTU")
        return int(mtu or (await asked.link("get", index=index))[0].get_attr("IFLA_MTU"))
    except (NetlinkError, ValueError):
        return None


async def conf_mtu(conf: TunnelConf) -> int:
    """What the `.conf` says, or the path, before the interface is there."""
    return await path_mtu(peer.endpoint for peer in conf.device.peers) if conf.mtu is None else conf.mtu


@asynccontextmanager
async def kept_to_path(
    link: Link, status: Callable[[], DeviceStatus], conf: TunnelConf, mtu: int
) -> AsyncIterator[None]:
    """While this lasts, the link's MTU, `mtu` now, goes with routes and endpoints; not where the `.conf` gives one."""
    if conf.mtu is not None:
        yield
        return
    following = asyncio.ensure_future(_follow(link, status, mtu))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow(link: Link, status: Callable[[], DeviceStatus], mtu: int) -> None:
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    before: frozenset[IPAddress] = frozenset()
    with netlink.opened(_GROUPS) as monitor:
        monitor.setblocking(False)
        loop.add_reader(monitor, _drain, monitor, changed)
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL):
                        await changed.wait()
                await asyncio.sleep(_PAUSE)
                device = status()
                endpoints = [peer.endpoint for peer in device.peers]
                addresses = frozenset(endpoint.address for endpoint in endpoints if endpoint is not None)
                if not changed.is_set() and addresses == before:
                    continue
                changed.clear()
                before = addresses
                try:
                    found = await path_mtu(endpoints, device.fwmark, link.index)
                except (OSError, NetlinkError):
                    continue  # no descriptors, or the like; another time
                if found != mtu:
                    mtu = found
                    await _set(link, mtu)
        finally:
            loop.remove_reader(monitor)


async def _set(link: Link, mtu: int) -> None:
    try:
        await link.set_mtu(mtu)
    except LocalError as error:
        LOG.warning("%s", error)
    else:
        LOG.info("mtu", extra={"fields": {"interface": link.name, "mtu": mtu}})


def _drain(monitor: socket.socket, changed: asyncio.Event) -> None:
    changed.set()
    try:
        while monitor.recv(_BUFFER_SIZE):
            pass
    except OSError:
        pass  # all is read, or (ENOBUFS) there was more than it could hold
