"""What must not happen to two members, whatever the network does to them: on the virtual clock."""

from ipaddress import ip_address
from itertools import pairwise

import pytest

from tests.sim.test_mesh import Mesh, connect
from wgdisco.api import MAX_CANDIDATES, CandidateKind, PathWord
from wgdisco.endpoint import Endpoint
from wgdisco.peer.candidate import Candidate
from wgdisco.peer.check import MAGIC, PING
from wgdisco.peer.news import Ordered
from wgdisco.peer.punch import ORDERS_BURST, ORDERS_RATE, PACKETS_A_CANDIDATE, TOLD_BURST, TOLD_RATE
from wgdisco.tunnel.events import PeerHandshake
from wgdisco.tunnel.messages import REKEY_AFTER_TIME

NATED = ("port-restricted", "port-restricted")
RELAYED = ("symmetric-random", "port-restricted")


class OneWay:
    """A ping from one host to another each `period` seconds, from now on."""

    def __init__(self, mesh, sender, receiver, period=0.1):
        self.mesh, self.sender, self.receiver, self.period = mesh, sender, receiver, period
        self.began = mesh.network.now
        self._send()

    def _send(self):
        self.sender.ping(self.receiver)
        self.mesh.network.clock.at(self.mesh.network.now + self.period, self._send)

    def gap(self):
        """The longest time in which nothing arrived."""
        inner = self.sender.inner
        times = [at for at, data, source in self.receiver.delivered if data == b"ping" and source.address == inner]
        heard = [self.began, *(at for at in times if at >= self.began), self.mesh.network.now]
        return max(after - before for before, after in pairwise(heard))


def handshakes(host, other, since):
    key = other.private.public_key()
    return [e for e in host.events if isinstance(e, PeerHandshake) and e.key == key and e.at >= since]


@pytest.mark.parametrize("blocked", [(0, 1), (1, 0)], ids=["there", "back"])
@pytest.mark.parametrize("pair", [("public", "port-restricted"), NATED, ("full-cone", "public")], ids="-".join)
def test_a_way_that_leads_in_one_direction_only_is_not_used(pair, blocked):
    for seed in (2, 3):
        mesh = Mesh(pair, seed, loss=0.05)
        addresses = [mesh.hosts[number].public_address for number in blocked]
        mesh.network.blocked_one_way.add((addresses[0], addresses[1]))
        a, b = mesh.hosts
        flows = OneWay(mesh, a, b), OneWay(mesh, b, a)
        mesh.network.clock.run(30)
        assert mesh.are(PathWord.RELAY)
        assert max(flow.gap() for flow in flows) <= 1.6, seed
        relay = mesh.registry_host.address
        assert {member.endpoint(host).address for member, host in zip(mesh.members, (b, a), strict=True)} == {relay}


def test_a_member_that_is_offline_is_not_knocked_at_all_the_time():
    """A NAT that burned the flow would never forget it; and where it was, somebody else may be."""
    mesh = connect(NATED, 3)
    mesh.network.clock.run(3)
    a, b = mesh.hosts
    b.is_up = False
    since = mesh.network.now
    OneWay(mesh, a, b, 1.0)
    mesh.network.clock.run(300)
    knocks = mesh.network.between(a.public_address, b.public_address, since + 15)  # after the flow, and the first doubt
    assert 0 < len(knocks) <= PACKETS_A_CANDIDATE * 300 / 40 + 1
    assert max(after.at - before.at for before, after in pairwise(knocks)) > 30
    b.is_up = True
    since = mesh.network.now
    mesh.network.clock.run(8, until=lambda: bool(handshakes(a, b, since)))
    assert mesh.members[0].path(b) is not PathWord.PUNCHING


def test_a_flow_in_one_direction_costs_either_side_a_check_each_5_seconds_at_most():
    mesh = connect(NATED, 3)
    mesh.network.clock.run(7)
    flow = OneWay(mesh, *mesh.hosts)
    mesh.network.clock.run(180)
    for host in mesh.hosts:
        sent = [c.datagram for c in mesh.network.crossings if c.at >= flow.began]
        pings = [d for d in sent if d.source.address == host.public_address and d.data[:5] == MAGIC + bytes([PING])]
        assert 0 < len(pings) <= 180 / 5 + 1  # the first is not told from a flow both ways
    assert mesh.are(PathWord.DIRECT)
    assert flow.gap() <= 0.11


