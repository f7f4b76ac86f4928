"""Signed DNS messages (RFC 8945): one shared key, checked on what comes and put on what is sent.

dnspython does the cryptography; here a message is taken apart and put together, since ours are bytes already.
"""

import base64
import binascii
import re
import struct
from dataclasses import dataclass, field
from typing import Self

import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.tsig
from dns.rcode import BADKEY, BADSIG, BADTIME, NOERROR, Rcode
from dns.rdtypes.ANY.TSIG import TSIG

from wgdisco.dnssd.wire import HEADER_SIZE

FUDGE = 300
# what the record takes at the most: two names, fixed fields, the longest MAC, the time of BADTIME
TSIG_MAX_SIZE = 2 * 255 + 10 + 16 + 64 + 6

_ALGORITHMS = {
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}
_SECRET_MIN_SIZE = 16
_KEY_STATEMENT = re.compile(r'\bkey\s+"?([^\s"{]+)"?\s*\{([^}]*)\}')
_OPTION = re.compile(r'(algorithm|secret)\s+"?([^\s";]+)"?\s*;')
_POINTER = 0xC0


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A name, an algorithm of the HMAC-SHA-2 kind, and the secret that both sides have."""

    name: dns.name.Name
    algorithm: dns.name.Name
    secret: bytes = field(repr=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The first key of a file as `tsig-keygen` and `ddns-confgen` write it, and BIND reads it; else ValueError."""
        statement = _KEY_STATEMENT.search(text)
        if statement is None:
            raise ValueError("there is no key in it: make one with `tsig-keygen`")
        options = dict(_OPTION.findall(statement[2]))
        algorithm = _ALGORITHMS.get(options.get("algorithm", "hmac-sha256").lower().rstrip("."))
        if algorithm is None:
            raise ValueError(f"the algorithm must be one of {', '.join(_ALGORITHMS)}")
        try:
            secret = base64.b64decode(options.get("secret", ""), validate=True)
            name = dns.name.from_text(statement[1].lower())
        except (binascii.Error, dns.exception.DNSException) as error:
            raise ValueError("its name or its secret cannot be read") from error
        if len(secret) < _SECRET_MIN_SIZE:
            raise ValueError(f"the secret is too short: {_SECRET_MIN_SIZE} bytes at least")
        return cls(name, algorithm, secret)

    def to_dnspython(self) -> dns.tsig.Key:
        """What dnspython works with; it shows the secret when it is printed."""
        return dns.tsig.Key(self.name, self.secret, self.algorithm)


class Signer:
    """Signs one message, or the messages of one reply in their order (RFC 8945 section 5.3.1)."""

    def __init__(self, key: TsigKey, request_mac: bytes = b"", *, multi: bool = False) -> None:
        self._key = key
        self._request_mac = request_mac
        self._multi = multi
        self._context: dns.tsig.HMACTSig | dns.tsig.GSSTSig | None = None

    def sign(self, message: bytes, unix_time: int, error: Rcode = NOERROR) -> bytes:
        """The message with its TSIG record."""
        other = struct.pack("!Q", unix_time)[2:] if error == BADTIME else b""
        rdata = _rdata(self._key.algorithm, unix_time, int.from_bytes(message[:2], "big"), error, other)
        signed, self._context = dns.tsig.sign(  # type: ignore[no-untyped-call]
            message, self._key.to_dnspython(), rdata, unix_time, self._request_mac, self._context, self._multi
        )
        return append(message, self._key.name, signed)


def verify(message: bytes, parsed: dns.message.Message, key: TsigKey, unix_time: int, mac: bytes = b"") -> Rcode:
    """NOERROR, or which error of TSIG (RFC 8945 section 5.2) is wrong with the signature of `parsed`, which has one.

    `parsed` is `message` as dnspython reads it with `keyring=False`; `mac` is that of the request, for a reply.
    """
    assert parsed.tsig is not None
    try:
        dns.tsig.validate(  # type: ignore[no-untyped-call]
            message, key.to_dnspython(), parsed.tsig.name, parsed.tsig[0], unix_time, mac, _last_record(message)
        )
    except (dns.tsig.BadKey, dns.tsig.BadAlgorithm):
        return BADKEY
    except dns.tsig.BadTime:
        return BADTIME
    except dns.exception.DNSException:
        return BADSIG
    return NOERROR


def unsigned(message: bytes, parsed: dns.message.Message, error: Rcode, unix_time: int) -> bytes:
    """A reply that tells of a signature that nothing can be signed for (RFC 8945 section 5.2)."""
    assert parsed.tsig is not None
    rdata = _rdata(parsed.tsig[0].algorithm, unix_time, parsed.id, error)
    return append(message, parsed.tsig.name, rdata)


def append(message: bytes, owner: dns.name.Name, rdata: TSIG) -> bytes:
    """The message with one more additional record."""
    additional = int.from_bytes(message[10:12], "big") + 1
    name, data = owner.to_wire(), rdata.to_wire()
    assert name is not None
    assert data is not None
    fixed = struct.pack("!HHIH", dns.rdatatype.TSIG, dns.rdataclass.ANY, 0, len(data))
    return message[:10] + additional.to_bytes(2, "big") + message[12:] + name + fixed + data


def _rdata(algorithm: dns.name.Name, unix_time: int, message_id: int, error: Rcode, other: bytes = b"") -> TSIG:
    return TSIG(  # type: ignore[no-untyped-call]
        dns.rdataclass.ANY, dns.rdatatype.TSIG, algorithm, unix_time, FUDGE, b"", message_id, int(error), other
    )


def _last_record(message: bytes) -> int:
    """Where the last record of a message begins, which dnspython could read."""
    questions, *records = struct.unpack_from("!4H", message, 4)
    at = start = HEADER_SIZE
    for _ in range(questions):
        at = _after_name(message, at) + 4
    for _ in range(sum(records)):
        start = at
        at = _after_name(message, at) + 10
        at += int.from_bytes(message[at - 2 : at], "big")
    return start


def _after_name(message: bytes, at: int) -> int:
    while (size := message[at]) and size < _POINTER:
        at += 1 + size
    return at + (2 if size >= _POINTER else 1)
