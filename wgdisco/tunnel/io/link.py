"""The interface as the system sees it: addresses, MTU, up, and the routes that lead into it.

Over netlink with pyroute2. Its ways, met with here: the synchronous classes refuse to run inside a loop; `dump` gives
an asynchronous iterator.
"""

import errno
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_interface, ip_network
from typing import Any, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.endpoint import IPNetwork, parse_address
from wgdisco.errors import LocalError
from wgdisco.tunnel.messages import DEFAULT_MTU
from wgdisco.tunnel.notation import IPInterface
from wgdisco.tunnel.policy import MAIN_TABLE

_IFA_F_NODAD = 2  # linux/if_addr.h

_ALREADY_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO, errno.ENOENT})
_NO_IPV6 = frozenset({errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})


class Link:
    """One interface, by its index: a rename does not matter."""

    def __init__(self, netlink: Any, name: str, index: int) -> None:
        self._netlink = netlink
        self.name = name
        self.index = index
        self._addresses: list[IPInterface] = []
        self._routes: list[tuple[IPNetwork, int]] = []  # with their tables

    @classmethod
    async def open(cls, name: str) -> Self:
        """The existing interface `name`; LocalError when there is none."""
        netlink = AsyncIPRoute()
        try:
            await netlink.setup_endpoint()
            found = await netlink.link_lookup(ifname=name)
            if not found:
                raise LocalError(f"there is no interface {name}")
            return cls(netlink, name, found[0])
        except BaseException:
            netlink.close()
            raise

    async def configure(
        self, addresses: Sequence[IPInterface], mtu: int | None, networks: Iterable[IPNetwork], table: int = MAIN_TABLE
    ) -> None:
        """Set addresses and MTU (None: DEFAULT_MTU), bring the link up, and route `networks` into it, as `set_routes`.

        Raises LocalError when the system refuses.
        """
        await self.set_mtu(DEFAULT_MTU if mtu is None else mtu)
        for address in addresses:
            await self._add_address(address)
        await self.set_up()
        await self.set_routes(networks, table)

    async def set_mtu(self, mtu: int) -> None:
        """Set the MTU, in bytes."""
        await self._request(
            f"set the MTU of {self.name} to {mtu}", self._netlink.link("set", index=self.index, mtu=mtu)
        )

    async def set_up(self) -> None:
        """Bring the link up."""
        await self._request(f"bring {self.name} up", self._netlink.link("set", index=self.index, state="up"))

    async def set_routes(self, networks: Iterable[IPNetwork], table: int = MAIN_TABLE) -> None:
        """Have routes in `table` for `networks` and for nothing set there before.

        As wg-quick does, a network inside one of the interface's own subnets gets no route in the main table: it has
        one. Raises LocalError when another interface has the same route already.
        """
        connected = [address.network for address in self._addresses] if table == MAIN_TABLE else []
        wanted = [network for network in dict.fromkeys(networks) if not _covered(network, connected)]
        have = {network for network, where in self._routes if where == table}
        for network in have - set(wanted):
            await if_there(self._netlink.route("del", **self._route(network, table)))
            self._routes.remove((network, table))
        missing = [network for network in wanted if network not in have]
        await self._refuse_conflicts(missing, table)
        for network in missing:
            call = self._netlink.route("add", **self._route(network, table))
            await self._request(f"route {network} into {self.name}", call)
            self._routes.append((network, table))

    async def remove(self) -> None:
        """Take back routes and addresses set here, and let go of netlink. Again, or with the link gone, does nothing.

        The interface itself goes with its TUN descriptor.
        """
        netlink, self._netlink = self._netlink, None
        if netlink is None:
            return
        try:
            for network, table in self._routes:
                await if_there(netlink.route("del", **self._route(network, table)))
            for address in self._addresses:
                await if_there(netlink.addr("del", index=self.index, **_address_fields(address)))
        finally:
            self._routes.clear()
            self._addresses.clear()
            netlink.close()

    async def _add_address(self, address: IPInterface) -> None:
        try:
            await self._netlink.addr("add", index=self.index, **_address_fields(address))
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return  # a persistent interface that has it: not ours to take away later
            raise refused(f"give {self.name} the address {address}", error) from error
        self._addresses.append(address)

    async def _refuse_conflicts(self, networks: Sequence[IPNetwork], table: int) -> None:
        """Raise LocalError when another interface has a route in `table` to exactly one of `networks`."""
        wanted = set(networks)
        for version in {network.version: None for network in networks}:
            try:
                routes = await self._netlink.route("dump", family=family(version), table=table)
                taken = [route async for route in routes if _destination(route, version) in wanted]
            except NetlinkError as error:
                raise refused("list the routes", error) from error
            for route in taken:
                index = route.get_attr("RTA_OIF")
                if index == self.index:
                    continue
                network, device = _destination(route, version), await self._device_name(index)
                raise LocalError(
                    f"cannot route {network} into {self.name}: {device} has that route already;"
                    " delete it, or change AllowedIPs"
                )

    def _route(self, network: IPNetwork, table: int) -> dict[str, Any]:
        return {"dst": str(network), "oif": self.index, "family": family(network.version), "table": table}

    async def _device_name(self, index: int | None) -> str:
        if index is None:
            return "another route"
        try:
            return str((await self._netlink.link("get", index=index))[0].get_attr("IFLA_IFNAME"))
        except NetlinkError:
            return f"interface {index}"

    async def _request(self, what: str, call: Any) -> None:
        try:
            await call
        except NetlinkError as error:
            raise refused(what, error) from error


