"""What a host's interfaces are to a member: addresses others may try, the network it is on, and where to use mDNS."""

import struct
from collections.abc import Collection
from dataclasses import dataclass, field

from wgdisco.endpoint import LINK_LOCAL, LOOPBACK, SITE_LOCAL, IPAddress, IPNetwork, in_any

# to offer a tunnel's addresses would put tunnels into tunnels, or in a circle
_TUNNEL_KINDS = frozenset({"wireguard", "tun"})
# ports of a bridge that containers and virtual machines hang on
_GUEST_KINDS = frozenset({"veth", "tun"})

# rtnetlink(7): struct nlmsghdr, and of struct rtmsg the family and the length of the destination's prefix
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BB")
_ROUTE_MESSAGES = frozenset({24, 25})  # RTM_NEWROUTE, RTM_DELROUTE


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `kind` is the kernel's word for a virtual one, None for hardware; `master` the bridge it is in."""

    name: str
    kind: str | None
    is_up: bool
    master: str | None = None


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this host and what is on-link with it.

    Not `settled`: tentative, a duplicate or deprecated (RFC 4862 section 5.5.4).
    """

    interface: str
    address: IPAddress
    network: IPNetwork
    settled: bool = True


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A way out. `gateway` is None on a point-to-point link; `mac` is its hardware address once known."""

    interface: str
    version: int
    gateway: IPAddress | None
    metric: int = 0
    mac: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """Links, addresses and default routes, the best route of either family before the others of it."""

    links: tuple[Link, ...] = ()
    addresses: tuple[LocalAddress, ...] = ()
    routes: tuple[DefaultRoute, ...] = ()

    def default_gateway(self) -> DefaultRoute | None:
        """The best way out, by IPv4 where there is one."""
        return min(self.routes, key=lambda route: route.version, default=None)

    def usable(self) -> tuple[LocalAddress, ...]:
        """The addresses others may try, those of the interfaces that lead out first.

        Left out: interfaces that are down, tunnels, bridges for guests of this host; what does not go beyond this host
        or link, and what is not settled.
        """
        leads_out = [route.interface for route in self.routes]
        served = {link.name for link in self.links if self._is_served(link)}
        found = [
            address
            for address in self.addresses
            if address.interface in served
            and address.settled
            and not in_any(address.address, LOOPBACK)
            and not in_any(address.address, LINK_LOCAL)
        ]
        return tuple(sorted(found, key=lambda address: address.interface not in leads_out))

    def network_id(self, interface: str) -> str | None:
        """What tells the network behind `interface` from others it may be on: its gateway, or without one its prefix.

        None while the gateway's hardware address is not known: it is once something was sent there.
        """
        gateways = [route for route in self.routes if route.interface == interface and route.gateway is not None]
        told = [str(address.network) for address in self.usable() if address.interface == interface]
        if gateways:
            told = [route.mac for route in sorted(gateways, key=lambda route: route.version)[:1] if route.mac]
        return f"{told[0]}@{interface}" if told else None

    def _is_served(self, link: Link) -> bool:
        if not link.is_up or link.kind in _TUNNEL_KINDS:
            return False
        return link.kind != "bridge" or not self._is_for_guests(link)

    def _is_for_guests(self, bridge: Link) -> bool:
        """Whether nothing but guests hang on the bridge, and no way leads out by it."""
        ports = [link for link in self.links if link.master == bridge.name]
        leads_out = any(route.interface == bridge.name for route in self.routes)
        return not leads_out and all(port.kind in _GUEST_KINDS for port in ports)


@dataclass(frozen=True, slots=True)
class MdnsPolicy:
    """`--mdns` (`everywhere`), `--no-mdns` (`nowhere`), `--no-mdns=IF` (`not_on`)."""

    everywhere: bool = False
    nowhere: bool = False
    not_on: tuple[str, ...] = ()


def mdns_interfaces(local: LocalNetwork, policy: MdnsPolicy, met: Collection[str]) -> dict[str, tuple[IPAddress, ...]]:
    """Where to speak mDNS, and our private addresses there: on networks where a member was `met` (their ids), or all.

    Elsewhere strangers would learn that there is a tunnel here.
    """
    found: dict[str, tuple[IPAddress, ...]] = {}
    for one in () if policy.nowhere else local.usable():
        wanted = policy.everywhere or local.network_id(one.interface) in met
        if wanted and one.interface not in policy.not_on and in_any(one.address, SITE_LOCAL):
            found[one.interface] = (*found.get(one.interface, ()), one.address)
    return found


def is_of_interest(messages: bytes) -> bool:
    """Whether what the kernel tells (rtnetlink, one datagram) can change a `LocalNetwork`.

    Routes to less than half of the world do not, and a router may have many of them come and go.
    """
    offset = 0
    while len(messages) - offset >= _HEADER.size:
        size, kind, *_ = _HEADER.unpack_from(messages, offset)
        if size < _HEADER.size + _ROUTE.size or offset + size > len(messages):
            return True  # cut short: look
        _family, prefix_size = _ROUTE.unpack_from(messages, offset + _HEADER.size)
        if kind not in _ROUTE_MESSAGES or prefix_size <= 1:
            return True
        offset += size + 3 & ~3
    return False
