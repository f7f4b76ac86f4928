"""One path's life, on a virtual clock: what it does, when, and what it says of itself."""

import pytest

from wgdisco.api import Origin, PathWord, Reason
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.actions import Initiate, SetPeer
from wgdisco.peer.path import (
    DEAD_AFTER,
    PUNCH_INTERVAL,
    PUNCH_OFFSETS,
    Idle,
    Live,
    Path,
    Punching,
)
from wgdisco.tunnel.events import PeerStatus
from wgdisco.tunnel.messages import REJECT_AFTER_TIME

BOB = PublicKey(bytes([7] * 32))
ZONE = Endpoint.from_text("203.0.113.10:51820")
MOVED = Endpoint.from_text("203.0.113.10:40000")
CONF = Endpoint.from_text("198.51.100.77:51820")
LAN = Endpoint.from_text("192.168.2.10:51820")
START = 1000.0


def eager(configured: Endpoint | None = None) -> Path:
    return Path(BOB, 25, configured, START)


def lazy(configured: Endpoint | None = None) -> Path:
    return Path(BOB, 0, configured, START)


def live(path: Path, endpoint: Endpoint = ZONE, at: float = START + 1) -> Path:
    path.authenticated(endpoint, at)
    path.actions()
    return path


def counted(handshake: float | None = None, heard: float | None = None, unanswered: float | None = None) -> PeerStatus:
    """What the device counts of the peer."""
    return PeerStatus(BOB, ZONE, (), False, 25, handshake, None, heard, unanswered, 0, 0)


def initiations(path: Path, until: float) -> list[float]:
    """Run the path's clock; when it had initiations sent."""
    times = []
    while (due := path.get_timer()) is not None and due <= until:
        path.handle_timer(due)
        times += [due for action in path.actions() if isinstance(action, Initiate)]
    return times


class TestPunching:
    def test_what_the_conf_says_the_device_tries_by_itself_and_the_path_goes_on_from_there(self):
        path = eager(CONF)
        path.handle_timer(START)
        assert path.actions() == []
        assert path.get_timer() == START + PUNCH_OFFSETS[1]
        path.handle_timer(START + PUNCH_OFFSETS[1])
        assert path.actions() == [Initiate(BOB, (CONF,))]
        assert path.actions() == []

    def test_without_an_endpoint_there_is_nothing_to_try_until_the_zone_has_one(self):
        path = eager()
        assert path.get_timer() is None
        path.handle_timer(START + 10)
        assert path.actions() == []
        path.zone_said(ZONE, START + 20)
        assert path.actions() == [SetPeer(BOB, ZONE, 25), Initiate(BOB, (ZONE,))]

    def test_the_schedule_is_dense_first_and_then_steady_without_end(self):
        path = eager()
        path.zone_said(ZONE, START)
        path.actions()  # the first initiation, at once
        last = PUNCH_OFFSETS[-1]
        expected = [START + offset for offset in PUNCH_OFFSETS[1:]]
        expected += [START + last + PUNCH_INTERVAL * step for step in range(1, 20)]
        assert initiations(path, START + last + PUNCH_INTERVAL * 19) == pytest.approx(expected)

    def test_early_and_repeated_calls_of_the_timer_are_harmless(self):
        path = eager(CONF)
        path.handle_timer(START)
        path.actions()
        due = path.get_timer()
        for _ in range(5):
            path.handle_timer(due - 0.001)
        assert path.actions() == []
        assert path.get_timer() == due

    @pytest.mark.parametrize("slept", [0.05, 0.35, 3.2, 5.0, 8.2, 3600.0, 1e6])
    def test_a_clock_that_slept_sends_one_initiation_and_not_all_it_missed(self, slept):
        path = eager(CONF)
        path.handle_timer(START)
        path.actions()
        due = path.get_timer()
        path.handle_timer(START + slept)
        assert path.actions() == ([Initiate(BOB, (CONF,))] if due <= START + slept else [])
        assert START + slept < path.get_timer() <= START + slept + PUNCH_INTERVAL

    def test_all_that_is_known_is_tried_the_zones_word_first(self):
        path = live(eager(CONF), MOVED)
        path.zone_said(ZONE, START + 2)
        path.restart(START + 3)
        assert path.actions() == [SetPeer(BOB, ZONE, 25), Initiate(BOB, (ZONE, CONF, MOVED))]

    def test_an_endpoint_known_twice_is_tried_once(self):
        path = eager(ZONE)
        path.zone_said(ZONE, START)
        assert path.candidates() == (ZONE,)

    def test_an_endpoint_that_moves_in_the_zone_begins_the_schedule_anew(self):
        path = eager()
        path.zone_said(ZONE, START)
        path.actions()
        path.zone_said(MOVED, START + 60)
        assert path.actions() == [SetPeer(BOB, MOVED, 25), Initiate(BOB, (MOVED,))]
        assert path.get_timer() == START + 60 + PUNCH_OFFSETS[1]

    def test_the_zone_repeating_itself_changes_nothing(self):
        path = eager()
        path.zone_said(ZONE, START)
        path.actions()
        before = path.get_timer()
        path.zone_said(ZONE, START + 0.05)
        assert (path.actions(), path.get_timer()) == ([], before)

    def test_what_leaves_the_zone_is_tried_no_more(self):
        path = eager()
        path.zone_said(ZONE, START)
        path.zone_said(None, START + 1)
        path.actions()
        assert path.get_timer() is None
        assert path.candidates() == ()

    def test_an_authenticated_packet_ends_it(self):
        path = eager(CONF)
        assert path.authenticated(ZONE, START + 1)
        assert path.state == Live(ZONE, START + 1)
        assert path.get_timer() is None


