"""Control messages of UDP sockets: what a datagram's IP header said, or is to say (ip(7), ipv6(7), udp(7))."""

import socket
import struct

from wgdisco.tunnel.burst import OwnAddress

# linux/in.h, linux/udp.h: what the socket module does not name
IP_PKTINFO = 8
IP_RECVTOS = 13
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104

_INT = struct.Struct("=i")
_SEGMENT_SIZE = struct.Struct("=H")
_PKTINFO = struct.Struct("=I4s4s")  # interface, our address, the one in the header
_PKTINFO6 = struct.Struct("=16sI")
ANCILLARY_SIZE = 2 * socket.CMSG_SPACE(_INT.size) + socket.CMSG_SPACE(_PKTINFO6.size)

Message = tuple[int, int, bytes]
Ancillary = tuple[Message, ...]


def segment_message(row: int) -> Message:
    """Each `row` bytes are a datagram."""
    return SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(row)


def ttl_message(ttl: int, family: int) -> Message:
    """A TTL or hop limit of its own."""
    if family == socket.AF_INET:
        return socket.IPPROTO_IP, socket.IP_TTL, _INT.pack(ttl)
    return socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, _INT.pack(ttl)


def parse_ancillary(control: list[Message], size: int) -> tuple[int, int, OwnAddress | None]:
    """What was said about `size` received bytes: bytes a datagram, traffic class, and where they came to."""
    row, tos, local = size, 0, None
    for level, kind, data in control:
        match level, kind:
            case (17, 104):  # SOL_UDP, UDP_GRO
                (row,) = _INT.unpack(data)
            case (socket.IPPROTO_IP, socket.IP_TOS) | (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
                tos = data[0] if len(data) < _INT.size else _INT.unpack(data)[0] & 0xFF
            case (socket.IPPROTO_IP, 8):  # IP_PKTINFO
                interface, packed, _ = _PKTINFO.unpack(data)
                local = OwnAddress(packed, interface)
            case (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                local = OwnAddress(*_PKTINFO6.unpack(data))
    return row, tos, local


def ancillary_for(tos: int, local: OwnAddress | None, hops: int, family: int) -> Ancillary:
    """What makes a datagram leave with this traffic class, from this address of ours, and for so many hops."""
    messages: list[Message] = []
    is_v4 = family == socket.AF_INET
    if tos:
        kind = (socket.IPPROTO_IP, socket.IP_TOS) if is_v4 else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        messages.append((*kind, _INT.pack(tos)))
    # Without an interface: the address alone is the wish, and where it leads out is for the routes to say.
    if local is not None and is_v4:
        messages.append((socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, local.packed, bytes(4))))
    elif local is not None:
        messages.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(local.packed, 0)))
    if hops:
        messages.append(ttl_message(hops, family))
    return tuple(messages)
