"""One peer's life between two devices on a virtual clock: handshakes, timers, roaming (rules H, T, D, E)."""

import random
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise

import pytest

from tests.tunnel.test_noise import LOW_ORDER
from tests.tunnel.wire import INITIATION, RESPONSE, TRANSPORT, Node, Sent, Wire, ip_packet, joined
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.burst import Burst, Frames
from wgdisco.tunnel.cookie import CookieJar
from wgdisco.tunnel.events import Drop, PathSeen, PeerHandshake, PeerWanted
from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, Initiation
from wgdisco.tunnel.session import Session

SOMEWHERE = Endpoint.from_text("203.0.113.77:4321")
ELSEWHERE = Endpoint.from_text("[2001:db8::77]:1234")


def _kinds(log: list[Sent]) -> list[int]:
    return [sent.kind for sent in log]


def _met(seed: int = 1, **changes) -> tuple[Wire, Node, Node]:
    """Two nodes with a session, begun by alice with one packet; nothing of it is on record any more."""
    wire, alice, bob = joined(seed, **changes)
    alice.ping(bob)
    assert len(bob.delivered) == 1
    for node in (alice, bob):
        node.delivered.clear()
        node.events.clear()
    wire.log.clear()
    return wire, alice, bob


def _current(here: Node, there: Node) -> Session:
    session = here.device.peers[there.key]._sessions.current
    assert session is not None
    return session


def _timestamp(initiation: Sent, responder: Node) -> bytes:
    opened = noise.open_initiation(responder.private, responder.key, Initiation.parse(initiation.data))
    assert opened is not None
    state = noise.verify_initiation(opened, noise.static_static(responder.private, opened.remote))
    assert state is not None
    return state.timestamp


# The handshake


@pytest.mark.rule("H14")
@pytest.mark.parametrize("which", [0, 1], ids=["IPv4 inside", "IPv6 inside"])
@pytest.mark.parametrize(
    ("one", "other"),
    [("192.0.2.1:51820", "198.51.100.2:51821"), ("[2001:db8::1]:65535", "[2001:db8::2]:1")],
    ids=["IPv4 outside", "IPv6 outside"],
)
def test_a_packet_brings_a_handshake_and_then_goes(which, one, other):
    wire = Wire()
    alice = wire.node(one, "10.9.0.1", "fd00:9::1")
    bob = wire.node(other, "10.9.0.2", "fd00:9::2")
    wire.introduce(alice, bob)
    wire.introduce(bob, alice, endpoint=None)
    packet = alice.ping(bob, which)
    assert _kinds(wire.log) == [INITIATION, RESPONSE, TRANSPORT]
    assert bob.delivered == [packet]
    answer = bob.ping(alice, which)
    assert _kinds(wire.log[3:]) == [TRANSPORT]
    assert alice.delivered == [answer]
    assert bob.status(alice).endpoint == alice.endpoint


@pytest.mark.rule("H14", "D3")
def test_without_data_a_keepalive_confirms_the_session():
    wire, _alice, bob = joined()
    wire.log.clear()
    _alice.change(bob, endpoint=bob.endpoint, persistent_keepalive=25)
    assert _kinds(wire.log) == [INITIATION, RESPONSE, TRANSPORT]
    assert wire.log[2].is_keepalive
    assert bob.delivered == []
    assert len(bob.events_of(PeerHandshake)) == 1


@pytest.mark.rule("T8")
def test_both_sides_tell_of_the_handshake_and_of_the_path():
    wire, alice, bob = joined()
    wire.run(5.0)
    alice.ping(bob)
    assert alice.events == [PeerWanted(bob.key, wire.now), PeerHandshake(bob.key, bob.endpoint, wire.now)]
    assert bob.events == [
        PathSeen(alice.key, alice.endpoint, wire.now),
        PeerHandshake(alice.key, alice.endpoint, wire.now),
    ]
    for here, there in ((alice, bob), (bob, alice)):
        status = here.status(there)
        assert (status.handshake_at, status.received_at) == (wire.now, wire.now)
        assert status.handshake_unix == wire.unix_time()
        assert status.unanswered_since is None
    alice.events.clear()
    bob.ping(alice)
    bob.ping(alice)
    assert alice.events == [PathSeen(bob.key, bob.endpoint, wire.now)], "handshake messages alone are no path"


@pytest.mark.rule("T8")
def test_an_initiation_alone_is_no_completed_handshake_and_no_path():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.source == alice.endpoint and sent.kind == TRANSPORT
    alice.ping(bob)
    assert bob.events == []
    assert bob.status(alice).handshake_at is None
    assert alice.status(bob).handshake_at == wire.now


@pytest.mark.rule("H13", "H14")
def test_the_responder_does_not_send_in_a_session_that_is_not_confirmed():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    mark = len(wire.log)
    packet = bob.ping(alice)
    assert wire.since(mark) == []
    wire.lose = lambda _sent: False
    alice.ping(bob)
    assert alice.delivered == [packet]
    assert _kinds(wire.since(mark, by=bob)) == [TRANSPORT]


def test_a_packet_waiting_for_a_confirmation_that_is_lost_still_goes():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    packet = bob.ping(alice)
    wire.lose = lambda _sent: False
    wire.run(5.4)
    assert alice.delivered == [packet]


@pytest.mark.rule("D12")
def test_counters_of_ten_pings_are_the_kernels():
    wire, alice, bob = joined()
    for _ in range(10):
        alice.ping(bob, payload=bytes(64))  # 84 bytes, as ping(8) sends
        bob.ping(alice, payload=bytes(64))
    assert (alice.status(bob).rx_bytes, alice.status(bob).tx_bytes) == (1372, 1428)
    assert (bob.status(alice).rx_bytes, bob.status(alice).tx_bytes) == (1428, 1372)
    assert sum(len(sent.data) for sent in wire.log) == 1372 + 1428


