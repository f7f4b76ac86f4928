"""Devices alone: a registry's and two NATed ones. Endpoints go from the registry to the peers by the test's own hand.

What plain punching must do (`wgdisco.nat.can_punch`) is what the engine does behind simulated NATs.
"""

import random
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import pytest

from tests.sim.host import Host, place
from tests.sim.nat import EIM, PUBLIC, TYPES, Gateway, NatType, at_random, hashed, preserved, sequential
from tests.sim.network import Network
from wgdisco.endpoint import Endpoint
from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile, can_punch
from wgdisco.tunnel.events import PathSeen

PAIRS = list(combinations_with_replacement(TYPES, 2))
EVERY_FOURTH = [pair for pair in PAIRS if can_punch(*(TYPES[name].profile for name in pair))][::4]


@dataclass
class Three:
    """A registry and two hosts that have met it."""

    network: Network
    registry: Host
    alice: Host
    bob: Host

    def seen(self, host: Host) -> Endpoint:
        """Where the registry sees the host."""
        endpoint = self.registry.status(host).endpoint
        assert endpoint is not None
        return endpoint

    def tell(self, here: Host, there: Host) -> None:
        """Let `here` know where the registry sees `there`; a path that works is left alone."""
        handshake_at = here.status(there).handshake_at
        if handshake_at is not None and self.network.now - handshake_at < 10.0:
            return
        here.device.set_peer(there.private.public_key(), self.seen(there), 25, self.network.now)
        here.settle()

    def connected(self) -> bool:
        """Whether packets go through, both ways, on a path that is no third's."""
        payloads = [self.network.random.randbytes(16) for _ in range(2)]
        self.alice.ping(self.bob, payloads[0])
        self.bob.ping(self.alice, payloads[1])
        self.network.clock.run(0.5)
        return [payloads[0] in heard(self.bob), payloads[1] in heard(self.alice)] == [True, True]


def heard(host: Host) -> list[bytes]:
    return [payload for _, payload, _ in host.delivered]


def three(nat_a: NatType, nat_b: NatType, seed: int) -> Three:
    network = Network(seed)
    registry = place(network, PUBLIC, 100, "10.9.0.254")
    alice = place(network, nat_a, 1, "10.9.0.1")
    bob = place(network, nat_b, 2, "10.9.0.2")
    for host, other in ((alice, bob), (bob, alice)):
        registry.introduce(host)
        host.introduce(registry, endpoint=Endpoint(registry.address, 51820), persistent_keepalive=25)
        host.introduce(other)
    for host in (registry, alice, bob):
        host.apply()
    network.clock.run(1.0)
    return Three(network, registry, alice, bob)


def _punch(nat_a: NatType, nat_b: NatType, seed: int, gap: float) -> Three:
    """Both are told, alice first; then there is time for three rounds of handshakes."""
    world = three(nat_a, nat_b, seed)
    world.tell(world.alice, world.bob)
    world.network.clock.run(gap)
    world.tell(world.bob, world.alice)
    world.network.clock.run(17.0)
    return world


@pytest.mark.parametrize("nat", TYPES)
def test_the_registry_sees_the_nat_and_its_port(nat):
    world = three(TYPES[nat], PUBLIC, 1)
    assert world.seen(world.alice).address == world.alice.public_address
    assert (world.seen(world.alice).port == 51820) is (TYPES[nat].ports is preserved)


