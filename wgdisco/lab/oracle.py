"""Which path theory says a pair of hosts gets: one table for every lab, real or simulated.

The assumptions: each side's openers have a TTL that ends before the other side's router, checks are answered to where
they come from, no port is guessed, and the registry relays for whoever has no other way.
"""

from dataclasses import replace
from enum import Enum

from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile, can_punch


class Outcome(Enum):
    """How a pair is connected, in the words of the paths."""

    LAN = "lan"
    DIRECT = "direct"
    RELAY = "relay"


def across(a: NatProfile, b: NatProfile) -> Outcome:
    """Two hosts with the Internet between them: openers that die on the way burn nothing."""
    return Outcome.DIRECT if can_punch(replace(a, burns=False), replace(b, burns=False)) else Outcome.RELAY


def is_fragile(a: NatProfile, b: NatProfile) -> bool:
    """Whether a pair is direct only where both sides begin at once.

    One that begins late, since its order was lost, finds its NAT burned, and is relayed until it tries again.
    """
    return across(a, b) is Outcome.DIRECT and not can_punch(a, b)


_MAPPINGS = tuple(MappingBehavior)
_FILTERINGS = tuple(FilteringBehavior)


def behind(inner: NatProfile, outer: NatProfile) -> NatProfile:
    """What two NATs in a row amount to from outside: the stricter of each."""
    return NatProfile(
        max(inner.mapping, outer.mapping, key=_MAPPINGS.index),
        max(inner.filtering, outer.filtering, key=_FILTERINGS.index),
        burns=outer.burns,
    )


# Carriers' NATs that pass on, inside, what is sent to their own outside address
HAIRPINNING = frozenset(("full-cone", "address-restricted"))


def beside_the_registry(b: NatProfile) -> Outcome:
    """A host that the registry sees by a private address, to one elsewhere: nobody can tell the latter where it is.

    But its packets come from the registry's own outside address, to which the other has sent already.
    """
    lets_in = b.filtering is not FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT
    return Outcome.DIRECT if lets_in and b.mapping is MappingBehavior.ENDPOINT_INDEPENDENT else Outcome.RELAY
