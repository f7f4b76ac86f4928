"""The asking side of DNS: packing a query, and reading only a reply that belongs to it (RFC 1035, RFC 5452)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import dns.exception
import dns.message
import dns.name
import dns.opcode
from dns.flags import AA, QR, TC
from dns.rcode import FORMERR, NOERROR, NOTIMP, NXDOMAIN
from dns.rdata import Rdata
from dns.rdataclass import IN
from dns.rdatatype import OPT, RdataType
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV
from dns.rrset import RRset

HEADER_SIZE = 12
EDNS_SIZE = 1232
_RD = 0x0100


class Drop(Enum):
    """Why a datagram was not taken for a reply, or a reply not used."""

    SHORT = "short"
    UNKNOWN_ID = "unknown id"
    MALFORMED = "malformed"
    MISMATCH = "not our question"
    INVALID = "records that cannot be"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of class IN; `edns` says whether replies above 512 bytes are invited."""

    name: dns.name.Name
    rdtype: RdataType
    edns: bool


def pack_query(message_id: int, question: Question) -> bytes:
    """A query with recursion desired: the server may be a resolver in front of the registry."""
    data = struct.pack("!6H", message_id, _RD, 1, 0, 0, int(question.edns))
    data += question.name.to_wire() or b""
    data += struct.pack("!HH", question.rdtype, IN)
    if question.edns:
        data += struct.pack("!BHHIH", 0, OPT, EDNS_SIZE, 0, 0)
    return data


def read_reply(data: bytes, question: Question) -> dns.message.Message | Drop:
    """The reply to `question`, whose id the caller has matched, or why it is none. Raises nothing."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return Drop.MALFORMED
    if not message.flags & QR or message.opcode() != dns.opcode.QUERY:
        return Drop.MISMATCH
    # a server that did not understand the query may send the bare header
    if not message.question and message.rcode() in (FORMERR, NOTIMP):
        return message
    asked = [(item.name, item.rdtype, item.rdclass) for item in message.question]
    return message if asked == [(question.name, question.rdtype, IN)] else Drop.MISMATCH


def is_truncated(message: dns.message.Message) -> bool:
    """Whether records were left out."""
    return bool(message.flags & TC)


def is_negative(message: dns.message.Message) -> bool:
    """Whether the reply denies the records asked for: NXDOMAIN, or no answer from one who knows (RFC 2308)."""
    if message.rcode() == NXDOMAIN:
        return True
    knows = message.flags & AA or any(rrset.rdtype == RdataType.SOA for rrset in message.authority)
    return message.rcode() == NOERROR and not message.answer and bool(knows)


def serial_of(message: dns.message.Message, origin: dns.name.Name) -> int | None:
    """The serial of the zone, when the reply has its SOA as the answer."""
    if message.rcode() != NOERROR:
        return None
    return next((data.serial for data in _data(message.answer, origin) if isinstance(data, SOA)), None)


def srv_of(message: dns.message.Message, name: dns.name.Name) -> SRV | None:
    """The most preferred SRV in the answer."""
    if message.rcode() != NOERROR:
        return None
    found = [data for data in _data(message.answer, name) if isinstance(data, SRV)]
    return min(found, key=lambda srv: (srv.priority, -srv.weight), default=None)


def address_of(message: dns.message.Message, name: dns.name.Name) -> str | None:
    """The first address of `name`, of either family whatever was asked: wgsd answers AAAA with A."""
    sections = (*message.answer, *message.additional)
    return next((data.address for data in _data(sections, name) if isinstance(data, A | AAAA)), None)


def strings_of(message: dns.message.Message, name: dns.name.Name) -> tuple[bytes, ...] | None:
    """The strings of the TXT record of `name`, wherever in the reply."""
    sections = (*message.answer, *message.additional)
    return next((tuple(data.strings) for data in _data(sections, name) if isinstance(data, TXT)), None)


def _data(rrsets: list[RRset] | tuple[RRset, ...], name: dns.name.Name) -> Iterator[Rdata]:
    for rrset in rrsets:
        if rrset.name == name and rrset.rdclass == IN:
            yield from rrset