def test_a_relayed_flow_in_one_direction_does_not_punch_all_the_time():
    mesh = connect(RELAYED, 3)
    mesh.network.clock.run(7)
    flow = OneWay(mesh, *mesh.hosts)
    mesh.network.clock.run(180)
    since = flow.began + 10
    assert mesh.are(PathWord.RELAY)
    assert flow.gap() <= 0.11
    assert len(handshakes(*mesh.hosts, since)) <= 180 / 60 + 2  # and WireGuard's own renewals
    orders = [told.at for told in mesh.members[0].told if isinstance(told.news, Ordered) and told.at >= since]
    assert len(orders) <= 180 / 60 + 1


VICTIM = ip_address("203.0.113.99")


def lies(number, now):
    """Candidates that are a victim's, each time others."""
    ports = range(1000 + 8 * number, 1008 + 8 * number)
    return [Candidate.create(CandidateKind.SERVER_REFLEXIVE, Endpoint(VICTIM, port), now) for port in ports]


def test_a_registry_that_orders_without_end_is_followed_twice_a_second():
    mesh = connect(("public", "port-restricted"), 4)
    mesh.network.clock.run(7)
    agent = mesh.members[0].agent
    own, other = (host.private.public_key() for host in mesh.hosts)
    for number in range(1000):
        agent.ordered(other, own, lies(number, mesh.network.now), None, mesh.network.now)
        mesh.members[0].want(mesh.hosts[1])
        mesh.network.clock.run(0.01)
    orders = [told for told in mesh.members[0].told if isinstance(told.news, Ordered)]
    assert len(orders) <= ORDERS_BURST + ORDERS_RATE * 10 + 2


def test_candidates_that_change_all_the_time_draw_few_checks():
    mesh = connect(NATED, 4)
    mesh.network.clock.run(7)
    agent, other = mesh.members[0].agent, mesh.hosts[1].private.public_key()
    for number in range(350):
        agent.set_candidates(other, lies(number, mesh.network.now), None, mesh.network.now)
        mesh.members[0].network_changed() if number == 5 else None
        mesh.network.clock.run(0.1)
    drawn = [c for c in mesh.network.crossings if c.datagram.destination.address == VICTIM]
    assert 0 < len(drawn) <= TOLD_BURST + TOLD_RATE * 35 + PACKETS_A_CANDIDATE * MAX_CANDIDATES


UNUSABLE = ("127.0.0.1:53", "0.0.0.0:53", "224.0.0.251:53", "169.254.1.1:53", "10.9.0.1:53", "10.9.0.3:53", "[::1]:53",
            "[ff02::fb]:53", "[fe80::1]:53", "[::ffff:127.0.0.1]:53", "255.255.255.255:53")  # fmt: skip


def test_what_must_not_be_a_peers_is_never_sent_to():
    mesh = connect(NATED, 4)
    member = mesh.members[0]
    endpoints = [Endpoint.from_text(text) for text in UNUSABLE] + [Endpoint(mesh.hosts[0].address, 51820)]
    claims = [Candidate.create(CandidateKind.HOST, endpoint, mesh.network.now) for endpoint in endpoints]
    own, other = (host.private.public_key() for host in mesh.hosts)
    since = mesh.network.now
    for part in range(0, len(claims), MAX_CANDIDATES):
        member.agent.ordered(other, own, claims[part : part + MAX_CANDIDATES], None, mesh.network.now)
        member.agent.set_candidates(other, claims[part : part + MAX_CANDIDATES], None, mesh.network.now)
        member.agent.set_lan(other, tuple(endpoints), mesh.network.now)
        member.network_changed()
        mesh.network.clock.run(6)
    sent = {c.datagram for c in mesh.network.crossings if c.at >= since}
    sent = {d.destination for d in sent if d.source.address == mesh.hosts[0].public_address}
    assert sent.isdisjoint(endpoints)
    assert mesh.are(PathWord.DIRECT)


@pytest.mark.parametrize("pair", [NATED, RELAYED], ids="-".join)
def test_no_packet_is_lost_when_a_crossed_handshake_is_renewed(pair):
    """Both wanted each other at once: both are initiators, and each sends in what is the other's previous session."""
    mesh = Mesh(pair, 2)
    a, b = mesh.hosts
    a.ping(b)
    b.ping(a)
    OneWay(mesh, a, b, 1.0)
    OneWay(mesh, b, a, 1.0)
    mesh.network.clock.run(REKEY_AFTER_TIME - 2)
    flows = OneWay(mesh, a, b, 0.01), OneWay(mesh, b, a, 0.01)
    mesh.network.clock.run(1)
    for flow in flows:
        flow.began = mesh.network.now
    mesh.network.clock.run(5)
    assert len(handshakes(a, b, flows[0].began)) == 1
    assert max(flow.gap() for flow in flows) < 0.015
