"""The instances of a snapshot against a dict that is copied each time."""

from hypothesis import given
from hypothesis import strategies as st

from tests.dnssd.goldenzone import key, peer
from wgdisco.dnssd.instances import Instances

KEYS = [key(number) for number in range(1, 9)]
ONES = st.builds(peer, st.sampled_from(KEYS), st.sampled_from(["192.0.2.1:1", "192.0.2.2:2"]))
STEPS = st.lists(st.tuples(st.lists(ONES, max_size=3), st.lists(st.sampled_from(KEYS), max_size=3)), max_size=12)


@given(st.lists(ONES), STEPS)
def test_it_is_the_same_in_the_same_order_and_what_was_stays(first, steps):
    plain = {one.key: one for one in first}
    snapshots = [(Instances(plain), plain)]
    for put, gone in steps:
        plain = {other: one for other, one in plain.items() if other not in gone}
        plain |= {one.key: one for one in put}
        snapshots.append((snapshots[-1][0].following(put, gone), plain))
    for found, expected in snapshots:
        assert list(found.items()) == list(expected.items())
        assert list(found) == list(expected)
        assert list(found.values()) == list(expected.values())
        assert len(found) == len(expected)
        assert [found.get(one) for one in KEYS] == [expected.get(one) for one in KEYS]
        assert [one in found for one in KEYS] == [one in expected for one in KEYS]


def test_many_changes_are_put_together(monkeypatch):
    monkeypatch.setattr("wgdisco.dnssd.instances._CHANGES_MAX", 3)
    found = Instances({})
    for number in range(1, 9):
        found = found.following([peer(key(number), "192.0.2.1:1")], [])
        assert len(found._changed) <= 3
    assert list(found) == KEYS
