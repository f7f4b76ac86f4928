"""What a suspended machine and a clock that is set do to sessions: nothing the other side could trip over."""

import pytest

from tests.tunnel.wire import INITIATION, RESPONSE, TRANSPORT, joined
from wgdisco.tunnel.events import Drop

HOUR = 3600.0


def met(**changes):
    """Two with a session that is in use."""
    wire, alice, bob = joined(**changes)
    alice.ping(bob)
    assert bob.delivered
    bob.ping(alice)
    assert alice.delivered
    return wire, alice, bob


def forget(node):
    node.device.forget_sessions()
    node.wire.settle()


@pytest.mark.rule("T11", "Z1")
class TestSuspended:
    def test_nothing_is_sent_until_there_is_something_to_send(self):
        wire, alice, _ = met()
        mark = len(wire.log)
        wire.now += 600
        forget(alice)
        assert wire.since(mark, by=alice) == []

    def test_what_was_agreed_before_is_of_no_use_any_more(self):
        _, alice, bob = met()
        forget(alice)
        before = len(alice.delivered)
        bob.ping(alice)
        assert len(alice.delivered) == before
        assert alice.drops(Drop.UNKNOWN_INDEX) == 1

    def test_the_next_packet_begins_a_handshake_and_arrives(self):
        wire, alice, bob = met()
        mark = len(wire.log)
        wire.now += 600
        forget(alice)
        packet = alice.ping(bob)
        assert [sent.kind for sent in wire.log[mark:]] == [INITIATION, RESPONSE, TRANSPORT]
        assert bob.delivered[-1] == packet

    def test_the_next_persistent_keepalive_begins_one_at_once(self):
        wire, alice, bob = met(persistent_keepalive=25)
        mark = len(wire.log)
        wire.now += 600
        forget(alice)
        alice.device.handle_timer(wire.now)
        wire.settle()
        assert wire.since(mark, INITIATION, by=alice)
        assert alice.status(bob).handshake_at == wire.now

    def test_a_handshake_under_way_is_forgotten_and_tried_again(self):
        wire, alice, bob = joined()
        wire.hold = True
        alice.ping(bob)
        (initiation,) = wire.held
        wire.pass_on(initiation)
        forget(alice)
        wire.release()  # the response, to nobody
        assert alice.status(bob).handshake_at is None
        wire.run(6)
        assert alice.status(bob).handshake_at is not None
        assert bob.delivered  # what was staged is still there

    def test_the_other_side_finds_back_by_its_own_timers(self):
        wire, alice, bob = met()
        wire.now += 60
        forget(alice)
        bob.ping(alice)
        wire.run(16)
        packet = bob.ping(alice)
        assert alice.delivered[-1] == packet


@pytest.mark.rule("H8", "H9", "T11")
@pytest.mark.parametrize("step", [-10 * 365 * 24 * HOUR, -HOUR, HOUR, 10 * 365 * 24 * HOUR])
def test_a_clock_that_is_set_disturbs_no_session_and_no_later_handshake(step):
    wire, alice, bob = met()
    mark = len(wire.log)
    wire.unix_offset += step
    packet = alice.ping(bob)
    assert bob.delivered[-1] == packet
    assert wire.since(mark, INITIATION, RESPONSE) == []
    for _ in range(3):
        wire.run(121)
        packet = alice.ping(bob)  # renews
        assert bob.delivered[-1] == packet
        assert alice.status(bob).handshake_at == wire.now
    assert bob.drops(Drop.REPLAYED_INITIATION) == 0


@pytest.mark.rule("H9")
def test_rebooted_with_an_earlier_clock_it_is_refused_until_the_clock_is_right_or_the_other_side_begins():
    """The protocol has a responder refuse an earlier timestamp, and the engine alone keeps nothing on disk."""
    wire, alice, bob = met()
    reborn = wire.node("192.0.2.1:51820", *alice.inner)
    wire.nodes.remove(alice)
    reborn.private = alice.private
    wire.run(30)
    right, wire.unix_offset = wire.unix_offset, 0.0  # 1970
    wire.introduce(reborn, bob)
    reborn.ping(bob)
    assert reborn.status(bob).handshake_at is None
    assert bob.drops(Drop.REPLAYED_INITIATION) == 1
    wire.unix_offset = right
    wire.run(6)
    assert reborn.status(bob).handshake_at is not None


@pytest.mark.rule("H9")
def test_with_an_earlier_clock_the_other_sides_handshake_is_answered():
    wire, alice, bob = met()
    reborn = wire.node("192.0.2.1:51820", *alice.inner)
    wire.nodes.remove(alice)
    reborn.private = alice.private
    wire.run(30)
    wire.unix_offset = 0.0
    wire.introduce(reborn, bob)
    bob.ping(reborn)
    wire.run(16)
    packet = bob.ping(reborn)
    assert reborn.delivered[-1] == packet
