"""The networks of the matrix: who sits behind what, which pairs are tried, and what theory expects of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from itertools import combinations_with_replacement

from wgdisco.endpoint import IPNetwork
from wgdisco.lab import oracle
from wgdisco.lab.nat_types import NAT_TYPES, rules_of
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.plan import Leaf, Plan, Router, Uplink, interfaces

REGISTRY = "registry"
PROBE = "probe"
PORT = 51820
_REGISTRY_ADDRESSES = ("198.51.100.10/24", "198.51.100.11/24")
_REGISTRY_ADDRESSES_6 = ("2001:db8:51::10/64",)
_HOME = "port-restricted"
# What the many hosts of T7 draw their ports from
_FEW_PORTS = range(51820, 51836)
_CROWD = 30
_HOST_NAME = "registry.example"


class Event(Enum):
    """What happens to a pair once it is connected."""

    ROAMS = "changes its uplink"
    REBINDS = "its router changes its address"
    BOTH_ROAM = "both change their uplinks"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts, what each is behind, and what should become of them, also after the event.

    Where packets are lost, a `fragile` one (`oracle.is_fragile`) may be relayed.
    """

    a: str
    b: str
    type_a: str
    type_b: str
    expected: Outcome
    event: Event | None = None
    fragile: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """A plan with hosts `registry` and `probe` (at the Internet, to measure by), and the pairs to try in it.

    `endpoint` is where members reach the registry, `init` more words for `registry init`. `blocked` and `dead` are as
    those of the core's conditions. `names` are what hosts know without DNS; `ports` what they draw their ports from.
    """

    name: str
    title: str
    plan: Plan
    pairs: tuple[Pair, ...]
    endpoint: str = f"198.51.100.10:{PORT}"
    init: tuple[str, ...] = ()
    blocked: tuple[tuple[IPNetwork, IPNetwork], ...] = ()
    dead: tuple[IPNetwork, ...] = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ports: range | None = None


def _public(*registry: str) -> tuple[Leaf, Leaf]:
    """The registry and the probe, at the Internet itself."""
    versions = {address.version for address in interfaces(*registry)}
    probe = [text for version, text in ((4, "198.51.101.10/24"), (6, "2001:db8:52::10/64")) if version in versions]
    return (
        Leaf(REGISTRY, (Uplink(None, interfaces(*registry)),)),
        Leaf(PROBE, (Uplink(None, interfaces(*probe)),)),
    )


def _site(name: str, number: int, nat_type: str) -> tuple[Router, Leaf]:
    """A host and its router, of the `number`th public network."""
    public, private = f"198.18.{number}", f"192.168.{number}"
    translates = NAT_TYPES[nat_type].translates
    lan, own = (f"{private}.1/24", f"{private}.10/24") if translates else (f"{public}.129/25", f"{public}.130/25")
    router = Router(f"nat-{name}", NAT_TYPES[nat_type], interfaces(f"{public}.10/25"), interfaces(lan))
    return router, Leaf(name, (Uplink(router.name, interfaces(own)),))


def _site_6(name: str, number: int, nat_type: str | None) -> tuple[Router, Leaf]:
    """A host behind an IPv6 firewall, and behind a NAT for IPv4 where a type of it is given."""
    wan, lan, own = [f"2001:db8:{number}::1/128"], [f"2001:db8:{number}:1::1/64"], [f"2001:db8:{number}:1::10/64"]
    if nat_type is not None:
        wan, lan = [f"198.18.{number}.10/25", *wan], [f"192.168.{number}.1/24", *lan]
        own = [f"192.168.{number}.10/24", *own]
    router = Router(
        f"nat-{name}",
        NAT_TYPES[nat_type or "firewall"],
        interfaces(*wan),
        interfaces(*lan),
        rules=rules_of("firewall6"),
    )
    return router, Leaf(name, (Uplink(router.name, interfaces(*own)),))


def _across(one: str, other: str) -> Outcome:
    return oracle.across(NAT_TYPES[one].profile, NAT_TYPES[other].profile)


def _translating(types: Sequence[str]) -> list[str]:
    return [nat_type for nat_type in types if NAT_TYPES[nat_type].translates]


