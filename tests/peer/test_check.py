"""Check datagrams: who can read them, what is answered how often, and what is remembered."""

import random
from collections import Counter

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.peer.check import (
    ANSWERS_BURST,
    ANSWERS_RATE,
    PENDING_MAX,
    PING_SIZE,
    PING_TIMEOUT,
    PONG_SIZE,
    Checks,
    Pinged,
    Ponged,
)
from wgdisco.tunnel.noise import static_static

ALICE, BOB, CAROL = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
AT_ALICE, AT_BOB, ELSEWHERE = (Endpoint.from_text(f"203.0.113.{number}:51820") for number in (1, 2, 9))
AT_BOB6 = Endpoint.from_text("[2001:db8::2]:51820")


def checks(private: PrivateKey, *peers: PrivateKey) -> Checks:
    own = private.public_key()
    made = Checks(own, lambda key: static_static(private, key), random.Random(private.raw).randbytes)
    made.set_peers(frozenset(peer.public_key() for peer in peers), own)
    return made


@pytest.fixture
def alice() -> Checks:
    return checks(ALICE, BOB, CAROL)


@pytest.fixture
def bob() -> Checks:
    return checks(BOB, ALICE)


def ping(one: Checks, whom: PrivateKey, endpoint: Endpoint, now: float = 0.0) -> bytes:
    data = one.ping(whom.public_key(), endpoint, now)
    assert data is not None
    return data


@pytest.mark.parametrize("at_bob", [AT_BOB, AT_BOB6])
def test_a_ping_is_answered_to_its_source_and_the_answer_tells_pace_and_place(alice, bob, at_bob):
    asked = ping(alice, BOB, at_bob, 1.0)
    assert bob.receive(asked, AT_ALICE, 1.02) == Pinged(ALICE.public_key(), AT_ALICE, 1.02)
    [(answer, to)] = bob.datagrams_to_send()
    assert (to, len(asked), len(answer)) == (AT_ALICE, PING_SIZE, PONG_SIZE)
    assert max(len(asked), len(answer)) <= 100
    ponged = alice.receive(answer, at_bob, 1.04)
    assert ponged == Ponged(BOB.public_key(), at_bob, AT_ALICE, pytest.approx(0.04), 1.04)
    assert bob.datagrams_to_send() == alice.datagrams_to_send() == []


def test_what_is_repeated_gets_nothing(alice, bob):
    asked = ping(alice, BOB, AT_BOB)
    bob.receive(asked, AT_ALICE, 0.0)
    [(answer, _)] = bob.datagrams_to_send()
    assert bob.receive(asked, ELSEWHERE, 0.1) is None
    assert bob.datagrams_to_send() == []
    assert alice.receive(answer, AT_BOB, 0.1) is not None
    assert alice.receive(answer, AT_BOB, 0.1) is None
    assert (alice.dropped, bob.dropped) == (1, 1)


def test_an_answer_counts_only_from_where_was_asked_and_in_time(alice, bob):
    asked = ping(alice, BOB, AT_BOB)
    bob.receive(asked, AT_ALICE, 0.0)
    [(answer, _)] = bob.datagrams_to_send()
    assert alice.receive(answer, ELSEWHERE, 0.1) is None
    ping(alice, BOB, AT_BOB, PING_TIMEOUT)  # what is too old goes when the next is asked
    assert alice.receive(answer, AT_BOB, PING_TIMEOUT) is None


def test_nothing_of_it_may_be_another(alice, bob):
    asked = ping(alice, BOB, AT_BOB)
    for place in range(len(asked)):
        changed = bytearray(asked)
        changed[place] ^= 1
        assert bob.receive(bytes(changed), AT_ALICE, place) is None
    for size in range(len(asked)):
        assert bob.receive(asked[:size], AT_ALICE, 100.0) is None
    assert bob.receive(asked + b"\0", AT_ALICE, 100.0) is None
    assert bob.datagrams_to_send() == []
    assert bob.receive(asked, AT_ALICE, 100.0) is not None


def test_it_is_for_one_reader_and_cannot_be_sent_back(alice, bob):
    asked = ping(alice, BOB, AT_BOB)
    assert checks(CAROL, ALICE, BOB).receive(asked, AT_ALICE, 0.0) is None
    assert alice.receive(asked, AT_BOB, 0.0) is None
    assert checks(BOB, CAROL).receive(asked, AT_ALICE, 0.0) is None


def test_who_is_no_peer_any_more_is_not_asked_and_not_answered(alice, bob):
    asked = ping(alice, BOB, AT_BOB)
    bob.receive(ping(alice, BOB, AT_BOB), AT_ALICE, 0.0)
    bob.datagrams_to_send()
    bob.set_peers(frozenset(), BOB.public_key())
    assert bob.receive(asked, AT_ALICE, 0.0) is None
    assert bob.ping(ALICE.public_key(), AT_ALICE, 0.0) is None


def test_with_another_key_of_ours_it_goes_on(alice):
    private = {"bob": BOB}
    bob = Checks(BOB.public_key(), lambda key: static_static(private["bob"], key), random.Random(1).randbytes)
    private["bob"] = CAROL
    bob.set_peers(frozenset({ALICE.public_key()}), CAROL.public_key())
    assert alice.receive(ping(bob, ALICE, AT_ALICE), AT_BOB, 0.0) == Pinged(CAROL.public_key(), AT_BOB, 0.0)


def test_whoever_forges_sources_has_us_send_a_bounded_number(alice, bob):
    """A member with a key of its own, from as many places as it likes: each of its pings is a new one."""
    sent: Counter[int] = Counter()
    for number in range(20_000):
        now = number / 1000
        bob.receive(ping(alice, BOB, AT_BOB, now), Endpoint(AT_ALICE.address, 1024 + number), now)
        sent[int(now) // 10] += len(bob.datagrams_to_send())
    assert 0 < sent[1] <= ANSWERS_RATE * 10 + 1
    assert sent[0] + sent[1] <= ANSWERS_BURST + ANSWERS_RATE * 20


def test_rubbish_does_not_keep_who_was_met_from_being_heard(alice, bob):
    assert bob.receive(ping(alice, BOB, AT_BOB), AT_ALICE, 0.0) is not None
    rubbish = ping(checks(CAROL, BOB), BOB, AT_BOB)
    for _ in range(1000):
        assert bob.receive(rubbish, ELSEWHERE, 0.1) is None
    assert bob.receive(ping(alice, BOB, AT_BOB), AT_ALICE, 0.1) is not None
    assert bob.receive(ping(alice, BOB, AT_BOB), ELSEWHERE, 0.1) is None  # a new place waits
    assert bob.receive(ping(alice, BOB, AT_BOB), ELSEWHERE, 0.2) is not None


def test_what_is_pending_is_bounded(alice, bob):
    first = ping(alice, BOB, AT_BOB)
    bob.receive(first, AT_ALICE, 0.0)
    [(answer, _)] = bob.datagrams_to_send()
    for _ in range(PENDING_MAX):
        ping(alice, BOB, AT_BOB)
    assert alice.receive(answer, AT_BOB, 0.0) is None
