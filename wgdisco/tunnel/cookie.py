"""MACs, cookies and the rate limit: what keeps forged handshakes cheap (white paper sections 5.3, 5.4.4, 5.4.7).

Every handshake message ends in mac1, keyed by the receiver's public key, and mac2, keyed by a cookie the receiver gave
out under load. A cookie is bound to the address and port the message came from.
"""

import hashlib
import hmac
from collections.abc import Callable

import nacl.bindings
import nacl.exceptions

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel.messages import (
    COOKIE_LATENCY,
    COOKIE_REPLY,
    COOKIE_SECRET_LIFETIME,
    LABEL_COOKIE,
    LABEL_MAC1,
    MAC_SIZE,
    CookieReply,
)
from wgdisco.tunnel.noise import hash_of

_NO_MAC = bytes(MAC_SIZE)
_REPLY_TYPE = COOKIE_REPLY.to_bytes(4, "little")


def _mac(key: bytes, data: bytes | memoryview) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def _source_bytes(source: Endpoint) -> bytes:
    return source.address.packed + source.port.to_bytes(2, "big")


def mac1_key(public_key: PublicKey) -> bytes:
    """What mac1 of messages for the owner of `public_key` is keyed with."""
    return hash_of(LABEL_MAC1, public_key.raw)


def check_mac1(message: bytes | memoryview, key: bytes) -> bool:
    """Whether a handshake message is for whom `mac1_key` gave `key`."""
    return hmac.compare_digest(_mac(key, message[:-32]), message[-32:-16])


class CookieChecker:
    """The receiving side: checks both MACs and makes cookie replies, for one public key of ours."""

    def __init__(self, public_key: PublicKey, random_bytes: Callable[[int], bytes]) -> None:
        self._mac1_key = mac1_key(public_key)
        self._reply_key = hash_of(LABEL_COOKIE, public_key.raw)
        self._random_bytes = random_bytes
        self._secret = random_bytes(32)
        self._secret_made_at: float | None = None

    def check_mac1(self, message: bytes) -> bool:
        """Whether the sender knows our public key."""
        return check_mac1(message, self._mac1_key)

    def check_mac2(self, message: bytes, source: Endpoint, now: float) -> bool:
        """Whether the sender got our cookie at this very source."""
        return hmac.compare_digest(_mac(self._cookie(source, now), message[:-16]), message[-16:])

    def create_reply(self, message: bytes, source: Endpoint, now: float) -> bytes:
        """A cookie reply (64 bytes) to a message with a good mac1; it authenticates that mac1."""
        nonce = self._random_bytes(24)
        sealed: bytes = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            self._cookie(source, now), message[-32:-16], nonce, self._reply_key
        )
        return _REPLY_TYPE + message[4:8] + nonce + sealed

    def _cookie(self, source: Endpoint, now: float) -> bytes:
        if self._secret_made_at is None or now - self._secret_made_at >= COOKIE_SECRET_LIFETIME:
            self._secret = self._random_bytes(32)
            self._secret_made_at = now
        return _mac(self._secret, _source_bytes(source))


class CookieJar:
    """The sending side: adds both MACs to our messages for one peer, and keeps the cookie it gave us."""

    def __init__(self, remote: PublicKey) -> None:
        self._mac1_key = mac1_key(remote)
        self._reply_key = hash_of(LABEL_COOKIE, remote.raw)
        self._last_mac1: bytes | None = None
        self._cookie: bytes | None = None
        self._cookie_until = 0.0

    def add_macs(self, message: bytes, now: float) -> bytes:
        """`message` with its mac1 and mac2 (zeros without a valid cookie) at the end."""
        mac1 = _mac(self._mac1_key, message)
        self._last_mac1 = mac1
        message += mac1
        cookie = self._cookie if now < self._cookie_until else None
        return message + (_NO_MAC if cookie is None else _mac(cookie, message))

    def consume_reply(self, reply: CookieReply, now: float) -> bool:
        """Take the cookie out of a reply to the message last sent; one reply a message (rule C6)."""
        if self._last_mac1 is None:
            return False
        try:
            cookie = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                reply.cookie, self._last_mac1, reply.nonce, self._reply_key
            )
        except nacl.exceptions.CryptoError:
            return False
        self._cookie = cookie
        # The kernel's margin: the other side's secret may be this much older than our receipt of it.
        self._cookie_until = now + COOKIE_SECRET_LIFETIME - COOKIE_LATENCY
        self._last_mac1 = None
        return True


class RateLimiter:
    """A token bucket a source: 20 handshakes a second, 5 at once, by IPv4 address or IPv6 /64 (rule C8)."""

    RATE = 20.0
    BURST = 5.0
    CAPACITY = 65536
    FORGET_AFTER = 1.0

    def __init__(self) -> None:
        self._buckets: dict[bytes, tuple[float, float]] = {}
        self._swept_at = 0.0

    def allow(self, source: Endpoint, now: float) -> bool:
        """Take one token; False when the source has none left or the table is full."""
        if now - self._swept_at >= self.FORGET_AFTER:
            self._swept_at = now
            self._buckets = {k: v for k, v in self._buckets.items() if now - v[1] < self.FORGET_AFTER}
        packed = source.address.packed[:8] if source.address.version == 6 else source.address.packed
        if packed not in self._buckets and len(self._buckets) >= self.CAPACITY:
            return False
        tokens, seen_at = self._buckets.get(packed, (self.BURST, now))
        tokens = min(self.BURST, tokens + (now - seen_at) * self.RATE)
        allowed = tokens >= 1.0
        self._buckets[packed] = (tokens - 1.0 if allowed else tokens, now)
        return allowed
