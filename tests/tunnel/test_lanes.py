"""Lanes are given for what stands, taken back by all else, and come to what looking at each burst comes to."""

import random
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from tests.tunnel.wire import INITIATION, Node, Wire, ip_packet, joined
from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.burst import Frames, Room
from wgdisco.tunnel.events import Drop, PeerSilent, PeerWanted
from wgdisco.tunnel.lanes import Carried
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.messages import REJECT_AFTER_TIME, REKEY_AFTER_TIME


def peer_of(here: Node, there: Node):
    return here.device.peers[there.key]


def is_on_lane(here: Node, there: Node) -> bool:
    """Whether a lane that was given would still be used."""
    session = peer_of(here, there)._on_lane
    return session is not None and bool(session.parts()[2].lane)


def give(here: Node, there: Node):
    """What the shell does for who talked: a lane, if there may be one."""
    lane = peer_of(here, there).lane(here.wire.now)
    if lane is not None:
        lane.session.parts()[2].lane = 1
    return lane


def standing(**changes) -> tuple[Wire, Node, Node]:
    """Two with a session, who have both sent and received data."""
    wire, alice, bob = joined(**changes)
    alice.ping(bob), bob.ping(alice), alice.ping(bob)
    return wire, alice, bob


@dataclass
class Side:
    """One end of a lane: what `_lanes.c` keeps, by the times of the packets."""

    node: Node
    other: Node
    waits: bool = False
    carried: Carried = field(default_factory=Carried)

    def send(self, packet: bytes, now: float) -> list:
        session, what = peer_of(self.node, self.other)._on_lane, self.carried
        sealed = session.seal(Frames.of(packet), 1420, Room())
        what.tx_bytes += sum(len(burst.data) for burst in sealed.bursts)
        what.sent_at = now
        what.unanswered_at = what.unanswered_at or now
        what.waiting_at, self.waits = None, False
        return sealed.bursts

    def receive(self, burst, now: float) -> None:
        session, what = peer_of(self.node, self.other)._on_lane, self.carried
        received = session.open(burst, Room())
        assert received.packets == 1
        what.rx_bytes += received.size
        what.received_at, what.unanswered_at = now, None
        what.more |= self.waits
        what.waiting_at = what.waiting_at if self.waits else now
        self.waits = True

    def tell(self) -> None:
        peer, what, self.carried = peer_of(self.node, self.other), self.carried, Carried()
        if what != Carried():
            self.node.device.carried(peer, peer._on_lane, what)


@pytest.mark.rule("T5", "T6", "T9", "T13")
@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("keepalive", [0, 25])
@pytest.mark.parametrize("seed", range(12))
def test_the_timers_cannot_tell(monkeypatch, seed, keepalive, managed):
    """The same packets at the same times, by lanes that tell of them later or one by one: the same follows."""
    monkeypatch.setattr(Local, "jitter", lambda _self: 0.5)
    logs, statuses, silences = [], [], []
    for by_lane in (True, False):
        chance = random.Random(seed)
        wire, alice, bob = joined(seed, persistent_keepalive=keepalive, managed=managed)
        for node in (alice, bob):
            node.device.set_relays(frozenset({Endpoint.from_text("198.51.100.77:1")}))
        alice.ping(bob), bob.ping(alice)
        went = 0
        for _ in range(30):
            wire.run(chance.uniform(0.0, 14.0))
            talk = [(alice, bob) if chance.random() < 0.5 else (bob, alice) for _ in range(chance.randint(1, 6))]
            lanes = [give(alice, bob), give(bob, alice)] if by_lane else [None, None]
            sides = {}
            if all(lane is not None and wire.now + 0.01 < lane.until for lane in lanes):
                sides = {
                    node: Side(node, other, lane.waits)
                    for node, other, lane in zip((alice, bob), (bob, alice), lanes, strict=True)
                }
            for here, there in talk:
                wire.now += 0.001
                packet = ip_packet(here.inner[0], there.inner[0], bytes(8))
                if not sides:
                    here.send(packet)
                    continue
                went += 1
                for burst in sides[here].send(packet, wire.now):
                    sides[there].receive(burst, wire.now)
            for side in sides.values():
                side.tell()
            wire.settle()
        assert (went > 10) == by_lane
        wire.log.clear()
        tail = wire.run(400.0)
        logs.append([(round(sent.at, 6), sent.source, sent.kind, len(sent.data)) for sent in tail])
        status = [here.status(there) for here, there in ((alice, bob), (bob, alice))]
        silences.append([[round(event.at, 6) for event in node.events_of(PeerSilent)] for node in (alice, bob)])
        statuses.append([(one.tx_bytes, one.rx_bytes, one.received_at, one.handshake_at) for one in status])
    assert logs[0] == logs[1]
    assert statuses[0] == statuses[1]
    assert silences[0] == silences[1]
    assert any(silences[0]) == managed


def test_there_is_none_before_a_session_or_while_one_is_not_confirmed():
    wire, alice, bob = joined()
    assert give(alice, bob) is None
    wire.hold = True
    alice.ping(bob)
    assert give(alice, bob) is None
    wire.release()
    alice.ping(bob), bob.ping(alice)
    assert give(alice, bob) is not None
    assert give(bob, alice) is not None


