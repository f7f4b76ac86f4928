"""What is behind this host, open to the tunnel: our nft table, and the switches of forwarding."""

import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.endpoint import IPNetwork
from wgdisco.offers import overlaps
from wgdisco.tunnel.io.forwarding import Forwarding, default_routes
from wgdisco.tunnel.io.link import refused
from wgdisco.tunnel.io.nft import Table
from wgdisco.tunnel.nft import gateway_rules
from wgdisco.tunnel.policy import MAIN_TABLE


class Gateway:
    """Of an interface. Make it with `gateway`; until it is told of subnets nothing from the tunnel is forwarded."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._table = Table(interface)
        self._forwarding = Forwarding(interface)

    async def apply(self, subnets: Sequence[IPNetwork]) -> None:
        """Forward to these, default routes standing for the Internet, and to nothing else; LocalError as ever."""
        await self._table.load(gateway_rules(self._interface, subnets))
        if not subnets:
            await self._forwarding.restore()
            return
        routes = [route for route in await default_routes() if route.interface != self._interface]
        through = await _interfaces_towards(
            network for network in subnets if network.prefixlen and network.version == 4
        )
        is_exit = any(not network.prefixlen for network in subnets)
        versions = {network.version for network in subnets}
        self._forwarding.switch_on(routes, is_exit, through - {self._interface}, versions)

    async def close(self) -> None:
        """Stop forwarding, then take the rules out."""
        try:
            await self._forwarding.restore()
        finally:
            await self._table.remove()


@asynccontextmanager
async def gateway(interface: str) -> AsyncIterator[Gateway]:
    """A gateway that is closed as yet; nothing of it is left at the end of the block."""
    it = Gateway(interface)
    try:
        await it.apply(())
        yield it
    finally:
        await it.close()


async def _interfaces_towards(networks: Iterable[IPNetwork]) -> set[str]:
    """Those by which packets for any part of these go over IPv4, and answers come; default routes left out."""
    wanted = [network for network in networks if network.version == 4]
    found = set()
    async with AsyncIPRoute() as netlink:
        try:
            routes = await netlink.route("dump", family=socket.AF_INET, table=MAIN_TABLE)
            indices = {
                route.get_attr("RTA_OIF")
                async for route in routes
                if route["dst_len"]
                and overlaps(ip_network((route.get_attr("RTA_DST") or "0.0.0.0", route["dst_len"])), wanted)
            }
            for index in indices - {None}:
                found.add(str((await netlink.link("get", index=index))[0].get_attr("IFLA_IFNAME")))
        except NetlinkError as error:
            raise refused("list the routes", error) from error
    return found
