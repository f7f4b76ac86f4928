"""The relay, with real devices on both sides of it and a registry's between them."""

import random
from dataclasses import replace

import pytest

from tests.tunnel.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Node, Sent, Wire
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.registry.relay import (
    BYTES_AT_ONCE,
    BYTES_PER_SECOND,
    CROSSING,
    CROSSING_EVERY,
    HANDSHAKES_AT_ONCE,
    HELD_FOR,
    IDLE_EXPIRY,
    MAX_ANSWERED,
    MAX_OFFERED,
    MAX_ORDERS,
    Forward,
    Relay,
    RelayDrop,
)
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.cookie import CookieJar, mac1_key
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop, Foreign, PathSeen, PeerHandshake
from wgdisco.tunnel.messages import REJECT_AFTER_TIME, UNDER_LOAD_QUEUE

STRANGER = Endpoint.from_text("203.0.113.66:6666")


class RelayedWire(Wire):
    """A registry that relays, alice, bob and carol; each member has the others at the registry's endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay()
        self.passed: list[Sent] = []
        self.registry = self.node("198.51.100.10:51820", "10.9.0.9")
        self.registry.device = Device(self.random.randbytes, self.unix_time, relays=True)
        self.alice = self.node("192.0.2.1:1111", "10.9.0.1")
        self.bob = self.node("203.0.113.2:2222", "10.9.0.2")
        self.carol = self.node("203.0.113.3:3333", "10.9.0.3")
        members = (self.alice, self.bob, self.carol)
        for member in members:
            self.introduce(self.registry, member, endpoint=None)
            for other in members:
                if other is not member:
                    self.introduce(member, other, endpoint=self.registry.endpoint)
            self.introduce(member, self.registry, persistent_keepalive=25)

    def _collect(self) -> bool:
        events, more = self.registry.device.events(), super()._collect()
        self.registry.events += events
        for event in events:
            if isinstance(event, PeerHandshake | PathSeen):
                self.relay.locate(event.key, event.endpoint)
            elif isinstance(event, Foreign):
                more |= self.hand_on(self.relay.receive(event, self.now))
        return more

    def hand_on(self, forward: Forward | None) -> bool:
        if forward is None:
            return False
        for row in Burst(forward.data, forward.row).rows():
            sent = Sent(self.now, self.registry.endpoint, forward.endpoint, bytes(row))
            self.passed.append(sent)
            if not self.lose(sent):
                self._deliver(sent)
        return True

    def admit(self, a: Node, b: Node) -> bool:
        return self.relay.admit(a.key, b.key, self.now)

    def foreign(self, data: bytes, source: Endpoint | Node) -> Forward | None:
        at = source if isinstance(source, Endpoint) else source.endpoint
        return self.relay.receive(Foreign(data, len(data), at), self.now)


@pytest.fixture
def wire() -> RelayedWire:
    return RelayedWire()


def _initiation(to: PublicKey, index: int = 7) -> bytes:
    """What anybody can send who knows the public key: rubbish with a good mac1."""
    return CookieJar(to).add_macs(b"\x01\0\0\0" + index.to_bytes(4, "little") + bytes(108), 0.0)


def _response(to: PublicKey, own: int, index: int) -> bytes:
    body = b"\x02\0\0\0" + own.to_bytes(4, "little") + index.to_bytes(4, "little") + bytes(48)
    return CookieJar(to).add_macs(body, 0.0)


def _data(index: int, size: int = 32) -> bytes:
    return b"\x04\0\0\0" + index.to_bytes(4, "little") + bytes(size - 8)


# What passes


def test_two_members_with_an_order_talk_and_two_without_do_not(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.carol.ping(wire.bob)
    wire.bob.ping(wire.alice)
    assert len(wire.bob.delivered) == len(wire.alice.delivered) == 1
    assert wire.relay.drops == {RelayDrop.NO_ORDER: 1}


def test_all_kinds_pass_in_both_directions_and_sessions_are_renewed(wire):
    wire.admit(wire.alice, wire.bob)
    for number in range(60):
        wire.alice.ping(wire.bob)
        wire.bob.ping(wire.alice)
        wire.run(10)
        assert (len(wire.bob.delivered), len(wire.alice.delivered)) == (number + 1, number + 1)
    assert {sent.kind for sent in wire.passed} == {INITIATION, RESPONSE, TRANSPORT}
    assert sum(sent.kind == INITIATION for sent in wire.passed) >= 5
    assert not wire.relay.drops
    assert len(wire.relay._members[wire.alice.key].routes) <= MAX_ANSWERED + MAX_OFFERED


def test_a_handshake_begun_by_both_at_once_passes(wire):
    wire.admit(wire.alice, wire.bob)
    wire.hold = True
    wire.alice.ping(wire.bob)
    wire.bob.ping(wire.alice)
    wire.release()
    assert len(wire.bob.delivered) == len(wire.alice.delivered) == 1


def test_of_two_that_cross_the_first_goes_on_and_nobody_is_kept_out(wire):
    """Those of other engines spoil each other; who is sent forged initiations waits once, and not for long."""
    wire.admit(wire.alice, wire.bob)
    to_bob, to_alice = _initiation(wire.bob.key), _initiation(wire.alice.key)
    assert wire.foreign(to_bob, wire.alice) is not None
    assert wire.foreign(to_alice, wire.bob) is None
    assert wire.foreign(to_bob, wire.alice) is not None
    assert wire.foreign(to_alice, wire.bob) is not None  # the next one
    assert wire.relay.drops == {RelayDrop.CROSSING: 1}
    wire.now += CROSSING_EVERY
    assert wire.foreign(to_bob, wire.alice) is not None
    assert wire.foreign(_response(wire.alice.key, 9, 7), wire.bob) is not None
    assert wire.foreign(to_alice, wire.bob) is not None  # it was answered
    wire.now += CROSSING
    assert wire.foreign(to_bob, wire.alice) is not None  # nobody answered in time


def test_a_cookie_reply_finds_its_way(wire):
    wire.admit(wire.alice, wire.bob)
    wire.bob.busy = True
    for number in range(UNDER_LOAD_QUEUE):
        wire.bob.device.receive(Burst.of(_initiation(wire.bob.key, number)), STRANGER, wire.now)
    wire.alice.ping(wire.bob)
    assert [sent.kind for sent in wire.passed] == [INITIATION, COOKIE_REPLY]
    assert wire.passed[1].destination == wire.alice.endpoint


def test_a_burst_passes_as_one(wire):
    wire.admit(wire.alice, wire.bob)
    assert wire.foreign(_initiation(wire.bob.key, 7), wire.alice) is not None
    assert wire.foreign(_response(wire.alice.key, 9, 7), wire.bob) is not None
    data = _data(9, 1452) * 40 + _data(9, 100)
    wire.registry.device.receive(Burst(data, 1452), wire.alice.endpoint, wire.now)
    (foreign,) = wire.registry.device.events()
    assert wire.relay.receive(foreign, wire.now) == Forward(wire.bob.key, wire.bob.endpoint, data, 1452)


def test_a_member_that_moved_is_reached_where_it_is_now(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.bob.endpoint = Endpoint.from_text("203.0.113.99:999")
    wire.bob.ping(wire.registry)
    wire.alice.ping(wire.bob)
    wire.bob.ping(wire.alice)
    assert (len(wire.bob.delivered), len(wire.alice.delivered)) == (2, 1)
    assert wire.foreign(_initiation(wire.alice.key), Endpoint.from_text("203.0.113.2:2222")) is None


def test_the_registry_never_takes_a_member_to_be_where_the_relay_delivered(wire):
    """What passes leaves its device untouched: endpoints, and what it told, are those from before."""
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.bob.ping(wire.alice)
    known = {peer.key: peer.endpoint for peer in wire.registry.device.status().peers}
    assert known == {node.key: node.endpoint for node in (wire.alice, wire.bob, wire.carol)}
    told = {event.endpoint for event in wire.registry.events if isinstance(event, PeerHandshake | PathSeen)}
    assert told == set(known.values())
    assert wire.registry.delivered == []


def test_what_passed_is_counted_by_member(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    sizes = [len(sent.data) for sent in wire.passed if sent.destination == wire.bob.endpoint]
    alice, bob = (wire.relay.traffic()[node.key] for node in (wire.alice, wire.bob))
    assert (alice.tx_packets, alice.tx_bytes) == (bob.rx_packets, bob.rx_bytes) == (len(sizes), sum(sizes))
    assert (alice.rx_packets, alice.rx_bytes) == (bob.tx_packets, bob.tx_bytes) == (1, 92)
    wire.relay.revoke(wire.bob.key)
    assert (wire.relay.passed.rx_packets, wire.relay.passed.rx_bytes) == (len(sizes) + 1, sum(sizes) + 92)


# What does not


def test_a_stranger_gets_nothing_through(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    index = wire.passed[-1].index
    for message in (_initiation(wire.bob.key), _response(wire.bob.key, 1, index), _data(index), bytes(64)):
        assert wire.foreign(message, STRANGER) is None
    assert wire.relay.drops == {RelayDrop.UNKNOWN_SOURCE: 4}


def test_an_index_is_worth_nothing_to_another_member(wire):
    wire.admit(wire.alice, wire.bob)
    wire.admit(wire.carol, wire.bob)
    wire.alice.ping(wire.bob)
    index = wire.passed[-1].index
    assert wire.foreign(_data(index), wire.alice) is not None
    assert wire.foreign(_data(index), wire.carol) is None
    assert wire.foreign(_response(wire.bob.key, 1, index), wire.carol) is None
    assert wire.relay.drops == {RelayDrop.UNKNOWN_INDEX: 2}


def test_a_member_cannot_take_over_an_index_that_is_anothers(wire):
    """Carol offers bob the very index that alice has with him: his answers stay alice's."""
    for other in (wire.alice, wire.carol):
        wire.admit(other, wire.bob)
    assert wire.foreign(_initiation(wire.bob.key, 7), wire.alice) is not None
    assert wire.foreign(_initiation(wire.bob.key, 7), wire.carol) is None
    found = wire.foreign(_response(wire.alice.key, 9, 7), wire.bob)
    assert found is not None
    assert found.key == wire.alice.key


