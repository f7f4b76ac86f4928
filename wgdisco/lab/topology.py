"""The lab's network: two hosts behind a NAT each (four if asked), a registry, and a routed core between them.

::

             198.51.100.0/24
      registry .10 .11 ── .1 ┐
                             │
    alice ──── nat-a ─────── core ─────── nat-b ──── bob
       192.0.2.10 wan    .1     .1    wan 203.0.113.10

Further sides are carol (nat-c, 198.18.3.10) and dave (nat-d, 198.18.4.10).

A host behind a NAT has a private address (192.168.1.10, 192.168.2.10, …). With the types that do not translate it has
one of the upper half of its side's public network, routed to it. The core drops what carries a private address, as the
Internet does; it routes rather than bridges, so that TTLs count down as there.

The links are veth: a packet between two of them may be longer than their MTU and without its checksum (offloads).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import Self

from wgdisco.endpoint import SITE_LOCAL
from wgdisco.errors import ConfigError
from wgdisco.lab.capture import Capture
from wgdisco.lab.nat_types import NAT_TYPES, NatType
from wgdisco.lab.world import Host, World

REGISTRY_ADDRESSES = (IPv4Address("198.51.100.10"), IPv4Address("198.51.100.11"))
_REGISTRY_LINK = IPv4Interface("198.51.100.1/24")


@dataclass(frozen=True, slots=True)
class Side:
    """One host, the router in front of it, and the addresses between the core and it."""

    host: str
    router: str
    nat_type: NatType
    core: IPv4Interface
    wan: IPv4Interface
    lan: IPv4Interface
    address: IPv4Interface

    @property
    def outside(self) -> IPv4Address:
        """The address the host's packets carry in the core."""
        return self.wan.ip if self.nat_type.translates else self.address.ip


def _side(host: str, router: str, nat_type: str, public: str, private: str) -> Side:
    """`public` and `private` are the first three octets of the side's networks. ConfigError on an unknown type."""
    if nat_type not in NAT_TYPES:
        raise ConfigError(f"there is no NAT type {nat_type!r}: choose from {', '.join(NAT_TYPES)}")
    translates = NAT_TYPES[nat_type].translates
    return Side(
        host=host,
        router=router,
        nat_type=NAT_TYPES[nat_type],
        core=IPv4Interface(f"{public}.1/25"),
        wan=IPv4Interface(f"{public}.10/25"),
        lan=IPv4Interface(f"{private}.1/24" if translates else f"{public}.129/25"),
        address=IPv4Interface(f"{private}.10/24" if translates else f"{public}.130/25"),
    )


