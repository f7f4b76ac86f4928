"""The server's sockets: UDP and TCP on one port; and from where a wildcard socket's replies are to leave."""

import errno
import socket
import struct
import time
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from wgdisco.endpoint import IPAddress
from wgdisco.errors import LocalError
from wgdisco.machine import port_owner

ANCILLARY_SIZE = socket.CMSG_SPACE(20)

_IP_PKTINFO = 8  # linux/in.h; Python 3.11 does not name it
# struct in_pktinfo: interface, local address of the packet, its destination; struct in6_pktinfo: address, interface
_PKTINFO4 = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")
_PORT_ATTEMPTS = 8
# How long a zone's server may take to end whose registry was killed, in seconds
_ENDS_WITHIN, _LOOKS_EVERY = 1.0, 0.02
# asm-generic/socket.h, linux/sock_diag.h: nine numbers, the last is of what was dropped
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_DROPS = 8
# what a flood fills while the machine has other things to do: some 10,000 questions, the work of 0.1 s. Without
# CAP_NET_ADMIN the kernel caps it at net.core.rmem_max
_RECEIVE_BUFFER = 1 << 22
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
_TCP_RECEIVE_BUFFER = 1 << 16

Ancillary = list[tuple[int, int, bytes]]


def bind_pair(address: IPAddress, port: int, interface: str | None) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port (0: any free one), not blocking, not listening yet.

    With `interface`, nobody is heard who does not come in by it. LocalError says which failed and why.
    """
    for attempt in range(_PORT_ATTEMPTS):
        udp = _bind_when_free(address, port, socket.SOCK_DGRAM, interface)
        try:
            return udp, _bind_when_free(address, udp.getsockname()[1], socket.SOCK_STREAM, interface)
        except LocalError:
            udp.close()
            # a free UDP port may be taken for TCP
            if port or attempt == _PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def read_pktinfo(ancillary: Ancillary) -> tuple[IPAddress | None, Ancillary]:
    """The address a datagram came to, and the ancillary data that sends the reply from it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(data) >= _PKTINFO4.size:
            _, local, _ = _PKTINFO4.unpack_from(data)
            return IPv4Address(local), [(level, kind, _PKTINFO4.pack(0, local, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) >= _PKTINFO6.size:
            local, interface = _PKTINFO6.unpack_from(data)
            address = IPv6Address(local)
            # a link-local address is one only together with its interface; others may be routed elsewhere
            scope = interface if address.is_link_local else 0
            return address, [(level, kind, _PKTINFO6.pack(local, scope))]
    return None, []


def overflows(bound: socket.socket) -> int:
    """How many packets or connections the kernel had no room for at a socket."""
    told = bound.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(told)[_DROPS])


def _bind_when_free(address: IPAddress, port: int, kind: socket.SocketKind, interface: str | None) -> socket.socket:
    deadline = time.monotonic() + _ENDS_WITHIN
    while True:
        try:
            return _bind(address, port, kind, interface)
        except LocalError as error:
            is_taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if not is_taken or time.monotonic() > deadline:
                raise
        time.sleep(_LOOKS_EVERY)


def _bind(address: IPAddress, port: int, kind: socket.SocketKind, interface: str | None) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if interface is not None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # of each connection: queries are small
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TCP_RECEIVE_BUFFER)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            with suppress(PermissionError):
                bound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            if address.is_unspecified:
                _ask_for_pktinfo(bound)
        bound.bind(socket.getaddrinfo(str(address), port, type=kind, flags=socket.AI_NUMERICHOST)[0][4])
    except OSError as error:
        bound.close()
        raise LocalError(_describe_bind_error(error, address, port, kind)) from error
    return bound


def _describe_bind_error(error: OSError, address: IPAddress, port: int, kind: socket.SocketKind) -> str:
    name = "udp" if kind == socket.SOCK_DGRAM else "tcp"
    where = f"DNS cannot listen on {name} {f'[{address}]' if address.version == 6 else address}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where}: the port is in use by {port_owner(port, name) or 'another process'}"
        case errno.EADDRNOTAVAIL:
            return f"{where}: this machine has no such address"
        case errno.EACCES | errno.EPERM:
            return f"{where}: ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case _:
            return f"{where}: {error.strerror or error}"


def _ask_for_pktinfo(udp: socket.socket) -> None:
    if udp.family == socket.AF_INET:
        udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