class TestIdle:
    def test_a_lazy_path_waits_for_somebody_to_want_it(self):
        path = lazy(CONF)
        assert path.state == Idle()
        assert path.get_timer() is None
        path.zone_said(ZONE, START + 1)
        assert path.actions() == []
        path.wanted(START + 2)
        assert path.actions() == [SetPeer(BOB, ZONE, 0), Initiate(BOB, (ZONE, CONF))]

    def test_wanting_it_more_changes_nothing(self):
        path = lazy(CONF)
        path.wanted(START)
        path.actions()
        path.wanted(START + 0.05)
        assert path.actions() == []

    def test_it_rests_again_when_nobody_wants_it_any_more(self):
        path = lazy(CONF)
        path.wanted(START)
        path.wanted(START + 60)
        assert not path.observe(counted(), START + 149)
        assert path.observe(counted(), START + 150)
        assert path.state == Idle()
        assert path.get_timer() is None
        path.wanted(START + 200)
        assert path.state == Punching(START + 200, 1)

    def test_an_eager_path_never_rests(self):
        path = eager(CONF)
        assert not path.observe(counted(), START + 3600)
        assert isinstance(path.state, Punching)

    def test_wanted_before_the_zone_knows_it_is_punched_once_it_does(self):
        path = lazy()
        path.wanted(START)
        assert path.actions() == []
        path.zone_said(ZONE, START + 5)
        assert path.actions() == [SetPeer(BOB, ZONE, 0), Initiate(BOB, (ZONE,))]

    def test_a_packet_from_the_peer_makes_it_live_without_our_doing(self):
        path = lazy()
        assert path.authenticated(ZONE, START)
        assert isinstance(path.state, Live)
        assert path.actions() == []


class TestLive:
    @pytest.mark.parametrize("said", [[MOVED], [ZONE], [ZONE, None], [MOVED, None, CONF], [MOVED, ZONE]])
    def test_it_is_left_alone_whatever_the_zone_says_but_for_a_move(self, said):
        path = live(eager())
        for endpoint in said:
            path.zone_said(endpoint, START + 2)
        path.wanted(START + 3)
        path.handle_timer(START + 3)
        assert path.actions() == []
        assert path.state == Live(ZONE, START + 1)

    def test_where_the_zone_says_it_moved_to_is_tried_beside_the_working_one(self):
        path = eager()
        path.zone_said(ZONE, START)
        live(path)
        path.zone_said(MOVED, START + 2)
        assert path.actions() == [Initiate(BOB, (ZONE, MOVED))]
        assert path.state == Live(ZONE, START + 1)
        assert path.get_timer() is None
        path.zone_said(MOVED, START + 3)
        assert path.actions() == []

    def test_more_from_the_same_endpoint_is_no_news(self):
        path = live(eager())
        assert not path.authenticated(ZONE, START + 2)

    def test_it_follows_the_peer_and_stays_as_old_as_it_is(self):
        path = live(eager())
        assert path.authenticated(MOVED, START + 9)
        assert path.state == Live(MOVED, START + 1)

    def test_a_restart_shakes_hands_anew_once(self):
        path = live(eager(CONF))
        path.restart(START + 5)
        assert path.actions() == [SetPeer(BOB, CONF, 25), Initiate(BOB, (CONF, ZONE))]
        path.restart(START + 5.01)
        assert path.actions() == []