@pytest.mark.rule("H6")
def test_preshared_keys_must_match():
    preshared = PresharedKey(bytes([3]) * 32)
    wire, alice, bob = joined(preshared_key=preshared)
    alice.ping(bob)
    assert len(bob.delivered) == 1
    wire, alice, bob = joined()
    wire.introduce(alice, bob, preshared_key=preshared)
    alice.ping(bob)
    assert bob.delivered == []
    assert alice.drops(Drop.BAD_RESPONSE) == 1
    assert _kinds(wire.log) == [INITIATION, RESPONSE]


@pytest.mark.rule("H15")
def test_a_changed_preshared_key_takes_effect_with_the_next_handshake():
    wire, alice, bob = _met()
    alice.change(bob, preshared_key=PresharedKey(bytes([3]) * 32))
    packet = alice.ping(bob)
    assert bob.delivered == [packet]
    wire.run(121.0)
    alice.ping(bob)
    assert alice.drops(Drop.BAD_RESPONSE) == 1
    bob.change(alice, preshared_key=PresharedKey(bytes([3]) * 32))
    wire.run(6.0)
    assert alice.status(bob).handshake_at == pytest.approx(wire.now, abs=1.0)


@pytest.mark.rule("H12")
def test_a_newer_initiation_makes_the_older_ones_response_worthless():
    wire, alice, bob = joined()
    wire.hold = True
    alice.ping(bob)
    wire.run(5.4)
    first, second = [sent for sent in wire.held if sent.kind == INITIATION]
    bob.receive(first.data, alice.endpoint)
    late = next(sent for sent in wire.held if sent.kind == RESPONSE)
    alice.receive(late.data, bob.endpoint)
    assert alice.drops(Drop.UNKNOWN_INDEX) == 1
    assert alice.status(bob).handshake_at is None
    wire.now += 1.0
    wire.release(second)
    assert alice.status(bob).handshake_at == wire.now


@pytest.mark.rule("H12")
def test_a_response_is_consumed_once():
    wire, alice, bob = joined()
    alice.ping(bob)
    response = next(sent for sent in wire.log if sent.kind == RESPONSE)
    mark = len(wire.log)
    alice.receive(response.data, SOMEWHERE)
    assert wire.since(mark) == []
    assert alice.drops(Drop.UNKNOWN_INDEX) == 1
    assert alice.status(bob).endpoint == bob.endpoint


@pytest.mark.rule("H12")
def test_a_forged_response_leaves_the_handshake_as_it_was():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == RESPONSE
    alice.ping(bob)
    response = wire.log[1].data
    # Anybody who knows alice's public key can make a good mac1
    forged = CookieJar(alice.key).add_macs(response[:44] + bytes(16), wire.now)
    alice.receive(forged, SOMEWHERE)
    assert alice.drops(Drop.BAD_RESPONSE) == 1
    assert alice.status(bob).endpoint == bob.endpoint
    alice.receive(response, bob.endpoint)
    assert alice.status(bob).handshake_at == wire.now


@pytest.mark.rule("H9")
def test_a_replayed_initiation_is_not_answered():
    wire, alice, bob = _met()
    wire.run(200.0)
    alice.ping(bob)
    initiation = wire.since(0, INITIATION)[-1]
    wire.run(1.0)
    mark = len(wire.log)
    bob.receive(initiation.data, alice.endpoint)
    bob.receive(initiation.data, SOMEWHERE)
    assert wire.since(mark) == []
    assert bob.drops(Drop.REPLAYED_INITIATION) == 2
    assert bob.status(alice).endpoint == alice.endpoint


@pytest.mark.rule("H10")
def test_initiations_within_20_ms_are_dropped():
    wire, alice, bob = joined()
    wire.hold = True
    alice.ping(bob)
    wire.run(11.0)
    first, second, third = [sent for sent in wire.held if sent.kind == INITIATION]
    wire.release(first)
    bob.receive(second.data, alice.endpoint)
    assert bob.drops(Drop.INITIATION_FLOOD) == 1
    wire.now += 0.021
    bob.receive(second.data, alice.endpoint)
    assert bob.drops(Drop.INITIATION_FLOOD) == 1
    assert len(wire.since(0, RESPONSE)) == 2
    wire.now += 0.021
    bob.receive(first.data, alice.endpoint)
    assert bob.drops(Drop.REPLAYED_INITIATION) == 1
    bob.receive(third.data, alice.endpoint)
    assert len(wire.since(0, RESPONSE)) == 3


@pytest.mark.rule("H7")
@pytest.mark.parametrize("seed", range(3))
def test_receiver_indices_are_random(seed):
    wire, alice, bob = joined(seed)
    wire.lose = lambda _sent: True
    alice.ping(bob)
    wire.run(60.0)
    indices = [int.from_bytes(sent.data[4:8], "little") for sent in wire.since(0, INITIATION)]
    assert len(set(indices)) == len(indices) > 10
    assert max(indices) > 1 << 28
    assert len({later - earlier for earlier, later in pairwise(indices)}) == len(indices) - 1
    assert len(alice.device._local.indices) == 1, "an index is freed when a newer initiation goes out"


def test_a_crossed_handshake_completes_in_both_directions():
    wire, alice, bob = joined()
    wire.hold = True
    to_bob, to_alice = alice.ping(bob), bob.ping(alice)
    assert _kinds(wire.held) == [INITIATION, INITIATION]
    wire.release()
    assert bob.delivered == [to_bob]
    assert alice.delivered == [to_alice]
    to_bob, to_alice = alice.ping(bob, 1), bob.ping(alice, 1)
    assert bob.delivered[1:] == [to_bob]
    assert alice.delivered[1:] == [to_alice]
    assert INITIATION not in _kinds(wire.run(14.0))


