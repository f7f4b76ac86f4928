"""Our own nftables table as text: what the registry forwards between its peers, and what a member lets in.

One table an interface, replaced as a whole in one transaction: there is no moment with half of the rules, and none
without. An accept here overrides nobody's drop elsewhere (`firewall.py`); a drop here is final.

A packet from peer to peer costs one look-up of its source (a verdict map) and one of its destination for each group
that the source is in, however many peers and groups there are.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wgdisco.endpoint import LINK_LOCAL, SITE_LOCAL, IPAddress, IPNetwork

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_LINK_LOCAL = {4: "169.254.0.0/16", 6: "fe80::/10"}
_FAMILY = {4: "ip", 6: "ip6"}
# What an exit does not lead to: its own site and link
_NOT_INTERNET = {
    version: [str(network) for network in SITE_LOCAL + LINK_LOCAL if network.version == version] for version in (4, 6)
}


@dataclass(frozen=True, slots=True)
class HubHost:
    """A peer as the hub sees it: its own addresses, its groups, and whether it sends everything through the hub.

    `subnets` are behind it, and no other peer's.
    """

    addresses: tuple[IPAddress, ...]
    groups: tuple[str, ...]
    full_tunnel: bool = False
    subnets: tuple[IPNetwork, ...] = ()

    def elements(self, version: int) -> list[str]:
        """All that is sent to it and comes from it."""
        return [str(one) for one in (*self.addresses, *self.subnets) if one.version == version]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who is being enrolled may speak to `address`, TCP `port`, and to nothing else; `peers` are their addresses."""

    peers: IPNetwork
    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class HubRules:
    """What the registry's table is made of.

    `own` are the registry's addresses in the tunnel. What comes from outside for UDP `also_ports` is taken as for the
    device's own `port`. `uplinks` has the interfaces of the default routes, by IP version;
    without one, full-tunnel peers get nowhere with that version. `beside` is the interface of another WireGuard whose
    peers are becoming ours: it forwards to us and we to it, and hears of no new handshakes.
    """

    interface: str
    hosts: tuple[HubHost, ...] = ()
    own: tuple[IPAddress, ...] = ()
    enrolment: Enrolment | None = None
    uplinks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    port: int = 0
    also_ports: tuple[int, ...] = ()
    beside: str | None = None

    @property
    def needs_uplink(self) -> bool:
        """Whether any peer's traffic leaves the tunnel here."""
        return any(host.full_tunnel for host in self.hosts)

    def to_text(self) -> str:
        """Input of `nft -f`: replaces the table of this interface, whether or not there is one."""
        body = [
            *self._sets(),
            *self._classes(),
            *_chain("forward", "type filter hook forward priority filter; policy accept;", self._forward()),
            *_chain("clamp", "type filter hook forward priority mangle; policy accept;", self._clamp()),
            *_chain("input", "type filter hook input priority filter; policy accept;", self._input()),
            *self._redirect(),
            *_chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", self._masquerade()),
        ]
        return _table(self.interface, body)

    def _group_numbers(self) -> dict[str, int]:
        """Groups by number: their names are the operator's, and may be anything."""
        groups = dict.fromkeys(group for host in self.hosts for group in host.groups)
        return {group: number for number, group in enumerate(groups)}

    def _sets(self) -> list[str]:
        lines = []
        numbers = self._group_numbers()
        for version in (4, 6):
            members: dict[int, list[str]] = {number: [] for number in numbers.values()}
            full: list[str] = []
            for host in self.hosts:
                for group in dict.fromkeys(host.groups):
                    members[numbers[group]] += host.elements(version)
                full += [str(one) for one in host.addresses if host.full_tunnel and one.version == version]
            for number, elements in members.items():
                lines += _set(f"group{number}_{version}", version, elements)
            lines += _set(f"full{version}", version, full)
        return lines

    def _classes(self) -> list[str]:
        """For each class a chain that accepts what goes to one of its groups; then who is of which class."""
        lines = []
        numbers = self._group_numbers()
        groups_of = [tuple(sorted({numbers[group] for group in host.groups})) for host in self.hosts]
        classes = {groups: number for number, groups in enumerate(dict.fromkeys(groups_of))}
        for groups, number in classes.items():
            rules = [
                f"{_FAMILY[version]} daddr @group{group}_{version} accept" for group in groups for version in (4, 6)
            ]
            lines += _chain(f"class{number}", "", rules)
        for version in (4, 6):
            elements = [
                f"{element} : jump class{classes[groups]}"
                for host, groups in zip(self.hosts, groups_of, strict=True)
                for element in host.elements(version)
            ]
            head = [f"type {_type(version)} : verdict;", *_flags(elements), *_elements(elements)]
            lines += _block(f"map class_of{version}", head)
        return lines

    def _forward(self) -> list[str]:
        into, out_of = f"oifname {_quoted(self.interface)}", f"iifname {_quoted(self.interface)}"
        rules = [f"{out_of} {into} {_FAMILY[version]} saddr vmap @class_of{version}" for version in (4, 6)]
        if self.beside is not None:
            both = f"iifname {self._inside()} oifname {self._inside()}"
            rules = [f"{both} {_FAMILY[version]} saddr vmap @class_of{version}" for version in (4, 6)]
        for version in (4, 6):
            uplinks = self.uplinks.get(version, ())
            if uplinks and self.needs_uplink:
                names, family = _names(uplinks), _FAMILY[version]
                # Link-local is the registry's own business: a cloud's metadata service gives out credentials there.
                rules += [
                    f"{out_of} {family} daddr {_LINK_LOCAL[version]} counter drop",
                    f"{out_of} oifname {names} {family} saddr @full{version} accept",
                    f"{into} iifname {names} {family} daddr @full{version} ct state established,related accept",
                ]
        return [*rules, f"{out_of} counter drop", f"{into} counter drop"]

    def _clamp(self) -> list[str]:
        clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
        return [f"{direction} {_quoted(self.interface)} {clamp}" for direction in ("iifname", "oifname")]

    def _input(self) -> list[str]:
        rules = []
        interface, inside = _quoted(self.interface), self._inside()
        # Nobody speaks to our addresses in the tunnel from outside of it (Linux takes them on any interface).
        own = [*self.own, *([self.enrolment.address] if self.enrolment else [])]
        rules += [
            f"iifname != {inside} {_FAMILY[address.version]} daddr {address} fib saddr type != local counter drop"
            for address in own
        ]
        if self.beside is not None:
            # an initiation to it as well as to us: the peer would keep the session that was answered first
            rules.append(f"udp dport {self.port} @th,64,8 1 counter drop")
        if self.enrolment is not None:
            it = self.enrolment
            family = _FAMILY[it.address.version]
            peers = f"iifname {interface} {family} saddr {it.peers}"
            rules += [f"{peers} {family} daddr {it.address} tcp dport {it.port} accept", f"{peers} counter drop"]
        return rules

    def _inside(self) -> str:
        """The interfaces that our peers come in by."""
        return _quoted(self.interface) if self.beside is None else _names((self.interface, self.beside))

    def _redirect(self) -> list[str]:
        """The host's own traffic, and what is only passing through, keep their ports."""
        if not self.also_ports:
            return []
        ports = ", ".join(map(str, self.also_ports))
        outside = f'iifname != {{ {_quoted(self.interface)}, "lo" }} fib daddr type local'
        rule = f"{outside} udp dport {{ {ports} }} redirect to :{self.port}"
        return _chain("prerouting", "type nat hook prerouting priority dstnat; policy accept;", [rule])

    def _masquerade(self) -> list[str]:
        return [
            f"oifname {_names(self.uplinks[version])} {_FAMILY[version]} saddr @full{version} masquerade"
            for version in (4, 6)
            if self.uplinks.get(version) and self.needs_uplink
        ]


