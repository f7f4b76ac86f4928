"""Raw sockets beside a WireGuard that is not ours: sending from its port, and seeing what comes to it. CAP_NET_RAW.

Both are for the network namespace they are opened in; the WireGuard's own socket must be there.
"""

import ctypes
import errno
import socket
import struct
from collections import Counter
from contextlib import suppress
from ipaddress import ip_address
from typing import Self

from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.tunnel.raw import DEFAULT_TTL, pack_datagram, parse_datagram

# asm-generic/socket.h, linux/if_ether.h
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_LINK_ADDRESS = struct.Struct("=H2siHBB8s")  # struct sockaddr_ll
_LARGEST = 1 << 16
_MARK = struct.Struct("=I")


class RawSender:
    """Sends UDP datagrams whose source port is another socket's. `dropped` counts what could not be sent, by reason."""

    def __init__(self, sockets: dict[int, socket.socket]) -> None:
        self.dropped: Counter[str] = Counter()
        self._sockets = sockets
        self._mark = 0

    @classmethod
    def open(cls) -> Self | None:
        """None where it is not permitted."""
        sockets: dict[int, socket.socket] = {}
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            try:
                # IPPROTO_RAW: with our own IP header, and nothing is ever received
                sockets[version] = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
            except PermissionError:
                return None
            except OSError:
                continue  # no IPv6
        return cls(sockets)

    def send(self, data: bytes, port: int, endpoint: Endpoint, ttl: int | None = None, mark: int = 0) -> None:
        """Send from our `port`, as the routes for `mark` (0 is none) say; what cannot be sent is counted."""
        sock = self._sockets.get(endpoint.address.version)
        if sock is None:
            self.dropped["no IPv6"] += 1
            return
        try:
            address = _socket_address(endpoint)
            source = _source(address, sock.family, mark)
            if mark != self._mark:
                for one in self._sockets.values():
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(mark))
                self._mark = mark
            packet = pack_datagram(source, port, endpoint, DEFAULT_TTL if ttl is None else ttl, data)
            sock.sendto(packet, (address[0], 0, *address[2:]))
        except OSError as error:
            self.dropped[errno.errorcode.get(error.errno or 0, "unknown")] += 1

    def close(self) -> None:
        """Again does nothing."""
        for sock in self._sockets.values():
            sock.close()


class Tap:
    """Sees datagrams of one IP version that arrive on any interface and pass a filter; before any firewall does.

    `fileno` is readable when there is one. The kernel holds at most `buffer` bytes of them (with its own overhead, and
    not less than about 2 KiB), and drops the rest.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def open(cls, version: int, instructions: bytes, buffer: int) -> Self | None:
        """None where it is not permitted, or the kernel has no such sockets."""
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)  # nothing until bound
        except OSError:
            return None
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            with suppress(PermissionError):  # past the system's limit only with CAP_NET_ADMIN
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
            tap = cls(sock)
            tap.set_filter(instructions)
            _bind_everywhere(sock, _ETHERTYPES[version])
        except BaseException:
            sock.close()
            raise
        return tap

    def fileno(self) -> int:
        """To wait on."""
        return self._socket.fileno()

    def set_filter(self, instructions: bytes) -> None:
        """Let other datagrams through from now on (classic BPF)."""
        program = ctypes.create_string_buffer(instructions, len(instructions))
        head = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def receive(self, most: int) -> list[tuple[Endpoint, bytes]]:
        """What waits, at most so many: where it came from, and what is in it."""
        received = []
        for _ in range(most):
            try:
                packet, address = self._socket.recvfrom(_LARGEST)
            except OSError:
                break  # EAGAIN; ENETDOWN: an interface went down, said once
            datagram = parse_datagram(packet, str(address[0]))
            if datagram is not None:
                received.append(datagram)
        return received

    def close(self) -> None:
        """Again does nothing."""
        self._socket.close()


def _bind_everywhere(sock: socket.socket, ethertype: int) -> None:
    """Bind a packet socket to a protocol on all interfaces, for which the socket module has no words."""
    address = _LINK_ADDRESS.pack(socket.AF_PACKET, ethertype.to_bytes(2, "big"), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), "bind")


def _source(address: tuple[str, int] | tuple[str, int, int, int], family: int, mark: int) -> IPAddress:
    """The address that the kernel sends from to there."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if mark:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(mark))
        probe.connect(address)
        return ip_address(probe.getsockname()[0].partition("%")[0])


def _socket_address(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """OSError when the zone names no interface here."""
    host, _, zone = str(endpoint.address).partition("%")
    if endpoint.address.version == 4:
        return host, endpoint.port
    scope = 0
    if zone:
        scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    return host, endpoint.port, 0, scope
