"""Orders: one a pair and moment, and how many there may be."""

from wgdisco.keys import PrivateKey
from wgdisco.registry.orders import ORDERS_BURST, ORDERS_RATE, PAIR_BURST, PAIR_RATE, SAME_ORDER, Asked, Orders

KEYS = [PrivateKey(number.to_bytes(2, "big") * 16).public_key() for number in range(1, 200)]
ALICE, BOB, *OTHERS = KEYS


def test_both_ask_and_it_is_one_order_whose_initiator_asked_first():
    orders = Orders()
    first = orders.request(ALICE, BOB, 0.0)
    assert first is not None
    punch, is_new = first
    assert (punch.initiator, punch.responder, is_new) == (ALICE, BOB, True)
    assert orders.request(BOB, ALICE, SAME_ORDER * 0.9) == (punch, False)
    later = orders.request(BOB, ALICE, SAME_ORDER)
    assert later is not None
    assert (later[0].initiator, later[1]) == (BOB, True)
    assert later[0].number > punch.number
    assert orders.asked == {Asked.MADE: 2, Asked.REPEATED: 1}


def test_the_number_of_an_order_does_not_tell_how_many_others_made():
    quiet, busy = Orders(), Orders()
    for one in OTHERS[:100]:
        busy.request(one, OTHERS[100], 0.5)
    assert busy.request(ALICE, BOB, 1.0) == quiet.request(ALICE, BOB, 1.0)


def test_an_order_for_elsewhere_is_another():
    orders = Orders()
    orders.request(ALICE, BOB, 0.0, "here")
    moved = orders.request(ALICE, BOB, 0.1, "there")
    assert moved is not None
    assert moved[1]


def test_a_member_draws_a_bounded_number_over_the_whole_network():
    orders = Orders()
    made = [orders.request(ALICE, other, 0.0) for other in OTHERS]
    assert sum(one is not None for one in made) == ORDERS_BURST
    assert orders.asked == {Asked.MADE: ORDERS_BURST, Asked.TOO_MANY: len(OTHERS) - ORDERS_BURST}
    assert orders.request(OTHERS[0], OTHERS[1], 0.0) is not None  # others have their own
    later = 10.0
    made = [orders.request(other, ALICE, later) for other in reversed(OTHERS)]
    assert sum(one is not None for one in made) == ORDERS_RATE * later


def test_nobody_takes_all_of_anothers_orders():
    orders = Orders()
    made = [orders.request(ALICE, BOB, number / 100) for number in range(60_00)]
    assert sum(one is not None and one[1] for one in made) <= PAIR_BURST + PAIR_RATE * 60
    assert all(orders.request(BOB, other, 60.0) is not None for other in OTHERS[: ORDERS_BURST // 2])
