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

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey, wipe
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
        message = previous + bytes([number])
        previous = hmac.digest(secret, message, "blake2s")
        wipe(message)
        outputs.append(previous)
    wipe(secret)
    return tuple(outputs)


def static_static(private: PrivateKey, remote: PublicKey) -> bytes | None:
    """The Diffie-Hellman of the two static keys, worth keeping per peer; None for a low-order key (rule H5)."""
    return private.exchange(remote.raw)


def _seal(key: bytes, plain: bytes, hash_: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plain, hash_)


def _open(key: bytes, sealed: bytes, hash_: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, sealed, hash_)
    except InvalidTag:
        return None


_INITIAL_CHAIN_KEY = hash_of(CONSTRUCTION)
_INITIAL_HASH = hash_of(_INITIAL_CHAIN_KEY, IDENTIFIER)


class _Symmetric:
    """Noise's symmetric state (revision 34, section 5.2). What is replaced or used up is overwritten (rule Z1).

    The chaining key it begins with stays as it is: that is somebody else's.
    """

    __slots__ = ("_is_own", "_key", "chain_key", "hash")

    def __init__(self, chain_key: bytes, hash_: bytes) -> None:
        self.chain_key = chain_key
        self.hash = hash_
        self._key = b""
        self._is_own = False

    @classmethod
    def towards(cls, responder: PublicKey) -> "_Symmetric":
        """The state a handshake begins in: the responder's static key is known to both."""
        return cls(_INITIAL_CHAIN_KEY, hash_of(_INITIAL_HASH, responder.raw))

    def mix_hash(self, data: bytes) -> None:
        """MixHash."""
        self.hash = hash_of(self.hash, data)

    def mix(self, secret: bytes) -> None:
        """MixKey, where no field follows that is sealed with the key."""
        self._become(*kdf(self.chain_key, secret, 1))

    def mix_key(self, secret: bytes) -> None:
        """MixKey; its key is for one field that is sealed or opened next."""
        self._become(*kdf(self.chain_key, secret, 2))

    def mix_preshared(self, preshared: PresharedKey | None) -> None:
        """MixKeyAndHash, always: zeros stand for no preshared key (rule H6)."""
        chain_key, tau, key = kdf(self.chain_key, _NO_PRESHARED_KEY if preshared is None else preshared.raw, 3)
        self.mix_hash(tau)
        wipe(tau)
        self._become(chain_key, key)

    def mix_exchange(self, private: PrivateKey, public: bytes, *, seals: bool = False) -> bool:
        """A token of two keys: mix their Diffie-Hellman. False when that is the zero point (rule H5)."""
        shared = private.exchange(public)
        if shared is None:
            return False
        if seals:
            self.mix_key(shared)
        else:
            self.mix(shared)
        wipe(shared)
        return True

    def seal(self, plain: bytes) -> bytes:
        """EncryptAndHash."""
        sealed = _seal(self._key, plain, self.hash)
        wipe(self._key)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes | None:
        """DecryptAndHash; None for what does not authenticate, and then this state is of no more use."""
        plain = _open(self._key, sealed, self.hash)
        if plain is None:
            self.wipe()
            return None
        wipe(self._key)
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[bytes, bytes]:
        """Split: the initiator's sending key and the responder's. The handshake ends with it."""
        first, second = kdf(self.chain_key, b"", 2)
        self.wipe()
        return first, second

    def wipe(self) -> None:
        """Overwrite what there is."""
        self._become(b"")

    def _become(self, chain_key: bytes, key: bytes = b"") -> None:
        if self._is_own:
            wipe(self.chain_key)
        wipe(self._key)
        self.chain_key, self._key, self._is_own = chain_key, key, True


@dataclass(frozen=True, slots=True)
class InitiatorState:
    """What an initiator keeps until the response comes. `index` is its sender index."""

    index: int
    ephemeral: PrivateKey = field(repr=False)
    chain_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    def wipe(self) -> None:
        """The response has come, or is waited for no more."""
        wipe(self.ephemeral.raw, self.chain_key)


@dataclass(frozen=True, slots=True)
class OpenedInitiation:
    """An initiation whose static key is known and not yet proven: `verify_initiation` does that."""

    remote: PublicKey
    message: Initiation
    chain_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    def wipe(self) -> None:
        """It is verified, or not worth it."""
        wipe(self.chain_key)