@pytest.mark.parametrize("seed", range(40))
def test_a_crossed_handshake_completes_in_any_order_of_delivery(seed):
    """Every datagram of a crossing is delivered once, in any order whatever."""
    chance = random.Random(seed)
    wire, alice, bob = joined(seed)
    wire.hold = True
    sent = {bob: [alice.ping(bob)], alice: [bob.ping(alice)]}
    while wire.held:
        wire.pass_on(chance.choice(wire.held))
        wire.now += chance.choice((0.0, 0.001, 0.03))
    wire.hold = False
    for here, there in ((alice, bob), (bob, alice)):
        sent[there].append(here.ping(there, 1))
    wire.run(6.0)
    assert alice.delivered == sent[alice]
    assert bob.delivered == sent[bob]


# Time


@pytest.mark.rule("H8")
def test_timestamps_are_tai64n_rounded_down_to_2_to_the_24_ns():
    wire, alice, bob = joined()
    wire.unix_offset = 1_700_000_000.9 - wire.now
    alice.ping(bob)
    timestamp = _timestamp(wire.log[0], bob)
    assert timestamp[:8] == (0x400000000000000A + 1_700_000_000).to_bytes(8, "big")
    assert int.from_bytes(timestamp[8:], "big") == 900_000_000 // 2**24 * 2**24


@pytest.mark.rule("H8")
@pytest.mark.parametrize("step", [-3600.0, 0.0, 3600.0], ids=["back an hour", "standing still", "ahead an hour"])
def test_timestamps_rise_whatever_the_wall_clock_does(step):
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.source == bob.endpoint
    alice.ping(bob)
    wire.unix_offset += step
    for _ in range(12):
        before = wire.unix_time()
        wire.run(5.4)
        wire.unix_offset += before - wire.unix_time() if step == 0.0 else 0.0
    stamps = [_timestamp(sent, bob) for sent in wire.since(0, INITIATION)]
    assert len(stamps) >= 12
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert bob.drops(Drop.REPLAYED_INITIATION) == 0
    assert len(wire.since(0, RESPONSE)) == len(stamps)


@pytest.mark.rule("H8")
def test_a_wall_clock_stepped_back_between_handshakes_does_not_matter():
    wire, alice, bob = _met()
    for _ in range(3):
        wire.unix_offset -= 3600.0
        wire.run(125.0)
        packet = alice.ping(bob)
        assert bob.delivered.pop() == packet
        wire.run(0.1)
        assert alice.status(bob).handshake_at == pytest.approx(wire.now, abs=0.2)
    assert bob.drops(Drop.REPLAYED_INITIATION) == 0


@pytest.mark.parametrize("lost", [INITIATION, RESPONSE])
def test_a_wall_clock_stepped_back_during_a_handshake_does_not_matter(lost):
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == lost
    packet = alice.ping(bob)
    wire.unix_offset -= 3600.0
    wire.lose = lambda _sent: False
    wire.run(5.4)
    assert bob.delivered == [packet]


# Timers T3 to T10