def table_name(interface: str) -> str:
    """The name of our table for an interface: `wgdisco_IFACE`, of family inet."""
    return f"wgdisco_{_UNFIT.sub('_', interface)}"


def remove_table(interface: str) -> str:
    """Input of `nft -f` that leaves no table of ours for this interface, whether or not there is one."""
    name = table_name(interface)
    return f"table inet {name}\ndelete table inet {name}\n"


def block_incoming_rules(interface: str) -> str:
    """Input of `nft -f` for a member that opens connections to others and lets none in; it still answers pings."""
    name = _quoted(interface)
    rules = [
        f"iifname {name} ct state established,related accept",
        f"iifname {name} icmp type {{ echo-request, destination-unreachable, time-exceeded }} accept",
        f"iifname {name} icmpv6 type {{ echo-request, destination-unreachable, packet-too-big }} accept",
        f"iifname {name} counter drop",
    ]
    both = _chain("input", "type filter hook input priority filter; policy accept;", rules)
    forward = [f"iifname {name} ct state != {{ established, related }} counter drop"]
    both += _chain("forward", "type filter hook forward priority filter; policy accept;", forward)
    return _table(interface, both)


def gateway_rules(interface: str, subnets: Iterable[IPNetwork]) -> str:
    """Input of `nft -f` for a member behind which are `subnets` (with a default route: the Internet); it replaces them.

    Nothing else that comes out of the tunnel is forwarded, but answers, and what the host itself led elsewhere. What
    gets through leaves under this host's address: nobody behind it needs a route back.
    """
    name, subnets = _quoted(interface), list(subnets)
    out_of, away = f"iifname {name}", f"iifname {name} oifname != {name}"
    passing = []
    for network in subnets:
        family = _FAMILY[network.version]
        if network.prefixlen:
            passing.append(f"{away} {family} daddr {network}")
        else:
            passing.append(f"{away} {family} daddr != {{ {', '.join(_NOT_INTERNET[network.version])} }}")
    forward = [
        f"{out_of} ct direction reply ct state established,related accept",
        f"{out_of} ct status dnat accept",
        *(f"{one} accept" for one in passing),
        f"{out_of} counter drop",
    ]
    clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
    body = _chain("forward", "type filter hook forward priority filter; policy accept;", forward)
    body += _chain(
        "clamp",
        "type filter hook forward priority mangle; policy accept;",
        [f"{direction} {name} {clamp}" for direction in ("iifname", "oifname")] if subnets else [],
    )
    masquerade = ["ct status dnat return", *(f"{one} masquerade" for one in passing)]
    body += _chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", masquerade)
    return _table(interface, body)


