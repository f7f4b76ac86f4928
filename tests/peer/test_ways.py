"""The ways to a peer: which are there, which is best, and that their number is bounded."""

import pytest

from wgdisco.api import CandidateKind
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.peer.candidate import Candidate
from wgdisco.peer.check import Ponged
from wgdisco.peer.ways import MAX_ASKED, MAX_LEARNT, MAX_VERIFIED, TRUSTED_FOR, Ways

KEY = PrivateKey(bytes([7]) * 32).public_key()
A, B, C, RELAY = (Endpoint.from_text(f"203.0.113.{number}:1000") for number in (1, 2, 3, 9))
LAN = Endpoint.from_text("192.168.1.2:51820")


def told(endpoint: Endpoint, kind: CandidateKind = CandidateKind.SERVER_REFLEXIVE) -> Candidate:
    return Candidate.create(kind, endpoint, 0.0)


def pong(endpoint: Endpoint, rtt: float, at: float = 0.0) -> Ponged:
    return Ponged(KEY, endpoint, RELAY, rtt, at)


def place(number: int) -> Endpoint:
    return Endpoint(A.address, 2000 + number)


def test_all_ways_the_best_first_each_once():
    ways = Ways(lan=(LAN,), published=A, last_known=C)
    assert ways.tell([told(A), told(LAN, CandidateKind.HOST), told(RELAY)]) == [LAN, A, RELAY]
    assert ways.tell([told(A), told(LAN, CandidateKind.HOST)]) == []
    ways.learn(B, 0.0)
    ways.learn(A, 0.0)
    ways.learn(RELAY, 0.0)
    assert ways.all(but=RELAY) == (LAN, A, B, C)


def test_the_best_is_the_fastest_of_those_that_answered_lately():
    ways = Ways()
    ways.answer(pong(A, 0.001, at=0.0))
    ways.answer(pong(B, 0.030, at=TRUSTED_FOR))
    ways.answer(pong(C, 0.020, at=TRUSTED_FOR))
    assert ways.best(TRUSTED_FOR) == pong(A, 0.001, at=0.0)
    assert ways.best(TRUSTED_FOR + 0.1) == pong(C, 0.020, at=TRUSTED_FOR)
    assert ways.best(TRUSTED_FOR + 0.1, but=C) == pong(B, 0.030, at=TRUSTED_FOR)
    assert ways.best(2 * TRUSTED_FOR + 0.1) is None


def test_of_answers_in_a_short_time_the_fastest_tells_the_pace():
    ways = Ways()
    ways.answer(pong(A, 0.010, at=0.0))
    ways.answer(pong(A, 0.300, at=1.0))
    assert ways.verified[A] == pong(A, 0.010, at=1.0)
    ways.answer(pong(A, 0.300, at=1.0 + TRUSTED_FOR))
    assert ways.verified[A].rtt == 0.300


@pytest.mark.parametrize(
    ("rtt", "current", "is_better"),
    [
        (0.080, 0.100, True),  # 10 ms
        (0.091, 0.100, False),
        (0.007, 0.010, True),  # a fifth
        (0.009, 0.010, False),
        (0.0005, 0.001, False),  # a fifth of nearly nothing
    ],
)
def test_a_little_better_is_not_enough(rtt, current, is_better):
    ways = Ways(told=(told(B), told(A)))
    assert ways.is_better(pong(A, rtt), pong(B, current)) is is_better


def test_two_ways_alike_do_not_take_turns():
    ways = Ways(told=(told(A), told(B)))
    for slower in (0.0, 0.001):
        assert ways.is_better(pong(A, 0.010 + slower), pong(B, 0.010))
        assert not ways.is_better(pong(B, 0.010), pong(A, 0.010 + slower))


def test_a_peer_that_is_in_many_places_takes_bounded_room():
    ways = Ways()
    for number in range(1000):
        ways.learn(place(number), number)
        ways.ask(place(number), number)
        ways.answer(pong(place(number), 0.010, at=number))
    assert (len(ways.learnt), len(ways.asked), len(ways.verified)) == (MAX_LEARNT, MAX_ASKED, MAX_VERIFIED)
    assert place(999) in ways.learnt
    assert ways.asked_at(place(999)) == 999
    assert ways.asked_at(place(1)) == float("-inf")
    assert place(999) in ways.verified
