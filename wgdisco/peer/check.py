"""Check datagrams: is a peer reached at an endpoint, how long does it take, and where does it see us (formats.md).

::

    77 67 64 01 ‖ type ‖ nonce (12) ‖ tag (8) ‖ AEAD{ seen (18) ‖ answered nonce (12, pongs only) }

The key is derived from the two static keys, for one direction and one type, so that no nonce serves twice. The tag says
to whoever holds the key, and to nobody else, who sent it. A ping is answered once, to its source; so every peer is a
STUN server to its peers, and what a stranger can make us send is never more than he sent.
"""

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Address

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.budget import Budget
from wgdisco.tunnel.device import CHECK_MAGIC as MAGIC

PING, PONG = 1, 2
_LABEL = b"wgdisco check 1"
_NONCE_SIZE = 12
_TAG_SIZE = 8
_SEEN_SIZE = 18
_HEADER_SIZE = len(MAGIC) + 1 + _NONCE_SIZE + _TAG_SIZE
PING_SIZE = _HEADER_SIZE + _SEEN_SIZE + 16
PONG_SIZE = PING_SIZE + _NONCE_SIZE
_SIZES = {PING: PING_SIZE, PONG: PONG_SIZE}

# A ping that is not answered by then is lost
PING_TIMEOUT = 5.0
PENDING_MAX = 4096
# Pings of one peer whose repetition is recognised
_SEEN_PINGS = 64
# Pings of one peer that are answered, at once and a second: an attempt has 12 for each of our candidates. Who repeats
# what he overheard, or forges where he is, cannot have us send more.
ANSWERS_BURST = 128
ANSWERS_RATE = 32.0
# Datagrams from where no peer is known to be, that may be tried against all keys: at once, and a second
_TRIALS = 200


@dataclass(frozen=True, slots=True)
class Pinged:
    """A peer asks from `source` whether it is reached; the answer goes out by itself."""

    key: PublicKey
    source: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class Ponged:
    """A peer answered what was sent to `endpoint`, from there, `rtt` seconds ago; it sees us at `seen`."""

    key: PublicKey
    endpoint: Endpoint
    seen: Endpoint
    rtt: float
    at: float


@dataclass(frozen=True, slots=True)
class _Keys:
    """One peer's: what we seal with and what it does, by type."""

    sealing: dict[int, bytes]
    opening: dict[int, bytes]


@dataclass(slots=True)
class _Answered:
    """Pings of one peer that were answered."""

    nonces: deque[bytes] = field(default_factory=lambda: deque(maxlen=_SEEN_PINGS))
    budget: Budget = field(default_factory=lambda: Budget(ANSWERS_BURST, ANSWERS_RATE))


@dataclass(frozen=True, slots=True)
class _Pending:
    key: PublicKey
    endpoint: Endpoint
    sent_at: float


