"""The simulated NATs against RFC 4787's own definitions, one question at a time."""

from ipaddress import ip_address

import pytest

from tests.sim.nat import APDF, APDM, EIF, EIM, Gateway, NatType, at_random, hashed, in_block, preserved, sequential
from tests.sim.network import Datagram, Network
from wgdisco.endpoint import Endpoint
from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile

OUTSIDE = ip_address("198.51.100.1")
INSIDE = Endpoint.from_text("192.168.1.2:51820")
ONE, ONE_OTHER_PORT, OTHER = (
    Endpoint.from_text(text) for text in ("203.0.113.1:1000", "203.0.113.1:1001", "203.0.113.2:1000")
)


class _Site:
    """A gateway with one inside host, and remote hosts that remember what they got."""

    def __init__(self, profile: NatProfile, ports=preserved, seed: int = 1) -> None:
        self.network = Network(seed)
        self.gateway = Gateway(self.network, OUTSIDE, NatType(profile, ports))
        self.received: list[Endpoint] = []
        self.seen: list[Datagram] = []
        self.gateway.connect(INSIDE.address, lambda datagram: self.received.append(datagram.source))
        for address in (ONE.address, OTHER.address):
            self.network.attach(address, self)

    def from_core(self, datagram: Datagram) -> None:
        self.seen.append(datagram)

    def send(self, remote: Endpoint, inside: Endpoint = INSIDE) -> Endpoint:
        """Send to a remote; the endpoint it sees."""
        self.gateway.from_inside(Datagram(inside, remote, b"out"))
        self.network.clock.run(0.1)
        assert self.seen[-1].destination == remote
        return self.seen[-1].source

    def gets_in(self, remote: Endpoint, outside: Endpoint) -> bool:
        before = len(self.received)
        self.network.carry(Datagram(remote, outside, b"in"))
        self.network.clock.run(0.1)
        return len(self.received) > before


@pytest.mark.parametrize("filtering", FilteringBehavior)
@pytest.mark.parametrize(
    ("mapping", "same_address", "other_address"),
    [
        (MappingBehavior.ENDPOINT_INDEPENDENT, True, True),
        (MappingBehavior.ADDRESS_DEPENDENT, True, False),
        (MappingBehavior.ADDRESS_AND_PORT_DEPENDENT, False, False),
    ],
)
@pytest.mark.parametrize("ports", [preserved, hashed, sequential, in_block, at_random])
def test_mapping(mapping, filtering, same_address, other_address, ports):
    site = _Site(NatProfile(mapping, filtering), ports)
    first = site.send(ONE)
    assert site.send(ONE) == first
    assert (site.send(ONE_OTHER_PORT) == first) is same_address
    assert (site.send(OTHER) == first) is other_address
    assert site.send(ONE) == first
    assert site.send(ONE, Endpoint(INSIDE.address, 4)) != first


@pytest.mark.parametrize("mapping", MappingBehavior)
@pytest.mark.parametrize(
    ("filtering", "same_address", "other_address"),
    [
        (FilteringBehavior.ENDPOINT_INDEPENDENT, True, True),
        (FilteringBehavior.ADDRESS_DEPENDENT, True, False),
        (FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT, False, False),
    ],
)
def test_filtering(mapping, filtering, same_address, other_address):
    site = _Site(NatProfile(mapping, filtering))
    assert not site.gets_in(ONE, Endpoint(OUTSIDE, 51820))
    outside = site.send(ONE)
    assert site.gets_in(ONE, outside)
    assert site.gets_in(ONE_OTHER_PORT, outside) is same_address
    assert site.gets_in(OTHER, outside) is other_address
    assert not site.gets_in(ONE, Endpoint(OUTSIDE, outside.port ^ 1))


def test_ports():
    assert _Site(NatProfile(EIM, EIF), preserved).send(ONE).port == INSIDE.port
    assert 20000 <= _Site(NatProfile(EIM, EIF), hashed).send(ONE).port < 40000
    site = _Site(NatProfile(APDM, APDF), sequential)
    assert [site.send(remote).port for remote in (ONE, OTHER, ONE_OTHER_PORT)] == [30001, 30002, 30003]
    assert 20000 <= _Site(NatProfile(APDM, APDF), in_block).send(ONE).port < 21008


def test_a_mapping_is_forgotten_60_seconds_after_its_last_packet():
    site = _Site(NatProfile(EIM, APDF), at_random)
    first = site.send(ONE)
    site.network.clock.run(50.0)
    assert site.gets_in(ONE, first)
    site.network.clock.run(50.0)
    assert site.send(ONE) == first
    site.network.clock.run(60.0)
    assert not site.gets_in(ONE, first)
    assert site.send(ONE) != first


def test_a_filter_entry_is_forgotten_by_itself():
    site = _Site(NatProfile(EIM, APDF))
    outside = site.send(ONE)
    site.network.clock.run(40.0)
    site.send(OTHER)
    site.network.clock.run(40.0)
    assert not site.gets_in(ONE, outside)
    assert site.gets_in(OTHER, outside)


@pytest.mark.parametrize("ports", [preserved, hashed, at_random])
def test_rebinding_forgets_and_gives_other_ports(ports):
    site = _Site(NatProfile(EIM, APDF), ports)
    first = site.send(ONE)
    site.gateway.rebind()
    assert not site.gets_in(ONE, first)
    second = site.send(ONE)
    assert second.address == first.address
    assert second.port != first.port
    site.gateway.rebind(ip_address("198.51.100.9"))
    assert site.send(ONE).address == ip_address("198.51.100.9")
    assert not site.gets_in(ONE, second)


def test_an_unsolicited_packet_burns_the_flow_it_collides_with():
    """Linux with an open input chain: who knocks before we have sent is met from another port, as long as he knocks."""
    site = _Site(NatProfile(EIM, APDF, burns=True))
    published = site.send(OTHER)
    assert not site.gets_in(ONE, published)
    remapped = site.send(ONE)
    assert remapped != published
    assert site.send(OTHER) == published, "other flows keep the port"
    assert site.send(ONE) == remapped
    assert not site.gets_in(ONE, published)
    assert site.gets_in(ONE, remapped)


def test_a_burn_heals_after_30_seconds_of_silence():
    site = _Site(NatProfile(EIM, APDF, burns=True))
    published = site.send(OTHER)
    assert not site.gets_in(ONE, published)
    site.network.clock.run(31.0)
    assert site.send(ONE) == published


def test_a_flow_that_was_there_first_is_not_burned():
    site = _Site(NatProfile(EIM, APDF, burns=True))
    published = site.send(ONE)
    assert site.gets_in(ONE, published)
    assert site.send(ONE) == published