def test_it_ends_in_time_for_the_next_handshake():
    wire, alice, bob = standing()
    began, answered = (peer_of(*pair)._sessions.current for pair in ((alice, bob), (bob, alice)))
    assert give(alice, bob).until == began.created_at + REKEY_AFTER_TIME
    assert give(bob, alice).until == answered.created_at + REJECT_AFTER_TIME
    wire.now = began.created_at + REKEY_AFTER_TIME
    assert give(alice, bob) is None


def test_it_is_not_given_to_who_came_from_elsewhere():
    """Data from another place is to be told of; then that is where we send to, and all is as before."""
    _, alice, bob = standing()
    bob.endpoint = Endpoint.from_text("203.0.113.9:1")
    give(alice, bob)
    bob.ping(alice)
    assert not is_on_lane(alice, bob)
    assert give(alice, bob) is not None
    alice.change(bob, endpoint=Endpoint.from_text("203.0.113.10:1"))
    assert give(alice, bob) is None, "nothing came from there yet"


@pytest.mark.parametrize(
    "happens",
    [
        lambda _wire, alice, bob: alice.ping(bob),
        lambda _wire, alice, bob: bob.ping(alice),
        lambda _wire, alice, bob: alice.device.set_peer(bob.key, bob.endpoint, 5, alice.wire.now),
        lambda _wire, alice, bob: alice.change(bob, allowed_ips=(ip_network("10.9.7.0/24"),)),
        lambda _wire, alice, _bob: alice.device.set_up(False, alice.wire.now),
        lambda _wire, alice, _bob: alice.device.forget_sessions(),
        lambda _wire, alice, _bob: alice.device.set_private_key(None, alice.wire.now),
        lambda _wire, alice, bob: list(alice.device.remove_peers([peer_of(alice, bob)])),
        lambda wire, _alice, _bob: wire.run(200.0),
    ],
    ids=["sent", "received", "set", "configured", "down", "forgotten", "no key", "removed", "too old"],
)
def test_it_is_taken_back_by_whatever_happens(happens):
    wire, alice, bob = standing()
    give(alice, bob)
    session = peer_of(alice, bob)._on_lane
    assert is_on_lane(alice, bob)
    happens(wire, alice, bob)
    assert not session.parts()[2].lane


def test_a_new_session_does_not_leave_the_old_one_its_lane():
    wire, alice, bob = standing()
    give(alice, bob)
    old = peer_of(alice, bob)._on_lane
    wire.run(REKEY_AFTER_TIME + 1.0)
    alice.ping(bob)
    assert wire.since(0, INITIATION)[-1].at > REKEY_AFTER_TIME
    assert peer_of(alice, bob)._sessions.current is not old
    assert not old.parts()[2].lane


def test_which_addresses_changed_hands_is_seen():
    _, alice, bob = standing()
    before = alice.device.allowed_ips.changes
    alice.device.allowed_ips.insert(ip_network("10.9.0.2/32"), peer_of(alice, bob))
    alice.device.allowed_ips.remove(ip_network("10.9.0.2/32"), peer_of(alice, bob))
    assert alice.device.allowed_ips.changes > before + 1


def test_who_talked_is_known_by_address_once_somebody_asks():
    _, alice, bob = standing()
    assert alice.device.talked() == {}
    alice.ping(bob, 1), bob.ping(alice, 0)
    assert set(alice.device.talked()) == {ip_packet(bob.inner[1], alice.inner[1])[8:24], bytes([10, 9, 0, 2])}
    assert alice.device.talked() == {}


def test_routes_with_mtus_of_their_own_need_each_packet_looked_at():
    _, alice, bob = standing()
    alice.device.talked()
    alice.device.set_route_mtu(ip_network("10.9.0.2/32"), 1280)
    alice.ping(bob)
    assert alice.device.talked() == {}


def test_what_is_from_elsewhere_inside_is_not_delivered():
    _, alice, bob = standing()
    peer = peer_of(alice, bob)
    alice.device.deliver(peer, Frames.of(ip_packet("10.9.0.3", "10.9.0.1")))
    alice.device.deliver(peer, Frames.of(ip_packet("10.9.0.2", "10.9.0.1")))
    assert len(alice.device.packets_to_deliver()) == 1
    assert alice.drops(Drop.SOURCE_NOT_ALLOWED) == 1


def test_drops_are_counted():
    _, alice, bob = standing()
    give(alice, bob)
    peer = peer_of(alice, bob)
    alice.device.carried(peer, peer._on_lane, Carried(drops=((Drop.FORGED, 3), (Drop.REPLAYED, 2))))
    assert (alice.drops(Drop.FORGED), alice.drops(Drop.REPLAYED)) == (3, 2)


def test_silence_and_want_of_a_managed_peer_are_told():
    wire, alice, bob = joined(managed=True)
    alice.device.set_relays(frozenset({Endpoint.from_text("198.51.100.77:1")}))
    alice.ping(bob), bob.ping(alice)
    wire.run(30.0)
    alice.ping(bob), bob.ping(alice)
    wire.lose = lambda _sent: True
    wire.run(25.0)
    alice.events.clear()
    assert give(alice, bob) is not None
    side = Side(alice, bob)
    side.send(ip_packet(alice.inner[0], bob.inner[0]), wire.now)
    side.tell()
    wire.run(1.0)
    assert alice.events_of(PeerWanted)
    assert alice.events_of(PeerSilent)
