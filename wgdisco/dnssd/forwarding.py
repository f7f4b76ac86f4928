"""Names outside the zone, asked for by members inside the tunnel: what is passed on to the host's resolvers, and how.

A query is not passed on as it came, but made anew from its question and from whether it has EDNS: no cookie, signature
or option of one hop is heard at the next (RFC 6891 section 6.1.1). A reply is taken only when it has our id and the
question as we spelled it, which carries random bits too (RFC 5452 section 9.1, draft-vixie-dnsext-dns0x20).
"""

import struct
from collections import Counter
from dataclasses import dataclass
from enum import Enum

import dns.exception
import dns.message
import dns.name
from dns.rdataclass import IN
from dns.rdatatype import AXFR, IXFR, MAILA, MAILB, OPT

HEADER_SIZE = 12
EDNS_SIZE = 1232
PLAIN_SIZE = 512
# Outstanding, of all and of one asker: what a page with many names needs at once
TOTAL_MAX = 512
EACH_MAX = 64

_QR, _TC, _RD, _RA, _AD, _CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_OPCODE = 0x7800
_DO = 0x8000
_SERVFAIL, _NXDOMAIN, _REFUSED = 2, 3, 5
# RFC 6761, RFC 6762, RFC 7686: names that no server outside this host or link is to be asked for
_LOCAL = tuple(dns.name.from_text(name) for name in ("localhost.", "local.", "invalid.", "onion."))


@dataclass(frozen=True, slots=True)
class Query:
    """One to pass on: the asker's id, flags and question, and how many bytes a datagram back may have.

    `edns` are the flags of its OPT record, None without one.
    """

    id: int
    flags: int
    question: bytes
    size: int
    edns: int | None
    is_local: bool = False

    def to_upstream(self, message_id: int, bits: int | None) -> bytes:
        """The query for the resolver; `bits` decide on the case of the letters of the name, None leaves it."""
        flags = _RD | (self.flags & (_CD | _AD))
        return self._message(message_id, flags, self.question if bits is None else _spelled(self.question, bits))

    def to_asker(self, reply: bytes, sent: bytes, size: int) -> bytes | None:
        """The reply for the asker, of at most `size` bytes; None for what does not answer `sent`, a query of ours."""
        if len(reply) < HEADER_SIZE or reply[:2] != sent[:2]:
            return None
        flags, questions = struct.unpack_from("!HH", reply, 2)
        end = HEADER_SIZE + len(self.question)
        if not flags & _QR or flags & _OPCODE or questions != 1 or reply[HEADER_SIZE:end] != sent[HEADER_SIZE:end]:
            return None
        if len(reply) > size:
            return self._message(self.id, (flags & 0xF) | _QR | _TC | _RA | _RD, self.question)
        return struct.pack("!HH", self.id, (flags | _RD) & ~0x0400) + reply[4:HEADER_SIZE] + self.question + reply[end:]

    def is_cut(self, reply: bytes) -> bool:
        """Whether records were left out of a reply."""
        return bool(reply[2] & 2)

    def failed(self) -> bytes:
        """What the asker is told when no resolver answers; that there is none, for a name no server is asked for."""
        rcode = _NXDOMAIN if self.is_local else _SERVFAIL
        return self._message(self.id, _QR | _RD | _RA | rcode, self.question)

    def _message(self, message_id: int, flags: int, question: bytes) -> bytes:
        data = struct.pack("!6H", message_id, flags, 1, 0, 0, int(self.edns is not None)) + question
        if self.edns is not None:
            data += struct.pack("!BHHIH", 0, OPT, EDNS_SIZE, self.edns & _DO, 0)
        return data


def is_refused(reply: bytes) -> bool:
    """Whether a reply of ours says that it is not for us to answer."""
    return reply[3] & 0xF == _REFUSED


def read_query(query: bytes, zone: dns.name.Name) -> Query | None:
    """A query that may be passed on: one question of class IN, not in our zone, with recursion desired, no transfer.

    Never raises.
    """
    try:
        message = dns.message.from_wire(query)
    except (dns.exception.DNSException, ValueError):
        return None
    message_id, flags, questions = struct.unpack_from("!3H", query)
    if flags & (_QR | _OPCODE) or not flags & _RD or questions != 1 or message.edns > 0:
        return None
    asked = message.question[0]
    if asked.rdclass != IN or asked.rdtype in (AXFR, IXFR, MAILA, MAILB, OPT):
        return None
    if asked.name.is_subdomain(zone):
        return None
    wire = asked.name.to_wire()
    assert wire is not None
    question = wire + struct.pack("!HH", asked.rdtype, IN)
    size = PLAIN_SIZE if message.edns < 0 else min(EDNS_SIZE, max(PLAIN_SIZE, message.payload))
    edns = None if message.edns < 0 else message.ednsflags
    return Query(message_id, flags, question, size, edns, any(asked.name.is_subdomain(name) for name in _LOCAL))


class Passed(Enum):
    """What became of a query about another zone."""

    ANSWERED = "passed on"
    UNANSWERED = "passed on, and not answered"
    TOO_MANY = "refused: too many outstanding"


class Budget:
    """How many queries are outstanding, of all askers and of each."""

    def __init__(self) -> None:
        self._total = 0
        self._each: Counter[str] = Counter()

    def take(self, asker: str) -> bool:
        """One more of this asker's; False when that is too many."""
        if self._total >= TOTAL_MAX or self._each[asker] >= EACH_MAX:
            return False
        self._total += 1
        self._each[asker] += 1
        return True

    def give_back(self, asker: str) -> None:
        """One of them came to an end."""
        self._total -= 1
        self._each[asker] -= 1
        if not self._each[asker]:
            del self._each[asker]


def _spelled(question: bytes, bits: int) -> bytes:
    """The question with the case of its name's letters by `bits`, the lowest first."""
    spelled = bytearray(question)
    position = 0
    while length := question[position]:
        for at in range(position + 1, position + 1 + length):
            if chr(question[at]).isascii() and chr(question[at]).isalpha():
                spelled[at] = question[at] | 0x20 if bits & 1 else question[at] & ~0x20
                bits >>= 1
        position += 1 + length
    return bytes(spelled)
