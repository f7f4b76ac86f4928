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


@pytest.mark.parametrize("mapping", [None, *MappingBehavior])
@pytest.mark.parametrize("filtering", [None, *FilteringBehavior])
@pytest.mark.parametrize("delta", [None, 1, -2, 32])
def test_a_profile_survives_as_text(mapping, filtering, delta):
    profile = NatProfile(mapping, filtering, delta=delta)
    assert NatProfile.from_text(profile.to_text()) == profile


def test_profiles_as_text():
    assert NatProfile(EIM, APDF).to_text() == "eim/apdf/-"
    assert NatProfile(APDM, APDF, delta=1).to_text() == "apdm/apdf/1"
    assert NatProfile(None, None).to_text() == "-/-/-"
    assert NatProfile.from_text("adm/-/-") == NatProfile(ADM, None)


@pytest.mark.parametrize(
    "text", ["", "eim/apdf", "eim/apdf/-/-", "EIM/apdf/-", "eim/eim/-", "eim/apdf/0", "eim/apdf/33", "eim/apdf/+1"]
)
def test_other_text_is_no_profile(text):
    with pytest.raises(ValueError, match="is not a NAT profile"):
        NatProfile.from_text(text)


def test_what_is_unknown_decides_or_does_not():
    assert can_punch(NatProfile(None, None), PROFILES["full-cone"]) is True
    assert can_punch(NatProfile(EIM, None), PROFILES["port-restricted"]) is True
    assert can_punch(NatProfile(None, APDF), PROFILES["port-restricted"]) is None
    assert can_punch(NatProfile(APDM, None), NatProfile(APDM, ADF)) is None
    assert can_punch(NatProfile(APDM, APDF), NatProfile(None, APDF)) is False
