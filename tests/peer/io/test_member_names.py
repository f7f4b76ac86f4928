"""Whom a member's host asks for which names."""

from dataclasses import replace

import pytest

from tests.peer.io.test_state import state
from wgdisco.peer.io.member_names import zone_servers


def joined(zone, now=None, **more):
    """A membership in a network of that zone, whose registry says by `now` that it is another."""
    kept = state()
    network = replace(kept.memory.snapshot.network, zone=now or zone, registries=["vpn.example.com:51820"])
    told = replace(kept.memory.snapshot, network=network)
    return replace(kept, zone=zone, memory=replace(kept.memory, snapshot=told), **more)


def test_the_registry_is_asked_for_the_zone_it_had_when_we_joined():
    names = zone_servers(joined("WG.internal."))
    assert names.zone == "wg.internal"
    assert names.servers
    assert not names.search


@pytest.mark.parametrize("now", ["com.", "bank.example.", "internal.", "x.wg.internal."])
def test_a_registry_that_says_its_zone_is_another_has_no_names_looked_up(now):
    assert not zone_servers(joined("wg.internal.", now)).servers


def test_nor_one_whose_zone_is_a_whole_top_level_domain():
    assert not zone_servers(joined("com.")).servers


def test_a_registry_whose_own_name_is_in_the_zone_is_looked_up_as_ever():
    assert not zone_servers(joined("wg.internal.", registries=("vpn.wg.INTERNAL:51820",))).servers
    assert not zone_servers(joined("example.com.")).servers
    assert zone_servers(joined("mpn.example.com.")).servers
