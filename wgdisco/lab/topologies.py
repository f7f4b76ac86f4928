"""The networks of the matrix: who sits behind what, which pairs are tried, and what theory expects of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.oracle import Outcome, across
from wgdisco.lab.plan import Leaf, Plan, Router, Uplink, interfaces

REGISTRY = "registry"
PROBE = "probe"
_REGISTRY_ADDRESSES = interfaces("198.51.100.10/24", "198.51.100.11/24")
_PROBE_ADDRESSES = interfaces("198.51.101.10/24")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts, what each is behind, and what should become of them."""

    a: str
    b: str
    type_a: str
    type_b: str
    expected: Outcome


@dataclass(frozen=True, slots=True)
class Topology:
    """A plan with hosts `registry` and `probe` (at the Internet, to measure by), and the pairs to try in it."""

    name: str
    plan: Plan
    pairs: tuple[Pair, ...]


def _registry() -> tuple[Leaf, Leaf]:
    return (
        Leaf(REGISTRY, (Uplink(None, _REGISTRY_ADDRESSES),)),
        Leaf(PROBE, (Uplink(None, _PROBE_ADDRESSES),)),
    )


def _site(name: str, number: int, nat_type: str) -> tuple[Router, Leaf]:
    """A host and its router, of the `number`th public network."""
    public, private = f"198.18.{number}", f"192.168.{number}"
    translates = NAT_TYPES[nat_type].translates
    lan, own = (f"{private}.1/24", f"{private}.10/24") if translates else (f"{public}.129/25", f"{public}.130/25")
    router = Router(f"nat-{name}", NAT_TYPES[nat_type], interfaces(f"{public}.10/25"), interfaces(lan))
    return router, Leaf(name, (Uplink(router.name, interfaces(own)),))


def across_the_internet(types: Sequence[str]) -> Topology:
    """T1: each side behind a NAT of its own. Every host is there once, a type's own pair has two."""
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
            across(NAT_TYPES[one].profile, NAT_TYPES[other].profile),
        )
        for one, other in combinations_with_replacement(types, 2)
    ]
    plan = Plan(tuple(router for router, _ in sites.values()), (*_registry(), *(leaf for _, leaf in sites.values())))
    return Topology("T1", plan, tuple(pairs))


TOPOLOGIES: dict[str, Callable[[Sequence[str]], Topology]] = {"T1": across_the_internet}
