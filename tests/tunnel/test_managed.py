"""What a device tells of managed peers whose paths somebody checks, and when they renew; plain ones have none of it."""

import pytest

from tests.tunnel.wire import INITIATION, TRANSPORT, Node, Wire, joined
from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.events import PeerSilent, PeerWanted

RELAY = Endpoint.from_text("203.0.113.9:51821")


def _checked(managed: bool = True, relays: bool = True) -> tuple[Wire, Node, Node]:
    """Alice and bob have spoken; alice's packets are under watch."""
    wire, alice, bob = joined(managed=managed)
    alice.device.set_relays(frozenset({RELAY}) if relays else frozenset())
    alice.ping(bob)
    bob.ping(alice)
    wire.run(5.0)
    alice.events.clear()
    return wire, alice, bob


def test_data_without_an_answer_for_300_ms_is_told_once():
    wire, alice, bob = _checked()
    heard_at = alice.status(bob).received_at
    wire.lose = lambda sent: sent.source == bob.endpoint
    sent_at = wire.now
    alice.ping(bob)
    wire.run(0.2)
    alice.ping(bob)  # the first counts
    wire.run(0.09)
    assert alice.events_of(PeerSilent) == []
    wire.run(5.0)
    assert alice.events_of(PeerSilent) == [PeerSilent(bob.key, heard_at, pytest.approx(sent_at + 0.3))]


def test_an_answer_in_time_leaves_no_doubt():
    wire, alice, bob = _checked()
    alice.ping(bob)
    wire.run(0.2)
    bob.ping(alice)
    wire.run(5.0)
    assert alice.events_of(PeerSilent) == []


def test_after_20_silent_seconds_data_wants_the_peer_anew_once_a_second():
    wire, alice, bob = _checked()
    wire.lose = lambda sent: sent.source == bob.endpoint
    wire.run(20.0 - (wire.now - alice.status(bob).received_at) - 0.1)
    alice.ping(bob)
    assert alice.events_of(PeerWanted) == []
    wire.run(0.1)
    began = wire.now
    for _ in range(25):
        alice.ping(bob)
        wire.run(0.1)
    assert [round(event.at - began, 3) for event in alice.events_of(PeerWanted)] == [0.0, 1.0, 2.0]


def test_who_has_a_persistent_keepalive_is_not_wanted_anew():
    wire, alice, bob = _checked()
    alice.device.set_peer(bob.key, bob.endpoint, 25, wire.now)
    wire.lose = lambda sent: sent.source == bob.endpoint
    wire.run(30.0)
    alice.ping(bob)
    assert alice.events_of(PeerWanted) == []


@pytest.mark.parametrize(("managed", "relays"), [(False, True), (True, False)], ids=["plain", "no relay"])
def test_nothing_is_told_of_whom_nobody_checks(managed, relays):
    wire, alice, bob = _checked(managed, relays)
    wire.lose = lambda sent: sent.source == bob.endpoint
    wire.run(30.0)
    alice.ping(bob)
    wire.run(10.0)
    assert alice.events == []


@pytest.mark.parametrize("greater", [True, False], ids=["greater key", "smaller key"])
def test_the_managed_initiator_with_the_greater_key_renews_2_seconds_later(greater):
    wire, alice, bob = joined(managed=True)
    here, there = (alice, bob) if (alice.key.raw > bob.key.raw) is greater else (bob, alice)
    here.ping(there)
    due = 122.0 if greater else 120.0
    for after, count in ((due - 0.1, 1), (0.1, 2)):
        wire.run(after)
        here.ping(there)
        assert len(wire.since(0, INITIATION)) == count


def test_who_becomes_plain_says_nothing_again_of_what_it_said_as_a_managed_peer():
    wire, alice, bob = joined(managed=True)
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    wire.run(0.2)
    assert [sent.kind for sent in wire.log if sent.source == alice.endpoint] == [INITIATION, TRANSPORT, TRANSPORT]
    alice.change(bob, managed=False)
    mark = wire.now
    wire.run(9.0)
    assert [sent for sent in wire.log if sent.at > mark and sent.source == alice.endpoint] == []