@dataclass(frozen=True, slots=True)
class ResponderState:
    """What a responder keeps until it has made its response."""

    remote_index: int
    remote: PublicKey
    remote_ephemeral: bytes
    timestamp: bytes
    chain_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    def wipe(self) -> None:
        """It is answered, or not worth it."""
        wipe(self.chain_key)


@dataclass(frozen=True, slots=True)
class TransportKeys:
    """The two keys a handshake ends in, and the index the other side wants to see."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    remote_index: int

    def wipe(self) -> None:
        """The session has its own copies."""
        wipe(self.send, self.receive)


def create_initiation(
    private: PrivateKey, remote: PublicKey, shared: bytes, ephemeral: bytes, index: int, timestamp: bytes
) -> tuple[InitiatorState, bytes] | None:
    """Make an initiation (116 bytes, MACs to follow) to `remote`.

    `shared` is `static_static`, `ephemeral` 32 random bytes, `timestamp` 12 bytes TAI64N. None for a low-order key.
    """
    own = PrivateKey(ephemeral)
    ephemeral_public = own.public_key().raw
    state = _Symmetric.towards(remote)
    state.mix(ephemeral_public)  # e
    state.mix_hash(ephemeral_public)
    if not state.mix_exchange(own, remote.raw, seals=True):  # es
        return None
    sealed_static = state.seal(private.public_key().raw)  # s
    state.mix_key(shared)  # ss
    sealed_timestamp = state.seal(timestamp)
    message = Initiation(index, ephemeral_public, sealed_static, sealed_timestamp)
    return InitiatorState(index, own, state.chain_key, state.hash), message.pack()


def open_initiation(private: PrivateKey, public: PublicKey, message: Initiation) -> OpenedInitiation | None:
    """Learn who claims to send this initiation: its first half, up to the static key."""
    state = _Symmetric.towards(public)
    state.mix(message.ephemeral)  # e
    state.mix_hash(message.ephemeral)
    if not state.mix_exchange(private, message.ephemeral, seals=True):  # es
        return None
    static = state.open(message.static)  # s
    return None if static is None else OpenedInitiation(PublicKey(static), message, state.chain_key, state.hash)


def verify_initiation(opened: OpenedInitiation, shared: bytes) -> ResponderState | None:
    """Check that the sender holds the static key; `shared` is `static_static` with it."""
    message = opened.message
    state = _Symmetric(opened.chain_key, opened.hash)
    state.mix_key(shared)  # ss
    timestamp = state.open(message.timestamp)
    if timestamp is None:
        return None
    return ResponderState(message.sender, opened.remote, message.ephemeral, timestamp, state.chain_key, state.hash)


def create_response(
    opened: ResponderState, preshared: PresharedKey | None, ephemeral: bytes, index: int
) -> tuple[TransportKeys, bytes] | None:
    """Answer an initiation: the session's keys and the response (60 bytes, MACs to follow)."""
    own = PrivateKey(ephemeral)
    ephemeral_public = own.public_key().raw
    state = _Symmetric(opened.chain_key, opened.hash)
    state.mix(ephemeral_public)  # e
    state.mix_hash(ephemeral_public)
    met = state.mix_exchange(own, opened.remote_ephemeral) and state.mix_exchange(own, opened.remote.raw)  # ee, se
    wipe(own.raw)
    if not met:
        return None
    state.mix_preshared(preshared)  # psk
    nothing = state.seal(b"")
    receive, send = state.split()
    message = Response(index, opened.remote_index, ephemeral_public, nothing)
    return TransportKeys(send, receive, opened.remote_index), message.pack()


def consume_response(
    private: PrivateKey, pending: InitiatorState, preshared: PresharedKey | None, message: Response
) -> TransportKeys | None:
    """Finish a handshake we began: the session's keys, or None when the response is not good."""
    state = _Symmetric(pending.chain_key, pending.hash)
    state.mix(message.ephemeral)  # e
    state.mix_hash(message.ephemeral)
    if not state.mix_exchange(pending.ephemeral, message.ephemeral):  # ee
        return None
    if not state.mix_exchange(private, message.ephemeral):  # se
        return None
    state.mix_preshared(preshared)  # psk
    if state.open(message.nothing) is None:
        return None
    send, receive = state.split()
    return TransportKeys(send, receive, message.sender)
