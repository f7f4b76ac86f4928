"""mac1, mac2, cookies and the rate limit (rules C1 to C8)."""

import hashlib
import random

import nacl.bindings
import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.cookie import CookieChecker, CookieJar, RateLimiter
from wgdisco.tunnel.messages import CookieReply, message_type

SOURCE = Endpoint.from_text("192.168.13.37:2570")
ELSEWHERE = ["192.168.13.37:2571", "192.168.13.38:2570", "[2001:db8::1]:2570"]
SIZES = [116, 60]


@pytest.fixture
def chance():
    return random.Random(77)


@pytest.fixture
def keys(chance):
    return PrivateKey(chance.randbytes(32)).public_key()


@pytest.fixture
def checker(keys, chance):
    return CookieChecker(keys, chance.randbytes)


@pytest.fixture
def jar(keys):
    return CookieJar(keys)


def _cookie(checker, jar, now, chance, source=SOURCE):
    """Send, be answered with a cookie, take it: the reply."""
    message = jar.add_macs(chance.randbytes(116), now)
    reply = CookieReply.parse(checker.create_reply(message, source, now))
    assert jar.consume_reply(reply, now)
    return reply


@pytest.mark.rule("H1", "H3", "C1")
@pytest.mark.parametrize("size", SIZES)
def test_mac1_is_keyed_blake2s_over_all_before_it(keys, jar, checker, chance, size):
    body = chance.randbytes(size)
    message = jar.add_macs(body, 0.0)
    key = hashlib.blake2s(b"mac1----" + keys.raw).digest()
    assert message[:size] == body
    assert message[size : size + 16] == hashlib.blake2s(body, key=key, digest_size=16).digest()
    assert message[size + 16 :] == bytes(16)
    assert checker.check_mac1(message)
    assert not checker.check_mac2(message, SOURCE, 0.0)


@pytest.mark.rule("C1")
def test_mac1_covers_every_byte(jar, checker, chance):
    message = jar.add_macs(chance.randbytes(60), 0.0)
    for position in range(len(message) - 16):
        flipped = bytearray(message)
        flipped[position] ^= 1
        assert not checker.check_mac1(bytes(flipped)), position


@pytest.mark.rule("C1")
def test_mac1_for_another_key_is_refused(jar, chance):
    other = CookieChecker(PrivateKey(chance.randbytes(32)).public_key(), chance.randbytes)
    assert not other.check_mac1(jar.add_macs(chance.randbytes(116), 0.0))


@pytest.mark.rule("C3")
@pytest.mark.parametrize("size", SIZES)
def test_mac2_with_a_cookie_covers_every_byte(jar, checker, chance, size):
    _cookie(checker, jar, 5.0, chance)
    message = jar.add_macs(chance.randbytes(size), 6.0)
    assert checker.check_mac1(message)
    assert checker.check_mac2(message, SOURCE, 6.0)
    for position in range(len(message)):
        flipped = bytearray(message)
        flipped[position] ^= 0x20
        assert not checker.check_mac2(bytes(flipped), SOURCE, 6.0), position


@pytest.mark.rule("C4")
@pytest.mark.parametrize("source", ELSEWHERE)
def test_a_cookie_is_bound_to_address_and_port(jar, checker, chance, source):
    _cookie(checker, jar, 5.0, chance)
    message = jar.add_macs(chance.randbytes(116), 6.0)
    assert not checker.check_mac2(message, Endpoint.from_text(source), 6.0)


def _cookie_in(reply, message, keys):
    key = hashlib.blake2s(b"cookie--" + keys.raw).digest()
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(reply.cookie, message[-32:-16], reply.nonce, key)


