"""A network as a value: routers and hosts, what is behind what, and under which addresses the Internet sees them."""

from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from wgdisco.endpoint import IPAddress, IPNetwork
from wgdisco.lab.nat_types import NatType

Interface = IPv4Interface | IPv6Interface


def interfaces(*texts: str) -> tuple[Interface, ...]:
    """Addresses with their prefix lengths."""
    return tuple(map(ip_interface, texts))


@dataclass(frozen=True, slots=True)
class Router:
    """A router with a NAT or a firewall. Its outside interface is `wan`, at the Internet or in `parent`'s LAN.

    `rules` are nft rules beside its type's, with the same words. `spare` are outside addresses it may move to.
    """

    name: str
    nat_type: NatType
    wan: tuple[Interface, ...]
    lan: tuple[Interface, ...]
    parent: str | None = None
    rules: str = ""
    spare: tuple[Interface, ...] = ()


@dataclass(frozen=True, slots=True)
class Uplink:
    """One interface of a host: in a router's LAN, or (None) at the Internet itself."""

    router: str | None
    addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A host. Its interfaces are eth0, eth1, …; the default routes go by the first."""

    name: str
    uplinks: tuple[Uplink, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Routers, parents before children, and hosts."""

    routers: tuple[Router, ...]
    leaves: tuple[Leaf, ...]
    _routers: dict[str, Router] = field(init=False, repr=False, compare=False)
    _leaves: dict[str, Leaf] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_routers", {router.name: router for router in self.routers})
        object.__setattr__(self, "_leaves", {leaf.name: leaf for leaf in self.leaves})

    def router(self, name: str) -> Router:
        """By name."""
        return self._routers[name]

    def leaf(self, name: str) -> Leaf:
        """By name."""
        return self._leaves[name]

    def at_internet(self) -> list[tuple[str, str, tuple[IPNetwork, ...]]]:
        """What hangs at the Internet itself: the host or router, its interface, and the networks to be found there."""
        found = []
        for router in self.routers:
            if router.parent is None:
                found.append((router.name, "wan", (*_exact(router.wan + router.spare), *self._passed_on(router))))
        for leaf in self.leaves:
            for number, uplink in enumerate(leaf.uplinks):
                if uplink.router is None:
                    found.append((leaf.name, f"eth{number}", _exact(uplink.addresses)))
        return found

    def outside(self, host: str) -> tuple[IPAddress, ...]:
        """The addresses a host's packets may carry at the Internet: those of its first uplink come first."""
        links = self.leaf(host).uplinks
        return tuple(address for link in links for own in link.addresses for address in self._outside(own, link.router))

    def behind(self, router: str) -> list[Router]:
        """Routers whose outside is in this one's LAN."""
        return [other for other in self.routers if other.parent == router]

    def hosts_of(self, router: str) -> list[tuple[Leaf, int]]:
        """Hosts with an interface in this router's LAN, and its number."""
        return [
            (leaf, number)
            for leaf in self.leaves
            for number, uplink in enumerate(leaf.uplinks)
            if uplink.router == router
        ]

    def _outside(self, own: Interface, behind: str | None) -> list[IPAddress]:
        if behind is None:
            return [own.ip]
        router = self.router(behind)
        if own.version == 6 or not router.nat_type.translates:  # IPv6 is never translated
            return self._outside(own, router.parent)
        same = [wan for wan in router.wan + router.spare if wan.version == own.version]
        return [address for wan in same for address in self._outside(wan, router.parent)]

    def _passed_on(self, router: Router) -> list[IPNetwork]:
        """Networks inside that are routed rather than hidden."""
        inside = [lan.network for lan in router.lan if lan.version == 6 or not router.nat_type.translates]
        return inside + [network for child in self.behind(router.name) for network in self._passed_on(child)]


def _exact(addresses: tuple[Interface, ...]) -> tuple[IPNetwork, ...]:
    return tuple(ip_interface(address.ip).network for address in addresses)