class TestDeath:
    def test_an_unanswered_handshake_kills_it_after_the_engines_own_retransmission(self):
        path = live(eager(), at=START)
        path.zone_said(MOVED, START + 1)
        asked = START + 100
        assert not path.observe(counted(START, START + 80, asked), asked + DEAD_AFTER - 0.01)
        assert path.observe(counted(START, START + 80, asked), asked + DEAD_AFTER)
        assert path.actions() == [SetPeer(BOB, MOVED, 25), Initiate(BOB, (MOVED, ZONE))]

    def test_what_was_heard_since_keeps_it_alive(self):
        path = live(eager(), at=START)
        asked = START + 100
        assert not path.observe(counted(START, asked + 1, asked), asked + DEAD_AFTER + 10)
        assert isinstance(path.state, Live)

    def test_a_peer_never_heard_by_the_device_counts_from_when_it_became_live(self):
        path = live(eager(), at=START)
        assert path.observe(counted(None, None, START + 1), START + 1 + DEAD_AFTER)

    def test_an_eager_path_whose_session_ran_out_is_punched_again(self):
        path = live(eager(), at=START)
        assert not path.observe(counted(START, START), START + REJECT_AFTER_TIME - 0.01)
        assert path.observe(counted(START, START), START + REJECT_AFTER_TIME)
        assert isinstance(path.state, Punching)

    def test_a_lazy_path_whose_session_ran_out_rests(self):
        path = live(lazy(), at=START)
        assert path.observe(counted(START, START), START + REJECT_AFTER_TIME)
        assert path.state == Idle(was_live=True)
        assert path.actions() == []
        path.wanted(START + 900)
        assert path.actions() == [SetPeer(BOB, ZONE, 0), Initiate(BOB, (ZONE,))]

    def test_what_is_not_live_cannot_die(self):
        for path in (eager(CONF), lazy(CONF)):
            assert not path.observe(counted(START, START, START), START + 10_000)
            assert path.actions() == []


class TestWords:
    def test_what_each_state_is_called_and_why(self):
        path = lazy()
        assert (path.word(), path.reason(True)) == (PathWord.IDLE, Reason.NOT_YET_TRIED)
        path.wanted(START)
        assert (path.word(), path.reason(True)) == (PathWord.PUNCHING, Reason.PEER_OFFLINE)
        assert path.reason(False) is Reason.REGISTRY_UNREACHABLE
        path.zone_said(ZONE, START)
        assert (path.word(), path.reason(False)) == (PathWord.PUNCHING, Reason.NO_UDP_ANSWER)
        path.authenticated(ZONE, START)
        assert (path.word(), path.reason(True)) == (PathWord.DIRECT, None)
        path.authenticated(LAN, START)
        assert (path.word(), path.reason(True)) == (PathWord.LAN, None)
        path.observe(counted(START, START), START + REJECT_AFTER_TIME)
        assert path.word() is PathWord.STALE

    def test_where_an_endpoint_came_from(self):
        path = eager(CONF)
        path.zone_said(ZONE, START)
        assert [path.origin(endpoint) for endpoint in (ZONE, CONF, MOVED, None)] == [
            Origin.ZONE,
            Origin.CONF,
            Origin.PACKET,
            None,
        ]


class TestSilence:
    def test_a_live_peer_that_missed_its_keepalive_is_silent_until_it_is_heard(self):
        path = live(eager())
        path.observe(counted(handshake=START, heard=START + 1), START + 30)
        assert not path.is_silent
        path.observe(counted(handshake=START, heard=START + 1), START + 31)
        assert path.is_silent
        path.observe(counted(handshake=START, heard=START + 31), START + 32)
        assert not path.is_silent

    def test_a_peer_nobody_keeps_open_is_never_silent(self):
        path = live(lazy(CONF))
        path.observe(counted(handshake=START, heard=START + 1), START + 100)
        assert not path.is_silent