def across_the_internet(types: Sequence[str]) -> Topology:
    """T1. Every type is there twice, for the pair of a type with itself."""
    sites = {}
    for number, nat_type in enumerate(types):
        for side, offset in (("a", 1), ("b", 101)):
            sites[side, nat_type] = _site(f"{side}-{nat_type}", number + offset, nat_type)
    pairs = [
        Pair(
            sites["a", one][1].name,
            sites["b", other][1].name,
            one,
            other,
            _across(one, other),
            fragile=oracle.is_fragile(NAT_TYPES[one].profile, NAT_TYPES[other].profile),
        )
        for one, other in combinations_with_replacement(types, 2)
    ]
    routers, leaves = zip(*sites.values(), strict=True)
    plan = Plan(routers, (*_public(*_REGISTRY_ADDRESSES), *leaves))
    return Topology("T1", "each behind a NAT of its own", plan, tuple(pairs))


def double_nat(types: Sequence[str]) -> Topology:
    """T2. A home router behind a carrier's NAT of each type, to a home router."""
    router_b, bob = _site("b", 101, _HOME)
    routers, leaves, pairs = [router_b], [bob], []
    home = NAT_TYPES[_HOME]
    for number, nat_type in enumerate(_translating(types), 1):
        inside = f"100.64.{number}"
        carrier = Router(
            f"carrier-{nat_type}",
            NAT_TYPES[nat_type],
            interfaces(f"198.18.{number}.10/25"),
            interfaces(f"{inside}.1/24"),
        )
        router = Router(
            f"home-{nat_type}",
            home,
            interfaces(f"{inside}.10/24"),
            interfaces("192.168.1.1/24"),
            parent=carrier.name,
        )
        name = f"a-{nat_type}"
        routers += [carrier, router]
        leaves.append(Leaf(name, (Uplink(router.name, interfaces("192.168.1.10/24")),)))
        both = oracle.behind(home.profile, NAT_TYPES[nat_type].profile)
        pairs.append(Pair(name, "b", nat_type, _HOME, oracle.across(both, home.profile)))
    plan = Plan(tuple(routers), (*_public(*_REGISTRY_ADDRESSES), *leaves))
    return Topology("T2", "a home router behind a carrier's NAT", plan, tuple(pairs))


def one_lan(types: Sequence[str]) -> Topology:
    """T3. Two hosts in the LAN of one router that does not hairpin."""
    routers, leaves, pairs = [], [], []
    for number, nat_type in enumerate(_translating(types), 1):
        router, one = _site(f"a-{nat_type}", number, nat_type)
        other = Leaf(f"b-{nat_type}", (Uplink(router.name, interfaces(f"192.168.{number}.11/24")),))
        routers.append(router)
        leaves += [one, other]
        pairs.append(Pair(one.name, other.name, nat_type, nat_type, Outcome.LAN))
    plan = Plan(tuple(routers), (*_public(*_REGISTRY_ADDRESSES), *leaves))
    return Topology("T3", "two hosts on one LAN", plan, tuple(pairs))


def one_carrier(types: Sequence[str]) -> Topology:
    """T4. Two homes with the same private addresses under one carrier's NAT, which hairpins or not."""
    routers, leaves, pairs = [], [], []
    for number, nat_type in enumerate(_translating(types), 1):
        hairpins = nat_type in oracle.HAIRPINNING
        carrier = Router(
            f"carrier-{nat_type}",
            NAT_TYPES[nat_type],
            interfaces(f"198.18.{number}.10/25"),
            interfaces(f"100.64.{number}.1/24"),
            rules=rules_of("hairpin") if hairpins else "",
        )
        routers.append(carrier)
        for side, last in (("a", 10), ("b", 11)):
            router = Router(
                f"home-{side}-{nat_type}",
                NAT_TYPES[_HOME],
                interfaces(f"100.64.{number}.{last}/24"),
                interfaces("192.168.1.1/24"),
                parent=carrier.name,
            )
            routers.append(router)
            leaves.append(Leaf(f"{side}-{nat_type}", (Uplink(router.name, interfaces(f"192.168.1.{last}/24")),)))
        expected = Outcome.DIRECT if hairpins else Outcome.RELAY
        pairs.append(Pair(f"a-{nat_type}", f"b-{nat_type}", nat_type, nat_type, expected))
    plan = Plan(tuple(routers), (*_public(*_REGISTRY_ADDRESSES), *leaves))
    return Topology("T4", "two homes under one carrier's NAT", plan, tuple(pairs))


