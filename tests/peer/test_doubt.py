"""When a path is doubted, asked about and given up."""

import pytest

from wgdisco.peer.doubt import LISTENS_FOR, MARGIN, PINGS_AT, UNHEARD, UNHEARD_LISTENER, Doubt, Missing
from wgdisco.peer.ways import TRUSTED_FOR

RTT = 0.05


def run(doubt: Doubt, now: float) -> tuple[list[float], float | None]:
    """When checks went out, and when the way was left."""
    pings: list[float] = []
    while (at := doubt.get_timer(RTT)) is not None:
        now = max(now, at)
        pings += [now] * doubt.pings_due(now)
        if doubt.is_lost(RTT, now):
            return pings, now
    return pings, None


def test_three_checks_then_the_way_is_lost():
    doubt = Doubt()
    assert doubt.get_timer(RTT) is None
    assert doubt.begin(0.0, 1.0)
    assert not doubt.begin(0.0, 1.05)  # already
    pings, lost_at = run(doubt, 1.0)
    assert pings == [1.0 + at for at in PINGS_AT]
    assert lost_at == pytest.approx(1.0 + PINGS_AT[-1] + MARGIN + RTT)
    assert doubt.get_timer(RTT) is None
    assert doubt.begin(0.0, 2.0)


def test_an_answer_ends_it_and_who_only_listens_is_left_alone_for_a_while():
    doubt = Doubt()
    doubt.begin(0.0, 1.0)
    doubt.answered(1.1)
    assert doubt.get_timer(RTT) is None
    assert not doubt.begin(0.0, 1.1 + TRUSTED_FOR - 0.01)
    assert doubt.begin(0.0, 1.1 + TRUSTED_FOR)
    doubt.answered(7.0)
    assert doubt.begin(7.1, 7.5)  # it has spoken since


def test_after_a_sleep_nothing_is_made_up_for():
    doubt = Doubt()
    doubt.begin(0.0, 1.0)
    assert doubt.pings_due(1.0) == 1
    assert doubt.pings_due(1.0) == 0
    assert doubt.pings_due(1000.0) == len(PINGS_AT) - 1
    assert doubt.is_lost(RTT, 1000.0)
    assert not doubt.is_lost(RTT, 1000.0)


def test_over_the_relay_who_was_brought_back_is_given_longer():
    missing = Missing()
    missing.heard(1.0)
    assert missing.patience(1.0) == UNHEARD
    missing.asked()
    missing.heard(5.0)
    assert missing.patience(5.0 + LISTENS_FOR - 0.1) == UNHEARD_LISTENER
    assert missing.patience(5.0 + LISTENS_FOR) == UNHEARD
