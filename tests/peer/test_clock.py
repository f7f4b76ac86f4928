"""A member's time while its clock is wrong, stepped, or started anew."""

import pytest

from wgdisco.peer.clock import AHEAD, Clock, parse_date

NOW = 1_795_000_000.0  # 2026-11-18
IN_1970, IN_2035 = 300.0, 2_060_000_000.0
SKEWED = [IN_1970, IN_2035]


def booted(unix, kept=0.0, confirmed_at=0.0):
    """A clock as a start makes it: what it may use is kept first. Its boot-time clock begins at 0."""
    clock = Clock(kept, confirmed_at, 0.0)
    clock.kept = clock.to_keep(unix, 0.0)
    return clock


def test_a_right_clock_is_followed():
    clock = booted(NOW)
    assert clock.handshake_time(NOW, 0.0) == NOW
    assert clock.handshake_time(NOW + 60, 60.0) == NOW + 60
    clock.registry_said(NOW + 61, 61.0)
    assert clock.time(NOW + 62, 62.0) == NOW + 62
    assert clock.note(NOW + 62, 62.0) is None


@pytest.mark.parametrize("unix", [NOW, IN_1970, IN_2035])
@pytest.mark.parametrize("then", [NOW, IN_1970, IN_2035])
def test_after_a_start_handshakes_are_later_than_all_before_whatever_the_clock_says(unix, then):
    before = booted(unix)
    last = max(before.handshake_time(unix + step, step) for step in (0.0, 60.0, AHEAD * 3))
    after = booted(then, kept=before.kept)
    assert last <= before.kept < after.handshake_time(then, 0.0)


def test_handshakes_do_not_go_back_with_the_clock_and_go_on_with_the_time_that_passes():
    clock = booted(IN_2035)
    first = clock.handshake_time(IN_2035, 0.0)
    assert clock.handshake_time(NOW, 5.0) == first + 5
    assert clock.handshake_time(NOW + 60, 65.0) == first + 65


def test_a_jump_forward_waits_until_it_is_kept():
    clock = booted(IN_1970, kept=NOW - 60)
    assert not clock.is_due(IN_1970, 0.0)
    assert clock.handshake_time(NOW + 86400, 1.0) == clock.kept < NOW + 86400
    assert clock.is_due(NOW + 86400, 1.0)
    clock.kept = clock.to_keep(NOW + 86400, 1.0)
    assert clock.handshake_time(NOW + 86400, 1.0) == NOW + 86400


def test_it_is_kept_again_before_it_is_used_up():
    clock = booted(NOW)
    assert not clock.is_due(NOW + AHEAD / 3, AHEAD / 3)
    assert clock.is_due(NOW + AHEAD * 2 / 3, AHEAD * 2 / 3)


@pytest.mark.parametrize(("unix", "shown"), [(IN_1970, "1970-01-01"), (IN_2035, "2035-04-12")])
def test_by_the_registry_a_wrong_clock_is_named_and_the_time_known(unix, shown):
    clock = booted(unix)
    clock.registry_said(NOW, 10.0)
    assert clock.time(unix + 10, 20.0) == NOW + 10
    note = clock.note(unix + 10, 20.0)
    assert note.startswith(f"clock: this host's says {shown}")
    assert "the registry's 2026-11-18" in note
    assert note.endswith("set it")
    assert clock.note(NOW + 20, 30.0) is None, "it was set meanwhile"


def test_without_a_registry_only_a_clock_before_what_was_is_named():
    assert booted(IN_1970).note(IN_1970, 0.0).startswith("clock: ")
    assert booted(NOW, confirmed_at=NOW + 3600).note(NOW, 0.0).endswith("set it")
    assert booted(NOW, confirmed_at=NOW - 86400).note(NOW, 0.0) is None
    assert booted(IN_2035, confirmed_at=NOW).note(IN_2035, 0.0) is None


def test_a_registry_in_1970_is_named_and_not_believed():
    clock = booted(NOW)
    clock.registry_said(IN_1970, 0.0)
    assert clock.time(NOW, 0.0) == NOW
    assert "whoever runs it has to set it" in clock.note(NOW, 0.0)


@pytest.mark.parametrize(
    "text", [None, "", "now", "Fri, 99 Foo 2026 03:28:00 GMT", "Fri, 27 Nov 2026 99:99:99 GMT", "x" * 8000,
             "Fri, 27 Nov 99999999999 03:28:00 GMT", "Fri, 27 Nov 2026 03:28:00 +9999999999999999999"]
)  # fmt: skip
def test_what_is_no_date_is_none(text):
    assert parse_date(text) is None


def test_a_date_header_is_unix_time():
    assert parse_date("Wed, 18 Nov 2026 12:00:05 GMT") == 1_795_003_205
