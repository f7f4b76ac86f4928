"""How much each prefix is told."""

import random

import dns.flags
import dns.message

from tests.dnssd.goldenzone import golden_zone
from tests.system.dns_flood import garbage
from tests.system.dns_garbage import mutated
from wgdisco.dnssd import limits
from wgdisco.dnssd.feed import Audience, Setup, whole
from wgdisco.dnssd.limits import BURST, RATE, ResponseLimits, Verdict
from wgdisco.dnssd.responder import Profile, Transport
from wgdisco.dnssd.service import Service


def full(limited, source, count, now=0.0):
    return [limited.take(source, now) for _ in range(count)].count(Verdict.FULL)


def test_a_burst_and_then_a_rate():
    limited = ResponseLimits()
    assert full(limited, "192.0.2.1", 1000) == BURST
    assert full(limited, "192.0.2.1", 1000, 0.5) == RATE / 2
    assert full(limited, "192.0.2.1", 1000, 100.0) == BURST


def test_of_what_is_too_much_every_second_gets_nothing():
    limited = ResponseLimits()
    full(limited, "192.0.2.1", 500)
    verdicts = [limited.take("192.0.2.1", 0.0) for _ in range(6)]
    assert verdicts == [Verdict.TRUNCATED, Verdict.NOTHING] * 3


def test_every_second_of_each_prefix_whoever_else_asks_in_between():
    limited = ResponseLimits()
    full(limited, "192.0.2.1", 500)
    full(limited, "192.0.3.1", 500)
    by_turns = [[limited.take(f"192.0.{prefix}.1", 0.0) for prefix in (2, 3)] for _ in range(4)]
    assert by_turns == [[Verdict.TRUNCATED] * 2, [Verdict.NOTHING] * 2] * 2


def test_a_prefix_shares_and_others_do_not():
    limited = ResponseLimits()
    assert full(limited, "192.0.2.1", 500) == 500
    assert full(limited, "192.0.2.255", 1) == 0
    assert full(limited, "::ffff:192.0.2.3", 1) == 0
    assert full(limited, "192.0.3.1", 1) == 1
    assert full(limited, "2001:db8::1", 500) == 500
    assert full(limited, "2001:db8:0:ff::2", 1) == 0
    assert full(limited, "2001:db8:0:100::2", 1) == 1
    assert full(limited, "fe80::1%eth0", 1) == 1


def test_strangers_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(limits, "PREFIXES_MAX", 100)
    limited = ResponseLimits()
    for number in range(1000):
        limited.take(f"10.{number // 256}.{number % 256}.1", 0.0)
    assert len(limited) == 100
    assert full(limited, "10.3.231.1", 600) == BURST - 1, "who was heard of last is remembered"


def test_beyond_the_limit_garbage_gets_a_message_no_longer_than_itself_or_none():
    service = Service(Setup("example.com.", Profile.STRICT, ()), bytes(16), lambda: 0.0, lambda: 0.0)
    service.apply(whole(golden_zone()))
    answerer = service.answerer(Audience.ALL_STRANGERS)
    chance, query = random.Random(8), dns.message.make_query("a.example.com", "SRV", use_edns=0).to_wire()

    def answer(data):
        return answerer.answer(data, "203.0.113.9", None, Transport.UDP)

    for _ in range(int(BURST)):
        answer(query)
    replies = 0
    for number in range(5000):
        data = mutated(chance, query) if number % 2 else garbage(chance, query)
        reply = answer(data)
        if reply is not None:
            replies += 1
            assert len(reply) <= len(data)
            message = dns.message.from_wire(reply)
            assert message.flags & dns.flags.TC
            assert message.id == int.from_bytes(data[:2], "big")
            assert len(message.question) == 1
    assert replies > 500
