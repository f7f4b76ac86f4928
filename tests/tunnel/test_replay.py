"""The truth table and the sweeps of the kernel's counter self-test."""

import random

import pytest

from wgdisco.tunnel.burst import compiled
from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES, REPLAY_WINDOW
from wgdisco.tunnel.replay import Counters

LIMIT = REPLAY_WINDOW + 1


@pytest.fixture(params=["reference", "compiled"])
def create(request):
    """Makes windows, of either kind."""
    if request.param == "reference":
        return Counters
    if compiled is None:
        pytest.skip("the compiled burst was not built")
    return compiled.CompiledCounters


def words_of(window):
    """Its bits, for comparison."""
    return list(window.native.words) if hasattr(window, "native") else window._words


TRUTH_TABLE = [
    (0, True),
    (1, True),
    (1, False),
    (9, True),
    (8, True),
    (7, True),
    (7, False),
    (LIMIT, True),
    (LIMIT - 1, True),
    (LIMIT - 1, False),
    (LIMIT - 2, True),
    (2, True),
    (2, False),
    (LIMIT + 16, True),
    (3, False),
    (LIMIT + 16, False),
    (LIMIT * 4, True),
    (LIMIT * 4 - (LIMIT - 1), True),
    (10, False),
    (LIMIT * 4 - LIMIT, False),
    (LIMIT * 4 - (LIMIT + 1), False),
    (LIMIT * 4 - (LIMIT - 2), True),
    (LIMIT * 4 + 1 - LIMIT, False),
    (0, False),
    (REJECT_AFTER_MESSAGES, False),
    (REJECT_AFTER_MESSAGES - 1, True),
    (REJECT_AFTER_MESSAGES, False),
    (REJECT_AFTER_MESSAGES - 1, False),
    (REJECT_AFTER_MESSAGES - 2, True),
    (REJECT_AFTER_MESSAGES + 1, False),
    (REJECT_AFTER_MESSAGES + 2, False),
    (REJECT_AFTER_MESSAGES - 2, False),
    (REJECT_AFTER_MESSAGES - 3, True),
    (0, False),
]


@pytest.mark.rule("R1", "R3", "R4")
def test_truth_table(create):
    assert len(TRUTH_TABLE) == 34
    window = create()
    assert [(counter, window.accept(counter)) for counter, _ in TRUTH_TABLE] == TRUTH_TABLE


@pytest.mark.rule("R1", "R4")
@pytest.mark.parametrize(
    ("counters", "then"),
    [
        (range(1, REPLAY_WINDOW + 1), [(0, True), (0, False)]),
        (range(2, REPLAY_WINDOW + 2), [(1, True), (0, False)]),
        (range(REPLAY_WINDOW, -1, -1), []),
        (range(REPLAY_WINDOW + 1, 0, -1), [(0, False)]),
        (range(REPLAY_WINDOW, 0, -1), [(REPLAY_WINDOW + 1, True), (0, False)]),
        (range(REPLAY_WINDOW, 0, -1), [(0, True), (REPLAY_WINDOW + 1, True)]),
    ],
    ids=["forward", "forward off by one", "backward", "backward off by one", "then forward", "then filled"],
)
def test_sweep(create, counters, then):
    window = create()
    assert all(window.accept(counter) for counter in counters)
    assert [(counter, window.accept(counter)) for counter, _ in then] == then


@pytest.mark.rule("R1")
@pytest.mark.parametrize("first", [0, 1, 63, 64, 8191, 8192, 123_456])
@pytest.mark.parametrize("jump", [REPLAY_WINDOW - 63, REPLAY_WINDOW - 1, REPLAY_WINDOW])
def test_the_oldest_in_the_window_are_not_forgotten(create, first, jump):
    """64 counters seen and 64 not, then one as far ahead as leaves the first of them in the window."""
    window = create()
    seen, unseen = range(first, first + 128, 2), range(first + 1, first + 128, 2)
    assert all(window.accept(counter) for counter in seen)
    assert window.accept(first + jump)
    assert not any(window.accept(counter) for counter in seen)
    assert all(window.accept(counter) for counter in unseen)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stride", [1, 63, 64, 65, REPLAY_WINDOW - 1, 8192, 3 * 8192])
def test_against_a_set(create, seed, stride):
    chance = random.Random(seed)
    window, seen, greatest = create(), set(), -1
    for _ in range(3000):
        counter = max(0, greatest + chance.randint(-2 * REPLAY_WINDOW, stride) if chance.random() < 0.5 else greatest)
        counter += chance.randint(0, stride)
        expected = counter not in seen and counter + REPLAY_WINDOW >= greatest
        assert window.accept(counter) is expected
        if expected:
            seen.add(counter)
            greatest = max(greatest, counter)


@pytest.mark.parametrize("seed", range(20))
def test_a_run_is_each_of_its_counters(create, seed):
    """Runs and single counters, forward mostly: a window that takes runs ends where one that asks for each does."""
    chance = random.Random(seed)
    fast, slow = create(), create()
    at = 0
    for _ in range(200):
        first = max(0, at + chance.choice([0, 0, 0, 1, 3, 70, 9000, -5, -64, -8200]))
        count = chance.choice([1, 2, 45, 64, 130, 9000])
        is_ahead = first >= at
        assert fast.accept_run(first, count) == is_ahead
        if is_ahead:
            assert all(slow.accept(counter) for counter in range(first, first + count))
            at = first + count
        for _ in range(8):
            counter = max(0, at - chance.choice([0, 1, 2, 64, 65, 130, 8000, REPLAY_WINDOW, LIMIT, LIMIT + 1]))
            taken = fast.accept(counter)
            assert taken == slow.accept(counter)
            at = max(at, counter + 1) if taken else at
    assert words_of(fast) == words_of(slow)


def test_no_run_beyond_the_limit(create):
    window = create()
    assert not window.accept_run(REJECT_AFTER_MESSAGES - 3, 4)
    assert window.accept_run(REJECT_AFTER_MESSAGES - 4, 4)
    assert not window.accept(REJECT_AFTER_MESSAGES - 1)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("seed", range(8))
def test_the_two_agree(seed):
    """Any counters, near the limits too, alone and in runs."""
    if compiled is None:
        pytest.skip("the compiled burst was not built")
    chance = random.Random(seed)
    ours, theirs = Counters(), compiled.CompiledCounters()
    at = chance.choice([0, 5, 1 << 40, REJECT_AFTER_MESSAGES - 30_000])
    for _ in range(2000):
        counter = max(
            0, min(at + chance.choice([0, 1, 2, 64, 200, 9000, -1, -63, -64, -8100, -8128, -8129, -9000]), 2**64 - 1)
        )
        if chance.random() < 0.3:
            count = chance.choice([1, 2, 64, 129, 9000])
            assert ours.accept_run(counter, count) == bool(theirs.accept_run(counter, count))
            at = max(at, counter + count) if counter >= at else at
        else:
            assert ours.accept(counter) == theirs.accept(counter)
            at = max(at, counter)
    assert words_of(ours) == words_of(theirs)
