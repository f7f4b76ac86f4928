"""A path to a member, told what happens: what it then wants done. Whole meshes are in `tests/sim/test_mesh.py`."""

import pytest

from wgdisco.api import CandidateKind
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.actions import AskOrder, Initiate, LeaveRelay, Ping, Probe, SetPeer
from wgdisco.peer.candidate import Candidate
from wgdisco.peer.check import Ponged
from wgdisco.peer.checked import CheckedPath
from wgdisco.peer.path import Live, Punching
from wgdisco.peer.punch import HOLD
from wgdisco.tunnel.events import PeerStatus

KEY = PublicKey(bytes([7] * 32))
RELAY = Endpoint.from_text("198.51.100.10:51820")
HOME = Endpoint.from_text("192.0.2.10:40000")
MOVED = Endpoint.from_text("203.0.113.20:40000")


def drained(path, kind=object):
    return [action for action in path.actions() if isinstance(action, kind)]


def reflexive(*endpoints):
    return [Candidate.create(CandidateKind.SERVER_REFLEXIVE, endpoint, 0.0) for endpoint in endpoints]


def pong(endpoint, at, rtt=0.04):
    return Ponged(KEY, endpoint, Endpoint.from_text("198.51.100.1:1"), rtt, at)


@pytest.fixture
def path():
    return CheckedPath(KEY, RELAY)


@pytest.fixture
def direct(path):
    """It is at HOME, and the registry says so."""
    path.wanted(100.0)
    path.ordered(reflexive(HOME), None, True, 100.04)
    path.authenticated(HOME, 100.1)
    path.ponged(pong(HOME, 100.1))
    path.handle_timer(101.0)
    drained(path)
    return path


def test_who_is_wanted_is_asked_for_at_once_and_tried_over_the_relay_a_moment_later(path):
    path.wanted(100.0)
    assert drained(path) == [AskOrder(KEY)]
    path.handle_timer(100.0 + HOLD)
    assert drained(path) == [Initiate(KEY, (RELAY,))]


def test_an_order_sends_openers_first_then_checks_and_the_initiation(path):
    path.ordered(reflexive(HOME), None, True, 100.0)
    assert drained(path) == [Ping(KEY, HOME, 2)]
    path.handle_timer(100.0 + HOLD / 2)
    assert drained(path) == [Ping(KEY, HOME, 3)]
    path.handle_timer(100.0 + HOLD)
    assert drained(path) == [Ping(KEY, HOME), Initiate(KEY, (RELAY, HOME))]


@pytest.mark.parametrize(("age", "used"), [(10.0, True), (180.0, False)], ids=["session", "none any more"])
def test_an_engine_that_is_not_ours_begins_no_handshake_while_it_has_a_session(age, used):
    """After a router's address has changed the session goes on: a check that is answered says where."""
    path = CheckedPath(KEY, RELAY, managed=False)
    path.ordered(reflexive(HOME), None, True, 100.0)
    peer = PeerStatus(KEY, HOME, (), True, 0, 100.0 - age, 1.0, None, None, 0, 0)
    path.observe(peer, 100.0)
    drained(path)
    path.ponged(pong(HOME, 100.1))
    assert path.state == (Live(HOME, 100.1) if used else Punching(100.0))
    assert drained(path) == ([SetPeer(KEY, HOME, 0), LeaveRelay(KEY)] if used else [Initiate(KEY, (HOME,))])


def test_who_is_not_the_initiator_sends_no_initiation(path):
    path.ordered(reflexive(HOME), None, False, 100.0)
    path.handle_timer(100.0 + HOLD)
    assert drained(path, Initiate) == []


def test_a_check_answered_moves_it_from_the_relay(path):
    path.wanted(100.0)
    path.authenticated(RELAY, 100.1)
    assert path.state == Live(RELAY, 100.1)
    drained(path)
    path.ponged(pong(HOME, 100.2))
    assert drained(path) == [SetPeer(KEY, HOME, 0)]


def test_where_the_registry_saw_it_move_and_it_is_heard_it_is_at_once(direct):
    direct.zone_said(MOVED, 110.0)
    assert drained(direct) == [Ping(KEY, MOVED)]
    direct.authenticated(MOVED, 110.02)
    assert drained(direct, SetPeer) == [SetPeer(KEY, MOVED, 0)]


def test_where_it_is_heard_and_nobody_else_says_so_it_is_checked_first(direct):
    direct.authenticated(MOVED, 110.0)
    assert drained(direct) == [Ping(KEY, MOVED)]
    direct.ponged(pong(MOVED, 110.04))
    drained(direct)
    direct.handle_timer(110.2)  # HOME was asked as well, and is silent
    assert drained(direct, SetPeer) == [SetPeer(KEY, MOVED, 0)]


def test_our_own_move_is_shown_to_the_peer_and_ordered_however_lately_that_was(direct):
    direct.wanted(110.0)
    drained(direct)
    direct.network_changed(110.1)
    assert drained(direct) == [Probe(KEY, HOME), Ping(KEY, HOME), AskOrder(KEY)]


def test_a_path_in_doubt_is_asked_three_times_and_left_for_the_relay(direct):
    assert direct.silent(109.0, 110.0)
    for at in (110.0, 110.1, 110.2):
        direct.handle_timer(at)
    assert drained(direct) == [Ping(KEY, HOME)] * 3
    direct.handle_timer(110.4)
    assert drained(direct) == [AskOrder(KEY)]
    direct.authenticated(RELAY, 110.5)
    assert drained(direct, SetPeer) == [SetPeer(KEY, RELAY, 0)]


def test_a_better_way_is_not_left_because_the_peer_is_heard_where_it_always_was(path):
    """It found the way on our LAN a moment later than we did."""
    lan = Endpoint.from_text("192.168.1.5:51820")
    path.wanted(100.0)
    path.ordered(reflexive(HOME), None, True, 100.04)
    path.authenticated(HOME, 100.1)
    path.ponged(pong(HOME, 100.1))
    path.set_lan((lan,), 100.1)
    path.ponged(pong(lan, 100.11, rtt=0.001))
    assert isinstance(path.state, Live)
    assert path.state.endpoint == lan
    path.authenticated(HOME, 100.12)
    assert path.state.endpoint == lan
