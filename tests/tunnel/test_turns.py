"""How an engine with one endpoint a peer is led on, on a virtual clock."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel.events import PeerStatus
from wgdisco.tunnel.turns import HOLD, OPENER_TTLS, STAGGER, Begin, Move, Nudge, Open, Turns, inner_address

SMALL, KEY, GREAT = (PublicKey(bytes([number]) * 32) for number in (1, 2, 3))
A, B, C = (Endpoint.from_text(text) for text in ("192.0.2.1:1", "198.51.100.1:2", "203.0.113.1:3"))
NEAR = Endpoint.from_text("192.168.1.1:4")
INSIDE = ip_address("10.0.0.2")
QUIET = PeerStatus(KEY, None, (ip_network("10.0.0.2/32"),), False, 25, None, None, None, None, 0, 0)
STANDS = replace(QUIET, endpoint=A, handshake_at=900.0, handshake_unix=5000.0, rx_bytes=1000)


class Clock:
    """Turns whose timers are kept; `done` is what they had done, and when."""

    def __init__(self, own: PublicKey = SMALL, *, can_open: bool = False) -> None:
        self.turns = Turns(own, can_open)
        self.now = 1000.0
        self.done: list[tuple[float, object]] = []
        self._drain()

    def initiate(self, peer, *endpoints, is_ordered=False):
        self.turns.initiate(peer, endpoints, self.now, is_ordered=is_ordered)
        self._drain()

    def until(self, at):
        while (due := self.turns.get_timer()) is not None and due <= at:
            self.now = max(self.now, due)
            self.turns.handle_timer(self.now)
            self._drain()
        self.now = at

    def _drain(self):
        self.done += [(round(self.now - 1000.0, 3), step) for step in self.turns.steps()]


class TestNoSession:
    def test_the_smaller_key_begins_at_once_the_greater_waits(self):
        for own, at in ((SMALL, 0.0), (GREAT, STAGGER)):
            clock = Clock(own)
            clock.initiate(QUIET, A)
            clock.until(1004.0)
            assert clock.done == [(at, Begin(KEY, A))]

    def test_openers_go_first_and_not_to_private_addresses(self):
        clock = Clock(can_open=True)
        clock.initiate(QUIET, A, NEAR)
        clock.until(1004.0)
        assert clock.done == [*((0.0, Open(A, ttl)) for ttl in OPENER_TTLS), (HOLD, Begin(KEY, A))]

    def test_each_endpoint_has_its_turn_as_the_engine_sends_again(self):
        clock = Clock()
        for at in (1000.0, 1000.1, 1003.2, 1008.2, 1013.2):
            clock.until(at)
            clock.initiate(QUIET, A, B)
        clock.until(1060.0)
        # the last of 5 s at which somebody still asks; then nobody wants it any more
        assert clock.done == [(0.0, Begin(KEY, A)), (5.0, Begin(KEY, B)), (10.0, Begin(KEY, A)), (15.0, Begin(KEY, B))]

    def test_what_was_not_tried_comes_first(self):
        clock = Clock()
        clock.initiate(QUIET, A, B)
        clock.until(1003.2)
        clock.initiate(QUIET, C, A, B)
        clock.until(1006.0)
        assert clock.done[1:] == [(5.0, Begin(KEY, C))]

    def test_an_endpoint_that_is_given_up_has_no_turn(self):
        clock = Clock()
        clock.initiate(QUIET, A)
        clock.until(1002.0)
        clock.initiate(QUIET, B)
        assert clock.done[1:] == [(2.0, Begin(KEY, B))]

    @pytest.mark.parametrize("own", [SMALL, GREAT])
    def test_after_a_handshake_there_is_no_turn(self, own):
        clock = Clock(own)
        clock.initiate(QUIET, A, B)
        clock.turns.look(QUIET)
        assert clock.turns.watched == {KEY}
        clock.turns.look(STANDS)
        before = list(clock.done)
        clock.until(1030.0)
        assert clock.done == before
        assert not clock.turns.watched

    def test_ordered_ones_begin_when_they_are_told(self):
        clock = Clock(GREAT, can_open=True)
        clock.initiate(QUIET, A, B, is_ordered=True)
        clock.until(1000.4)
        clock.initiate(QUIET, A, B, is_ordered=True)
        clock.until(1005.5)
        assert clock.done == [(0.0, Begin(KEY, A))]
        clock.initiate(QUIET, A, B, is_ordered=True)
        assert clock.done[1:] == [(5.5, Begin(KEY, B))]
        assert clock.turns.begun_at(KEY) == 1005.5
        assert clock.turns.begun_at(GREAT) == float("-inf")

    def test_who_is_gone_is_forgotten(self):
        clock = Clock(GREAT)
        clock.initiate(QUIET, A)
        clock.turns.forget(KEY)
        clock.turns.forget(KEY)
        clock.until(1030.0)
        assert clock.done == []
        clock.turns.initiate(QUIET, (A,), clock.now, is_ordered=True)
        clock.turns.forget(KEY)
        assert clock.turns.steps() == []

    def test_a_timer_that_comes_late_does_not_come_again(self):
        clock = Clock(GREAT)
        clock.initiate(QUIET, A)
        clock.now += 100.0  # the machine slept
        clock.turns.handle_timer(clock.now)
        assert clock.turns.get_timer() is None
        clock.initiate(QUIET, A)
        clock.until(1104.0)
        assert clock.done == [(round(100.0 + STAGGER, 3), Begin(KEY, A))]

    @pytest.mark.parametrize("is_ordered", [False, True])
    def test_nowhere_is_nothing_to_do(self, is_ordered):
        clock = Clock()
        clock.initiate(QUIET, is_ordered=is_ordered)
        clock.until(1010.0)
        assert clock.done == []


class TestSession:
    """A peer that is live at A, and said to be at B."""

    def moved(self):
        clock = Clock(can_open=True)
        clock.initiate(STANDS, A, B)
        assert clock.done == [*((0.0, Open(B, ttl)) for ttl in OPENER_TTLS), (0.0, Nudge(KEY, INSIDE))]
        clock.done.clear()
        clock.turns.look(STANDS)
        return clock

    def test_one_that_answers_where_it_is_is_left_there(self):
        clock = self.moved()
        clock.turns.look(replace(STANDS, rx_bytes=1100))
        clock.until(1100.0)
        assert clock.done == []

    def test_one_that_is_silent_is_tried_elsewhere(self):
        clock = self.moved()
        clock.until(1001.0)
        assert clock.done == [(1.0, Move(KEY, B)), (1.0, Nudge(KEY, INSIDE))]
        late = replace(STANDS, endpoint=B, rx_bytes=1100)  # from A, before it was moved
        clock.turns.look(late)
        clock.turns.look(replace(late, rx_bytes=1200))
        clock.until(1100.0)
        assert clock.done[2:] == []

    def test_one_that_answers_nowhere_is_put_back(self):
        clock = self.moved()
        clock.until(1001.0)
        clock.turns.look(replace(STANDS, endpoint=B))
        clock.initiate(STANDS, A, B)  # under way already
        clock.until(1100.0)
        assert clock.done[2:] == [(12.0, Move(KEY, A)), (12.0, Nudge(KEY, INSIDE))]
        assert clock.turns.get_timer() is None

    def test_who_knows_better_ends_it(self):
        clock = self.moved()
        clock.turns.moved(KEY)
        clock.until(1100.0)
        assert clock.done == []

    def test_one_place_only_is_asked_once(self):
        """It has forgotten us, perhaps: data that is not answered makes WireGuard begin anew."""
        clock = Clock()
        clock.initiate(STANDS, A)
        clock.until(1100.0)
        assert clock.done == [(0.0, Nudge(KEY, INSIDE))]

    def test_ordered_ones_are_moved_at_once(self):
        clock = Clock()
        clock.initiate(STANDS, B, is_ordered=True)
        assert clock.done == [(0.0, Begin(KEY, B))]


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (("10.0.0.0/8", "10.0.0.7/32"), "10.0.0.7"),
        (("0.0.0.0/0", "fd00::/64"), "fd00::1"),
        (("10.1.0.0/16", "fd00::5/128"), "fd00::5"),
        (("0.0.0.0/0", "::/0"), None),
        (("0.0.0.0/1",), None),
        ((), None),
    ],
)
def test_an_address_that_is_the_peers(networks, address):
    found = inner_address(tuple(map(ip_network, networks)))
    assert found == (None if address is None else ip_address(address))
