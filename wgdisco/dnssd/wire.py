"""Packing a reply: header, question and the records that fit (RFC 1035 section 4.1).

dnspython truncates by whole record sets, and compresses names without regard to case. wgsd does neither, and its bytes
are the contract here; where it is not, `fold` shares names whatever their case (RFC 4343).
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import dns.name
from dns.rdataclass import IN
from dns.rdatatype import OPT

from wgdisco.dnssd.records import Data, HinfoData, HostData, NsData, PtrData, Record, SoaData, SrvData, TxtData
from wgdisco.dnssd.txt import STRING_MAX_SIZE

HEADER_SIZE = 12
MESSAGE_MAX_SIZE = 65535

QR = 0x8000
AA = 0x0400
TC = 0x0200
RD = 0x0100

_POINTER = 0xC000
_POINTER_RANGE = 0x4000
# extra records go in while all of the message can be pointed at
EXTRA_MAX_SIZE = _POINTER_RANGE


@dataclass(frozen=True, slots=True)
class Question:
    """The one question of a query, its name in the case it was asked in."""

    name: dns.name.Name
    rdtype: int
    rdclass: int


@dataclass(frozen=True, slots=True)
class Opt:
    """The OPT record of a reply (RFC 6891 section 6.1): the size we advertise, upper rcode bits, version 0, flags.

    `options` are as on the wire.
    """

    payload_size: int
    extended_rcode: int = 0
    flags: int = 0
    options: bytes = b""

    def pack(self) -> bytes:
        """The record."""
        fixed = struct.pack(
            "!BHHBBHH", 0, OPT, self.payload_size, self.extended_rcode, 0, self.flags, len(self.options)
        )
        return fixed + self.options


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply before it is packed. `flags` has everything but TC; `rcode` is the lower four bits.

    `extra` are more additional records that nobody misses, in groups that are of use whole.
    """

    id: int
    flags: int
    rcode: int
    question: Question
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    opt: Opt | None = None
    extra: Iterable[tuple[Record, ...]] = ()


class CannotPackError(ValueError):
    """A record of the reply has no wire form."""


def pack_reply(reply: Reply, max_size: int, compress: bool = True, fold: bool = False) -> bytes:
    """The bytes of a reply, at most `max_size` of them.

    Records go in by section and in order. The first that does not fit is left out with all that follow, and TC is set
    (but not for what is `extra`, RFC 2181 section 9).
    OPT, when there is one, always fits and is last. Raises CannotPackError for a TXT string above 255 bytes that
    had room.
    """
    opt = b"" if reply.opt is None else reply.opt.pack()
    limit = max_size - len(opt)
    message = _Message(compress, fold)
    message.add_question(reply.question)
    sections = (reply.answer, reply.authority, reply.additional)
    counts = [0, 0, 0]
    truncated = False
    for index, section in enumerate(sections):
        for record in section:
            truncated = truncated or not message.add_record(record, limit)
            if truncated:
                break
            counts[index] += 1
    if not truncated:
        counts[2] += message.add_extra(reply.extra, min(limit, EXTRA_MAX_SIZE))
    return message.finished(reply, opt, counts, TC if truncated else 0)


def pack_messages(reply: Reply, answer: Iterable[Record], max_size: int) -> Iterator[bytes]:
    """A reply with this answer, over as many messages of at most `max_size` bytes as it takes (RFC 5936 section 2.2).

    No more of the answer is taken than goes into the next message. CannotPackError for a record that alone is larger.
    """
    opt = b"" if reply.opt is None else reply.opt.pack()
    limit = max_size - len(opt)
    records = iter(answer)
    record = next(records, None)
    while True:
        message, count = _Message(compress=True, fold=False), 0
        message.add_question(reply.question)
        while record is not None and message.add_record(record, limit):
            count += 1
            record = next(records, None)
        if record is not None and not count:
            raise CannotPackError("a record does not fit into a message")
        yield message.finished(reply, opt, [count, 0, 0], 0)
        if record is None:
            return


