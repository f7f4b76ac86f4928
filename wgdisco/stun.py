"""STUN Binding (RFC 8489) with what RFC 5780 adds for telling NATs apart: bytes to messages and back, no socket.

``MESSAGE-INTEGRITY-SHA256`` or ``MESSAGE-INTEGRITY`` is keyed by a short-term credential's password (section 9.1).
Every message packed here ends in ``FINGERPRINT``; one that is parsed need not have it, but then it has to be right.
"""

import hmac
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from wgdisco.endpoint import Endpoint

COOKIE = 0x2112A442
TRANSACTION_ID_SIZE = 12
MAX_SIZE = 1280
PORTS = (3478, 3479)

# ERROR-CODE (section 14.8)
UNKNOWN_ATTRIBUTE = 420

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_MAPPED_ADDRESS = 0x0001
_CHANGE_REQUEST = 0x0003
_USERNAME = 0x0006
_ERROR_CODE = 0x0009
_UNKNOWN_ATTRIBUTES = 0x000A
_XOR_MAPPED_ADDRESS = 0x0020
_RESPONSE_PORT = 0x0027
_RESPONSE_ORIGIN = 0x802B
_OTHER_ADDRESS = 0x802C
_FINGERPRINT = 0x8028
_FINGERPRINT_XOR = 0x5354554E
_COMPREHENSION_OPTIONAL = 0x8000
_CHANGE_IP_FLAG = 4
_CHANGE_PORT_FLAG = 2


class Kind(Enum):
    """The classes of a Binding message, as its type field has them (section 5)."""

    REQUEST = 0x0001
    INDICATION = 0x0011
    SUCCESS = 0x0101
    ERROR = 0x0111


class Integrity(Enum):
    """Which HMAC signs a message (sections 14.5 and 14.6): attribute type, hash, size in bytes. Never truncated."""

    SHA1 = (0x0008, "sha1", 20)
    SHA256 = (0x001C, "sha256", 32)


_INTEGRITIES = {integrity.value[0]: integrity for integrity in Integrity}


@dataclass(frozen=True, slots=True)
class Change:
    """CHANGE-REQUEST (RFC 5780 section 7.2): from where the answer is to come, other than from where it was asked."""

    address: bool
    port: bool


@dataclass(frozen=True, slots=True)
class _Signed:
    """What an integrity attribute covers, and what it says."""

    integrity: Integrity
    covered: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A Binding message. `transaction_id` is 12 bytes.

    `mapped` is the reflexive endpoint, `origin` where the answer comes from, `other` where the server can be asked too;
    `response_port` is the port that the answer is to go to (RFC 5780 section 7.5).
    `unknown` are attribute types somebody had to understand and did not: we, or in an error the server.
    """

    kind: Kind
    transaction_id: bytes
    mapped: Endpoint | None = None
    username: str | None = None
    change: Change | None = None
    origin: Endpoint | None = None
    other: Endpoint | None = None
    error: int | None = None
    unknown: tuple[int, ...] = ()
    response_port: int | None = None
    _signed: _Signed | None = field(default=None, repr=False, compare=False)

    @property
    def integrity(self) -> Integrity | None:
        """How a parsed message is signed; the answer is signed likewise (section 9.1.3)."""
        return None if self._signed is None else self._signed.integrity

    def verify(self, password: str) -> bool:
        """Whether a parsed message is signed with `password`; compares in constant time."""
        return self.verify_key(password.encode())

    def verify_key(self, key: bytes) -> bool:
        """As `verify`, with the key itself, which long-term credentials derive (section 9.2.2)."""
        signed = self._signed
        return signed is not None and hmac.compare_digest(_sign(signed.covered, key, signed.integrity), signed.tag)

    def pack(self, password: str | None = None, integrity: Integrity = Integrity.SHA256) -> bytes:
        """The message, signed if there is a password, and its fingerprint."""
        body = b"".join(_attribute(kind, value) for kind, value in self._values())
        data = _HEADER.pack(self.kind.value, len(body), COOKIE, self.transaction_id) + body
        if password is not None:
            data = _extended(data, integrity.value[0], _sign(data, password.encode(), integrity))
        return _extended(data, _FINGERPRINT, _fingerprint(data))

    def _values(self) -> Iterator[tuple[int, bytes]]:
        if self.username is not None:
            yield _USERNAME, self.username.encode()
        if self.change is not None:
            flags = self.change.address * _CHANGE_IP_FLAG | self.change.port * _CHANGE_PORT_FLAG
            yield _CHANGE_REQUEST, struct.pack("!I", flags)
        if self.response_port is not None:
            yield _RESPONSE_PORT, struct.pack("!HH", self.response_port, 0)
        if self.error is not None:
            yield _ERROR_CODE, struct.pack("!HBB", 0, *divmod(self.error, 100))
        if self.unknown:
            yield _UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(self.unknown)}H", *self.unknown)
        if self.mapped is not None:
            yield _XOR_MAPPED_ADDRESS, _xored(_pack_endpoint(self.mapped), self.transaction_id)
        if self.origin is not None:
            yield _RESPONSE_ORIGIN, _pack_endpoint(self.origin)
        if self.other is not None:
            yield _OTHER_ADDRESS, _pack_endpoint(self.other)

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        """Parse a datagram; ValueError when it is no Binding message, or its fingerprint is wrong."""
        if not _HEADER.size <= len(data) <= MAX_SIZE:
            raise ValueError("the size is not that of a STUN message")
        kind, size, cookie, transaction_id = _HEADER.unpack_from(data)
        if cookie != COOKIE or size % 4 or _HEADER.size + size != len(data):
            raise ValueError("not a STUN message")
        fields: dict[str, Any] = {}
        unknown: list[int] = []
        signed: _Signed | None = None
        for at, type_, value in _attributes(data):
            integrity = _INTEGRITIES.get(type_)
            if type_ == _FINGERPRINT:
                if at + 8 != len(data) or value != _fingerprint(data[:at]):
                    raise ValueError("the fingerprint is wrong")
            elif integrity is not None:
                # SHA-256 counts where both are there (section 9.1.3), in this order (section 14.6)
                if signed is None or (signed.integrity, integrity) == (Integrity.SHA1, Integrity.SHA256):
                    signed = _Signed(integrity, data[:at], value)
            elif signed is not None:
                pass  # nobody vouches for what follows (section 14.5)
            elif type_ in _READERS:
                name, read = _READERS[type_]
                fields.setdefault(name, read(value, transaction_id))
            elif type_ < _COMPREHENSION_OPTIONAL:
                unknown.append(type_)
        mapped = fields.pop("xor_mapped", None)
        if mapped is not None:
            fields["mapped"] = mapped
        fields.setdefault("unknown", tuple(unknown))
        return cls(Kind(kind), transaction_id, **fields, _signed=signed)


def _attributes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each attribute begins, its type and its value; ValueError when one runs over the end."""
    at = _HEADER.size
    while at < len(data):
        type_, size = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + 4 : at + 4 + size]
        if len(value) != size:
            raise ValueError("an attribute runs over the end")
        yield at, type_, value
        at += 4 + size + -size % 4