class Lab:
    """The network above, with the two NATs of the given types; a context manager.

    `hosts` has registry, core, nat-a, nat-b, alice and bob. The lab ends with the `with` block, or with this process.
    """

    def __init__(
        self,
        nat_a: str = "eim-other-port",
        nat_b: str = "port-restricted",
        nat_c: str | None = None,
        nat_d: str | None = None,
    ) -> None:
        """Build it; without a type for theirs, there is no carol and no dave.

        ConfigError on an unknown type, LocalError where this machine does not allow it."""
        self.sides = {
            "alice": _side("alice", "nat-a", nat_a, "192.0.2", "192.168.1"),
            "bob": _side("bob", "nat-b", nat_b, "203.0.113", "192.168.2"),
        }
        if nat_c is not None:
            self.sides["carol"] = _side("carol", "nat-c", nat_c, "198.18.3", "192.168.3")
        if nat_d is not None:
            self.sides["dave"] = _side("dave", "nat-d", nat_d, "198.18.4", "192.168.4")
        names = [name for side in self.sides.values() for name in (side.router, side.host)]
        self._world = World(["core", "registry", *names])
        self.hosts = self._world.hosts
        try:
            self._build()
        except BaseException:
            self._world.close()
            raise

    @property
    def identifier(self) -> str:
        """What tells this lab's processes from those of other labs (`world.find_holders`)."""
        return self._world.lab

    def outside(self, host: str) -> IPv4Address:
        """The address `host` (alice, bob or registry) is seen from in the core."""
        return REGISTRY_ADDRESSES[0] if host == "registry" else self.sides[host].outside

    def capture(self) -> Capture:
        """Start recording what the core sends on."""
        return Capture(self.hosts["core"])

    def block_direct(self) -> None:
        """Drop UDP between the two sides in the core from now on: nothing direct can come of that."""
        a, b = self.outside("alice"), self.outside("bob")
        _load(
            self.hosts["core"],
            f"""
            add table ip blocked
            add chain ip blocked forward {{ type filter hook forward priority -10; }}
            add rule ip blocked forward meta l4proto udp ip saddr {a} ip daddr {b} drop
            add rule ip blocked forward meta l4proto udp ip saddr {b} ip daddr {a} drop
            """,
        )

    def unblock_direct(self) -> None:
        """Undo `block_direct`."""
        self.hosts["core"].run(["nft", "delete", "table", "ip", "blocked"])

    def close(self) -> None:
        """End every process of the lab, and with them its namespaces. May be called again."""
        self._world.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        core = _link_lines("registry", "eth0", self.hosts["registry"], _REGISTRY_LINK)
        for side in self.sides.values():
            core += _link_lines(side.router, "wan", self.hosts[side.router], side.core)
            if not side.nat_type.translates:
                core.append(f"route add {side.lan.network} via {side.wan.ip}")
        _load(self.hosts["core"], _CORE_RULES)
        _configure(self.hosts["core"], core, forwards=True)
        _configure(self.hosts["registry"], _leaf_lines(REGISTRY_ADDRESSES, _REGISTRY_LINK))
        for side in self.sides.values():
            router = self.hosts[side.router]
            for rules in side.nat_type.transactions(side.wan.ip):
                _load(router, rules)
            inside = _link_lines("lan", "eth0", self.hosts[side.host], side.lan)
            _configure(router, [*_leaf_lines([side.wan.ip], side.core, "wan"), *inside], forwards=True)
            _configure(self.hosts[side.host], _leaf_lines([side.address.ip], side.lan))


_PRIVATE = ", ".join(str(network) for network in SITE_LOCAL if network.version == 4)
_CORE_RULES = f"""
table ip core {{
    chain forward {{
        type filter hook forward priority 0;
        ip saddr {{ {_PRIVATE} }} drop
        ip daddr {{ {_PRIVATE} }} drop
    }}
}}
"""


def _link_lines(name: str, peer_name: str, peer: Host, address: IPv4Interface) -> list[str]:
    """`ip -batch` lines: a veth `name` with `address` here, whose other end is `peer_name` in host `peer`."""
    return [
        f"link add {name} type veth peer name {peer_name} netns {peer.inner_pid}",
        f"link set {name} addrgenmode none up",  # no IPv6 chatter
        f"addr add {address} dev {name}",
    ]


def _leaf_lines(addresses: Iterable[IPv4Address], gateway: IPv4Interface, link: str = "eth0") -> list[str]:
    """`ip -batch` lines: `addresses` on the link that leads to `gateway`, and the default route."""
    return [
        f"link set {link} addrgenmode none up",
        *(f"addr add {address}/{gateway.network.prefixlen} dev {link}" for address in addresses),
        f"route add default via {gateway.ip}",
    ]


def _configure(host: Host, lines: Iterable[str], forwards: bool = False) -> None:
    text = "\n".join(["link set lo up", *lines]) + "\n"
    host.run(["sh", "-ec", 'echo "$0" >/proc/sys/net/ipv4/ip_forward; exec ip -batch -', str(int(forwards))], text=text)


def _load(host: Host, rules: str) -> None:
    host.run(["nft", "-f", "-"], text=rules)
