"""Telling secondaries, on a clock of our own."""

import dns.flags
import dns.message
import dns.opcode
import pytest

from tests.dnssd.goldenzone import ALICE, golden_zone, peer
from wgdisco.dnssd.notify import COALESCE, RETRY_FIRST, RETRY_MAX, Notifier
from wgdisco.endpoint import Endpoint

KNOT = Endpoint.from_text("192.0.2.1:53")
BIND = Endpoint.from_text("[2001:db8::1]:5353")


class Ids:
    def __init__(self):
        self.last = 0

    def __call__(self, size):
        self.last += 1
        return self.last.to_bytes(size, "big")


def notifier(*secondaries):
    return Notifier(secondaries or (KNOT,), Ids())


def reply(message, rcode=0):
    parsed = dns.message.make_response(dns.message.from_wire(message))
    parsed.set_rcode(rcode)
    return parsed.to_wire()


@pytest.mark.rule("DNS17")
def test_a_change_is_told_at_once_to_all_with_its_soa():
    one = notifier(KNOT, BIND)
    assert one.get_timer() is None
    one.changed(golden_zone(), 10.0)
    assert one.get_timer() == 10.0
    sent = one.datagrams_to_send(10.0)
    assert [endpoint for _, endpoint in sent] == [KNOT, BIND]
    message = dns.message.from_wire(sent[0][0])
    assert message.opcode() == dns.opcode.NOTIFY
    assert message.flags & dns.flags.AA
    assert message.answer[0][0].serial == 7
    assert one.datagrams_to_send(10.0) == []


@pytest.mark.rule("DNS18")
def test_who_heard_is_left_alone():
    one = notifier()
    one.changed(golden_zone(), 10.0)
    ((message, _),) = one.datagrams_to_send(10.0)
    one.receive_datagram(reply(message), KNOT)
    assert one.get_timer() is None


@pytest.mark.rule("DNS18")
def test_who_did_not_is_told_again_ever_less_often():
    one = notifier()
    one.changed(golden_zone(), 0.0)
    gaps, now = [], 0.0
    for _ in range(9):
        assert len(one.datagrams_to_send(now)) == 1
        gaps.append(one.get_timer() - now)
        now = one.get_timer()
    assert gaps[0] == RETRY_FIRST
    assert gaps == sorted(gaps)
    assert gaps[-1] == RETRY_MAX


@pytest.mark.rule("DNS19")
def test_an_answer_that_is_none_does_not_count():
    one = notifier()
    one.changed(golden_zone(), 10.0)
    ((message, _),) = one.datagrams_to_send(10.0)
    for data, source in [
        (reply(message), BIND),
        (reply(message, rcode=5), KNOT),
        (message, KNOT),
        (b"\xff\xff" + reply(message)[2:], KNOT),
        (reply(message)[:8], KNOT),
        (b"", KNOT),
    ]:
        one.receive_datagram(data, source)
        assert one.get_timer() == 10.0 + RETRY_FIRST


def test_changes_in_a_row_are_told_as_one():
    one = notifier()
    one.changed(golden_zone(), 10.0)
    one.datagrams_to_send(10.0)
    for serial in range(8, 20):
        one.changed(golden_zone().with_instance(peer(ALICE, f"203.0.113.1:{serial}"), serial), 10.001)
    assert one.datagrams_to_send(10.002) == []
    assert one.get_timer() == 10.0 + COALESCE
    ((message, _),) = one.datagrams_to_send(10.0 + COALESCE)
    assert dns.message.from_wire(message).answer[0][0].serial == 19


@pytest.mark.rule("DNS19")
def test_the_answer_to_an_older_one_does_not_count_for_the_newer():
    one = notifier()
    one.changed(golden_zone(), 10.0)
    ((older, _),) = one.datagrams_to_send(10.0)
    one.changed(golden_zone(), 11.0)
    one.receive_datagram(reply(older), KNOT)
    assert one.get_timer() == 11.0