def full_tunnel_rules(interface: str, mark: int, addresses: Iterable[IPAddress]) -> str:
    """Input of `nft -f` for an interface that default routes lead into, as wg-quick has it.

    What is not from the tunnel may not speak to our `addresses` in it. What answers WireGuard's own datagrams bears
    their mark, so that a strict reverse-path filter looks for the way back where they went.
    """
    name = _quoted(interface)
    outside = [
        f"iifname != {name} {_FAMILY[address.version]} daddr {address} fib saddr type != local counter drop"
        for address in addresses
    ]
    restore = [f"meta l4proto udp ct mark {mark} meta mark set {mark}"]
    save = [f"meta l4proto udp meta mark {mark} ct mark set {mark}"]
    body = _chain("outside", "type filter hook prerouting priority raw; policy accept;", outside)
    body += _chain("restore", "type filter hook prerouting priority mangle; policy accept;", restore)
    body += _chain("save", "type filter hook postrouting priority mangle; policy accept;", save)
    lines = _block(f"table inet {_full_tunnel_table(interface)}", body)
    return remove_full_tunnel(interface) + "\n".join(lines) + "\n"


def remove_full_tunnel(interface: str) -> str:
    """Input of `nft -f` that leaves nothing of `full_tunnel_rules`."""
    name = _full_tunnel_table(interface)
    return f"table inet {name}\ndelete table inet {name}\n"


def _full_tunnel_table(interface: str) -> str:
    """Not `table_name`: a registry or a member that lets nobody in has that one on the same interface."""
    return f"wgdisco-routes_{_UNFIT.sub('_', interface)}"


def _table(interface: str, body: Iterable[str]) -> str:
    lines = [*_block(f"table inet {table_name(interface)}", body)]
    return remove_table(interface) + "\n".join(lines) + "\n"


def _block(head: str, body: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"  {line}" for line in body), "}"]


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    return _block(f"chain {name}", [*([hook] if hook else []), *rules])


def _set(name: str, version: int, elements: Sequence[str]) -> list[str]:
    return _block(f"set {name}", [f"type {_type(version)};", *_flags(elements), *_elements(elements)])


def _flags(elements: Iterable[str]) -> list[str]:
    """Addresses alone are looked up faster."""
    return ["flags interval;"] if any("/" in element for element in elements) else []


def _elements(elements: Iterable[str]) -> list[str]:
    text = ", ".join(elements)
    return [f"elements = {{ {text} }}"] if text else []  # nft takes no empty list


def _type(version: int) -> str:
    return "ipv4_addr" if version == 4 else "ipv6_addr"


def _quoted(interface: str) -> str:
    """An interface name as nft reads it; the kernel allows almost any character, nft's strings no quote."""
    if '"' in interface or "\\" in interface or "*" in interface or "\n" in interface:
        raise ValueError(f"the interface name {interface!r} cannot be written in nft rules")
    return f'"{interface}"'


def _names(interfaces: Iterable[str]) -> str:
    return f"{{ {', '.join(map(_quoted, interfaces))} }}"
