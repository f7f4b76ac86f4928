"""Which pairs plain punching connects: the 33 of 55 measured on real NATs (W in design table b)."""

from itertools import combinations_with_replacement, product

import pytest

from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile, can_punch

EIM, ADM, APDM = MappingBehavior
EIF, ADF, APDF = FilteringBehavior

PROFILES = {
    "public": NatProfile(EIM, EIF),
    "firewall": NatProfile(EIM, APDF),
    "full-cone": NatProfile(EIM, EIF),
    "address-restricted": NatProfile(EIM, ADF),
    "port-restricted": NatProfile(EIM, APDF),
    "eim-other-port": NatProfile(EIM, APDF),
    "open-input": NatProfile(EIM, APDF, burns=True),
    "symmetric-sequential": NatProfile(APDM, APDF),
    "symmetric-block": NatProfile(APDM, APDF),
    "symmetric-random": NatProfile(APDM, APDF),
}
MEASURED = """
public                WWWWWWWWWW
firewall               WWWWW....
full-cone               WWWWWWWW
address-restricted       WWWWWWW
port-restricted           WW....
eim-other-port             W....
open-input                  ....
symmetric-sequential         ...
symmetric-block               ..
symmetric-random               .
"""


def _measured() -> dict[tuple[str, str], bool]:
    names = list(PROFILES)
    rows = [line.split() for line in MEASURED.split("\n") if line]
    return {
        (name, other): cell == "W"
        for name, cells in rows
        for other, cell in zip(names[names.index(name) :], cells, strict=True)
    }


def test_the_table_has_33_of_55():
    assert len(_measured()) == 55
    assert sum(_measured().values()) == 33


@pytest.mark.parametrize(("a", "b"), list(combinations_with_replacement(PROFILES, 2)))
def test_every_pair_of_the_lab(a, b):
    assert can_punch(PROFILES[a], PROFILES[b]) is _measured()[a, b]
    assert can_punch(PROFILES[b], PROFILES[a]) is _measured()[a, b]


@pytest.mark.parametrize(("mapping", "filtering"), list(product(MappingBehavior, FilteringBehavior)))
def test_a_public_host_is_reached_from_anywhere(mapping, filtering):
    assert can_punch(NatProfile(mapping, filtering), PROFILES["public"])


@pytest.mark.parametrize(("a", "b"), list(product((ADM, APDM), repeat=2)))
@pytest.mark.parametrize(("f", "g"), list(product((ADF, APDF), repeat=2)))
def test_two_nats_whose_ports_depend_on_the_destination_do_not_connect(a, b, f, g):
    assert not can_punch(NatProfile(a, f), NatProfile(b, g))


@pytest.mark.parametrize("mapping", [ADM, APDM])
@pytest.mark.parametrize(("filtering", "expected"), [(EIF, True), (ADF, True), (APDF, False)])
def test_a_published_port_that_is_open_to_all_is_reached_but_answers_from_another(mapping, filtering, expected):
    """The simulated pairs of tests/sim show the same for all of RFC 4787's behaviours."""
    assert can_punch(NatProfile(mapping, EIF), NatProfile(APDM, filtering)) is expected
