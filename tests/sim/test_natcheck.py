"""Profiles of simulated NATs, by the registry's responder and the member's check as they really run.

The responder has two ports and a third on each of its addresses; the NATs are RFC 4787's, in every combination.
"""

from functools import partial
from ipaddress import ip_address
from itertools import product

import pytest

from tests.sim.nat import ADF, ADM, APDF, APDM, EIF, EIM, PUBLIC, TYPES, Gateway, NatType, hashed, preserved, sequential
from tests.sim.network import Datagram, Network
from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.nat import NatProfile
from wgdisco.peer.natcheck import GRACE, MAX_DATAGRAMS, RETRANSMISSION, Drop, NatCheck, NatReport
from wgdisco.registry.stun import Site, StunResponder
from wgdisco.stun import Kind, Message

ONE, TWO = ip_address("198.51.100.10"), ip_address("198.51.100.11")
OUTSIDE, INSIDE = ip_address("192.0.2.10"), ip_address("192.168.1.10")
TUNNEL_PORT, SPARE_PORT = 51820, 40001
ROUND_TRIP = 0.060  # three links of 10 ms each way
MEMBER = PublicKey(bytes([7]) * 32)


class Registry:
    """The responder on its addresses."""

    def __init__(self, network: Network, addresses) -> None:
        self.network = network
        self.responder = StunResponder(PrivateKey(bytes(range(32))), lambda: 1_700_000_000.0)
        self.responder.sites = tuple(Site(address, (3478, 3479), 50000) for address in addresses)
        self.silent: set[Endpoint] = set()
        self.asked = 0
        for address in addresses:
            network.attach(address, self)

    def record(self) -> StunRecord:
        credential = self.responder.issue(MEMBER)
        endpoints = [endpoint.to_text() for endpoint in self.responder.endpoints]
        return StunRecord(endpoints, credential.username, credential.password, credential.lifetime)

    def from_core(self, datagram: Datagram) -> None:
        self.asked += 1
        if datagram.destination in self.silent or datagram.destination not in self.responder.endpoints:
            return
        reply = self.responder.answer(datagram.data, datagram.destination, datagram.source, self.network.now)
        if reply is not None and reply.origin not in self.silent:
            self.network.carry(Datagram(reply.origin, reply.destination, reply.data))


class Member:
    """A check on a virtual clock, and two sockets behind a gateway."""

    def __init__(self, network: Network, nat: NatType, registry: Registry) -> None:
        self.network = network
        self.gateway = Gateway(network, OUTSIDE, nat)
        self.address = INSIDE if nat.translates else OUTSIDE
        self.gateway.connect(self.address, self.receive)
        self.check = NatCheck(registry.record(), 4, TUNNEL_PORT, network.random.randbytes)
        self.report: NatReport | None = None
        self.ended_at = 0.0
        self.sent = 0

    def run(self) -> NatReport:
        self.started_at = self.network.now
        self.check.start(self.network.now)
        self.settle()
        assert self.network.clock.run(5, lambda: self.report is not None)
        self.ended_at = self.network.now
        assert self.check.get_timer() is None
        assert self.report is not None
        assert self.sent == self.report.sent <= MAX_DATAGRAMS
        return self.report

    @property
    def seconds(self) -> float:
        return self.ended_at - self.started_at

    def receive(self, datagram: Datagram) -> None:
        assert datagram.destination.port in (TUNNEL_PORT, SPARE_PORT)
        self.check.receive_datagram(datagram.data, datagram.source, self.network.now)
        self.settle()

    def settle(self) -> None:
        for probe in self.check.datagrams_to_send():
            self.sent += 1
            source = Endpoint(self.address, SPARE_PORT if probe.spare else TUNNEL_PORT)
            datagram = Datagram(source, probe.destination, probe.data)
            self.network.clock.at(self.network.now + self.network.delay, partial(self.gateway.from_inside, datagram))
        for report in self.check.events():
            assert self.report is None
            self.report = report
        timer = self.check.get_timer()
        if timer is not None:
            self.network.clock.at(timer, self.due)

    def due(self) -> None:
        self.check.handle_timer(self.network.now)
        self.settle()


def measure(nat: NatType, addresses=(ONE, TWO), seed: int = 1, loss: float = 0.0) -> Member:
    network = Network(seed)
    network.loss = loss
    registry = Registry(network, addresses)
    member = Member(network, nat, registry)
    member.run()
    return member


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", TYPES)
def test_the_ten_types_of_the_lab(name, seed):
    nat = TYPES[name]
    member = measure(nat, seed=seed)
    report, profile = member.report, member.report.profile
    assert (profile.mapping, profile.filtering) == (nat.profile.mapping, nat.profile.filtering)
    assert profile.delta == (1 if name == "symmetric-sequential" else None)
    assert {endpoint.address for endpoint in report.reflexive} == {OUTSIDE}
    assert len(report.reflexive) == (1 if nat.profile.mapping is EIM else 4)
    assert report.preserved is (nat.ports is preserved)
    if name == "symmetric-block":
        low, high = report.block
        assert 20000 <= low < high < 21008
    else:
        assert report.block is None
    assert member.sent == 8
    # what has to be waited for is what never comes
    assert ROUND_TRIP - 1e-6 <= member.seconds <= ROUND_TRIP + (0 if nat.profile.filtering is EIF else GRACE) + 1e-6
    assert report.rtt == pytest.approx(ROUND_TRIP)