def is_truncated(message: bytes) -> bool:
    """Whether TC is set in a message of at least a header."""
    return bool(message[2] & TC >> 8)


def answer_count(message: bytes) -> int:
    """How many records are in the answer section."""
    return int.from_bytes(message[6:8], "big")


@dataclass(slots=True)
class _Message:
    """A message under construction; `data` starts with room for the header.

    `offsets` maps the labels of each name written, and of its parents, to where they are.
    """

    compress: bool
    fold: bool
    data: bytearray = field(default_factory=lambda: bytearray(HEADER_SIZE))
    offsets: dict[tuple[bytes, ...], int] = field(default_factory=dict)

    def add_question(self, question: Question) -> None:
        self.add_name(question.name, compress=False)
        self.data += struct.pack("!HH", question.rdtype, question.rdclass)

    def add_record(self, record: Record, limit: int) -> bool:
        """Append a record unless the message then passes `limit` bytes; says whether it was appended."""
        start = len(self.data)
        self.add_name(record.name, self.compress)
        self.data += struct.pack("!HHIH", record.data.rdtype, IN, record.ttl, 0)
        data_start = len(self.data)
        self._add_data(record.data)
        data_size = len(self.data) - data_start
        if len(self.data) <= limit:
            if isinstance(record.data, TxtData) and max(map(len, record.data.strings)) > STRING_MAX_SIZE:
                raise CannotPackError("a TXT string passes 255 bytes")
            self.data[data_start - 2 : data_start] = struct.pack("!H", data_size)
            return True
        # nothing is added after this, so offsets into what is cut off are never used
        del self.data[start:]
        return False

    def add_extra(self, groups: Iterable[tuple[Record, ...]], limit: int) -> int:
        """Append groups while each fits whole; how many records that were."""
        count = 0
        for group in groups:
            start = len(self.data)
            if not all(self.add_record(record, limit) for record in group):
                del self.data[start:]
                break
            count += len(group)
        return count

    def finished(self, reply: Reply, opt: bytes, counts: list[int], flags: int) -> bytes:
        """The message with OPT, packed, and the header; `counts` of the sections without it, `flags` beside its own."""
        self.data += opt
        counts[2] += bool(opt)
        flags |= reply.flags | reply.rcode
        self.data[:HEADER_SIZE] = struct.pack("!6H", reply.id, flags, 1, *counts)
        return bytes(self.data)

    def add_name(self, name: dns.name.Name, compress: bool) -> None:
        """Append a name; `compress` lets it end in a pointer, to labels that agree in case too but for `fold`."""
        labels = name.labels
        shared = tuple(label.lower() for label in labels) if self.fold else labels
        for index, label in enumerate(labels[:-1]):
            known = self.offsets.get(shared[index:])
            if known is None:
                if len(self.data) < _POINTER_RANGE:
                    self.offsets[shared[index:]] = len(self.data)
            elif compress:
                self.data += struct.pack("!H", _POINTER | known)
                return
            self.data.append(len(label))
            self.data += label
        self.data.append(0)

    def _add_data(self, data: Data) -> None:
        match data:
            # only the types of RFC 1035 may have their names compressed (RFC 3597 section 4); SRV is not one
            case PtrData(target) | NsData(target):
                self.add_name(target, self.compress)
            case SoaData(primary=primary, mailbox=mailbox):
                self.add_name(primary, self.compress)
                self.add_name(mailbox, self.compress)
                numbers = (data.serial, data.refresh, data.retry, data.expire, data.minimum)
                self.data += struct.pack("!5I", *numbers)
            case SrvData(port, target):
                self.data += struct.pack("!HHH", 0, 0, port)
                self.add_name(target, compress=False)
            case HostData(address):
                self.data += address.packed
            case TxtData(strings):
                self._add_strings(strings)
            case HinfoData(cpu, system):
                self._add_strings((cpu, system))

    def _add_strings(self, strings: tuple[bytes, ...]) -> None:
        for string in strings:
            # one that is too long is caught when there is room for it
            self.data.append(min(len(string), STRING_MAX_SIZE))
            self.data += string
