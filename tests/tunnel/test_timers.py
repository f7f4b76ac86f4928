"""The deadlines of one peer; what they lead to between two devices is test_peer.py's."""

import pytest

from wgdisco.tunnel.timers import Timer, Timers


@pytest.fixture
def timers():
    return Timers()


def test_nothing_is_armed_at_first(timers):
    assert timers.next_deadline() is None
    assert timers.expire(1e9) == []


@pytest.mark.rule("T6", "T2")
@pytest.mark.parametrize(("jitter", "at"), [(0.0, 115.0), (0.999, 115.332667)])
def test_sending_data_wants_an_answer_in_15_seconds_and_jitter(timers, jitter, at):
    timers.data_sent(100.0, jitter)
    assert timers.next_deadline() == pytest.approx(at)
    timers.data_sent(110.0, jitter)
    assert timers.next_deadline() == pytest.approx(at), "the first unanswered packet counts"
    timers.authenticated_packet_received(111.0)
    assert not timers.is_armed(Timer.NEW_HANDSHAKE)


@pytest.mark.rule("T5")
def test_receiving_data_wants_a_keepalive_in_10_seconds_unless_something_is_sent(timers):
    timers.data_received(100.0)
    assert timers.next_deadline() == 110.0
    timers.authenticated_packet_sent(105.0)
    assert timers.next_deadline() is None


@pytest.mark.rule("T5")
def test_data_while_a_keepalive_is_due_brings_one_more(timers):
    timers.data_received(100.0)
    timers.data_received(109.0)
    assert timers.expire(110.0) == [Timer.SEND_KEEPALIVE]
    timers.keepalive_due(110.0)
    assert timers.next_deadline() == 120.0
    assert timers.expire(120.0) == [Timer.SEND_KEEPALIVE]
    timers.keepalive_due(120.0)
    assert timers.next_deadline() is None


@pytest.mark.rule("T2", "T3")
@pytest.mark.parametrize(("jitter", "at"), [(0.0, 105.0), (0.999, 105.332667)])
def test_an_initiation_is_repeated_in_5_seconds_and_jitter(timers, jitter, at):
    timers.handshake_initiated(100.0, jitter)
    assert timers.next_deadline() == pytest.approx(at)


@pytest.mark.rule("T8")
def test_a_completed_handshake_ends_repeating(timers):
    timers.attempts = 7
    timers.handshake_initiated(100.0, 0.5)
    timers.handshake_complete()
    assert timers.next_deadline() is None
    assert timers.attempts == 0


@pytest.mark.rule("T3")
def test_giving_up_stops_the_keepalive_and_wipes_keys_in_540_seconds(timers):
    timers.data_received(95.0)
    timers.handshake_given_up(100.0)
    assert not timers.is_armed(Timer.SEND_KEEPALIVE)
    assert timers.next_deadline() == 640.0
    timers.handshake_given_up(300.0)
    assert timers.next_deadline() == 640.0


@pytest.mark.rule("T7")
def test_new_keys_are_wiped_540_seconds_after_the_last(timers):
    timers.session_derived(100.0)
    timers.session_derived(200.0)
    assert timers.next_deadline() == 740.0


@pytest.mark.rule("T9")
@pytest.mark.parametrize("traffic", ["authenticated_packet_sent", "authenticated_packet_received"])
def test_persistent_keepalive_counts_from_the_last_packet_either_way(timers, traffic):
    getattr(timers, traffic)(90.0)
    assert timers.next_deadline() is None
    timers.set_persistent_keepalive(25)
    getattr(timers, traffic)(100.0)
    assert timers.next_deadline() == 125.0
    getattr(timers, traffic)(110.0)
    assert timers.next_deadline() == 135.0
    timers.set_persistent_keepalive(0)
    assert timers.next_deadline() is None


@pytest.mark.rule("T1")
def test_expiry_disarms_what_is_due_and_nothing_else(timers):
    timers.data_received(100.0)
    timers.session_derived(100.0)
    timers.handshake_initiated(100.0, 0.0)
    assert timers.expire(104.9) == []
    assert timers.expire(110.0) == [Timer.RETRANSMIT_HANDSHAKE, Timer.SEND_KEEPALIVE]
    assert timers.expire(110.0) == []
    assert timers.next_deadline() == 640.0


def test_stop_disarms_all_and_forgets_the_second_keepalive(timers):
    timers.set_persistent_keepalive(5)
    timers.data_received(100.0)
    timers.data_received(100.0)
    timers.data_sent(100.0, 0.0)
    timers.session_derived(100.0)
    timers.attempts = 3
    timers.stop()
    assert timers.next_deadline() is None
    assert timers.attempts == 0
    timers.keepalive_due(200.0)
    assert timers.next_deadline() is None


def test_a_confirmation_is_repeated_until_it_is_seen(timers):
    timers.confirmation_sent(100.0, 0.5)
    assert timers.expire(100.5) == [Timer.RETRANSMIT_HANDSHAKE]
    timers.confirmation_sent(100.5, 1.0)
    timers.confirmation_seen()
    assert timers.next_deadline() is None


def test_an_initiation_that_is_held_back_goes_5_seconds_after_the_last_handshake_message(timers):
    timers.handshake_held_back(97.0, 0.0)
    assert timers.next_deadline() == 102.0
    timers.handshake_held_back(99.0, 0.0)
    assert timers.next_deadline() == 102.0, "one that waits already keeps its time"
