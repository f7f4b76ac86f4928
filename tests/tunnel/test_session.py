"""A session's age and counters, and the three slots (rules D5, H13, L1, T10)."""

import pytest

from tests.tunnel.by_hand import packets_in
from tests.tunnel.wire import ip_packet
from wgdisco.tunnel.burst import Burst, Frames, Room
from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from wgdisco.tunnel.noise import TransportKeys
from wgdisco.tunnel.session import Session, SessionSlots

ONE, OTHER = bytes([1]) * 32, bytes([2]) * 32


def _session(index: int = 1, initiator: bool = True, now: float = 1000.0) -> Session:
    return Session(TransportKeys(ONE, OTHER, 90 + index), index, initiator, now)


def _pair(now: float = 1000.0) -> tuple[Session, Session]:
    ours, theirs = TransportKeys(ONE, OTHER, 2), TransportKeys(OTHER, ONE, 1)
    return Session(ours, 1, True, now), Session(theirs, 2, False, now)


@pytest.mark.rule("L1", "L2", "T2")
def test_a_session_sends_and_receives_for_180_seconds():
    session = _session()
    assert session.is_usable(1179.9)
    assert session.accepts(1179.9)
    assert not session.is_usable(1180.0)
    assert not session.accepts(1180.0)


@pytest.mark.rule("L1", "L3")
def test_a_session_sends_until_its_counters_are_used_up():
    session = _session()
    session.next_counter = REJECT_AFTER_MESSAGES - 1
    assert session.is_usable(1000.0)
    session.seal(Frames.of(b""), 1420, Room())
    assert not session.is_usable(1000.0)
    assert session.accepts(1000.0)


@pytest.mark.rule("T10", "T2")
@pytest.mark.parametrize(
    ("initiator", "at", "wanted"), [(True, 1119.9, False), (True, 1120.0, True), (False, 1179, False)]
)
def test_the_initiator_renews_after_120_seconds_of_age_on_sending(initiator, at, wanted):
    assert _session(initiator=initiator).wants_rekey_after_send(at) is wanted


@pytest.mark.rule("T10")
@pytest.mark.parametrize(
    ("initiator", "at", "wanted"), [(True, 1164.9, False), (True, 1165.0, True), (False, 1179, False)]
)
def test_the_initiator_renews_after_165_seconds_of_age_on_receiving(initiator, at, wanted):
    assert _session(initiator=initiator).wants_rekey_after_receive(at) is wanted


@pytest.mark.rule("T10")
@pytest.mark.parametrize("initiator", [True, False])
def test_either_side_renews_after_2_to_the_60_messages(initiator):
    session = _session(initiator=initiator)
    session.next_counter = REKEY_AFTER_MESSAGES
    assert not session.wants_rekey_after_send(1000.0)
    session.seal(Frames.of(b""), 1420, Room())
    assert session.wants_rekey_after_send(1000.0)


PACKETS = [ip_packet("10.9.0.1", "10.9.0.2", bytes([number]) * size) for number, size in enumerate((30, 30, 4))]


def _sealed(ours: Session, *packets: bytes) -> Burst:
    (burst,) = ours.seal(Frames.of(*packets), 1420, Room()).bursts
    return burst


def _opened(theirs: Session, datagrams: Burst) -> tuple[list[bytes], int, int, int, int]:
    received = theirs.open(datagrams, Room())
    return packets_in(received.frames), received.rows, received.packets, received.forged, received.replayed


@pytest.mark.rule("D2")
def test_a_burst_takes_one_counter_a_packet():
    ours, theirs = _pair()
    assert _opened(theirs, _sealed(ours, *PACKETS)) == (PACKETS, 3, 3, 0, 0)
    assert ours.next_counter == 3
    assert _opened(theirs, _sealed(ours, b"")) == ([], 1, 0, 0, 0)
    assert ours.next_counter == 4
    assert theirs.next_counter == 0


@pytest.mark.rule("R2", "D5")
def test_a_burst_received_twice_is_replays_and_a_forgery_is_not():
    ours, theirs = _pair()
    sealed = _sealed(ours, *PACKETS)
    forged = bytearray(sealed.data)
    forged[-1] ^= 1
    half_true = Burst(bytes(forged), sealed.row)
    assert theirs.open(half_true, Room()).size == 2 * sealed.row
    assert _opened(theirs, half_true) == ([], 0, 0, 1, 2)
    assert _opened(theirs, sealed) == (PACKETS[2:], 1, 1, 0, 2), "a forged row must leave its counter free"
    assert _opened(theirs, sealed) == ([], 0, 0, 0, 3)


@pytest.mark.rule("H13")
def test_slots_of_an_initiator():
    slots = SessionSlots()
    first, second, third = _session(1), _session(2), _session(3)
    assert slots.add_as_initiator(first) == []
    assert (slots.previous, slots.current, slots.next) == (None, first, None)
    assert slots.add_as_initiator(second) == []
    assert (slots.previous, slots.current, slots.next) == (first, second, None)
    assert slots.add_as_initiator(third) == [first]
    assert (slots.previous, slots.current, slots.next) == (second, third, None)


@pytest.mark.rule("H13")
def test_slots_of_a_responder():
    slots = SessionSlots()
    first, second, third = _session(1), _session(2), _session(3)
    assert slots.add_as_responder(first) == []
    assert (slots.previous, slots.current, slots.next) == (None, None, first)
    assert slots.confirm(first) == []
    assert (slots.previous, slots.current, slots.next) == (None, first, None)
    assert slots.add_as_responder(second) == []
    assert slots.confirm(first) is None
    assert slots.confirm(second) == []
    assert (slots.previous, slots.current, slots.next) == (first, second, None)
    assert slots.add_as_responder(third) == [first]
    assert (slots.previous, slots.current, slots.next) == (None, second, third)


@pytest.mark.rule("H13")
def test_an_unconfirmed_session_is_replaced_by_a_newer_one():
    slots = SessionSlots()
    first, second = _session(1), _session(2)
    slots.add_as_responder(first)
    assert slots.add_as_responder(second) == [first]
    assert slots.next is second


@pytest.mark.rule("H13")
def test_a_crossed_handshake_keeps_the_unconfirmed_session_as_previous():
    slots = SessionSlots()
    old, older, theirs, ours = _session(1), _session(2), _session(3), _session(4)
    slots.previous, slots.current, slots.next = older, old, theirs
    assert slots.add_as_initiator(ours) == [older, old]
    assert (slots.previous, slots.current, slots.next) == (theirs, ours, None)


@pytest.mark.parametrize("is_initiator", [True, False])
def test_what_the_other_side_sends_in_stays_until_it_has_the_new_session(is_initiator):
    """After a crossed handshake that is our previous session."""
    slots = SessionSlots()
    theirs, ours, renewed = _session(1), _session(2), _session(3)
    slots.previous, slots.current = theirs, ours
    slots.heard = theirs
    if is_initiator:
        assert slots.add_as_initiator(renewed) == [ours]
        assert (slots.previous, slots.current, slots.next) == (theirs, renewed, None)
    else:
        assert slots.add_as_responder(renewed) == []
        assert (slots.previous, slots.current, slots.next) == (theirs, ours, renewed)
        assert slots.confirm(renewed) == [theirs]
        assert (slots.previous, slots.current, slots.next) == (ours, renewed, None)


def test_clearing_returns_all_three():
    slots = SessionSlots()
    slots.previous, slots.current, slots.next = sessions = _session(1), _session(2), _session(3)
    assert slots.clear() == list(sessions)
    assert slots.clear() == []