class Checks:
    """All pings and pongs of a member. `shared(key)` is the static-static secret with a peer, None without one."""

    def __init__(
        self,
        own_key: PublicKey,
        shared: Callable[[PublicKey], bytes | None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._own_key = own_key
        self._shared = shared
        self._random_bytes = random_bytes
        self._keys: dict[PublicKey, _Keys] = {}
        self._pending: dict[bytes, _Pending] = {}
        self._met: dict[Endpoint, PublicKey] = {}
        self._answered: dict[PublicKey, _Answered] = {}
        self._trials = Budget(_TRIALS, _TRIALS)
        self._outbox: list[tuple[bytes, Endpoint]] = []
        self.dropped = 0

    def set_peers(self, keys: frozenset[PublicKey], own_key: PublicKey) -> None:
        """Whom to ask and answer from now on, and who we are."""
        if own_key != self._own_key:
            self._own_key = own_key
            self._keys.clear()
        self._keys = {key: known for key, known in self._keys.items() if key in keys}
        self._answered = {key: known for key, known in self._answered.items() if key in keys}
        for key in keys:
            if key not in self._keys and (shared := self._shared(key)) is not None:
                self._keys[key] = _Keys(_derive(shared, self._own_key), _derive(shared, key))
        self._met = {endpoint: key for endpoint, key in self._met.items() if key in keys}

    def ping(self, key: PublicKey, endpoint: Endpoint, now: float) -> bytes | None:
        """A datagram that asks `key` at `endpoint`; None for a peer that is none."""
        keys = self._keys.get(key)
        if keys is None:
            return None
        self._forget(now)
        nonce = self._random_bytes(_NONCE_SIZE)
        self._pending[nonce] = _Pending(key, endpoint, now)
        return _seal(PING, keys.sealing[PING], nonce, endpoint, b"")

    def receive(self, data: bytes, source: Endpoint, now: float) -> Pinged | Ponged | None:
        """Take a datagram; what is not a peer's is dropped and counted."""
        event = self._receive(data, source, now)
        if event is None:
            self.dropped += 1
        return event

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Answers; each is returned once."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def _receive(self, data: bytes, source: Endpoint, now: float) -> Pinged | Ponged | None:
        kind = data[4] if len(data) > 4 and data[:4] == MAGIC else 0
        if _SIZES.get(kind) != len(data):
            return None
        key = self._sender(data, kind, source, now)
        opened = None if key is None else _open(data, self._keys[key].opening[kind])
        if key is None or opened is None:
            return None
        seen, answered = opened
        nonce = data[5 : 5 + _NONCE_SIZE]
        if kind == PONG:
            pending = self._pending.get(answered)
            if pending is None or pending.key != key or pending.endpoint != source:
                return None  # answered before, or from elsewhere: then we are pinged from there too
            del self._pending[answered]
            self._meet(source, key)
            return Ponged(key, source, seen, now - pending.sent_at, now)
        answered_to = self._answered.setdefault(key, _Answered())
        if nonce in answered_to.nonces or not answered_to.budget.take(now):
            return None
        answered_to.nonces.append(nonce)
        self._meet(source, key)
        own = self._random_bytes(_NONCE_SIZE)
        self._outbox.append((_seal(PONG, self._keys[key].sealing[PONG], own, source, nonce), source))
        return Pinged(key, source, now)

    def _sender(self, data: bytes, kind: int, source: Endpoint, now: float) -> PublicKey | None:
        """Whose tag it is: whoever was met there, then anybody, as often as is bearable."""
        nonce, tag = data[5 : 5 + _NONCE_SIZE], data[5 + _NONCE_SIZE : _HEADER_SIZE]
        met = self._met.get(source)
        if met is not None and hmac.compare_digest(_tag(self._keys[met].opening[kind], nonce), tag):
            return met
        if not self._trials.take(now):
            return None
        for key, keys in self._keys.items():
            if hmac.compare_digest(_tag(keys.opening[kind], nonce), tag):
                return key
        return None

    def _meet(self, source: Endpoint, key: PublicKey) -> None:
        self._met.pop(source, None)
        self._met[source] = key
        if len(self._met) > PENDING_MAX:
            del self._met[next(iter(self._met))]

    def _forget(self, now: float) -> None:
        """Pings are pending in the order they were sent."""
        while self._pending:
            nonce, oldest = next(iter(self._pending.items()))
            if now - oldest.sent_at < PING_TIMEOUT and len(self._pending) < PENDING_MAX:
                return
            del self._pending[nonce]


def _derive(shared: bytes, sender: PublicKey) -> dict[int, bytes]:
    return {kind: blake2s(_LABEL + bytes([kind]) + sender.raw, key=shared).digest() for kind in (PING, PONG)}


def _tag(key: bytes, nonce: bytes) -> bytes:
    return blake2s(nonce, key=key, digest_size=_TAG_SIZE).digest()


def _seal(kind: int, key: bytes, nonce: bytes, seen: Endpoint, answered: bytes) -> bytes:
    header = MAGIC + bytes([kind]) + nonce + _tag(key, nonce)
    return header + ChaCha20Poly1305(key).encrypt(nonce, _pack(seen) + answered, header)


def _open(data: bytes, key: bytes) -> tuple[Endpoint, bytes] | None:
    """Where the sender sees us, and the nonce it answers; None when it is not sealed with `key`."""
    header, nonce = data[:_HEADER_SIZE], data[5 : 5 + _NONCE_SIZE]
    try:
        plain = ChaCha20Poly1305(key).decrypt(nonce, data[_HEADER_SIZE:], header)
        return _unpack(plain[:_SEEN_SIZE]), plain[_SEEN_SIZE:]
    except (InvalidTag, ValueError):
        return None


def _pack(endpoint: Endpoint) -> bytes:
    """16 bytes of address, IPv4 mapped into IPv6, and the port; big-endian."""
    address = endpoint.address
    raw = b"\0" * 10 + b"\xff\xff" + address.packed if isinstance(address, IPv4Address) else address.packed
    return raw + endpoint.port.to_bytes(2, "big")


def _unpack(data: bytes) -> Endpoint:
    address = IPv6Address(data[:16])
    return Endpoint(address.ipv4_mapped or address, int.from_bytes(data[16:], "big"))
