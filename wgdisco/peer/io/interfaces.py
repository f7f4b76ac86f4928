"""The host's own addresses and ways out, over netlink, and when they change."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.machine import boot_time
from wgdisco.peer.interfaces import DefaultRoute, Link, LocalAddress, LocalNetwork, is_of_interest

# What comes within this time of a change is part of it (seconds)
DEBOUNCE = 0.004
# When changes do not cease for CALM_TIME, looks after the first QUICK_LOOKS are ever further apart, up to DEBOUNCE_MAX
QUICK_LOOKS = 20
DEBOUNCE_MAX = 0.5
CALM_TIME = 1.0

_IFF_UP, _IFF_RUNNING = 0x1, 0x40
# IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE
_IFA_UNSETTLED = 0x08 | 0x20 | 0x40
_RT_TABLE_MAIN = 254
# Default routes are told first; a router with all of the Internet's has them among these
_ROUTES_MAX = 256
# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_MESSAGES_MAX_SIZE = 65536


async def local_addresses(without: str | None = None) -> frozenset[IPAddress]:
    """Every address on every interface of this host's network namespace, but for the interface `without`."""
    found: set[IPAddress] = set()
    async with AsyncIPRoute() as netlink:
        left_out = await netlink.link_lookup(ifname=without) if without is not None else ()
        async for message in await netlink.addr("dump"):
            text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
            if text and message["index"] not in left_out:
                found.add(parse_address(text))
    return frozenset(found)


async def local_network(without: str | None = None) -> LocalNetwork:
    """What there is now, interface `without` (the tunnel's own) left out."""
    async with AsyncIPRoute() as netlink:
        messages = [message async for message in await netlink.link("dump")]
        names = {message["index"]: message.get("IFLA_IFNAME") for message in messages}
        links = tuple(_link(message, names) for message in messages if names[message["index"]] != without)
        known = {link.name for link in links}
        addresses = []
        async for message in await netlink.addr("dump"):
            address = _address(message, names)
            if address is not None and address.interface in known:
                addresses.append(address)
        macs = await _macs(netlink, names)
    routes = [
        route
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in await _default_routes(family, names)
        if route.interface in known
    ]
    routes = [replace(route, mac=macs.get((route.interface, str(route.gateway)))) for route in routes]
    return LocalNetwork(links, tuple(addresses), tuple(sorted(routes, key=lambda route: route.metric)))


async def watch(without: str | None = None) -> AsyncIterator[LocalNetwork]:
    """What there is now, and again whenever the usable addresses or default routes are others.

    That is 4 ms after the first change of several. Links and addresses that nobody can use come and go unheard.
    """
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, _GROUPS))
        loop.add_reader(netlink, _receive, netlink, changed)
        try:
            last = await local_network(without)
            yield last
            looks, looked_at = 0, boot_time()
            while True:
                await changed.wait()
                looks = 0 if boot_time() - looked_at > CALM_TIME else looks + 1
                slower = 2.0 ** min(max(0, looks - QUICK_LOOKS), 16)
                await asyncio.sleep(min(DEBOUNCE * slower, DEBOUNCE_MAX))
                changed.clear()
                looked_at = boot_time()
                try:
                    now = await local_network(without)
                except (NetlinkError, OSError):
                    # it changed while we looked: look again
                    changed.set()
                    continue
                if (now.usable(), now.routes) != (last.usable(), last.routes):
                    yield now
                last = now
        finally:
            loop.remove_reader(netlink)


def _receive(netlink: socket.socket, changed: asyncio.Event) -> None:
    try:
        while True:
            if is_of_interest(netlink.recv(_MESSAGES_MAX_SIZE)):
                changed.set()
    except BlockingIOError:
        pass
    except OSError:
        # ENOBUFS: more was told than had room
        changed.set()


def _link(message: Any, names: dict[int, str]) -> Link:
    info = message.get("IFLA_LINKINFO")
    is_up = message["flags"] & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING
    kind = None if info is None else info.get("IFLA_INFO_KIND")
    return Link(names[message["index"]], kind, is_up, names.get(message.get("IFLA_MASTER") or 0))


def _address(message: Any, names: dict[int, str]) -> LocalAddress | None:
    text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
    interface = names.get(message["index"])
    if not text or interface is None:
        return None
    flags = message.get("IFA_FLAGS") or message["flags"]
    network = ip_network((text, message["prefixlen"]), strict=False)
    return LocalAddress(interface, parse_address(text), network, not flags & _IFA_UNSETTLED)


async def _default_routes(family: int, names: dict[int, str]) -> list[DefaultRoute]:
    found = []
    told = 0
    # a socket of its own: the kernel refuses another question (EBUSY) where an answer was not heard out
    async with AsyncIPRoute() as netlink:
        async for message in await netlink.route("dump", family=family, table=_RT_TABLE_MAIN):
            told += 1
            if told > _ROUTES_MAX:
                break
            if message["dst_len"] == 0 and message["table"] == _RT_TABLE_MAIN:
                found += _ways(message, names, 4 if family == socket.AF_INET else 6)
    return found


def _ways(message: Any, names: dict[int, str], version: int) -> list[DefaultRoute]:
    """The next hops of a default route: one, or those of a multipath route."""
    hops = message.get("RTA_MULTIPATH") or [message]
    ways = []
    for hop in hops:
        interface = names.get(hop.get("RTA_OIF") or hop.get("oif") or 0)
        via = hop.get("RTA_VIA")
        gateway = hop.get("RTA_GATEWAY") or (via.get("addr") if isinstance(via, dict) else None)
        if interface is not None:
            address = parse_address(gateway) if gateway else None
            ways.append(DefaultRoute(interface, version, address, message.get("RTA_PRIORITY") or 0))
    return ways


async def _macs(netlink: Any, names: dict[int, str]) -> dict[tuple[str, str], str]:
    """Hardware addresses of neighbours, by interface and address."""
    found = {}
    async for message in await netlink.neigh("dump"):
        mac, address = message.get("NDA_LLADDR"), message.get("NDA_DST")
        if mac and address and message["ifindex"] in names:
            found[names[message["ifindex"]], str(parse_address(address))] = mac
    return found