def _attribute(type_: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(type_, len(value)) + value + bytes(-len(value) % 4)


def _resized(data: bytes, more: int) -> bytes:
    """`data` with the length in its header as if it were `more` bytes longer."""
    return data[:2] + (len(data) - _HEADER.size + more).to_bytes(2, "big") + data[4:]


def _extended(data: bytes, type_: int, value: bytes) -> bytes:
    """One more attribute, computed over what is before it."""
    return _resized(data, 4 + len(value)) + _attribute(type_, value)


def _sign(covered: bytes, key: bytes, integrity: Integrity) -> bytes:
    _, algorithm, size = integrity.value
    return hmac.digest(key, _resized(covered, 4 + size), algorithm)


def _fingerprint(covered: bytes) -> bytes:
    """CRC-32, told apart from other protocols' by the exclusive or (section 14.7)."""
    return (zlib.crc32(_resized(covered, 8)) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _pack_endpoint(endpoint: Endpoint) -> bytes:
    family = 1 if endpoint.address.version == 4 else 2
    return struct.pack("!BBH", 0, family, endpoint.port) + endpoint.address.packed


def _xored(value: bytes, transaction_id: bytes) -> bytes:
    """Port and address hidden from NATs that rewrite what looks like theirs, or shown again (section 14.2)."""
    pad = b"\0\0" + COOKIE.to_bytes(4, "big")[:2] + COOKIE.to_bytes(4, "big") + transaction_id
    return bytes(byte ^ mask for byte, mask in zip(value, pad, strict=False))


def _read_endpoint(value: bytes, _transaction_id: bytes) -> Endpoint:
    if len(value) < 4 or (value[1], len(value)) not in ((1, 8), (2, 20)):
        raise ValueError("an address of no known family")
    address: IPv4Address | IPv6Address = ip_address(value[4:])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Endpoint(address, int.from_bytes(value[2:4], "big"))


def _read_xored(value: bytes, transaction_id: bytes) -> Endpoint:
    return _read_endpoint(_xored(value, transaction_id), transaction_id)


def _read_username(value: bytes, _transaction_id: bytes) -> str:
    return value.decode()


def _read_change(value: bytes, _transaction_id: bytes) -> Change:
    if len(value) != 4:
        raise ValueError("a CHANGE-REQUEST that is not of four bytes")
    return Change(bool(value[3] & _CHANGE_IP_FLAG), bool(value[3] & _CHANGE_PORT_FLAG))


def _read_port(value: bytes, _transaction_id: bytes) -> int:
    if len(value) not in (2, 4):
        raise ValueError("a RESPONSE-PORT that is not of two bytes")
    return int.from_bytes(value[:2], "big")


def _read_error(value: bytes, _transaction_id: bytes) -> int:
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        raise ValueError("an ERROR-CODE of no known form")
    return (value[2] & 7) * 100 + value[3]


def _read_unknown(value: bytes, _transaction_id: bytes) -> tuple[int, ...]:
    if len(value) % 2:
        raise ValueError("UNKNOWN-ATTRIBUTES of an odd size")
    return struct.unpack(f"!{len(value) // 2}H", value)


_READERS: dict[int, tuple[str, Callable[[bytes, bytes], Any]]] = {
    _MAPPED_ADDRESS: ("mapped", _read_endpoint),
    _CHANGE_REQUEST: ("change", _read_change),
    _USERNAME: ("username", _read_username),
    _ERROR_CODE: ("error", _read_error),
    _UNKNOWN_ATTRIBUTES: ("unknown", _read_unknown),
    _XOR_MAPPED_ADDRESS: ("xor_mapped", _read_xored),
    _RESPONSE_PORT: ("response_port", _read_port),
    _RESPONSE_ORIGIN: ("origin", _read_endpoint),
    _OTHER_ADDRESS: ("other", _read_endpoint),
}