@pytest.mark.parametrize(("mapping", "filtering"), list(product((EIM, ADM, APDM), (EIF, ADF, APDF))))
@pytest.mark.parametrize("ports", [preserved, hashed, sequential])
def test_every_behaviour_of_rfc_4787(mapping, filtering, ports):
    report = measure(NatType(NatProfile(mapping, filtering), ports)).report
    assert (report.profile.mapping, report.profile.filtering) == (mapping, filtering)


@pytest.mark.parametrize(("mapping", "filtering"), list(product((EIM, ADM, APDM), (EIF, ADF, APDF))))
def test_with_one_address_what_cannot_be_told_is_unknown(mapping, filtering):
    member = measure(NatType(NatProfile(mapping, filtering), hashed), addresses=(ONE,))
    assert member.sent == 4
    profile = member.report.profile
    assert profile.mapping is (APDM if mapping is APDM else None)
    assert profile.filtering is (APDF if filtering is APDF else None)


def test_with_one_address_a_sequential_step_is_seen():
    assert measure(TYPES["symmetric-sequential"], addresses=(ONE,)).report.profile.delta == 1


def test_an_address_that_does_not_answer_tells_nothing():
    network = Network(1)
    registry = Registry(network, (ONE, TWO))
    registry.silent = {Endpoint(TWO, port) for port in (3478, 3479, 50000)}
    member = Member(network, TYPES["address-restricted"], registry)
    assert member.run().profile == NatProfile(None, None)
    assert member.seconds == pytest.approx(2 * RETRANSMISSION)


def test_a_port_that_does_not_answer_is_done_without():
    network = Network(1)
    registry = Registry(network, (ONE, TWO))
    registry.silent = {Endpoint(TWO, 3479)}
    assert Member(network, TYPES["address-restricted"], registry).run().profile == NatProfile(EIM, ADF)


def test_where_nothing_comes_back_nothing_is_known():
    network = Network(1)
    registry = Registry(network, (ONE, TWO))
    registry.silent = set(registry.responder.endpoints)
    member = Member(network, PUBLIC, registry)
    assert member.run() == NatReport(NatProfile(None, None), sent=MAX_DATAGRAMS)


def test_without_a_responder_it_is_over_at_once():
    network = Network(1)
    check = NatCheck(StunRecord([], "u", "p", 60), 4, TUNNEL_PORT, network.random.randbytes)
    check.start(network.now)
    assert check.datagrams_to_send() == []
    assert check.events() == [NatReport(NatProfile(None, None))]
    assert check.get_timer() is None


def test_a_loss_costs_a_retransmission():
    """Never a wrong word, but where both copies of a request are lost; and no more packets than stated."""
    wrong = unknown = 0
    seeds = 200
    for seed, name in product(range(seeds // len(TYPES)), TYPES):
        truth = TYPES[name].profile
        member = measure(TYPES[name], seed=seed, loss=0.05)
        found = member.report.profile
        assert member.seconds <= 2 * RETRANSMISSION + 1e-6
        unknown += found.mapping is None or found.filtering is None
        wrong += found.mapping not in (None, truth.mapping) or found.filtering not in (None, truth.filtering)
    assert wrong <= seeds * 0.01
    assert unknown <= seeds * 0.03


def test_garbage_and_forgery_count_and_change_nothing():
    network = Network(1)
    registry = Registry(network, (ONE, TWO))
    registry.silent = set(registry.responder.endpoints)
    member = Member(network, TYPES["port-restricted"], registry)
    member.check.start(network.now)
    probes = member.check.datagrams_to_send()
    request = Message.parse(probes[1].data)
    source = probes[1].destination
    forged = Message(Kind.SUCCESS, request.transaction_id, mapped=Endpoint(TWO, 1))
    for data, why in (
        (b"", Drop.NOT_STUN),
        (probes[1].data, Drop.NOT_ASKED),  # our own request come back
        (Message(Kind.SUCCESS, bytes(12), mapped=source).pack(), Drop.NOT_ASKED),
        (forged.pack(), Drop.NOT_AUTHENTIC),
        (forged.pack("guess"), Drop.NOT_AUTHENTIC),
    ):
        member.check.drops.clear()
        member.check.receive_datagram(data, source, network.now)
        assert member.check.drops == {why: 1}
    network.clock.run(2 * RETRANSMISSION)
    member.due()
    network.clock.run(2 * RETRANSMISSION)
    member.due()
    assert member.report.reflexive == ()


def test_timers_may_be_handled_early_late_and_again():
    network = Network(1)
    member = Member(network, TYPES["port-restricted"], Registry(network, (ONE,)))
    check = member.check
    assert check.get_timer() is None
    check.handle_timer(network.now)
    check.start(network.now)
    check.datagrams_to_send()
    check.handle_timer(network.now + 0.1)
    assert check.datagrams_to_send() == []
    check.handle_timer(network.now + 7)
    assert len(check.datagrams_to_send()) == 2
    check.handle_timer(network.now + 7)
    assert check.events() == []
    check.handle_timer(network.now + 8)
    assert len(check.events()) == 1
    check.handle_timer(network.now + 9)
    assert check.events() == []
    assert check.get_timer() is None
