"""The handshake Noise_IKpsk2, token by token (white paper section 5.4.2 and 5.4.3; Noise revision 34).

::

    initiator                               responder
    create_initiation   e, es, s, ss   ->   open_initiation, verify_initiation
    consume_response    e, ee, se, psk <-   create_response

The two roles keep separate state: a peer that consumes the other's initiation can still consume the response to its
own, so that a crossed handshake completes in both directions. Functions compute on values and return None for a
message that is not good; nothing is changed by it.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

import nacl.bindings
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.messages import CONSTRUCTION, IDENTIFIER, Initiation, Response

_ZERO_NONCE = bytes(12)
_NO_PRESHARED_KEY = bytes(KEY_SIZE)


def hash_of(*parts: bytes) -> bytes:
    """BLAKE2s-256 of the parts joined."""
    return hashlib.blake2s(b"".join(parts)).digest()


def kdf(chain_key: bytes, data: bytes, count: int) -> tuple[bytes, ...]:
    """HKDF over HMAC-BLAKE2s: `count` outputs of 32 bytes (KDF1, KDF2, KDF3)."""
    secret = hmac.digest(chain_key, data, "blake2s")
    outputs: list[bytes] = []
    previous = b""
    for number in range(1, count + 1):
        previous = hmac.digest(secret, previous + bytes([number]), "blake2s")
        outputs.append(previous)
    return tuple(outputs)


_INITIAL_CHAIN_KEY = hash_of(CONSTRUCTION)
_INITIAL_HASH = hash_of(_INITIAL_CHAIN_KEY, IDENTIFIER)


def diffie_hellman(private: bytes, public: bytes) -> bytes | None:
    """X25519; None when the result is the zero point (rule H5)."""
    try:
        shared: bytes = nacl.bindings.crypto_scalarmult(private, public)
    except RuntimeError:
        return None
    return shared


def static_static(private: PrivateKey, remote: PublicKey) -> bytes | None:
    """The Diffie-Hellman of the two static keys, worth keeping per peer; None for a low-order key."""
    return diffie_hellman(private.raw, remote.raw)


def _seal(key: bytes, plain: bytes, hash_: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plain, hash_)


def _open(key: bytes, sealed: bytes, hash_: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, sealed, hash_)
    except InvalidTag:
        return None


@dataclass(frozen=True, slots=True)
class InitiatorState:
    """What an initiator keeps until the response comes. `index` is its sender index."""

    index: int
    ephemeral: bytes = field(repr=False)
    chain_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedInitiation:
    """An initiation whose static key is known and not yet proven: `verify_initiation` does that."""

    remote: PublicKey
    message: Initiation
    chain_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResponderState:
    """What a responder keeps until it has made its response."""

    remote_index: int
    remote: PublicKey
    remote_ephemeral: bytes
    timestamp: bytes
    chain_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransportKeys:
    """The two keys a handshake ends in, and the index the other side wants to see."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    remote_index: int


def create_initiation(
    private: PrivateKey, remote: PublicKey, shared: bytes, ephemeral: bytes, index: int, timestamp: bytes
) -> tuple[InitiatorState, bytes] | None:
    """Make an initiation (116 bytes, MACs to follow) to `remote`.

    `shared` is `static_static`, `ephemeral` 32 random bytes, `timestamp` 12 bytes TAI64N. None for a low-order key.
    """
    ephemeral_public = nacl.bindings.crypto_scalarmult_base(ephemeral)
    hash_ = hash_of(_INITIAL_HASH, remote.raw)
    (chain_key,) = kdf(_INITIAL_CHAIN_KEY, ephemeral_public, 1)
    hash_ = hash_of(hash_, ephemeral_public)
    es = diffie_hellman(ephemeral, remote.raw)
    if es is None:
        return None
    chain_key, key = kdf(chain_key, es, 2)
    sealed_static = _seal(key, private.public_key().raw, hash_)
    hash_ = hash_of(hash_, sealed_static)
    chain_key, key = kdf(chain_key, shared, 2)
    sealed_timestamp = _seal(key, timestamp, hash_)
    hash_ = hash_of(hash_, sealed_timestamp)
    message = Initiation(index, ephemeral_public, sealed_static, sealed_timestamp)
    return InitiatorState(index, ephemeral, chain_key, hash_), message.pack()


