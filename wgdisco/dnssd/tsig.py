"""Signed DNS messages (RFC 8945): one shared key, checked on what comes and put on what is sent.

dnspython does the cryptography; here a message is taken apart and put together, since ours are bytes already.
"""

import struct

import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.tsig
from dns.rcode import BADKEY, BADSIG, BADTIME, NOERROR, Rcode
from dns.rdtypes.ANY.TSIG import TSIG

from wgdisco.dnssd.secondaries import TsigKey
from wgdisco.dnssd.wire import HEADER_SIZE

FUDGE = 300
# what the record takes at the most: two names, fixed fields, the longest MAC, the time of BADTIME
TSIG_MAX_SIZE = 2 * 255 + 10 + 16 + 64 + 6

_POINTER = 0xC0


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
            message, _dnspython_key(self._key), rdata, unix_time, self._request_mac, self._context, self._multi
        )
        return append(message, self._key.name, signed)


def verify(message: bytes, parsed: dns.message.Message, key: TsigKey, unix_time: int, mac: bytes = b"") -> Rcode:
    """NOERROR, or which error of TSIG (RFC 8945 section 5.2) is wrong with the signature of `parsed`, which has one.

    `parsed` is `message` as dnspython reads it with `keyring=False`; `mac` is that of the request, for a reply.
    """
    assert parsed.tsig is not None
    try:
        dns.tsig.validate(  # type: ignore[no-untyped-call]
            message, _dnspython_key(key), parsed.tsig.name, parsed.tsig[0], unix_time, mac, _last_record(message)
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


def _dnspython_key(key: TsigKey) -> dns.tsig.Key:
    # it shows the secret when it is printed
    return dns.tsig.Key(key.name, key.secret, key.algorithm)


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
