"""The lifetime of simulated NATs' mappings, by the registry's responder and the member's search as they really run."""

from functools import partial

import pytest

from tests.sim.nat import TYPES, Gateway
from tests.sim.network import Datagram, Network
from tests.sim.test_natcheck import INSIDE, ONE, OUTSIDE, TWO, Registry
from wgdisco.api import HEARTBEAT, HEARTBEAT_LEAST, HEARTBEAT_MOST
from wgdisco.endpoint import Endpoint
from wgdisco.peer.lifetime import CLOSE, ENOUGH, MARGIN, Lifetime, LifetimeSearch
from wgdisco.stun import Kind, Message

X_PORT = 40000


class Member:
    """A search on a virtual clock, and its sockets behind a gateway."""

    def __init__(self, network: Network, gateway: Gateway, registry: Registry) -> None:
        self.network = network
        self.gateway = gateway
        self.gateway.connect(INSIDE, self.receive)
        record = registry.record()
        server = Endpoint.from_text(record.endpoints[0])
        self.search = LifetimeSearch(record, server, network.random.randbytes)
        self.found: Lifetime | None = None
        self.sent: list[float] = []

    def run(self) -> Lifetime:
        self.search.start(self.network.now)
        self.settle()
        assert self.network.clock.run(3600, lambda: self.found is not None)
        assert self.found is not None
        assert self.search.get_timer() is None
        assert len(self.sent) == self.search.sent
        return self.found

    def receive(self, datagram: Datagram) -> None:
        self.search.receive_datagram(datagram.data, datagram.destination.port - X_PORT, self.network.now)
        self.settle()

    def settle(self) -> None:
        for probe in self.search.datagrams_to_send():
            self.sent.append(self.network.now)
            datagram = Datagram(Endpoint(INSIDE, X_PORT + probe.socket), probe.destination, probe.data)
            self.network.clock.at(self.network.now + self.network.delay, partial(self.gateway.from_inside, datagram))
        for found in self.search.events():
            assert self.found is None
            self.found = found
        timer = self.search.get_timer()
        if timer is not None:
            self.network.clock.at(timer, self.due)

    def due(self) -> None:
        self.search.handle_timer(self.network.now)
        self.settle()


class LinuxGateway(Gateway):
    """Forgets after 30 s, and after `timeout` what is used again, both ways, 2 s after its begin."""

    def from_inside(self, datagram: Datagram) -> None:
        is_new = not any(mapping.inside == datagram.source for mapping in self._mappings.values())
        if is_new:
            self.begun = {**getattr(self, "begun", {}), datagram.source: self.network.now}
        long, self.timeout = self.timeout, self.timeout
        if self.network.now - self.begun[datagram.source] < 2:
            self.timeout = 30.0
        super().from_inside(datagram)
        self.timeout = long


def measure(lifetime, name="port-restricted", seed=1, loss=0.0, kind=Gateway):
    network = Network(seed)
    network.loss = loss
    registry = Registry(network, (ONE, TWO))
    member = Member(network, kind(network, OUTSIDE, TYPES[name], lifetime), registry)
    return member, member.run()


@pytest.mark.parametrize("lifetime", [17, 20, 25, 30, 32, 40, 45, 50, 60, 61, 75, 90, 93, 95, 120, 180, 300])
@pytest.mark.parametrize("name", ["port-restricted", "full-cone", "open-input", "symmetric-random"])
def test_it_is_found(name, lifetime):
    member, found = measure(lifetime, name)
    assert found.at_least <= lifetime
    if lifetime > ENOUGH:
        assert (found.at_least, found.below) == (pytest.approx(ENOUGH), None)
        assert len(member.sent) <= 9
    elif lifetime * MARGIN > HEARTBEAT_LEAST:
        assert lifetime <= found.below + 1  # a round trip and what begins a silence
        assert found.below <= CLOSE * found.at_least
    assert found.interval() <= max(lifetime * MARGIN, HEARTBEAT_LEAST)
    assert found.interval() >= min(HEARTBEAT_MOST, max(HEARTBEAT_LEAST, lifetime * MARGIN / CLOSE - 2))
    assert member.network.now - 1000 < 360
    assert len(member.sent) <= 30
    # none of them a flood
    assert all(later - earlier > 0.05 for earlier, later in zip(member.sent, member.sent[1:], strict=False))


