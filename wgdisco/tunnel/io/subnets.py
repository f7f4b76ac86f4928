"""What is behind peers, led into the interface while it is up, as `policy` has it for default routes."""

from collections.abc import Sequence

from wgdisco.endpoint import IPNetwork
from wgdisco.machine import has_ipv6
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.policy import Policy
from wgdisco.tunnel.notation import IPInterface


class SubnetRoutes:
    """Of an interface with `addresses`; whoever made it calls `close` in the end. Any call may raise LocalError."""

    def __init__(self, interface: str, addresses: Sequence[IPInterface]) -> None:
        self._interface = interface
        self._addresses = addresses
        self._policy = Policy(interface)
        self._link: Link | None = None
        self._mark = 0
        self._versions: frozenset[int] = frozenset()

    async def mark(self) -> int:
        """The mark that the device's own datagrams must bear before `set` is given anything."""
        if not self._mark:
            self._mark = await self._policy.mark(0)
        return self._mark

    async def set(self, networks: Sequence[IPNetwork]) -> None:
        """Have these lead into the interface, and nothing else that did before."""
        wanted = tuple(network for network in dict.fromkeys(networks) if network.version == 4 or has_ipv6())
        versions = frozenset(network.version for network in wanted)
        if self._link is None:
            if not wanted:
                return
            self._link = await Link.open(self._interface)
        if versions != self._versions:
            await self._policy.close()
            self._versions = frozenset()
            await self._policy.open(self._link, wanted, await self.mark(), self._addresses)
            self._versions = versions
        await self._link.set_routes(wanted, await self.mark())

    async def close(self) -> None:
        """Take all of it back."""
        self._versions = frozenset()
        try:
            await self._policy.close()
        finally:
            if self._link is not None:
                await self._link.remove()
                self._link = None
