"""How long punching took: one observation an order, of the path that came of it."""

from ipaddress import ip_address

from wgdisco.api import PathWord
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.metrics import GIVEN_UP_AFTER, Punches
from wgdisco.peer.news import Checked, Ordered, PathChanged

KEY, OTHER = PublicKey(bytes(range(32))), PublicKey(bytes(range(1, 33)))
AT = Endpoint(ip_address("192.0.2.1"), 51820)


def changed(path, at, key=KEY):
    return PathChanged(key, path, None, (AT,), at)


def ordered(at, key=KEY):
    return Ordered(key, True, (AT,), at)


def seconds(punches):
    """Count and sum by path."""
    (family,) = [one for one in punches.families() if one.metric.name == "wgdisco_punch_seconds"]
    return {path: (buckets.counts[-1][1], buckets.sum) for (path,), buckets in family.samples}


def told(*news):
    punches = Punches()
    for one in news:
        punches.tell(one)
    return punches


def test_a_direct_path_ends_it():
    punches = told(ordered(10.0), changed(PathWord.PUNCHING, 10.0), changed(PathWord.DIRECT, 10.3))
    punches.tell(changed(PathWord.DIRECT, 11.0))
    assert seconds(punches) == {"direct": (1, 10.3 - 10.0), "lan": (0, 0.0), "relay": (0, 0.0)}
    assert (punches.orders, punches.failures) == (1, 0)


def test_the_relay_does_not_while_a_direct_path_may_come():
    punches = told(ordered(10.0), changed(PathWord.RELAY, 10.5))
    punches.settle(11.0)
    punches.tell(changed(PathWord.LAN, 12.0))
    assert seconds(punches)["lan"] == (1, 2.0)
    assert seconds(punches)["relay"] == (0, 0.0)


def test_the_relay_is_what_came_of_it_in_the_end_from_when_it_was_there():
    punches = told(ordered(10.0), changed(PathWord.RELAY, 10.5))
    punches.settle(10.0 + GIVEN_UP_AFTER - 0.1)
    assert seconds(punches)["relay"] == (0, 0.0)
    punches.settle(10.0 + GIVEN_UP_AFTER)
    punches.settle(10.0 + 2 * GIVEN_UP_AFTER)
    assert seconds(punches)["relay"] == (1, 0.5)


def test_the_relay_that_was_there_before_took_no_time():
    punches = told(changed(PathWord.RELAY, 5.0), ordered(10.0))
    punches.settle(30.0)
    assert seconds(punches)["relay"] == (1, 0.0)


def test_nothing_at_all_is_a_failure():
    punches = told(ordered(10.0), changed(PathWord.PUNCHING, 10.0))
    punches.settle(30.0)
    assert punches.failures == 1
    assert {count for count, _ in seconds(punches).values()} == {0}


def test_a_direct_path_that_stands_is_verified_by_a_check():
    checked = Checked(KEY, AT, AT, 0.01, 10.2)
    punches = told(changed(PathWord.DIRECT, 5.0), ordered(10.0), checked)
    assert seconds(punches)["direct"] == (1, 10.2 - 10.0)
    on_the_way = told(changed(PathWord.RELAY, 5.0), ordered(10.0), checked)
    assert seconds(on_the_way)["direct"] == (0, 0.0)


def test_a_second_order_is_part_of_the_first():
    punches = told(ordered(10.0), ordered(11.0), changed(PathWord.DIRECT, 12.0))
    assert seconds(punches)["direct"] == (1, 2.0)
    assert punches.orders == 2


def test_peers_that_are_gone_are_forgotten_and_fail_nothing():
    punches = told(
        ordered(10.0), ordered(10.0, OTHER), changed(PathWord.RELAY, 10.0), changed(PathWord.IDLE, 10.0, OTHER)
    )
    punches.keep(frozenset({KEY}))
    punches.settle(30.0)
    assert punches.failures == 0
    assert seconds(punches)["relay"][0] == 1


def test_a_path_counts_as_changed_when_its_word_is_another():
    punches = told(changed(PathWord.RELAY, 1.0), changed(PathWord.RELAY, 2.0), changed(PathWord.DIRECT, 3.0))
    assert (punches.changes[PathWord.RELAY], punches.changes[PathWord.DIRECT]) == (1, 1)