@pytest.mark.rule("T3", "H17", "T2")
def test_an_unanswered_initiation_is_sent_20_times_5_seconds_apart_with_jitter():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    alice.ping(bob)
    began = wire.now
    wire.run(60.0)
    assert alice.status(bob).unanswered_since == began
    wire.run(300.0)
    sends = wire.since(0, INITIATION)
    gaps = [later.at - earlier.at for earlier, later in pairwise(sends)]
    assert len(sends) == 20
    assert len({sent.data for sent in sends}) == 20
    assert all(5.0 <= gap < 5.334 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.1
    assert wire.since(0) == sends
    assert alice.status(bob).unanswered_since is None


@pytest.mark.rule("T3", "D9")
def test_giving_up_drops_the_staged_packets_and_a_later_one_starts_afresh():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    alice.ping(bob)
    wire.run(150.0)
    assert not alice.device.peers[bob.key]._staged
    mark = len(wire.log)
    packet = alice.ping(bob, 1)
    wire.run(60.0)
    assert len(wire.since(mark, INITIATION)) >= 11
    wire.lose = lambda _sent: False
    wire.run(6.0)
    assert bob.delivered == [packet]


def test_a_packet_staged_too_long_ago_is_not_sent():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    alice.ping(bob)
    for _ in range(20):  # traffic keeps the handshake going past 90 s
        wire.run(5.0)
        late = alice.ping(bob, 1)
    wire.lose = lambda _sent: False
    wire.run(5.4)
    assert bob.delivered
    assert set(bob.delivered) == {late}


@pytest.mark.rule("D9")
def test_128_packets_are_staged_and_the_oldest_go_first():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    packets = [alice.ping(bob, payload=number.to_bytes(2, "big")) for number in range(130)]
    assert len(alice.events_of(PeerWanted)) == 1
    assert _kinds(wire.log) == [INITIATION]
    wire.lose = lambda _sent: False
    wire.run(5.4)
    assert bob.delivered == packets[2:]
    assert alice.drops(Drop.STAGED_OVERFLOW) == 2


@pytest.mark.rule("H17")
def test_a_handshake_is_begun_once_in_5_seconds_and_responses_count():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    for _ in range(49):
        wire.run(0.1)
        bob.ping(alice)
    assert wire.since(0, INITIATION, by=bob) == []
    wire.run(0.5)
    assert len(wire.since(0, INITIATION, by=bob)) == 1


@pytest.mark.rule("T5")
def test_data_that_is_received_is_answered_with_a_keepalive_in_10_seconds():
    wire, _alice, bob = _met()
    before = wire.now
    sent = wire.run(100.0)
    assert [(s.at - before, s.source) for s in sent] == [(10.0, bob.endpoint)]
    assert sent[0].is_keepalive


@pytest.mark.rule("T5")
def test_data_that_goes_on_is_answered_every_10_seconds():
    wire, alice, bob = _met()
    before = wire.now
    for _ in range(5):
        wire.run(5.0)
        alice.ping(bob)
    wire.run(100.0)
    keepalives = wire.since(0, by=bob)
    assert [sent.at - before for sent in keepalives] == [10.0, 20.0, 30.0, 40.0]
    assert wire.since(0, INITIATION) == []


@pytest.mark.rule("T5")
def test_anything_sent_spares_the_keepalive():
    wire, alice, bob = _met()
    wire.run(5.0)
    bob.ping(alice)
    before = wire.now
    sent = wire.run(100.0)
    assert [(s.at - before, s.source, s.is_keepalive) for s in sent] == [(10.0, alice.endpoint, True)]


@pytest.mark.rule("T6")
def test_data_without_an_answer_for_15_seconds_brings_a_handshake():
    wire, alice, bob = _met()
    wire.run(11.0)
    mark = len(wire.log)
    wire.lose = lambda sent: sent.source == bob.endpoint
    before = wire.now
    alice.ping(bob)
    wire.run(7.0)
    alice.ping(bob)
    wire.run(13.0)
    initiations = wire.since(mark, INITIATION)
    assert 15.0 <= initiations[0].at - before < 15.334


@pytest.mark.rule("T6")
def test_a_peer_that_only_listens_brings_no_handshake():
    wire, alice, bob = _met()
    wire.run(20.0)
    for _ in range(10):
        wire.run(9.0)
        alice.ping(bob)
    assert wire.since(0, INITIATION) == []


@pytest.mark.rule("T10")
@pytest.mark.parametrize(("age", "renewed"), [(119.0, False), (120.5, True)])
def test_the_initiator_renews_the_session_when_it_sends_past_120_seconds(age, renewed):
    wire, alice, bob = _met()
    wire.run(age)
    mark = len(wire.log)
    packet = alice.ping(bob)
    assert bob.delivered == [packet]
    assert len(wire.since(mark, INITIATION, by=alice)) == renewed
    assert len(wire.since(mark, INITIATION, by=bob)) == 0


@pytest.mark.rule("T10")
def test_the_responder_never_renews_by_time():
    wire, alice, bob = _met()
    wire.run(164.0)
    bob.ping(alice)
    assert wire.since(0, INITIATION) == []


@pytest.mark.rule("T10")
def test_the_initiator_renews_the_session_when_it_receives_past_165_seconds():
    wire, alice, bob = _met()
    wire.run(165.5)
    bob.ping(alice)
    assert len(wire.since(0, INITIATION, by=alice)) == 1
    assert len(wire.since(0, INITIATION, by=bob)) == 0
    assert len(alice.events_of(PeerHandshake)) == 1


@pytest.mark.rule("T10")
def test_a_session_that_fails_to_renew_is_tried_once_by_receiving():
    wire, alice, bob = _met()
    wire.run(165.5)
    wire.lose = lambda sent: sent.kind == INITIATION
    bob.ping(alice)
    attempts = alice.device.peers[bob.key].timers.attempts
    wire.run(5.4)
    bob.ping(alice)
    assert attempts == 0
    assert alice.device.peers[bob.key].timers.attempts == 1, "receiving again must not start the count anew"


@pytest.mark.rule("T10")
@pytest.mark.parametrize("sender", ["initiator", "responder"])
def test_either_side_renews_past_2_to_the_60_messages(sender):
    wire, alice, bob = _met()
    wire.run(6.0)
    here, there = (alice, bob) if sender == "initiator" else (bob, alice)
    _current(here, there).next_counter = REKEY_AFTER_MESSAGES - 1
    here.ping(there)
    assert wire.since(0, INITIATION) == []
    here.ping(there)
    assert len(wire.since(0, INITIATION, by=here)) == 1
    assert len(there.delivered) == 2
    assert _current(here, there).next_counter < 10


@pytest.mark.rule("L1", "L3")
def test_nothing_is_sent_when_the_counters_are_used_up():
    wire, alice, bob = _met()
    wire.run(6.0)
    _current(alice, bob).next_counter = REJECT_AFTER_MESSAGES
    mark = len(wire.log)
    wire.lose = lambda sent: sent.kind == RESPONSE
    packet = alice.ping(bob)
    assert _kinds(wire.since(mark, by=alice)) == [INITIATION]
    wire.lose = lambda _sent: False
    wire.run(5.4)
    assert bob.delivered == [packet]


@pytest.mark.rule("L2", "D5")
def test_a_session_is_refused_after_180_seconds():
    wire, alice, bob = _met()
    wire.hold = True
    alice.ping(bob)
    (late,) = wire.held
    wire.hold = False
    wire.run(179.0)
    mark = len(wire.log)
    bob.receive(late.data, alice.endpoint)
    assert len(bob.delivered) == 1
    wire.run(1.5)
    _current(alice, bob).created_at += 100.0  # a sender that goes on regardless
    wire.lose = lambda sent: sent.kind in (INITIATION, RESPONSE)
    alice.ping(bob)
    assert _kinds(wire.since(mark, TRANSPORT, by=alice)) == [TRANSPORT]
    assert bob.drops(Drop.SESSION_EXPIRED) == 1
    assert len(bob.delivered) == 1


@pytest.mark.rule("L1")
def test_past_180_seconds_a_packet_waits_for_a_new_session():
    wire, alice, bob = _met()
    wire.run(181.0)
    mark = len(wire.log)
    packet = alice.ping(bob)
    assert _kinds(wire.since(mark)) == [INITIATION, RESPONSE, TRANSPORT]
    assert bob.delivered == [packet]


@pytest.mark.rule("T7")
def test_keys_are_wiped_540_seconds_after_the_last_handshake():
    wire, alice, bob = _met()
    wire.run(539.0)
    assert len(alice.device._local.indices) == len(bob.device._local.indices) == 1
    wire.run(1.5)
    assert alice.device._local.indices == bob.device._local.indices == {}
    packet = alice.ping(bob)
    assert bob.delivered == [packet]


@pytest.mark.rule("T3")
def test_keys_are_wiped_540_seconds_after_giving_up():
    wire, alice, bob = _met()
    wire.run(500.0)
    wire.lose = lambda _sent: True
    alice.ping(bob)
    wire.run(50.0)  # the old zero-key timer fires in here
    wire.run(60.0)  # the attempt is given up in here
    assert len(alice.device._local.indices) == 1
    wire.run(545.0)
    assert alice.device._local.indices == {}


@pytest.mark.rule("T9")
def test_a_persistent_keepalive_goes_at_once_and_then_at_its_interval():
    wire, alice, bob = joined()
    alice.change(bob, persistent_keepalive=25)
    assert _kinds(wire.log) == [INITIATION, RESPONSE, TRANSPORT]
    began = wire.now
    sent = wire.run(100.0)
    assert [s.at - began for s in sent if s.source == alice.endpoint] == [25.0, 50.0, 75.0, 100.0]
    assert all(s.is_keepalive for s in sent)
    mark = len(wire.log)
    alice.change(bob, persistent_keepalive=0)
    wire.run(60.0)
    assert wire.since(mark) == []


@pytest.mark.rule("T9")
def test_a_persistent_keepalive_switched_on_over_a_session_goes_at_once():
    wire, alice, bob = _met()
    wire.run(20.0)
    mark = len(wire.log)
    bob.device.set_peer(alice.key, alice.endpoint, 25, wire.now)
    wire.settle()
    assert [sent.is_keepalive for sent in wire.since(mark)] == [True]
    bob.device.set_peer(alice.key, alice.endpoint, 25, wire.now)
    wire.settle()
    assert len(wire.since(mark)) == 1


@pytest.mark.rule("T9")
def test_a_persistent_keepalive_does_not_fire_on_an_active_tunnel():
    wire, alice, bob = _met()
    alice.change(bob, persistent_keepalive=25)
    mark = len(wire.log)
    for _ in range(7):
        wire.run(8.0)
        bob.ping(alice)
        wire.run(8.0)
        alice.ping(bob)
    assert [sent for sent in wire.since(mark) if sent.is_keepalive] == []


def test_a_persistent_keepalive_renews_the_session_and_never_ends():
    wire, alice, bob = joined()
    alice.change(bob, persistent_keepalive=25)
    wire.run(3600.0)
    heard = [sent.at for sent in wire.since(0, by=alice)]
    assert max(later - earlier for earlier, later in pairwise(heard)) <= 25.0
    assert 25 <= len(wire.since(0, INITIATION)) <= 31
    assert wire.since(0, INITIATION, by=bob) == []


@pytest.mark.rule("T9")
def test_a_persistent_keepalive_outlives_an_outage():
    wire, alice, bob = joined()
    alice.change(bob, persistent_keepalive=25)
    wire.lose = lambda _sent: True
    wire.run(2000.0)
    heard = [sent.at for sent in wire.since(0, by=alice)]
    assert max(later - earlier for earlier, later in pairwise(heard)) <= 26.0
    wire.lose = lambda _sent: False
    wire.run(26.0)
    assert alice.status(bob).received_at > wire.now - 26.0


@pytest.mark.parametrize("interval", [1, 3, 7, 25])
def test_a_persistent_keepalive_outlives_a_lost_confirmation(interval):
    """The responder has nothing to send in until the initiator's first packet comes; its own interval must go on."""
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.source == alice.endpoint and sent.kind == TRANSPORT
    alice.ping(bob)
    bob.device.set_peer(alice.key, alice.endpoint, interval, wire.now)
    wire.settle()
    wire.lose = lambda _sent: False
    wire.run(60.0)
    assert bob.status(alice).handshake_at is not None
    heard = [sent.at for sent in wire.since(0, by=bob)]
    assert wire.now - heard[-1] <= interval
    assert max(later - earlier for earlier, later in pairwise(heard)) <= max(interval, 5.4)


@pytest.mark.rule("T9")
def test_a_persistent_keepalive_begins_when_the_private_key_arrives():
    wire, _alice, bob = joined()
    late = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(bob, late)
    private, late.private = late.private, None
    wire.log.clear()
    late.peers.clear()
    wire.introduce(late, bob, persistent_keepalive=10)
    wire.run(60.0)
    assert wire.log == []
    late.private = private
    late.apply()
    assert _kinds(wire.log) == [INITIATION, RESPONSE, TRANSPORT]


def test_a_staged_packet_goes_when_the_private_key_arrives():
    wire, _alice, bob = joined()
    late = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(bob, late)
    private, late.private = late.private, None
    wire.introduce(late, bob)
    packet = late.ping(bob)
    late.private = private
    late.apply()
    assert bob.delivered == [packet]


# Roaming and what never moves an endpoint


@pytest.mark.rule("E1")
@pytest.mark.parametrize("place", [SOMEWHERE, ELSEWHERE])
def test_data_moves_the_endpoint(place):
    wire, alice, bob = _met()
    alice.endpoint = place
    alice.ping(bob)
    assert bob.status(alice).endpoint == place
    assert bob.events == [PathSeen(alice.key, place, wire.now)]
    packet = bob.ping(alice)
    assert alice.delivered == [packet]


@pytest.mark.rule("E1")
def test_a_keepalive_moves_the_endpoint():
    wire, alice, bob = _met()
    wire.run(5.0)
    bob.ping(alice)
    alice.endpoint = SOMEWHERE
    wire.run(10.0)
    assert wire.log[-1].is_keepalive
    assert bob.status(alice).endpoint == SOMEWHERE


@pytest.mark.rule("E1")
def test_an_initiation_moves_the_endpoint_and_is_no_path_until_it_is_confirmed():
    wire, alice, bob = _met()
    wire.run(200.0)
    alice.endpoint = SOMEWHERE
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    assert bob.status(alice).endpoint == SOMEWHERE
    assert bob.events == []
    wire.lose = lambda _sent: False
    alice.ping(bob)
    assert bob.events_of(PathSeen) == [PathSeen(alice.key, SOMEWHERE, wire.now)]


@pytest.mark.rule("E1")
def test_a_response_moves_the_endpoint():
    wire, alice, bob = joined()
    wire.hold = True
    alice.ping(bob)
    (initiation,) = wire.held
    bob.endpoint = SOMEWHERE
    wire.hold = False
    bob.receive(initiation.data, alice.endpoint)
    assert alice.status(bob).endpoint == SOMEWHERE
    assert len(bob.delivered) == 1


@pytest.mark.rule("R2", "D5")
def test_replayed_data_is_delivered_once_and_moves_nothing():
    wire, alice, bob = _met()
    packet = alice.ping(bob)
    bob.receive(wire.log[-1].data, SOMEWHERE)
    assert bob.delivered == [packet]
    assert bob.drops(Drop.REPLAYED) == 1
    assert bob.status(alice).endpoint == alice.endpoint
    assert bob.events == []


@pytest.mark.rule("D5")
def test_forged_data_moves_nothing_and_is_no_sign_of_life():
    wire, alice, bob = _met()
    alice.ping(bob)
    heard, data = wire.now, bytearray(wire.log[-1].data)
    wire.run(9.0)
    data[-1] ^= 1
    data[8] += 1
    bob.receive(bytes(data), SOMEWHERE)
    assert bob.drops(Drop.FORGED) == 1
    assert bob.status(alice).endpoint == alice.endpoint
    assert bob.status(alice).received_at == heard


@pytest.mark.rule("R1")
def test_data_older_than_the_replay_window_is_refused():
    wire, alice, bob = _met()
    wire.hold = True
    alice.ping(bob)
    (old,) = wire.held
    wire.hold = False
    _current(alice, bob).next_counter += 8200
    alice.ping(bob)
    bob.receive(old.data, alice.endpoint)
    assert len(bob.delivered) == 1
    assert bob.drops(Drop.REPLAYED) == 1


@pytest.mark.rule("H13")
def test_data_in_the_previous_session_is_still_taken():
    wire, alice, bob = _met()
    wire.run(125.0)
    wire.hold = True
    packet = alice.ping(bob)
    old, initiation = wire.held
    assert _kinds([old, initiation]) == [TRANSPORT, INITIATION]
    wire.release(initiation)
    assert len(alice.events_of(PeerHandshake)) == 1
    wire.release(old)
    assert bob.delivered == [packet]


# Private keys


@pytest.mark.rule("H16")
def test_a_changed_private_key_hands_over_at_once():
    wire, alice, bob = _met()
    old_key = alice.key
    in_flight = ip_packet("10.9.0.2", "10.9.0.1", b"in flight when the key changed")
    wire.hold = True
    bob.send(in_flight)
    (late,) = wire.held
    alice.private = PrivateKey(bytes([9]) * 32)
    bob.peers[alice] = replace(bob.peers[alice], public_key=alice.key)
    bob.apply()
    wire.hold = False
    mark = len(wire.log)
    alice.apply()
    packet = alice.ping(bob)
    assert _kinds(wire.since(mark)) == [INITIATION, RESPONSE, TRANSPORT], "no limit of 5 s holds this handshake back"
    assert bob.delivered == [packet]
    assert old_key != alice.key
    alice.receive(late.data, bob.endpoint)
    assert alice.delivered == [in_flight], "the old session still receives"


@pytest.mark.rule("H16")
def test_after_a_changed_private_key_nothing_is_sent_in_old_sessions():
    wire, alice, bob = _met()
    old = _current(alice, bob).remote_index
    alice.private = PrivateKey(bytes([9]) * 32)
    mark = len(wire.log)
    alice.apply()
    alice.ping(bob)
    bob.ping(alice)  # bob does not know yet: his session goes on, one way
    assert len(alice.delivered) == 1
    wire.run(30.0)
    assert [sent for sent in wire.since(mark, TRANSPORT, by=alice) if sent.index == old] == []
    assert len(wire.since(mark, INITIATION, by=alice)) >= 5
    assert wire.since(mark, RESPONSE) == []
    assert bob.drops(Drop.UNKNOWN_PEER) >= 5


@pytest.mark.rule("H16")
def test_an_unconfirmed_session_of_the_old_key_is_not_sent_in_either():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.source == bob.endpoint and sent.kind == TRANSPORT
    bob.ping(alice)
    confirmation = next(sent for sent in wire.log if sent.kind == TRANSPORT)
    wire.lose = lambda _sent: False
    alice.ping(bob)  # staged: the session waits for its confirmation
    alice.private = PrivateKey(bytes([9]) * 32)
    alice.apply()
    mark = len(wire.log)
    alice.receive(confirmation.data, bob.endpoint)
    assert wire.since(mark, TRANSPORT, by=alice) == []
    assert len(wire.since(mark, INITIATION, by=alice)) == 1, "what waits needs a session of the new key"


def test_our_own_key_is_no_peer():
    wire, alice, bob = joined()
    bob.private = alice.private
    alice.peers[bob] = replace(alice.peers[bob], public_key=alice.key, persistent_keepalive=1)
    alice.apply()
    wire.run(30.0)
    assert alice.device.status().peers == ()
    assert wire.log == []


@pytest.mark.rule("H16")
def test_a_peer_with_our_new_key_goes():
    wire, alice, bob = _met()
    alice.private = bob.private
    alice.apply()
    assert alice.device.status().peers == ()
    wire.run(30.0)
    assert wire.since(0, by=alice) == []


@pytest.mark.rule("H5", "H4")
@pytest.mark.parametrize("point", LOW_ORDER)
def test_peers_with_low_order_keys_never_hear_from_us(point):
    wire, alice, bob = joined()
    bad = PublicKey(bytes.fromhex(point))
    alice.peers[bob] = replace(alice.peers[bob], public_key=bad, persistent_keepalive=1, managed=True)
    alice.apply()
    alice.ping(bob)
    alice.device.initiate(bad, (bob.endpoint,), wire.now)
    wire.run(60.0)
    assert wire.log == []
    assert len(alice.device.status().peers) == 1


# Inner packets


@pytest.mark.rule("D4", "D6", "M1")
def test_padding_goes_to_16_bytes_within_the_mtu_and_is_trimmed():
    wire, alice, bob = _met()
    alice.device.set_mtu(1300)
    for size in (28, 32, 33, 1284, 1289, 1299, 1300):
        packet = alice.ping(bob, payload=bytes(size - 20))
        padded = min(1300, -(-size // 16) * 16)
        assert len(wire.log[-1].data) == 32 + padded, size
        assert bob.delivered[-1] == packet


@pytest.mark.rule("D7", "D5")
def test_a_packet_from_an_address_that_is_not_the_peers_is_dropped():
    wire, alice, bob = _met()
    alice.send(ip_packet("10.9.0.99", "10.9.0.2"))
    alice.send(ip_packet("fd00:9::99", "fd00:9::2"))
    assert bob.delivered == []
    assert bob.drops(Drop.SOURCE_NOT_ALLOWED) == 2
    assert bob.status(alice).received_at == wire.now, "it authenticated all the same"


@pytest.mark.rule("D7")
def test_the_source_is_looked_up_in_the_whole_device():
    """A peer may not use an address that a more specific prefix gives to another."""
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.130")
    wire.introduce(bob, alice, allowed_ips=(ip_network("10.9.0.0/24"),))
    wire.introduce(bob, carol, allowed_ips=(ip_network("10.9.0.128/25"),))
    wire.introduce(carol, bob)
    inside, nested = ip_packet("10.9.0.5", "10.9.0.2"), ip_packet("10.9.0.130", "10.9.0.2")
    alice.send(inside)
    alice.send(nested)
    assert bob.delivered == [inside]
    carol.send(nested)
    assert bob.delivered == [inside, nested]


# Managed peers


@pytest.fixture
def managed():
    return joined(managed=True)


def _places(count: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint.from_text(f"203.0.113.{number}:1000") for number in range(1, count + 1))


def test_only_managed_peers_initiate_to_many():
    wire, alice, bob = joined()
    with pytest.raises(LocalError, match="not managed"):
        alice.device.initiate(bob.key, (bob.endpoint,), wire.now)
    with pytest.raises(LocalError, match="no peer"):
        alice.device.initiate(alice.key, (bob.endpoint,), wire.now)


def test_an_initiation_goes_to_up_to_8_endpoints_with_the_same_bytes(managed):
    wire, alice, bob = managed
    alice.device.initiate(bob.key, _places(12), wire.now)
    wire.settle()
    assert [sent.destination for sent in wire.log] == list(_places(8))
    assert len({sent.data for sent in wire.log}) == 1
    assert wire.log[0].kind == INITIATION


def test_repeats_have_the_same_bytes_for_5_seconds_and_are_25_ms_apart(managed):
    wire, alice, bob = managed
    times = [0.0, 0.010, 0.024, 0.026, 0.1, 0.8, 4.9]
    start = wire.now
    for at in times:
        wire.now = start + at
        alice.device.initiate(bob.key, _places(1), wire.now)
        wire.settle()
    assert [round(sent.at - start, 3) for sent in wire.log] == [0.0, 0.026, 0.1, 0.8, 4.9]
    assert len({sent.data for sent in wire.log}) == 1
    wire.now = start + 5.0
    alice.device.initiate(bob.key, _places(1), wire.now)
    wire.settle()
    assert len({sent.data for sent in wire.log}) == 2


def test_a_handshake_by_initiate_completes_and_sends_what_was_staged(managed):
    wire, alice, bob = managed
    alice.device.set_peer(bob.key, None, 0, wire.now)
    packet = alice.ping(bob)
    assert wire.log == []
    assert alice.events_of(PeerWanted) == [PeerWanted(bob.key, wire.now)]
    alice.device.initiate(bob.key, (*_places(3), bob.endpoint), wire.now)
    wire.settle()
    assert bob.delivered == [packet]
    assert alice.status(bob).endpoint == bob.endpoint


def test_a_peer_goes_on_being_wanted_while_packets_come(managed):
    wire, alice, bob = managed
    alice.device.set_peer(bob.key, None, 0, wire.now)
    for _ in range(60):
        alice.ping(bob)
        wire.run(0.25)
    assert [round(event.at - alice.events_of(PeerWanted)[0].at) for event in alice.events_of(PeerWanted)] == [0, 5, 10]


def test_an_attempt_that_leads_nowhere_ends(managed):
    wire, alice, bob = managed
    alice.device.set_peer(bob.key, None, 0, wire.now)
    alice.device.initiate(bob.key, _places(3), wire.now)
    wire.settle()
    assert alice.status(bob).unanswered_since == wire.now
    wire.run(6.0)
    assert alice.status(bob).unanswered_since is None


def _answered(managed) -> tuple[Wire, Node, Node, bytes, bytes]:
    """Bob has answered alice's initiation, and alice has not heard: the initiation and the response."""
    wire, alice, bob = managed
    wire.lose = lambda sent: sent.kind == RESPONSE
    alice.device.initiate(bob.key, (bob.endpoint,), wire.now)
    wire.settle()
    initiation, response = wire.log
    wire.log.clear()
    return wire, alice, bob, initiation.data, response.data


def test_a_repeated_initiation_gets_the_same_response_8_times(managed):
    wire, alice, bob, initiation, response = _answered(managed)
    for _ in range(12):
        wire.now += 0.1
        bob.receive(initiation, alice.endpoint)
    assert [sent.data for sent in wire.log] == [response] * 8
    assert bob.drops(Drop.REPLAYED_INITIATION) == 4


def test_a_repeated_initiation_gets_the_response_for_10_seconds(managed):
    wire, alice, bob, initiation, response = _answered(managed)
    wire.now += 9.9
    bob.receive(initiation, alice.endpoint)
    assert [sent.data for sent in wire.log] == [response]
    wire.now += 0.2
    bob.receive(initiation, alice.endpoint)
    assert len(wire.log) == 1


def test_a_repeated_initiation_is_answered_where_it_comes_from_and_moves_nobody(managed):
    wire, alice, bob, initiation, response = _answered(managed)
    bob.receive(initiation, SOMEWHERE)
    assert [(sent.data, sent.destination) for sent in wire.log] == [(response, SOMEWHERE)]
    assert bob.status(alice).endpoint == alice.endpoint


def test_a_plain_peer_never_repeats_a_response():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == RESPONSE
    alice.ping(bob)
    initiation = wire.log[0]
    mark = len(wire.log)
    bob.receive(initiation.data, alice.endpoint)
    assert wire.since(mark) == []


@pytest.mark.parametrize("managed", [False, True])
def test_a_managed_responder_shows_that_data_comes_through(managed):
    wire, alice, bob = joined(managed=managed)
    alice.ping(bob)
    assert [sent.is_keepalive for sent in wire.since(0, TRANSPORT, by=bob)] == [True] * managed
    assert len(alice.events_of(PathSeen)) == managed
    assert [sent.at for sent in wire.run(9.0)] == [], "and then it is quiet"


def test_a_lost_confirmation_is_said_again_until_something_comes_back(managed):
    wire, alice, bob = managed
    began = wire.now
    wire.lose = lambda sent: sent.kind == TRANSPORT and sent.source == alice.endpoint and sent.at < began + 1.0
    alice.device.initiate(bob.key, (bob.endpoint,), wire.now)
    wire.settle()
    wire.log.clear()
    wire.run(60.0)
    assert [sent.at - began for sent in wire.since(0, by=alice)] == pytest.approx([0.15, 0.45, 1.05])
    assert bob.status(alice).handshake_at == pytest.approx(began + 1.05)
    assert all(sent.is_keepalive for sent in wire.log)


def test_a_confirmation_nobody_answers_is_said_five_times_more():
    """The other side may be a plain peer, which has nothing to say."""
    wire, alice, bob = joined()
    wire.introduce(alice, bob, managed=True)
    alice.ping(bob)
    began, mark = wire.now, len(wire.log)
    wire.run(9.0)
    assert [sent.at - began for sent in wire.since(mark)] == pytest.approx([0.15, 0.45, 1.05, 2.25, 4.65])
    assert wire.since(mark, by=bob) == []


def test_a_plain_peer_confirms_once():
    wire, alice, bob = joined()
    alice.change(bob, persistent_keepalive=25)
    mark = len(wire.log)
    wire.run(20.0)
    assert wire.since(mark) == []


def test_a_rekey_ends_the_confirmations_of_the_session_before():
    wire, alice, bob = joined()
    wire.introduce(alice, bob, managed=True)
    alice.ping(bob)
    old = _current(alice, bob).remote_index
    wire.now += 0.1
    alice.device.initiate(bob.key, (bob.endpoint,), wire.now)
    mark = len(wire.log)
    wire.settle()
    wire.run(9.0)
    assert old not in {sent.index for sent in wire.since(mark, TRANSPORT, by=alice)}
    assert len(wire.since(mark, TRANSPORT, by=alice)) == 6


def test_a_probe_is_an_authenticated_keepalive_that_moves_nothing(managed):
    wire, alice, bob = managed
    alice.device.probe(bob.key, SOMEWHERE, wire.now)
    wire.settle()
    assert wire.log == []
    alice.ping(bob)
    mark = len(wire.log)
    alice.device.probe(bob.key, SOMEWHERE, wire.now)
    wire.settle()
    (probe,) = wire.since(mark)
    assert probe.is_keepalive
    assert probe.destination == SOMEWHERE
    assert alice.status(bob).endpoint == bob.endpoint
    bob.receive(probe.data, ELSEWHERE)
    assert bob.events_of(PathSeen)[-1].endpoint == ELSEWHERE


@pytest.mark.rule("D9")
def test_a_burst_is_staged_packet_by_packet():
    wire, alice, bob = joined()
    packets = [ip_packet("10.9.0.1", "10.9.0.2", bytes([number]) * 12) for number in range(5)]
    alice.device.send(Frames.of(*packets), wire.now)
    wire.settle()
    assert bob.delivered == packets
    alice.device.send(Frames.of(*packets), wire.now)
    wire.settle()
    assert bob.delivered == packets * 2


@pytest.mark.rule("D12")
def test_what_does_not_authenticate_is_not_counted():
    """A burst of a true packet, the same again, and a forged one: one is counted."""
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.hold = True
    alice.ping(bob)
    (sent,) = wire.held
    before = bob.status(alice).rx_bytes
    forged = sent.data[:-1] + bytes([sent.data[-1] ^ 1])
    bob.device.receive(Burst(sent.data + sent.data + forged, len(sent.data)), alice.endpoint, wire.now)
    assert bob.status(alice).rx_bytes - before == len(sent.data)
    assert (bob.drops(Drop.REPLAYED), bob.drops(Drop.FORGED)) == (1, 1)