def roaming(types: Sequence[str]) -> Topology:
    """T5. Two uplinks each, behind routers of one type; one host changes over, or its router does, or both hosts do."""
    routers, leaves, pairs = [], [], []
    number = 0
    for nat_type in _translating(types):
        for event in Event:
            called = event.name.lower().replace("_", "-")
            names = {side: f"{side}-{nat_type}-{called}" for side in ("a", "b")}
            for name in names.values():
                uplinks = []
                for _ in range(2):
                    number += 1
                    router = Router(
                        f"nat-{number}",
                        NAT_TYPES[nat_type],
                        interfaces(f"198.18.{number}.10/25"),
                        interfaces(f"192.168.{number}.1/24"),
                        spare=interfaces(f"198.18.{number}.20/32"),
                    )
                    routers.append(router)
                    uplinks.append(Uplink(router.name, interfaces(f"192.168.{number}.10/24")))
                leaves.append(Leaf(name, tuple(uplinks)))
            expected = _across(nat_type, nat_type)
            pairs.append(Pair(names["a"], names["b"], nat_type, called, expected, event))
    plan = Plan(tuple(routers), (*_public(*_REGISTRY_ADDRESSES), *leaves))
    return Topology("T5", "two uplinks", plan, tuple(pairs))


def ipv6_only(_types: Sequence[str]) -> Topology:
    """T6. No IPv4 anywhere, a firewall in each router."""
    sites = [_site_6("a", 1, None), _site_6("b", 2, None)]
    plan = Plan(tuple(router for router, _ in sites), (*_public(*_REGISTRY_ADDRESSES_6), *(leaf for _, leaf in sites)))
    pair = Pair("a", "b", "ipv6", "ipv6", Outcome.DIRECT)
    return Topology("T6", "IPv6 alone, firewalled", plan, (pair,), endpoint=f"[2001:db8:51::10]:{PORT}")


def ipv6_in_vain(types: Sequence[str]) -> Topology:
    """T6b. Both families, but nothing of IPv6 gets from one host to the other."""
    plan, pairs = _dual_stack(types, (*_REGISTRY_ADDRESSES, *_REGISTRY_ADDRESSES_6))
    blocked = tuple(
        (ip_network(f"2001:db8:{one}:1::/64"), ip_network(f"2001:db8:{other}:1::/64"))
        for one in range(1, len(types) + 1)
        for other in range(101, len(types) + 101)
    )
    return Topology("T6b", "IPv6 dropped between the hosts", plan, pairs, blocked=blocked)


def crowd(types: Sequence[str]) -> Topology:
    """T7. Many hosts behind one NAT, that draw their ports from a few, to one host elsewhere."""
    nat_type = next(iter(_translating(types)), _HOME)
    router, first = _site("a1", 1, nat_type)
    leaves = [first]
    for number in range(2, _CROWD + 1):
        leaves.append(Leaf(f"a{number}", (Uplink(router.name, interfaces(f"192.168.1.{number + 9}/24")),)))
    router_b, bob = _site("b", 101, _HOME)
    pairs = tuple(Pair(leaf.name, "b", f"{nat_type} {leaf.name}", _HOME, _across(nat_type, _HOME)) for leaf in leaves)
    plan = Plan((router, router_b), (*_public(*_REGISTRY_ADDRESSES), *leaves, bob))
    return Topology("T7", f"{_CROWD} hosts behind one NAT", plan, pairs, ports=_FEW_PORTS)