async def addresses_of(name: str) -> tuple[IPInterface, ...]:
    """An interface's own addresses, link-local ones left out; LocalError when there is none of that name."""
    found = []
    async with AsyncIPRoute() as netlink:
        index = await netlink.link_lookup(ifname=name)
        if not index:
            raise LocalError(f"there is no interface {name}")
        async for message in await netlink.addr("dump", index=index[0]):
            text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
            if text:
                found.append(ip_interface((parse_address(text), message["prefixlen"])))
    return tuple(address for address in found if not address.is_link_local)


async def mtu_of(name: str) -> int:
    """An interface's MTU, in bytes; LocalError when there is none of that name."""
    async with AsyncIPRoute() as netlink:
        index = await netlink.link_lookup(ifname=name)
        if not index:
            raise LocalError(f"there is no interface {name}")
        return int((await netlink.link("get", index=index[0]))[0].get_attr("IFLA_MTU"))


def _covered(network: IPNetwork, by: Sequence[IPNetwork]) -> bool:
    return any(network.subnet_of(one) for one in by if one.version == network.version)  # type: ignore[arg-type]


def family(version: int) -> int:
    """The address family of an IP version."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _address_fields(address: IPInterface) -> dict[str, Any]:
    """For adding and deleting. A new IPv6 address can be bound to at once: there is nobody it could clash with."""
    fields = {
        "family": family(address.version),
        "address": str(address.ip),
        "prefixlen": address.network.prefixlen,
    }
    return fields if address.version == 4 else {**fields, "flags": _IFA_F_NODAD}


def _destination(route: Any, version: int) -> IPNetwork:
    """The network a route message is about; a default route carries no RTA_DST."""
    return ip_network((route.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::"), route["dst_len"]))


async def if_there(call: Any) -> None:
    """Await a deletion; what is gone already is no error."""
    try:
        await call
    except NetlinkError as error:
        if error.code not in _ALREADY_GONE:
            raise


def refused(what: str, error: NetlinkError) -> LocalError:
    """What to tell when the kernel does not let us do `what`."""
    if error.code in _NO_IPV6:
        return LocalError(f"cannot {what}: IPv6 is switched off here")
    if error.code == errno.EPERM:
        return LocalError(f"no permission to {what}: run as root, or with the capability CAP_NET_ADMIN")
    if error.code == errno.EEXIST:
        return LocalError(f"cannot {what}: it exists already")
    return LocalError(f"cannot {what}: {error.args[1] if len(error.args) > 1 else error}")
