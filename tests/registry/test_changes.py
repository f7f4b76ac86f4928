"""What has changed since, to whom; and numbers that only the registry can read."""

import random

from tests.registry.io.api_registry import key
from wgdisco.registry.changes import Changes, EventIds


def ids(seed):
    return EventIds(random.Random(seed).randbytes)


def test_each_hears_of_its_groups_alone_the_latest_of_each_in_order():
    changes = Changes(10)
    changes.note(key(2), "two", ("red", "green"))
    since = changes.latest
    changes.note(key(3), "three", ("red",))
    changes.note(key(4), "four", ("green",))
    changes.note(key(2), "two", ("red", "green"))
    changes.note(key(3), "third", ("red",))
    assert changes.since(since, 9, ("red",)) == {key(2): (since + 3, "two"), key(3): (since + 4, "third")}
    assert list(changes.since(since, 9, ("green", "red"))) == [key(4), key(2), key(3)]
    assert changes.since(since, 9, ("blue",)) == {}
    assert changes.since(changes.latest, 9, ("red", "green")) == {}


def test_who_left_a_group_and_is_then_another_elsewhere_has_left_it():
    changes = Changes(10)
    changes.note(key(2), "two", ("red", "green"))  # it goes over
    changes.note(key(2), "two", ("green",))
    assert changes.since(0, 9, ("red",)) == {key(2): (1, "two")}


def test_a_groups_changes_are_not_forgotten_because_of_another_group():
    changes = Changes(3)
    changes.note(key(2), "two", ("red",))
    for number in range(200):
        changes.note(key(number), "some", ("green",))
    assert changes.since(0, 9, ("red",)) == {key(2): (1, "two")}
    assert changes.since(0, 9, ("red", "green")) is None
    assert changes.since(changes.latest - 3, 9, ("green",)) is not None
    assert changes.since(changes.latest - 4, 9, ("green",)) is None


def test_more_than_the_most_together_is_too_much():
    changes = Changes(3)
    for number in range(4):
        changes.note(key(number), "some", (f"g{number}",))
    assert len(changes.since(1, 9, ("g0", "g1", "g2", "g3"))) == 3
    assert changes.since(0, 9, ("g0", "g1", "g2", "g3")) is None


def test_what_it_is_told_of_itself_is_no_list():
    changes = Changes(3)
    changes.note_own(9)
    assert changes.since(0, 9, ("red",)) is None
    assert changes.since(0, 8, ("red",)) == {}
    assert changes.since(1, 9, ("red",)) == {}


def test_an_id_is_read_by_whoever_made_it_alone():
    ours, theirs = ids(1), ids(2)
    for number in (0, 1, 1 << 40):
        assert ours.from_text(ours.to_text(number)) == number
        assert theirs.from_text(ours.to_text(number)) is None


def test_an_id_tells_nothing():
    ours = ids(1)
    told = [ours.to_text(number) for number in (7, 7, 8, 1 << 40)]
    assert len(set(told)) == 4
    assert set(map(len, told)) == {48}


def test_no_text_makes_it_stumble():
    drawn, ours = random.Random(3), ids(1)
    good = ours.to_text(5)
    for text in ("", "1000", "x" * 48, "é" * 48, "=" * 48, good[:-1], good + "=", "-" + good[1:]):
        assert ours.from_text(text) is None
    for _ in range(200):
        at = drawn.randrange(48)
        other = good[:at] + drawn.choice("ABCxyz019-_ \0é") + good[at + 1 :]
        assert ours.from_text(other) == (5 if other == good else None)