def open_initiation(private: PrivateKey, public: PublicKey, message: Initiation) -> OpenedInitiation | None:
    """Learn who claims to send this initiation: its first half, up to the static key."""
    hash_ = hash_of(_INITIAL_HASH, public.raw)
    (chain_key,) = kdf(_INITIAL_CHAIN_KEY, message.ephemeral, 1)
    hash_ = hash_of(hash_, message.ephemeral)
    es = diffie_hellman(private.raw, message.ephemeral)
    if es is None:
        return None
    chain_key, key = kdf(chain_key, es, 2)
    static = _open(key, message.static, hash_)
    if static is None:
        return None
    return OpenedInitiation(PublicKey(static), message, chain_key, hash_of(hash_, message.static))


def verify_initiation(opened: OpenedInitiation, shared: bytes) -> ResponderState | None:
    """Check that the sender holds the static key; `shared` is `static_static` with it."""
    message = opened.message
    chain_key, key = kdf(opened.chain_key, shared, 2)
    timestamp = _open(key, message.timestamp, opened.hash)
    if timestamp is None:
        return None
    hash_ = hash_of(opened.hash, message.timestamp)
    return ResponderState(message.sender, opened.remote, message.ephemeral, timestamp, chain_key, hash_)


def create_response(
    state: ResponderState, preshared: PresharedKey | None, ephemeral: bytes, index: int
) -> tuple[TransportKeys, bytes] | None:
    """Answer an initiation: the session's keys and the response (60 bytes, MACs to follow)."""
    ephemeral_public = nacl.bindings.crypto_scalarmult_base(ephemeral)
    (chain_key,) = kdf(state.chain_key, ephemeral_public, 1)
    hash_ = hash_of(state.hash, ephemeral_public)
    ee = diffie_hellman(ephemeral, state.remote_ephemeral)
    se = diffie_hellman(ephemeral, state.remote.raw)
    if ee is None or se is None:
        return None
    chain_key, hash_, key = _mix_response(chain_key, hash_, ee, se, preshared)
    nothing = _seal(key, b"", hash_)
    receive, send = kdf(chain_key, b"", 2)
    message = Response(index, state.remote_index, ephemeral_public, nothing)
    return TransportKeys(send, receive, state.remote_index), message.pack()


def consume_response(
    private: PrivateKey, state: InitiatorState, preshared: PresharedKey | None, message: Response
) -> TransportKeys | None:
    """Finish a handshake we began: the session's keys, or None when the response is not good."""
    (chain_key,) = kdf(state.chain_key, message.ephemeral, 1)
    hash_ = hash_of(state.hash, message.ephemeral)
    ee = diffie_hellman(state.ephemeral, message.ephemeral)
    se = diffie_hellman(private.raw, message.ephemeral)
    if ee is None or se is None:
        return None
    chain_key, hash_, key = _mix_response(chain_key, hash_, ee, se, preshared)
    if _open(key, message.nothing, hash_) is None:
        return None
    send, receive = kdf(chain_key, b"", 2)
    return TransportKeys(send, receive, message.sender)


def _mix_response(
    chain_key: bytes, hash_: bytes, ee: bytes, se: bytes, preshared: PresharedKey | None
) -> tuple[bytes, bytes, bytes]:
    """Tokens ee, se, psk, the same in both roles: chain key, hash, and the key of the empty payload."""
    (chain_key,) = kdf(chain_key, ee, 1)
    (chain_key,) = kdf(chain_key, se, 1)
    chain_key, tau, key = kdf(chain_key, _NO_PRESHARED_KEY if preshared is None else preshared.raw, 3)
    return chain_key, hash_of(hash_, tau), key
