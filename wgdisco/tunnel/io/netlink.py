"""Netlink messages and attributes as bytes, for what pyroute2 has no words for (linux/netlink.h)."""

import socket
import struct
from collections.abc import Iterator

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED = 0x8000  # in the type of an attribute that holds others
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type


def opened(groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """A socket to rtnetlink that is told of `groups`; blocking, for the kernel answers while a question is sent."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    sock.bind((0, groups))
    return sock


def message(kind: int, body: bytes, flags: int = NLM_F_REQUEST) -> bytes:
    """A message of that type."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message in what netlink handed over at once."""
    at = 0
    while len(data) - at >= _HEADER.size:
        size, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += _aligned(size)


def was_interrupted(data: bytes) -> bool:
    """Whether a message in it says that what is listed changed meanwhile: the list is to be asked for again."""
    at = 0
    while len(data) - at >= _HEADER.size:
        size, _kind, flags, _sequence, _port = _HEADER.unpack_from(data, at)
        if flags & NLM_F_DUMP_INTR:
            return True
        if size < _HEADER.size:
            return False
        at += _aligned(size)
    return False


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(_aligned(size) - size)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type, without NESTED, and value of each attribute in a row."""
    at, end = 0, len(data)
    while end - at >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind & ~NESTED, data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3


def _aligned(size: int) -> int:
    return (size + 3) & ~3
