"""When a device that tells nothing is looked at, on a virtual clock."""

from itertools import pairwise

from wgdisco.tunnel.looks import AFTER_HINT, EAGER_FOR, EAGER_INTERVAL, INTERVAL, SHARE, Looks


def looked_at(looks: Looks, since: float, until: float, cost: float = 0.0, hints: float | None = None) -> list[float]:
    """When it is looked at; a hint comes every `hints` seconds."""
    times, hint = [], since
    while True:
        due = looks.get_timer()
        if hints is not None and hint <= min(due, until):
            looks.hinted(hint)
            hint += hints
        elif due > until:
            return times
        else:
            looks.looked(due, cost)
            times.append(due)


def test_once_a_second():
    assert looked_at(Looks(0.0), 0.0, 5.0) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_often_while_a_handshake_is_under_way():
    looks = Looks(0.0)
    looks.expect(0.0)
    times = looked_at(looks, 0.0, 20.0)
    assert len([at for at in times if at <= EAGER_FOR]) == round(EAGER_FOR / EAGER_INTERVAL)
    assert 9 <= len([at for at in times if at > EAGER_FOR]) <= 11


def test_a_hint_leads_to_looks_soon_and_some_later():
    looks = Looks(0.0)
    looks.hinted(0.5)
    times = looked_at(looks, 0.5, 3.0)
    assert times[:4] == [0.5 + step for step in AFTER_HINT]
    assert times[4:] == [times[3] + INTERVAL, times[3] + 2 * INTERVAL]


def test_hints_in_a_flood_are_one():
    """They neither put the look off nor make it more than its share."""
    looks = Looks(0.0)
    times = looked_at(looks, 0.0, 10.0, cost=0.001, hints=0.0001)
    assert times[0] == AFTER_HINT[0]
    assert all(later - earlier >= 0.001 / SHARE - 1e-9 for earlier, later in pairwise(times))


def test_dear_looks_are_rare():
    looks = Looks(0.0)
    times = looked_at(looks, 0.0, 100.0, cost=0.1, hints=0.01)
    assert 45 <= len(times) <= 51
    looks = Looks(0.0)
    assert 45 <= len(looked_at(looks, 0.0, 100.0, cost=0.1)) <= 50