def _check(one: NatType, other: NatType) -> None:
    """The pair connects whoever starts, or never, as `can_punch` says; only a burn leaves it to the order."""
    expected = can_punch(one.profile, other.profile)
    for seed, (first, second) in enumerate([(one, other), (other, one)] * 2):
        # one starts well before the other (the other's NAT is still closed), or a little before (they cross)
        connected = _punch(first, second, seed, gap=(1.0, 0.015)[seed // 2]).connected()
        if expected or not (one.profile.burns or other.profile.burns):
            assert connected is expected, (first, second, seed)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair_of_the_lab(pair):
    _check(*(TYPES[name] for name in pair))


PROFILES = [NatProfile(mapping, filtering) for mapping, filtering in product(MappingBehavior, FilteringBehavior)]


@pytest.mark.parametrize("one", PROFILES, ids=lambda profile: f"{profile.mapping.name}/{profile.filtering.name}")
def test_every_pair_of_behaviours_of_rfc_4787(one):
    chance = random.Random(repr(one))
    for other in PROFILES:
        kinds = [
            NatType(p, chance.choice([preserved, hashed] if p.mapping is EIM else [sequential, at_random]))
            for p in (one, other)
        ]
        _check(*kinds)


@pytest.mark.parametrize("other", ["firewall", "port-restricted", "eim-other-port"])
def test_an_open_input_nat_burns_unless_its_own_host_starts(other):
    """The one case where the order decides: half of the runs connect, so the pair does not count as punchable."""
    burning, other = TYPES["open-input"], TYPES[other]
    assert not can_punch(burning.profile, other.profile)
    assert _punch(burning, other, 1, gap=1.0).connected()
    assert not _punch(other, burning, 1, gap=1.0).connected()


def test_two_open_input_nats_burn_whoever_starts():
    assert not _punch(TYPES["open-input"], TYPES["open-input"], 1, gap=1.0).connected()


@pytest.mark.parametrize("pair", EVERY_FOURTH, ids="-".join)
@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_of_all_packets_lost_delays_and_does_not_prevent(pair, seed):
    world = three(*(TYPES[name] for name in pair), seed)
    world.network.loss = 0.2
    met = lambda: all(world.registry.status(host).handshake_at for host in (world.alice, world.bob))  # noqa: E731
    assert world.network.clock.run(60.0, met)
    world.tell(world.alice, world.bob)
    world.tell(world.bob, world.alice)
    established = lambda: world.alice.status(world.bob).handshake_at and world.bob.status(world.alice).handshake_at  # noqa: E731
    assert world.network.clock.run(60.0, lambda: bool(established()))
    sent = [number.to_bytes(4, "big") for number in range(200)]
    for payload in sent:
        world.alice.ping(world.bob, payload)
        world.network.clock.run(0.5)
    arrived = [payload for payload in sent if payload in heard(world.bob)]
    assert 130 <= len(arrived) <= 185, "a tunnel loses what the network loses, and no more"
    assert [payload for payload in heard(world.bob) if payload in sent] == arrived, "in order, each once"


@pytest.mark.parametrize("other", ["public", "full-cone", "port-restricted", "eim-other-port"])
def test_a_nat_that_forgets_is_passed_again(other):
    world = _punch(TYPES["port-restricted"], TYPES[other], 3, gap=0.2)
    assert world.connected()
    before = world.seen(world.alice)
    assert isinstance(world.alice.gateway, Gateway)
    world.alice.gateway.rebind()
    # The keepalive towards the registry shows it the new endpoint; then it is told on.
    moved = lambda: world.seen(world.alice) != before  # noqa: E731
    assert world.network.clock.run(26.0, moved)
    assert world.registry.events[-1] == PathSeen(
        world.alice.private.public_key(), world.seen(world.alice), world.network.now
    )
    world.tell(world.bob, world.alice)
    world.tell(world.alice, world.bob)
    world.network.clock.run(26.0)
    assert world.connected()


def test_towards_an_open_nat_nobody_needs_to_be_told():
    world = _punch(TYPES["port-restricted"], TYPES["full-cone"], 3, gap=0.2)
    assert isinstance(world.alice.gateway, Gateway)
    world.alice.gateway.rebind()
    world.network.clock.run(26.0)
    assert world.connected()


@pytest.mark.parametrize("side", ["alice", "bob", "registry", "all"])
@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_stepped_wall_clock_is_not_noticed(side, step):
    world = _punch(TYPES["port-restricted"], TYPES["eim-other-port"], 5, gap=0.2)
    hosts = [world.alice, world.bob, world.registry] if side == "all" else [getattr(world, side)]
    for _ in range(3):
        for host in hosts:
            host.unix_offset += step
        for _ in range(25):
            world.network.clock.run(5.0)
            assert world.connected()
    for here, there in ((world.alice, world.bob), (world.alice, world.registry), (world.bob, world.registry)):
        at = here.status(there).handshake_at
        assert at is not None
        assert world.network.now - at < 160.0, "sessions were renewed"


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_wall_clock_stepped_while_punching_is_not_noticed(step):
    world = three(TYPES["port-restricted"], TYPES["port-restricted"], 5)
    world.tell(world.alice, world.bob)
    for _ in range(4):
        world.network.clock.run(4.0)
        world.alice.unix_offset += step
        world.bob.unix_offset += step
    world.tell(world.bob, world.alice)
    world.network.clock.run(6.0)
    assert world.connected()


def test_the_same_seed_tells_the_same_story():
    logs = []
    for _ in range(2):
        world = three(TYPES["symmetric-random"], TYPES["full-cone"], 9)
        world.network.loss = 0.3
        world.tell(world.alice, world.bob)
        world.tell(world.bob, world.alice)
        world.network.clock.run(60.0)
        logs.append(world.network.crossings)
    assert logs[0] == logs[1]
    assert len(logs[0]) > 20
