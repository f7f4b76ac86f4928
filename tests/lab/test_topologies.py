"""The networks of the matrix are sound as plans, and expect what they are for."""

from collections import Counter

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.topologies import PROBE, REGISTRY, TOPOLOGIES, Topology
from wgdisco.names import check_member_name

DIRECT, RELAY, LAN = Outcome.DIRECT, Outcome.RELAY, Outcome.LAN


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param](tuple(NAT_TYPES))


def test_names(topology: Topology) -> None:
    names = [leaf.name for leaf in topology.plan.leaves]
    assert len(set(names)) == len(names)
    assert {REGISTRY, PROBE} <= set(names)
    for pair in topology.pairs:
        assert pair.a != pair.b
        assert {pair.a, pair.b} <= set(names)
        check_member_name(f"p100-{pair.a}")
        check_member_name(f"p100-{pair.b}")


def test_the_internet_knows_each_address_once_and_no_private_one(topology: Topology) -> None:
    networks = Counter(network for _, _, networks in topology.plan.at_internet() for network in networks)
    assert set(networks.values()) == {1}
    assert all(Endpoint(network.network_address, 9).is_global for network in networks)


def test_addresses_of_one_router_are_in_its_lan(topology: Topology) -> None:
    for router in topology.plan.routers:
        inside = [child.wan for child in topology.plan.behind(router.name)]
        inside += [leaf.uplinks[number].addresses for leaf, number in topology.plan.hosts_of(router.name)]
        owned = [address for addresses in inside for address in addresses]
        assert len(set(owned)) == len(owned)
        for address in owned:
            assert any(address.ip in lan.network for lan in router.lan if lan.version == address.version)
            assert address.ip not in {lan.ip for lan in router.lan}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T1", {DIRECT: 37, RELAY: 18}),
        ("T2", {DIRECT: 5, RELAY: 3}),
        ("T3", {LAN: 8}),
        ("T4", {DIRECT: 2, RELAY: 6}),
        ("T5", {DIRECT: 15, RELAY: 9}),
        ("T6", {DIRECT: 1}),
        ("T6b", {DIRECT: 5, RELAY: 3}),
        ("T7", {DIRECT: 30}),
        ("T8", {DIRECT: 3, RELAY: 7}),
        ("T9", {DIRECT: 8}),
        ("T10", {DIRECT: 5, RELAY: 3}),
        ("UDP", {RELAY: 2}),
    ],
)
def test_what_is_expected(name: str, expected: dict[Outcome, int]) -> None:
    assert Counter(pair.expected for pair in TOPOLOGIES[name](tuple(NAT_TYPES)).pairs) == expected


def test_every_topology_is_counted() -> None:
    assert set(TOPOLOGIES) == {"T1", "T2", "T3", "T4", "T5", "T6", "T6b", "T7", "T8", "T9", "T10", "UDP"}
