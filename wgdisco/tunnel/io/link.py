"""The interface as the system sees it: addresses, MTU, up, and the routes that lead into it.

Over netlink with pyroute2. Its ways, met with here: the synchronous classes refuse to run inside a loop; `dump` gives
an asynchronous iterator.
"""

import errno
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.endpoint import IPNetwork
from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.messages import DEFAULT_MTU
from wgdisco.tunnel.notation import IPInterface

# linux/rtnetlink.h
_RT_TABLE_MAIN = 254
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
        self._routes: list[IPNetwork] = []

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

    async def configure(self, addresses: Sequence[IPInterface], mtu: int | None, networks: Iterable[IPNetwork]) -> None:
        """Set addresses and MTU (None: DEFAULT_MTU), bring the link up, and route `networks` into it.

        Raises ConfigError for a default route, before anything is touched, and LocalError when the system refuses.
        """
        routes = _checked(networks)
        await self.set_mtu(DEFAULT_MTU if mtu is None else mtu)
        for address in addresses:
            await self._add_address(address)
        await self.set_up()
        await self.set_routes(routes)

    async def set_mtu(self, mtu: int) -> None:
        """Set the MTU, in bytes."""
        await self._request(
            f"set the MTU of {self.name} to {mtu}", self._netlink.link("set", index=self.index, mtu=mtu)
        )

    async def set_up(self) -> None:
        """Bring the link up."""
        await self._request(f"bring {self.name} up", self._netlink.link("set", index=self.index, state="up"))

    async def set_routes(self, networks: Iterable[IPNetwork]) -> None:
        """Have routes in the main table for `networks` and for nothing set here before.

        As wg-quick does, a network inside one of the interface's own subnets gets no route: it has one. Raises
        ConfigError for a default route; LocalError when another interface has the same route already.
        """
        connected = [address.network for address in self._addresses]
        wanted = [network for network in _checked(networks) if not _covered(network, connected)]
        keep, have = set(wanted), set(self._routes)
        for network in [network for network in self._routes if network not in keep]:
            await self._delete_route(network)
        missing = [network for network in wanted if network not in have]
        await self._refuse_conflicts(missing)
        for network in missing:
            call = self._netlink.route("add", dst=str(network), oif=self.index, family=_family(network.version))
            await self._request(f"route {network} into {self.name}", call)
            self._routes.append(network)

    async def remove(self) -> None:
        """Take back routes and addresses set here, and let go of netlink. Again, or with the link gone, does nothing.

        The interface itself goes with its TUN descriptor.
        """
        netlink, self._netlink = self._netlink, None
        if netlink is None:
            return
        try:
            for network in self._routes:
                await _if_there(netlink.route("del", dst=str(network), oif=self.index, family=_family(network.version)))
            for address in self._addresses:
                await _if_there(netlink.addr("del", index=self.index, **_address_fields(address)))
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
            raise _refused(f"give {self.name} the address {address}", error) from error
        self._addresses.append(address)

    async def _refuse_conflicts(self, networks: Sequence[IPNetwork]) -> None:
        """Raise LocalError when another interface has a route to exactly one of `networks`."""
        wanted = set(networks)
        for version in {network.version: None for network in networks}:
            try:
                routes = await self._netlink.route("dump", family=_family(version), table=_RT_TABLE_MAIN)
                taken = [route async for route in routes if _destination(route, version) in wanted]
            except NetlinkError as error:
                raise _refused("list the routes", error) from error
            for route in taken:
                index = route.get_attr("RTA_OIF")
                if index == self.index:
                    continue
                network, device = _destination(route, version), await self._device_name(index)
                raise LocalError(
                    f"cannot route {network} into {self.name}: {device} has that route already;"
                    " delete it, or change AllowedIPs"
                )

    async def _delete_route(self, network: IPNetwork) -> None:
        await _if_there(self._netlink.route("del", dst=str(network), oif=self.index, family=_family(network.version)))
        self._routes.remove(network)

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
            raise _refused(what, error) from error


def _checked(networks: Iterable[IPNetwork]) -> list[IPNetwork]:
    """`networks` without repetition; ConfigError for 0.0.0.0/0 or ::/0."""
    unique = list(dict.fromkeys(networks))
    for network in unique:
        if network.prefixlen == 0:
            raise ConfigError(f"AllowedIPs {network}: routing everything through a peer is not supported yet")
    return unique


def _covered(network: IPNetwork, by: Sequence[IPNetwork]) -> bool:
    return any(network.subnet_of(one) for one in by if one.version == network.version)  # type: ignore[arg-type]


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _address_fields(address: IPInterface) -> dict[str, Any]:
    """For adding and deleting. A new IPv6 address can be bound to at once: there is nobody it could clash with."""
    fields = {
        "family": _family(address.version),
        "address": str(address.ip),
        "prefixlen": address.network.prefixlen,
    }
    return fields if address.version == 4 else {**fields, "flags": _IFA_F_NODAD}


def _destination(route: Any, version: int) -> IPNetwork:
    """The network a route message is about; a default route carries no RTA_DST."""
    return ip_network((route.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::"), route["dst_len"]))


async def _if_there(call: Any) -> None:
    """Await a deletion; what is gone already is no error."""
    try:
        await call
    except NetlinkError as error:
        if error.code not in _ALREADY_GONE:
            raise


def _refused(what: str, error: NetlinkError) -> LocalError:
    if error.code in _NO_IPV6:
        return LocalError(f"cannot {what}: IPv6 is switched off here")
    if error.code == errno.EPERM:
        return LocalError(f"no permission to {what}: run as root, or with the capability CAP_NET_ADMIN")
    if error.code == errno.EEXIST:
        return LocalError(f"cannot {what}: it exists already")
    return LocalError(f"cannot {what}: {error.args[1] if len(error.args) > 1 else error}")