def registry_at_home(types: Sequence[str]) -> Topology:
    """T8. The registry is in the first host's own LAN, behind a port forward that hairpins."""
    router, alice = _site("a", 1, _HOME)
    forward = rules_of("port-forward").replace("REGISTRY", "192.168.1.5").replace("PORT", str(PORT))
    router = Router(router.name, router.nat_type, router.wan, router.lan, rules=forward)
    registry = Leaf(REGISTRY, (Uplink(router.name, interfaces("192.168.1.5/24")),))
    sites = [_site(f"b-{nat_type}", number, nat_type) for number, nat_type in enumerate(types, 101)]
    pairs = tuple(
        Pair("a", leaf.name, _HOME, nat_type, oracle.beside_the_registry(NAT_TYPES[nat_type].profile))
        for nat_type, (_, leaf) in zip(types, sites, strict=True)
    )
    _, probe = _public(*_REGISTRY_ADDRESSES)
    plan = Plan((router, *(site for site, _ in sites)), (registry, probe, alice, *(leaf for _, leaf in sites)))
    return Topology("T8", "the registry behind a port forward", plan, pairs, endpoint=f"198.18.1.10:{PORT}")


def _dual_stack(types: Sequence[str], registry: Sequence[str]) -> tuple[Plan, tuple[Pair, ...]]:
    """Hosts with both families, each type with itself; what is expected is what IPv4 gives."""
    routers, leaves, pairs = [], [], []
    for number, nat_type in enumerate(_translating(types), 1):
        for side, offset in (("a", 0), ("b", 100)):
            router, leaf = _site_6(f"{side}-{nat_type}", number + offset, nat_type)
            routers.append(router)
            leaves.append(leaf)
        pairs.append(Pair(f"a-{nat_type}", f"b-{nat_type}", nat_type, nat_type, _across(nat_type, nat_type)))
    return Plan(tuple(routers), (*_public(*registry), *leaves)), tuple(pairs)


def ipv6_registry(types: Sequence[str]) -> Topology:
    """T9. Hosts with both families, and a registry without IPv4."""
    plan, pairs = _dual_stack(types, _REGISTRY_ADDRESSES_6)
    by_ipv6 = tuple(Pair(pair.a, pair.b, pair.type_a, pair.type_b, Outcome.DIRECT) for pair in pairs)
    return Topology("T9", "a registry without IPv4", plan, by_ipv6, endpoint=f"[2001:db8:51::10]:{PORT}")


def half_dead_registry(types: Sequence[str]) -> Topology:
    """T10. The registry's name has an IPv6 address at which nobody answers."""
    plan, pairs = _dual_stack(types, (*_REGISTRY_ADDRESSES, *_REGISTRY_ADDRESSES_6))
    return Topology(
        "T10",
        "a registry whose IPv6 address is dead",
        plan,
        pairs,
        endpoint=f"{_HOST_NAME}:{PORT}",
        dead=(ip_network("2001:db8:51::10"),),
        names={_HOST_NAME: ("2001:db8:51::10", "198.51.100.10")},
    )


def udp_blocked(_types: Sequence[str]) -> Topology:
    """UDP. A network that lets no UDP out but DNS, and one that lets out what goes to port 443 too."""
    sites = []
    for number, (name, ports) in enumerate((("a-none", "53"), ("a-443", "53, 443")), 1):
        router, leaf = _site(name, number, _HOME)
        rules = rules_of("udp-blocked").replace("PORTS", ports)
        sites.append((Router(router.name, router.nat_type, router.wan, router.lan, rules=rules), leaf))
    sites.append(_site("b", 101, "public"))
    pairs = (
        Pair("a-none", "b", "no UDP", "public", Outcome.RELAY),
        Pair("a-443", "b", "UDP 443 alone", "public", Outcome.RELAY),
    )
    plan = Plan(tuple(router for router, _ in sites), (*_public(*_REGISTRY_ADDRESSES), *(leaf for _, leaf in sites)))
    return Topology("UDP", "UDP blocked", plan, pairs, init=("--also-port", "443", "--tls-port", "443"))


TOPOLOGIES: dict[str, Callable[[Sequence[str]], Topology]] = {
    "T1": across_the_internet,
    "T2": double_nat,
    "T3": one_lan,
    "T4": one_carrier,
    "T5": roaming,
    "T6": ipv6_only,
    "T6b": ipv6_in_vain,
    "T7": crowd,
    "T8": registry_at_home,
    "T9": ipv6_registry,
    "T10": half_dead_registry,
    "UDP": udp_blocked,
}
