"""The interface goes down and comes up (rule T12), on a virtual clock."""

import pytest

from tests.tunnel.wire import INITIATION, TRANSPORT, joined
from wgdisco.tunnel.burst import Burst

pytestmark = pytest.mark.rule("T12")


def test_down_ends_sessions_and_timers_and_nothing_is_sent_or_answered():
    wire, alice, bob = joined(persistent_keepalive=25)
    alice.ping(bob)
    bob.device.set_up(False, wire.now)
    mark = len(wire.log)
    alice.ping(bob)
    wire.run(300.0)
    assert wire.since(mark, by=alice)
    assert not wire.since(mark, by=bob)
    assert len(bob.device._local.indices) == 0
    assert bob.device.status().peers[0].unanswered_since is None


def test_a_peer_that_is_configured_while_down_is_left_in_peace():
    wire, alice, bob = joined()
    alice.device.set_up(False, wire.now)
    alice.change(bob, persistent_keepalive=25, endpoint=bob.endpoint)
    wire.run(100.0)
    assert not wire.log


def test_what_waited_when_it_went_down_is_given_up():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    alice.ping(bob)
    alice.device.set_up(False, wire.now)
    wire.lose = lambda _sent: False
    alice.device.set_up(True, wire.now)
    wire.run(100.0)
    assert not bob.delivered


@pytest.mark.rule("T9")
def test_up_begins_at_once_with_whoever_has_a_keepalive_even_right_after_a_handshake():
    wire, alice, bob = joined(persistent_keepalive=25)
    alice.ping(bob)
    wire.now += 1.0
    mark = len(wire.log)
    alice.device.set_up(False, wire.now)
    alice.device.set_up(True, wire.now)
    wire.settle()
    assert len(wire.since(mark, INITIATION, by=alice)) == 1
    assert len(wire.since(mark, TRANSPORT, by=alice)) == 1
    alice.ping(bob)
    assert len(bob.delivered) == 2


@pytest.mark.rule("H11")
def test_an_initiation_that_came_before_down_is_not_consumed_after_up():
    wire, alice, bob = joined()
    bob.busy = True
    alice.ping(bob)
    first = wire.log[0]
    bob.device.set_up(False, wire.now)
    bob.device.receive(Burst.of(first.data), first.source, wire.now)
    bob.device.set_up(True, wire.now)
    assert not bob.device.handle_handshakes(wire.now)
    wire.settle()
    assert not wire.since(0, by=bob)


def test_set_again_to_what_it_is_changes_nothing():
    wire, alice, bob = joined(persistent_keepalive=25)
    alice.ping(bob)
    mark = len(wire.log)
    alice.device.set_up(True, wire.now)
    wire.settle()
    alice.ping(bob)
    assert [sent.kind for sent in wire.since(mark)] == [TRANSPORT]
