"""One peer's checks: which are sent by themselves, and which way that answered is used."""

import pytest

from wgdisco.api import CandidateKind
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.peer.actions import Ping
from wgdisco.peer.candidate import Candidate
from wgdisco.peer.check import Pinged, Ponged
from wgdisco.peer.checking import IN_PROGRESS, SETTLE, Checking
from wgdisco.peer.punch import TOLD_BURST
from wgdisco.peer.ways import TRUSTED_FOR, Ways

KEY = PrivateKey(bytes([7]) * 32).public_key()
USED, OTHER, US = (Endpoint.from_text(f"203.0.113.{number}:1000") for number in (1, 2, 9))


@pytest.fixture
def ways() -> Ways:
    return Ways()


@pytest.fixture
def checking(ways: Ways) -> Checking:
    return Checking(KEY, ways)


def pong(endpoint: Endpoint, rtt: float, at: float) -> Ponged:
    return Ponged(KEY, endpoint, US, rtt, at)


def test_who_asks_is_asked_unless_that_is_under_way_or_known(checking):
    assert not checking.is_spoken
    assert checking.asked(Pinged(KEY, OTHER, 0.0)) == [Ping(KEY, OTHER)]
    assert checking.is_spoken
    assert checking.asked(Pinged(KEY, OTHER, IN_PROGRESS)) == []
    assert checking.asked(Pinged(KEY, OTHER, 2 * IN_PROGRESS)) == [Ping(KEY, OTHER)]
    checking.answered(pong(OTHER, 0.01, 1.0))
    assert checking.asked(Pinged(KEY, OTHER, 1.0 + TRUSTED_FOR)) == []
    assert checking.asked(Pinged(KEY, OTHER, 1.5 + TRUSTED_FOR)) == [Ping(KEY, OTHER)]


def test_of_what_is_told_at_once_only_so_much_is_asked(checking):
    told = [Endpoint(USED.address, 2000 + number) for number in range(TOLD_BURST + 5)]
    assert checking.ask_told(told, 0.0) == [Ping(KEY, endpoint) for endpoint in told[:TOLD_BURST]]


def test_where_both_answer_the_better_is_used(checking):
    checking.answered(pong(USED, 0.050, 0.0))
    assert checking.compare(USED, 0.0) is None
    checking.answered(pong(OTHER, 0.049, 0.0))
    assert checking.compare(OTHER, 0.0) is None
    checking.answered(pong(OTHER, 0.010, 0.0))
    assert checking.compare(USED, 0.0) == OTHER


def test_an_answer_from_elsewhere_waits_for_one_from_the_way_in_use(checking):
    checking.answered(pong(USED, 0.010, 0.0))
    assert checking.ask_elsewhere(OTHER, 1.0) == Ping(KEY, OTHER)
    checking.answered(pong(OTHER, 0.005, 1.5))
    assert checking.compare(USED, 1.5) == Ping(KEY, USED)
    assert checking.compare(USED, 1.5) is None, "it is asked already"
    settles = checking.get_timer()
    assert settles == pytest.approx(1.5 + 0.005 + SETTLE)
    assert not checking.is_settled(1.5)
    assert checking.is_settled(settles)
    assert not checking.is_settled(settles)
    assert checking.get_timer() is None
    assert checking.compare(USED, settles, is_final=True) == OTHER


def test_the_way_in_use_stays_when_it_answers_in_time(checking):
    checking.answered(pong(USED, 0.010, 0.0))
    checking.ask_elsewhere(OTHER, 1.0)
    checking.answered(pong(OTHER, 0.010, 1.01))
    assert checking.compare(USED, 1.01) == Ping(KEY, USED)
    checking.answered(pong(USED, 0.010, 1.02))
    assert checking.compare(USED, 1.03, is_final=True) is None


def test_where_the_registry_saw_it_move_nothing_is_waited_for(checking, ways):
    ways.tell([Candidate.create(CandidateKind.SERVER_REFLEXIVE, OTHER, 0.0)])
    checking.answered(pong(OTHER, 0.010, 0.0))
    assert checking.compare(USED, 0.0) == OTHER
    assert checking.get_timer() is None