def test_forged_initiations_push_out_no_session(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    for number in range(100):
        assert wire.foreign(_initiation(wire.bob.key, 1000 + number), wire.alice) is not None
    assert len(wire.relay._members[wire.bob.key].routes) == MAX_OFFERED + 1
    wire.alice.ping(wire.bob)
    wire.bob.ping(wire.alice)
    assert (len(wire.bob.delivered), len(wire.alice.delivered)) == (2, 1)


def test_answers_are_bounded_too(wire):
    wire.admit(wire.alice, wire.bob)
    for number in range(100):
        assert wire.foreign(_initiation(wire.bob.key, number), wire.alice) is not None
        assert wire.foreign(_response(wire.alice.key, number, number), wire.bob) is not None
    for node in (wire.alice, wire.bob):
        assert len(wire.relay._members[node.key].routes) == MAX_ANSWERED
    assert wire.foreign(_data(99), wire.alice) is not None
    assert wire.foreign(_data(0), wire.alice) is None


def test_no_sequence_of_messages_raises_or_passes_without_an_order():
    """Three members with few indices among them, 20,000 random steps: the invariants hold, all state stays bounded."""
    wire, rng = RelayedWire(), random.Random(4)
    nodes = [wire.alice, wire.bob, wire.carol]
    for node in nodes:
        node.ping(wire.registry)
    pairs: set[frozenset[PublicKey]] = set()
    for _ in range(20_000):
        wire.now += rng.choice((0.01, 0.1, 1.0))
        a, b = rng.sample(nodes, 2)
        step = rng.randrange(40)
        if step == 0:
            pairs.add(frozenset((a.key, b.key)))
            wire.admit(a, b)
        elif step == 1:
            wire.relay.revoke(a.key)
            pairs = {pair for pair in pairs if a.key not in pair}
            wire.relay.locate(a.key, a.endpoint)
        elif step == 2:
            wire.relay.keep(lambda one, other, a=a, b=b: {one, other} != {a.key, b.key})
            pairs.discard(frozenset((a.key, b.key)))
        else:
            index, own = rng.randrange(30), rng.randrange(30)
            message = rng.choice(
                [_initiation(b.key, own), _response(b.key, own, index), _data(index), rng.randbytes(64)]
            )
            passed = wire.foreign(message, a)
            assert passed is None or frozenset((a.key, passed.key)) in pairs
        for member in wire.relay._members.values():
            assert len(member.routes) <= 2 * (MAX_OFFERED + MAX_ANSWERED)
            assert set(member.routes.values()) <= set(member.orders)


# Orders


def test_an_order_lapses_60_s_after_the_last_datagram(wire):
    wire.admit(wire.alice, wire.bob)
    wire.foreign(_initiation(wire.bob.key), wire.alice)
    wire.now += IDLE_EXPIRY - 0.1
    assert wire.foreign(_initiation(wire.bob.key), wire.alice) is not None
    wire.now += IDLE_EXPIRY - 0.1
    assert wire.foreign(_initiation(wire.bob.key), wire.alice) is not None
    wire.now += IDLE_EXPIRY
    assert wire.foreign(_initiation(wire.bob.key), wire.alice) is None
    assert wire.relay.drops == {RelayDrop.NO_ORDER: 1}


def test_an_initiation_waits_for_its_order_once_and_not_for_long(wire):
    for node in (wire.alice, wire.bob):
        wire.relay.locate(node.key, node.endpoint)
    bob, carol = wire.bob.key, wire.carol.key
    for waited, passed in ((HELD_FOR, 1), (HELD_FOR + 0.1, 0)):
        foreign = Foreign(_initiation(bob), 148, wire.alice.endpoint)
        assert wire.relay.receive(foreign, wire.now) is None
        wire.relay.admit(wire.alice.key, carol, wire.now)
        assert wire.relay.held(wire.alice.key, carol, wire.now) == []  # it is for bob
        wire.relay.admit(wire.alice.key, bob, wire.now + waited)
        forwards = wire.relay.held(bob, wire.alice.key, wire.now + waited)
        assert [(one.key, one.endpoint, one.data) for one in forwards] == [
            (bob, wire.bob.endpoint, foreign.data)
        ] * passed
        assert wire.relay.held(bob, wire.alice.key, wire.now + waited) == []
        wire.relay.revoke(bob)
        wire.relay.locate(bob, wire.bob.endpoint)


def test_a_session_goes_on_when_a_lapsed_order_is_given_again(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.run(IDLE_EXPIRY + 20)
    wire.alice.ping(wire.bob)
    assert len(wire.bob.delivered) == 1
    wire.admit(wire.bob, wire.alice)
    before = len(wire.passed)
    wire.alice.ping(wire.bob)
    assert len(wire.bob.delivered) == 2
    assert {sent.kind for sent in wire.passed[before:]} == {TRANSPORT}


def test_a_member_has_at_most_64_orders_and_lapsed_ones_make_room(wire):
    others = [PrivateKey(bytes([number]) * 32).public_key() for number in range(1, MAX_ORDERS + 2)]
    assert all(wire.relay.admit(wire.alice.key, other, wire.now) for other in others[:MAX_ORDERS])
    assert not wire.relay.admit(wire.alice.key, others[-1], wire.now)
    assert not wire.relay.admit(others[-1], wire.alice.key, wire.now)
    assert wire.relay.admit(others[0], wire.alice.key, wire.now)
    wire.now += IDLE_EXPIRY
    assert wire.relay.admit(wire.alice.key, others[-1], wire.now)
    assert len(wire.relay._members[wire.alice.key].orders) == MAX_ORDERS
    wire.now += IDLE_EXPIRY + REJECT_AFTER_TIME
    assert wire.relay.admit(wire.alice.key, others[0], wire.now)
    assert len(wire.relay._members[wire.alice.key].orders) == 1


def test_nobody_has_an_order_with_itself(wire):
    assert not wire.admit(wire.alice, wire.alice)


def test_a_revoked_member_is_cut_off_at_once(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.relay.revoke(wire.bob.key)
    wire.alice.ping(wire.bob)
    wire.bob.ping(wire.alice)
    assert (len(wire.bob.delivered), len(wire.alice.delivered)) == (1, 0)
    assert wire.bob.key not in wire.relay.traffic()


def test_who_may_no_longer_reach_another_is_cut_off_from_that_one_alone(wire):
    wire.admit(wire.alice, wire.bob)
    wire.admit(wire.alice, wire.carol)
    wire.alice.ping(wire.bob)
    wire.alice.ping(wire.carol)
    wire.relay.keep(lambda one, other: wire.bob.key not in (one, other))
    wire.alice.ping(wire.bob)
    wire.alice.ping(wire.carol)
    assert (len(wire.bob.delivered), len(wire.carol.delivered)) == (1, 2)


def test_a_session_outlasts_a_change_of_key(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    new = PrivateKey(bytes(31) + b"\x01").public_key()
    wire.relay.rename(wire.bob.key, new)
    wire.alice.ping(wire.bob)
    wire.bob.ping(wire.alice)
    assert (len(wire.bob.delivered), len(wire.alice.delivered)) == (2, 1)
    found = wire.foreign(_initiation(new), wire.alice)
    assert found is not None
    assert (found.key, found.endpoint) == (new, wire.bob.endpoint)


def test_a_member_that_went_silent_is_sent_nothing(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.relay.locate(wire.bob.key, None)
    wire.alice.ping(wire.bob)
    assert len(wire.bob.delivered) == 1
    assert wire.relay.drops == {RelayDrop.NO_ENDPOINT: 1}


# Limits


def test_bytes_are_limited_by_sender(wire):
    wire.admit(wire.alice, wire.bob)
    wire.foreign(_initiation(wire.bob.key, 7), wire.alice)
    wire.foreign(_response(wire.alice.key, 9, 7), wire.bob)
    data = _data(9, 1000)
    wire.now += 1
    passed = sum(wire.foreign(data, wire.alice) is not None for _ in range(2 * BYTES_AT_ONCE // 1000))
    assert passed == BYTES_AT_ONCE // 1000
    assert wire.relay.drops == {RelayDrop.TOO_MANY_BYTES: passed}
    assert wire.foreign(_data(7, 1000), wire.bob) is not None
    wire.now += 0.1
    passed = sum(wire.foreign(data, wire.alice) is not None for _ in range(2 * BYTES_PER_SECOND // 10_000))
    assert passed == BYTES_PER_SECOND // 10_000


def test_handshakes_are_limited_by_sender(wire):
    wire.admit(wire.alice, wire.bob)
    message = _initiation(wire.bob.key)
    passed = sum(wire.foreign(message, wire.alice) is not None for _ in range(1000))
    assert passed == HANDSHAKES_AT_ONCE
    assert wire.relay.drops == {RelayDrop.TOO_MANY_HANDSHAKES: 1000 - HANDSHAKES_AT_ONCE}
    wire.now += CROSSING
    assert wire.foreign(_initiation(wire.alice.key), wire.bob) is not None


# What the device hands over


def test_a_device_that_does_not_relay_counts_instead(wire):
    for message in (_initiation(wire.bob.key), _data(1), b"\x03\0\0\0" + bytes(60)):
        wire.alice.device.receive(Burst.of(message), STRANGER, wire.now)
    assert wire.alice.device.events() == []
    assert wire.alice.drops(Drop.BAD_MAC1) == 1
    assert wire.alice.drops(Drop.UNKNOWN_INDEX) == 2


def test_a_device_that_relays_keeps_what_is_its_own(wire):
    wire.alice.ping(wire.registry)
    assert len(wire.registry.delivered) == 1
    assert not [event for event in wire.registry.events if isinstance(event, Foreign)]
    assert replace(wire.registry.device.status(), drops={}).peers[0].rx_bytes > 0


# Beside an engine that takes its own part


def test_what_is_the_engines_own_is_left_to_it(wire):
    alice, bob = wire.alice.endpoint, wire.bob.endpoint
    own = mac1_key(wire.registry.key)
    for member in (wire.alice, wire.bob):
        wire.relay.locate(member.key, member.endpoint)
    wire.admit(wire.alice, wire.bob)

    def concerns(data: bytes, source: Endpoint) -> bool:
        return wire.relay.concerns(Foreign(data, len(data), source), own)

    assert not concerns(_initiation(wire.registry.key), alice)
    assert concerns(_initiation(wire.bob.key), alice)
    assert not concerns(_initiation(wire.bob.key), STRANGER)
    assert not concerns(_response(wire.alice.key, 9, 7), bob)
    wire.foreign(_initiation(wire.bob.key, 7), alice)
    assert wire.relay.indices(9) == {7}
    for message in (_response(wire.alice.key, 9, 7), _data(7)):
        assert concerns(message, bob)
        assert not concerns(message, alice)
    assert not concerns(_data(8), bob)
    assert not any(concerns(bytes(size), bob) for size in range(200))
    wire.foreign(_response(wire.alice.key, 9, 7), bob)
    assert wire.relay.indices(2) == {7, 9}
    assert len(wire.relay.indices(0)) == 1
    assert not wire.relay.drops


def test_when_both_have_left_nothing_passes_until_they_are_admitted_again(wire):
    wire.admit(wire.alice, wire.bob)
    wire.alice.ping(wire.bob)
    wire.relay.leave(wire.alice.key, wire.bob.key, wire.now)
    wire.alice.ping(wire.bob)
    assert len(wire.bob.delivered) == 2
    wire.relay.leave(wire.bob.key, wire.alice.key, wire.now)
    wire.relay.leave(wire.bob.key, wire.carol.key, wire.now)  # of those they have no order with, nothing
    wire.alice.ping(wire.bob)
    assert len(wire.bob.delivered) == 2
    wire.admit(wire.bob, wire.alice)
    wire.alice.ping(wire.bob)
    assert len(wire.bob.delivered) == 3
