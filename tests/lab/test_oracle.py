"""What theory says of pairs: the counts are those of the field study, the rules those of RFC 4787."""

from collections import Counter
from itertools import combinations_with_replacement

import pytest

from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.oracle import Outcome, across, behind, is_fragile
from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile

EIM = ("public", "firewall", "full-cone", "address-restricted", "port-restricted", "eim-other-port", "open-input")
SYMMETRIC = ("symmetric-sequential", "symmetric-block", "symmetric-random")
HELPFUL = ("public", "full-cone", "address-restricted")


def outcome(a: str, b: str) -> Outcome:
    return across(NAT_TYPES[a].profile, NAT_TYPES[b].profile)


def test_37_pairs_of_55_are_direct_without_guessing_ports() -> None:
    counted = Counter(outcome(a, b) for a, b in combinations_with_replacement(NAT_TYPES, 2))
    assert counted == {Outcome.DIRECT: 37, Outcome.RELAY: 18}


@pytest.mark.parametrize("a", EIM)
@pytest.mark.parametrize("b", EIM)
def test_all_with_one_mapping_are_direct(a: str, b: str) -> None:
    assert outcome(a, b) is Outcome.DIRECT


@pytest.mark.parametrize("hard", SYMMETRIC)
@pytest.mark.parametrize("other", NAT_TYPES)
def test_a_symmetric_one_needs_another_that_lets_it_in_by_address(hard: str, other: str) -> None:
    expected = Outcome.DIRECT if other in HELPFUL else Outcome.RELAY
    assert outcome(hard, other) is outcome(other, hard) is expected


def test_fragile_are_the_four_that_plain_punching_does_not_connect() -> None:
    fragile = [
        {a.name, b.name}
        for a, b in combinations_with_replacement(NAT_TYPES.values(), 2)
        if is_fragile(a.profile, b.profile)
    ]
    strict = ("firewall", "port-restricted", "eim-other-port", "open-input")
    assert fragile == [{"open-input", name} for name in strict]


def test_two_nats_in_a_row_are_as_strict_as_the_stricter() -> None:
    home, cone, hard = (NAT_TYPES[name].profile for name in ("port-restricted", "full-cone", "symmetric-random"))
    assert behind(home, cone) == home
    assert behind(home, hard) == behind(hard, home) == hard
    assert behind(cone, cone) == cone


def test_only_the_outer_one_is_there_to_be_burned() -> None:
    burning, home = NAT_TYPES["open-input"].profile, NAT_TYPES["port-restricted"].profile
    assert behind(home, burning).burns
    assert not behind(burning, home).burns
    dependent = NatProfile(MappingBehavior.ADDRESS_DEPENDENT, FilteringBehavior.ENDPOINT_INDEPENDENT)
    assert behind(dependent, home).mapping is MappingBehavior.ADDRESS_DEPENDENT
