"""Query bytes in, reply bytes out, for the snapshot held at that moment.

A query that is a response, or too short to be anything, gets no reply; every other one does, be it FORMERR. Nothing is
raised whatever the bytes are, and each query is counted once by its outcome.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import dns.exception
import dns.message
import dns.rcode
from dns.rcode import BADVERS, FORMERR, NOERROR, NOTAUTH, NOTIMP, NXDOMAIN, REFUSED, Rcode
from dns.rdataclass import IN
from dns.rdatatype import AXFR, IXFR

from wgdisco.dnssd import wgsd
from wgdisco.dnssd.cookies import COOKIE, Cookies
from wgdisco.dnssd.roster import EVERYBODY, Groups
from wgdisco.dnssd.wire import (
    AA,
    HEADER_SIZE,
    MESSAGE_MAX_SIZE,
    QR,
    RD,
    CannotPackError,
    Opt,
    Question,
    Reply,
    answer_count,
    is_truncated,
    pack_reply,
)
from wgdisco.dnssd.zone import BROWSE_MAX, Answer, Vantage, Zone
from wgdisco.endpoint import IPAddress

EDNS_SIZE = 1232
PLAIN_SIZE = 512
_OPCODE = 0x7800
_DO = 0x8000
# IXFR has one record, OPT and TSIG are two; more would only make us parse
_QUERY_RECORDS_MAX = 4
# what one PTR of an instance takes at the least: pointer, fixed fields, label, pointer
PTR_SIZE = 2 + 10 + 57 + 2
# RFC 7828: how long a connection of no use is kept, in seconds, which who asks is told in tenths
TCP_IDLE_TIMEOUT = 10.0
_KEEPALIVE = 11
# RFC 8914
_EXTENDED_ERROR = 15
_PROHIBITED, _NOT_AUTHORITATIVE = 18, 20
# an EDNS option of one number: its code, size and value
_OPTION = struct.Struct("!3H")
# CoreDNS compresses a UDP reply above these sizes even where it fits, to stay whole
_COREDNS_WHOLE_SIZE = {4: 1480, 6: 1220}


class Transport(Enum):
    """What carried the query."""

    UDP = "udp"
    TCP = "tcp"


class Profile(Enum):
    """How to answer: by the book, or as wgsd v0.3.5 does."""

    STRICT = "strict"
    WGSD_EXACT = "wgsd-exact"


class Outcome(Enum):
    """What became of a query."""

    ANSWERED = "answered"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    REFUSED = "refused"
    FORMERR = "formerr"
    NOTIMP = "notimp"
    NOTAUTH = "notauth"
    BADVERS = "badvers"
    TRUNCATED = "truncated"  # for the limit; what does not fit counts as answered
    DROPPED_SHORT = "short"
    DROPPED_RESPONSE = "response"
    DROPPED_UNPACKABLE = "unpackable"
    DROPPED_LIMIT = "limit"
    DROPPED_NO_QUESTION = "limit, and no question"


DROPPED = frozenset(
    (
        Outcome.DROPPED_SHORT,
        Outcome.DROPPED_RESPONSE,
        Outcome.DROPPED_UNPACKABLE,
        Outcome.DROPPED_LIMIT,
        Outcome.DROPPED_NO_QUESTION,
    )
)

_RCODE_OUTCOMES = {
    NXDOMAIN: Outcome.NXDOMAIN,
    REFUSED: Outcome.REFUSED,
    FORMERR: Outcome.FORMERR,
    NOTIMP: Outcome.NOTIMP,
    NOTAUTH: Outcome.NOTAUTH,
    BADVERS: Outcome.BADVERS,
}


class Answerer(Protocol):
    """What the server asks. It never raises, whatever the bytes; `source` is the asker's address as text."""

    def answer(self, query: bytes, source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """The reply, or None when there is to be none."""
        ...


@dataclass(frozen=True, slots=True)
class _Asker:
    local_address: IPAddress | None
    transport: Transport
    groups: Groups
    source: str
    serial: int | None


class Responder:
    """Answers for `zone`, which may be replaced at any time; `counts` only grow.

    Lists that are cut short begin `turn` instances further on.
    """

    def __init__(self, zone: Zone, profile: Profile = Profile.STRICT, cookies: Cookies | None = None) -> None:
        self.zone = zone
        self.profile = profile
        self._cookies = cookies
        self.counts: Counter[Outcome] = Counter()
        self.turn = 0

    def answer(self, query: bytes, _source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """The same to everybody."""
        return self.respond(query, local_address, transport)

    def respond(
        self,
        query: bytes,
        local_address: IPAddress | None = None,
        transport: Transport = Transport.UDP,
        groups: Groups = EVERYBODY,
        source: str = "",
        serial: int | None = None,
    ) -> bytes | None:
        """The reply to a query that came to `local_address` from `source`, or None when it gets none.

        `groups` are those of who asks, and `serial` is the zone's as they see it, where that is another. Without a
        source there are no cookies.
        """
        if len(query) < HEADER_SIZE:
            self.counts[Outcome.DROPPED_SHORT] += 1
            return None
        _, flags, questions, *records = struct.unpack_from("!6H", query)
        if flags & QR:
            self.counts[Outcome.DROPPED_RESPONSE] += 1
            return None
        if flags & _OPCODE:
            return self._fail(query, NOTIMP)
        if questions > 1 or sum(records) > _QUERY_RECORDS_MAX:
            return self._fail(query, FORMERR)
        try:
            message = dns.message.from_wire(query)
        except dns.message.UnknownTSIGKey:
            return self._fail(query, NOTAUTH)
        except (dns.exception.DNSException, ValueError):
            return self._fail(query, FORMERR)
        asker = _Asker(local_address, transport, groups, source, serial)
        if not message.question:
            return self._give_cookie(query, message, asker)
        return self._respond_parsed(message, asker)

    def _give_cookie(self, query: bytes, message: dns.message.Message, asker: _Asker) -> bytes:
        """Who asks nothing may ask for a cookie (RFC 7873 section 5.4)."""
        opt = self._opt(message, NOERROR, asker) if message.edns == 0 else None
        if opt is None or opt.options[:2] != COOKIE.to_bytes(2, "big"):
            return self._fail(query, FORMERR)
        self.counts[Outcome.NODATA] += 1
        header = struct.pack("!6H", message.id, QR | (message.flags & RD), 0, 0, 0, 1)
        return header + opt.pack()

    def _respond_parsed(self, message: dns.message.Message, asker: _Asker) -> bytes | None:
        asked = message.question[0]
        question = Question(asked.name, asked.rdtype, asked.rdclass)
        size = self._reply_size(message, asker.transport)
        if message.edns > 0:
            answer = Answer(BADVERS, authoritative=False)
        elif self.profile is Profile.STRICT and _keepalive(message):
            answer = Answer(FORMERR, authoritative=False)
        elif question.rdclass != IN or (question.rdtype in (AXFR, IXFR) and self.profile is Profile.STRICT):
            # a secondary takes an empty answer for a broken zone (RFC 5936 section 2.2.1)
            answer = Answer(REFUSED, authoritative=False)
        else:
            answer = self._lookup(question, asker, size)
        reply = Reply(
            id=message.id,
            flags=QR | (AA if answer.authoritative else 0) | (message.flags & RD),
            rcode=answer.rcode & 0xF,
            question=question,
            answer=answer.answer,
            authority=answer.authority,
            additional=answer.additional,
            opt=self._opt(message, answer.rcode, asker),
            # nobody who asks the plain old way expects more than he asked for
            extra=answer.extra if size > PLAIN_SIZE else (),
        )
        try:
            data = self._pack(reply, size, asker)
        except CannotPackError:
            self.counts[Outcome.DROPPED_UNPACKABLE] += 1
            return None
        empty = answer.rcode == NOERROR and not answer.answer
        self.counts[Outcome.NODATA if empty else _RCODE_OUTCOMES.get(answer.rcode, Outcome.ANSWERED)] += 1
        return data

    def _lookup(self, question: Question, asker: _Asker, size: int) -> Answer:
        if self.profile is Profile.WGSD_EXACT:
            return wgsd.lookup(self.zone, question.name, question.rdtype, asker.local_address)
        # one more than fits makes the reply say that it is cut short
        browse_max = min(BROWSE_MAX, size // PTR_SIZE + 1)
        vantage = Vantage(asker.local_address, browse_max, self.turn, asker.groups, asker.serial)
        return self.zone.lookup(question.name, question.rdtype, vantage)

    def _reply_size(self, message: dns.message.Message, transport: Transport) -> int:
        """How many bytes the reply may have (RFC 6891 section 6.2.3: less than 512 means 512)."""
        if transport is Transport.TCP:
            return MESSAGE_MAX_SIZE
        if message.edns < 0:
            return PLAIN_SIZE
        most = MESSAGE_MAX_SIZE if self.profile is Profile.WGSD_EXACT else EDNS_SIZE
        return min(most, max(PLAIN_SIZE, message.payload))

    def _opt(self, message: dns.message.Message, rcode: Rcode, asker: _Asker) -> Opt | None:
        if message.edns < 0:
            return None
        # RFC 3225 section 3: DO comes back
        do = message.ednsflags & _DO
        if self.profile is Profile.WGSD_EXACT:
            return Opt(message.payload, rcode >> 4, do)
        options = b""
        if self._cookies is not None and asker.source:
            asked = (option.to_wire() for option in message.options if option.otype == COOKIE)
            cookie = next(asked, None)
            options = b"" if cookie is None else self._cookies.option(cookie, asker.source)
        if asker.transport is Transport.TCP and _keepalive(message) is not None:
            options += _OPTION.pack(_KEEPALIVE, 2, int(10 * TCP_IDLE_TIMEOUT))
        if rcode == REFUSED and message.question[0].rdclass == IN:
            is_ours = self.zone.names.holds(message.question[0].name)
            options += _OPTION.pack(_EXTENDED_ERROR, 2, _PROHIBITED if is_ours else _NOT_AUTHORITATIVE)
        return Opt(EDNS_SIZE, rcode >> 4, do, options)

    def _pack(self, reply: Reply, size: int, asker: _Asker) -> bytes:
        if self.profile is Profile.STRICT:
            data = pack_reply(reply, size, fold=True)
        else:
            version = 4 if asker.local_address is None else asker.local_address.version
            whole = MESSAGE_MAX_SIZE if asker.transport is Transport.TCP else _COREDNS_WHOLE_SIZE[version]
            data = pack_reply(reply, min(size, whole), compress=False)
            if is_truncated(data):
                data = pack_reply(reply, size)
        if len(reply.answer) > 1:
            # a list: the next one goes on where this one ended
            self.turn += answer_count(data)
        return data

    def _fail(self, query: bytes, rcode: Rcode) -> bytes:
        """A bare header: of such a query not even the question can be trusted to be one."""
        self.counts[_RCODE_OUTCOMES[rcode]] += 1
        message_id, flags = struct.unpack_from("!HH", query)
        return struct.pack("!6H", message_id, QR | (flags & (_OPCODE | RD)) | rcode, 0, 0, 0, 0)


def _keepalive(message: dns.message.Message) -> bytes | None:
    """What the option of that name has in it, in a query nothing (RFC 7828 section 3.1); None where there is none."""
    found = (option.to_wire() for option in message.options if option.otype == _KEEPALIVE)
    return next(found, None)