@pytest.mark.rule("C4")
@pytest.mark.parametrize(
    ("source", "packed"),
    [
        ("192.168.13.37:51820", b"\xc0\xa8\x0d\x25" + b"\xca\x6c"),
        ("[2001:db8::1]:65535", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01" + b"\xff\xff"),
    ],
)
def test_a_cookie_is_a_mac_of_address_and_port(keys, jar, chance, source, packed):
    secrets = []

    def remember(size):
        secrets.append(chance.randbytes(size))
        return secrets[-1]

    checker = CookieChecker(keys, remember)
    message = jar.add_macs(chance.randbytes(116), 1.0)
    reply = CookieReply.parse(checker.create_reply(message, Endpoint.from_text(source), 1.0))
    made_of = [secret for secret in secrets if len(secret) == 32]
    expected = [hashlib.blake2s(packed, key=secret, digest_size=16).digest() for secret in made_of]
    assert _cookie_in(reply, message, keys) in expected


@pytest.mark.rule("C5")
def test_a_cookie_reply_is_xchacha20poly1305_over_the_mac1_it_answers(keys, jar, checker, chance):
    message = jar.add_macs(chance.randbytes(116), 1.0)
    packed = checker.create_reply(message, SOURCE, 1.0)
    assert message_type(packed) == 3
    reply = CookieReply.parse(packed)
    assert reply.receiver == int.from_bytes(message[4:8], "little")
    cookie = _cookie_in(reply, message, keys)
    assert jar.consume_reply(reply, 1.0)
    again = jar.add_macs(chance.randbytes(116), 2.0)
    assert again[-16:] == hashlib.blake2s(again[:-16], key=cookie, digest_size=16).digest()


@pytest.mark.rule("C5")
def test_every_reply_has_its_own_nonce(jar, checker, chance):
    message = jar.add_macs(chance.randbytes(116), 1.0)
    assert checker.create_reply(message, SOURCE, 1.0) != checker.create_reply(message, SOURCE, 1.0)


@pytest.mark.rule("C6")
def test_a_reply_is_refused_unless_it_answers_the_last_message(jar, checker, chance):
    first = jar.add_macs(chance.randbytes(116), 1.0)
    late = CookieReply.parse(checker.create_reply(first, SOURCE, 1.0))
    jar.add_macs(chance.randbytes(116), 2.0)
    assert not jar.consume_reply(late, 2.0)
    assert jar.add_macs(chance.randbytes(116), 2.0)[-16:] == bytes(16)


@pytest.mark.rule("C6")
def test_a_reply_is_refused_before_anything_was_sent(keys, jar, checker, chance):
    message = CookieJar(keys).add_macs(chance.randbytes(116), 1.0)
    assert not jar.consume_reply(CookieReply.parse(checker.create_reply(message, SOURCE, 1.0)), 1.0)


@pytest.mark.rule("C6")
def test_one_reply_a_mac1(jar, checker, chance):
    message = jar.add_macs(chance.randbytes(116), 1.0)
    replies = [CookieReply.parse(checker.create_reply(message, SOURCE, 1.0)) for _ in range(2)]
    assert [jar.consume_reply(reply, 1.0) for reply in replies] == [True, False]


@pytest.mark.rule("C6")
def test_a_forged_reply_is_refused_and_the_true_one_still_taken(jar, checker, chance):
    message = jar.add_macs(chance.randbytes(116), 1.0)
    reply = CookieReply.parse(checker.create_reply(message, SOURCE, 1.0))
    assert not jar.consume_reply(CookieReply(reply.receiver, reply.nonce, bytes(32)), 1.0)
    assert not jar.consume_reply(CookieReply(reply.receiver, bytes(24), reply.cookie), 1.0)
    assert jar.consume_reply(reply, 1.0)


@pytest.mark.rule("C6")
def test_a_cookie_is_used_for_115_seconds(jar, checker, chance):
    _cookie(checker, jar, 1000.0, chance)
    assert jar.add_macs(chance.randbytes(116), 1114.9)[-16:] != bytes(16)
    assert jar.add_macs(chance.randbytes(116), 1115.0)[-16:] == bytes(16)


@pytest.mark.rule("C4")
def test_the_secret_changes_after_120_seconds(jar, checker, chance):
    _cookie(checker, jar, 1000.0, chance)
    message = jar.add_macs(chance.randbytes(116), 1001.0)
    assert checker.check_mac2(message, SOURCE, 1119.9)
    assert not checker.check_mac2(message, SOURCE, 1120.0)


# The kernel's ratelimiter self-test: whether a packet passes, and the seconds before it
TIMINGS = [
    *[(True, 0.0)] * 5,
    (False, 0.0),
    (True, 0.050),
    (False, 0.0),
    (True, 0.100),
    (True, 0.0),
    (False, 0.0),
]
SLACK = 0.001  # a sleep is never shorter than asked


@pytest.mark.rule("C8", "C9")
def test_rate_limit_timings_as_the_kernel_tests_them():
    limiter, now = RateLimiter(), 5000.0
    for step, (expected, pause) in enumerate(TIMINGS):
        now += pause + SLACK if pause else 0.0
        assert limiter.allow(Endpoint.from_text("0.0.31.246:9"), now) is expected, step
        assert limiter.allow(Endpoint.from_text(f"0.0.31.{247 + step if step < 8 else step}:9"), now), step
        same_net = f"[0:4bc:4:69a4:{step:x}::{step:x}]:9"
        assert limiter.allow(Endpoint.from_text(same_net), now) is expected, step
        assert limiter.allow(Endpoint.from_text(f"[{step + 1:x}:4bc:4:69a4::1]:9"), now), step


@pytest.mark.rule("C8")
def test_the_port_does_not_matter_to_the_rate_limit():
    limiter = RateLimiter()
    allowed = [limiter.allow(Endpoint.from_text(f"192.0.2.1:{port}"), 1.0) for port in range(1, 10)]
    assert allowed == [True] * 5 + [False] * 4


@pytest.mark.rule("C8")
def test_a_source_may_do_20_a_second_for_ever():
    limiter = RateLimiter()
    passed = sum(limiter.allow(SOURCE, 100.0 + step / 1000) for step in range(10_000))
    assert 200 <= passed <= 206


@pytest.mark.rule("C8")
def test_refusals_cost_no_tokens():
    limiter = RateLimiter()
    assert [limiter.allow(SOURCE, 10.0) for _ in range(8)].count(True) == 5
    assert not limiter.allow(SOURCE, 10.049)
    assert limiter.allow(SOURCE, 10.051)


@pytest.mark.rule("C8")
def test_a_full_table_denies_newcomers_until_it_is_swept():
    limiter = RateLimiter()
    for number in range(limiter.CAPACITY):
        address = ".".join(str(byte) for byte in (number + (1 << 24)).to_bytes(4, "big"))
        assert limiter.allow(Endpoint.from_text(f"{address}:1"), 50.0)
    assert not limiter.allow(SOURCE, 50.5)
    assert limiter.allow(Endpoint.from_text("1.0.0.1:1"), 50.5)
    assert limiter.allow(SOURCE, 51.1)
