"""The timestamps of initiations (rule H8)."""

import random
from itertools import pairwise

import pytest

from wgdisco.tunnel.tai64n import Timestamps

pytestmark = pytest.mark.rule("H8")

STEP = 1 << 24


def _read(stamp: bytes) -> tuple[int, int]:
    """Unix seconds and nanoseconds."""
    assert len(stamp) == 12
    return int.from_bytes(stamp[:8], "big") - 0x400000000000000A, int.from_bytes(stamp[8:], "big")


@pytest.mark.parametrize(
    ("unix_time", "seconds", "nanoseconds"),
    [
        (0.0, 0, STEP),  # the first is one step after the beginning of time at least
        (0.5, 0, 500_000_000 // STEP * STEP),
        (0.500000001, 0, 500_000_000 // STEP * STEP),
        (1.0, 1, 0),
        (1_700_000_000.25, 1_700_000_000, 250_000_000 // STEP * STEP),
        (2_147_483_648.0, 1 << 31, 0),
        (4_294_967_296.999, 1 << 32, 998_999_834 // STEP * STEP),
    ],
)
def test_unix_time_in_steps_of_16_8_ms(unix_time, seconds, nanoseconds):
    assert _read(Timestamps().next(unix_time)) == (seconds, nanoseconds)


@pytest.mark.parametrize(
    ("later", "differs"), [(0.0, False), (1e-8, False), (1e-5, False), (1e-3, False), (0.02, True), (1.0, True)]
)
def test_a_clocks_fine_state_is_not_told(later, differs):
    start = 123.0
    assert (Timestamps().next(start) != Timestamps().next(start + later)) is differs


@pytest.mark.parametrize("seed", range(5))
def test_they_rise_however_the_clock_jumps(seed):
    chance = random.Random(seed)
    timestamps, last, now = Timestamps(), b"", 1_700_000_000.0
    for _ in range(500):
        now = max(0.0, now + chance.choice((0.0, 1e-6, 0.001, 0.0168, 0.5, 5.0, -0.3, -1e6, 1e5)))
        stamp = timestamps.next(now)
        assert stamp > last
        seconds, nanoseconds = _read(stamp)
        assert nanoseconds % STEP == 0
        assert nanoseconds < 10**9
        assert seconds + nanoseconds / 1e9 > now - 0.0168
        last = stamp


def test_many_at_one_moment_are_a_step_apart():
    timestamps = Timestamps()
    stamps = [_read(timestamps.next(1000.0)) for _ in range(200)]
    times = [seconds * 10**9 + nanoseconds for seconds, nanoseconds in stamps]
    assert stamps[0] == (1000, 0)
    assert all(STEP // 2 < later - earlier < 2 * STEP for earlier, later in pairwise(times))
