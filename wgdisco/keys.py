"""WireGuard keys: 32 bytes, base64 as text (wg(8)), base32 as a DNS label (wgsd's schema).

Secrets never show in `repr`, and compare in constant time.
"""

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from nacl._sodium import ffi, lib

KEY_SIZE = 32


def wipe(*secrets: bytes) -> None:
    """Overwrite secrets with zeros where they are (engine rule Z1). Only for what nobody else holds or may compare.

    Python does not change a bytes object, but what makes secrets (hmac, OpenSSL) gives nothing else: so it is done from
    underneath, by libsodium. docs/security.md has what that does not reach.
    """
    for secret in secrets:
        if len(secret) > 1:  # shorter ones the interpreter shares
            lib.sodium_memzero(ffi.from_buffer(secret), len(secret))


def _decode_base64(text: str) -> bytes:
    """32 bytes from exactly 44 base64 characters whose spare bits are zero (engine rule F4)."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    if len(raw) != KEY_SIZE or base64.b64encode(raw).decode() != text:
        raise ValueError("a key is 44 base64 characters ending in '='")
    return raw


def _check_size(raw: bytes) -> None:
    if len(raw) != KEY_SIZE:
        raise ValueError(f"a key is {KEY_SIZE} bytes, not {len(raw)}")


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """A peer's Curve25519 public key."""

    raw: bytes

    def __post_init__(self) -> None:
        _check_size(self.raw)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the base64 form; ValueError on anything `wg` would refuse."""
        return cls(_decode_base64(text))

    def to_text(self) -> str:
        """Base64 with padding, 44 characters."""
        return base64.b64encode(self.raw).decode()

    @classmethod
    def from_label(cls, label: str) -> Self:
        """Parse a base32 DNS label, any case, padding required; ValueError otherwise."""
        try:
            raw = base64.b32decode(label.encode("ascii"), casefold=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise ValueError("not a base32 key label") from error
        key = cls(raw)
        if key.to_label() != label.lower():
            raise ValueError("not a base32 key label")
        return key

    def to_label(self) -> str:
        """Lower-case base32 with padding, 56 characters ending in '===='."""
        return base64.b32encode(self.raw).decode().lower()

    def __str__(self) -> str:
        return self.to_text()


@dataclass(frozen=True, slots=True, eq=False)
class _Secret:
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_size(self.raw)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self.raw, other.raw)

    def __hash__(self) -> int:
        return hash(self.raw)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the base64 form; ValueError on anything `wg` would refuse."""
        return cls(_decode_base64(text))

    def to_text(self) -> str:
        """Base64 with padding, 44 characters. For files the user asked for, never for logs."""
        return base64.b64encode(self.raw).decode()


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey(_Secret):
    """A Curve25519 private key, clamped (RFC 7748 section 5)."""

    _openssl: X25519PrivateKey = field(init=False, repr=False)  # which overwrites its copy when it goes

    def __post_init__(self) -> None:
        _check_size(self.raw)
        clamped = bytearray(self.raw)
        clamped[0] &= 248
        clamped[31] = clamped[31] & 127 | 64
        object.__setattr__(self, "raw", bytes(clamped))
        object.__setattr__(self, "_openssl", X25519PrivateKey.from_private_bytes(clamped))
        clamped[:] = bytes(KEY_SIZE)

    def public_key(self) -> PublicKey:
        """The public key that belongs to this one."""
        return PublicKey(self._openssl.public_key().public_bytes_raw())

    def exchange(self, public: bytes) -> bytes | None:
        """X25519 with a public key; None when the result is the zero point."""
        try:
            return self._openssl.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, eq=False)
class PresharedKey(_Secret):
    """The optional symmetric key two peers mix into their handshake."""
