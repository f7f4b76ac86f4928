"""What must not happen to two members, whatever the network does to them: on the virtual clock."""

from itertools import pairwise

import pytest

from tests.sim.test_mesh import Mesh, connect
from wgdisco.api import PathWord
from wgdisco.peer.check import MAGIC, PING
from wgdisco.peer.news import Ordered
from wgdisco.peer.punch import PACKETS_A_CANDIDATE
from wgdisco.tunnel.events import PeerHandshake

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
