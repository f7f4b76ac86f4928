"""ICMP errors for senders that a source NAT of this host stands before (rule D10).

Their packets came to the interface under an address of ours. An error written to the interface would be led back to
them by the NAT, but from the address that is not reached, which any reverse-path filter on the way takes for forged. So
the kernel's connection tracking is asked who sent the packet, as the kernel's WireGuard does, and the error goes there
from whichever of our addresses leads there.

Asked with nfnetlink (linux/netfilter/nfnetlink_conntrack.h): the reply that the NAT waits for, which is the packet's
source and destination the other way round; the answer says what the packet was before.
"""

import os
import socket

from wgdisco.tunnel import icmp
from wgdisco.tunnel.io.link_state import is_ours
from wgdisco.tunnel.io.netlink import NESTED, attribute, attributes, message, messages
from wgdisco.tunnel.io.tun import Tun

_NETLINK_NETFILTER = 12
_SOL_RAW = 255
_ICMP_FILTER = 1  # linux/icmp.h, linux/icmpv6.h
_CT_NEW, _CT_GET = 1 << 8, 1 << 8 | 1
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCE: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
_DESTINATION: dict[int, int] = {socket.AF_INET: 2, socket.AF_INET6: 4}
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT = 1, 2, 3
# Of ICMP and ICMPv6: the attributes for identifier, type and code, and what answers an echo request
_ECHO: dict[int, tuple[int, int, int, int]] = {socket.IPPROTO_ICMP: (4, 5, 6, 0), socket.IPPROTO_ICMPV6: (7, 8, 9, 129)}
_WITH_PORTS = frozenset({socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP, socket.IPPROTO_UDPLITE})
_NFGENMSG_SIZE = 4
_BUFFER_SIZE = 1 << 13  # bytes; an answer has some hundred
_MARKED = 0xC0  # internetwork control, as icmp.py marks them


class BehindNat:
    """Sockets for asking and telling, opened when there is something to tell and kept; none where not permitted."""

    def __init__(self, tun: Tun) -> None:
        self._tun = tun
        self._sockets: dict[int, socket.socket] | None = None

    def tell(self, error: bytes) -> bool:
        """Send an error of ours to whoever is behind a NAT; False, and nothing done, when there is no NAT in between.

        Raises InterfaceGoneError.
        """
        _name, namespace = self._tun.place()
        try:
            if not is_ours(namespace):
                return False  # our sockets would ask, and tell, elsewhere
        finally:
            os.close(namespace)
        packet = icmp.about(error)
        family = socket.AF_INET if packet[0] >> 4 == 4 else socket.AF_INET6
        question = _question(packet, family)
        if question is None:
            return False
        try:
            if self._sockets is None:
                self._sockets = _opened()
            sender = _original_source(self._ask(question), family)
            if sender is None or sender == _addresses(packet, family)[0]:
                return False
            true_error = icmp.unreachable(icmp.with_source(packet, sender))
            if true_error is not None:
                host = socket.inet_ntop(family, sender)
                self._sockets[family].sendto(icmp.message_of(true_error), (host, 0))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the sockets. Again does nothing."""
        sockets, self._sockets = self._sockets, {}
        for opened in (sockets or {}).values():
            opened.close()

    def _ask(self, question: bytes) -> bytes:
        asking = (self._sockets or {}).get(socket.AF_NETLINK)
        if asking is None:
            return b""
        asking.send(question)
        return asking.recv(_BUFFER_SIZE)


def _opened() -> dict[int, socket.socket]:
    """One a family; none at all where any is refused."""
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    opened: dict[int, socket.socket] = {}
    try:
        for family, protocol in (
            (socket.AF_NETLINK, _NETLINK_NETFILTER),
            (socket.AF_INET, socket.IPPROTO_ICMP),
            (socket.AF_INET6, socket.IPPROTO_ICMPV6),
        ):
            opened[family] = socket.socket(family, flags, protocol)
            opened[family].setblocking(False)  # the kernel has answered by the time the question is sent
        opened[socket.AF_INET].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _MARKED)
        # Nobody reads these: they are to get nothing.
        opened[socket.AF_INET].setsockopt(_SOL_RAW, _ICMP_FILTER, b"\xff" * 4)
        opened[socket.AF_INET6].setsockopt(socket.IPPROTO_ICMPV6, _ICMP_FILTER, b"\xff" * 32)
    except OSError:
        for one in opened.values():
            one.close()
        return {}
    return opened


def _addresses(packet: bytes, family: int) -> tuple[bytes, bytes]:
    return (packet[12:16], packet[16:20]) if family == socket.AF_INET else (packet[8:24], packet[24:40])


def _question(packet: bytes, family: int) -> bytes | None:
    """The request about a packet's connection; None for a protocol that has no ports, or a packet cut too short."""
    source, destination = _addresses(packet, family)
    start = (packet[0] & 15) * 4 if family == socket.AF_INET else 40
    protocol = packet[9] if family == socket.AF_INET else packet[6]
    head = packet[start : start + 6]
    if len(head) < 6:
        return None
    if protocol in _WITH_PORTS:
        parts = attribute(_PROTO_SOURCE_PORT, head[2:4]) + attribute(_PROTO_DESTINATION_PORT, head[:2])
    elif protocol in _ECHO:
        identifier, kind, code, reply = _ECHO[protocol]
        parts = attribute(identifier, head[4:6]) + attribute(kind, bytes([reply])) + attribute(code, b"\0")
    else:
        return None
    addresses = attribute(_SOURCE[family], destination) + attribute(_DESTINATION[family], source)
    protocol_part = attribute(_PROTO_NUMBER, bytes([protocol])) + parts
    reply_tuple = attribute(_TUPLE_IP | NESTED, addresses) + attribute(_TUPLE_PROTO | NESTED, protocol_part)
    return message(_CT_GET, bytes([family, 0, 0, 0]) + attribute(_TUPLE_REPLY | NESTED, reply_tuple))


def _original_source(answer: bytes, family: int) -> bytes | None:
    """Who sent the first packet of the connection; None when there is no such connection."""
    for kind, body in messages(answer):
        if kind == _CT_NEW:
            original = dict(attributes(body[_NFGENMSG_SIZE:])).get(_TUPLE_ORIG, b"")
            addresses = dict(attributes(original)).get(_TUPLE_IP, b"")
            return dict(attributes(addresses)).get(_SOURCE[family])
    return None