@pytest.mark.parametrize("lifetime", [60, 120, 180])
def test_a_nat_that_trusts_a_flow_only_after_two_seconds(lifetime):
    _, found = measure(lifetime, kind=LinuxGateway)
    assert found.interval() == pytest.approx(min(HEARTBEAT_MOST, lifetime * MARGIN), abs=10)
    assert found.at_least <= lifetime


@pytest.mark.parametrize("seed", range(40))
def test_loss_makes_no_lifetime_longer_and_seldom_shorter(seed):
    _, found = measure(70, seed=seed, loss=0.05)
    assert found.at_least <= 70
    assert found.interval() >= 40


def test_what_comes_late_refutes_it():
    found = Lifetime(60.0, 70.0)
    assert found.interval() == 48
    assert [silence for silence in (0.0, 25.0, 48.0, 51.9, 52.1, 63.0) if found.is_refuted(silence)] == [52.1, 63.0]
    assert not Lifetime().is_refuted(1000.0)


def test_a_responder_that_does_not_answer_leaves_it_unknown():
    network = Network(1)
    registry = Registry(network, (ONE,))
    registry.silent = set(registry.responder.endpoints)
    member = Member(network, Gateway(network, OUTSIDE, TYPES["port-restricted"]), registry)
    assert member.run() == Lifetime()
    assert Lifetime().interval() == HEARTBEAT
    assert len(member.sent) == 3


def test_a_responder_that_goes_away_is_not_a_nat_that_forgot():
    network = Network(1)
    registry = Registry(network, (ONE,))
    member = Member(network, Gateway(network, OUTSIDE, TYPES["port-restricted"], 180), registry)
    network.clock.at(network.now + 50, lambda: registry.silent.update(registry.responder.endpoints))
    found = member.run()
    assert found.below is None
    assert found.at_least == pytest.approx(30, abs=0.5)


def test_a_registry_that_knows_no_other_port_leaves_it_unknown():
    network = Network(1)
    registry = Registry(network, (ONE,))
    answer = registry.responder.answer

    def refuse(data, asked, source, now):
        request = Message.parse(data)
        reply = answer(data, asked, source, now)
        if request.response_port is None:
            return reply
        error = Message(Kind.ERROR, request.transaction_id, error=420, unknown=(0x27,))
        return type(reply)(error.pack(registry.record().password), asked, source)

    registry.responder.answer = refuse
    member = Member(network, Gateway(network, OUTSIDE, TYPES["port-restricted"]), registry)
    assert member.run() == Lifetime()


def test_garbage_and_what_others_sign_is_dropped():
    network = Network(1)
    registry = Registry(network, (ONE,))
    member = Member(network, Gateway(network, OUTSIDE, TYPES["port-restricted"]), registry)
    member.search.start(network.now)
    (probe,) = member.search.datagrams_to_send()
    transaction_id = Message.parse(probe.data).transaction_id
    forged = Message(Kind.SUCCESS, transaction_id, mapped=Endpoint(OUTSIDE, 1))
    for data in (b"", b"x" * 2000, probe.data, forged.pack("guessed"), forged.pack()):
        member.search.receive_datagram(data, 0, network.now)
        assert member.search.datagrams_to_send() == []
    assert member.search.events() == []


def test_a_suspend_in_the_silence_counts_as_silence():
    network = Network(1)
    registry = Registry(network, (ONE,))
    member = Member(network, Gateway(network, OUTSIDE, TYPES["port-restricted"], 400), registry)
    awake = member.due
    member.due = lambda: awake() if not 1010 < network.now < 1300 else network.clock.at(1300, awake)
    found = member.run()
    assert found.below is None
    assert found.at_least > 290
