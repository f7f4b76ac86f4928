"""The responder on UDP and TCP sockets (RFC 7766).

A reply leaves from the address its query came to, on a wildcard socket too (IP_PKTINFO). UDP is drained in bounded
runs, so that a flood leaves the loop to others between two of them.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from wgdisco.dnssd.io.transfer import Transfers
from wgdisco.dnssd.responder import Responder, Transport
from wgdisco.endpoint import Endpoint, IPAddress, parse_address
from wgdisco.errors import LocalError
from wgdisco.machine import port_owner

DRAIN_MAX = 64
IDLE_TIMEOUT = 10.0
CONNECTIONS_MAX = 256

_DATAGRAM_MAX_SIZE = 65535
_IP_PKTINFO = 8  # linux/in.h; Python 3.11 does not name it
_ANCILLARY_SIZE = socket.CMSG_SPACE(20)
# struct in_pktinfo: interface, local address of the packet, its destination; struct in6_pktinfo: address, interface
_PKTINFO4 = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16si")
_PORT_ATTEMPTS = 8


class DnsServer:
    """Serves one responder on any number of addresses. `unsent` counts UDP replies the kernel did not take.

    With `view`, who asks from an address is answered by the responder that `view` has for it; with `transfers`, the
    zone's secondaries are answered by that.
    """

    def __init__(
        self,
        responder: Responder,
        view: Callable[[IPAddress], Responder] | None = None,
        transfers: Transfers | None = None,
    ) -> None:
        self.responder = responder
        self._view = view
        self._transfers = transfers
        self.endpoints: tuple[Endpoint, ...] = ()
        self.unsent = 0
        self._udp: list[socket.socket] = []
        self._tcp: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._tcp_turn = asyncio.Lock()
        self._is_closing = False

    async def start(self, addresses: Sequence[tuple[IPAddress, int]], interface: str | None = None) -> None:
        """Bind UDP and TCP on each address and port (0: any free one, the same for both); see `endpoints` then.

        With `interface`, nobody is heard who does not come in by it. May be called again, for more.

        LocalError says which address failed and why, and nothing stays bound.
        """
        self._is_closing = False
        try:
            for address, port in addresses:
                udp, tcp = _bind_pair(address, port, interface)
                self._udp.append(udp)
                self._serve_udp(udp, address)
                self._tcp.append(await asyncio.start_server(self._accept, sock=tcp))
                self.endpoints += (Endpoint(address, udp.getsockname()[1]),)
        except LocalError:
            await self.close()
            raise

    async def close(self) -> None:
        """Release every socket and end every connection. May be called twice."""
        self._is_closing = True
        loop = asyncio.get_running_loop()
        for udp in self._udp:
            loop.remove_reader(udp)
            udp.close()
        for server in self._tcp:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._tcp:
            await server.wait_closed()
        self._udp, self._tcp, self.endpoints = [], [], ()

    def _respond(
        self, query: bytes, source: Any, local_address: IPAddress | None, transport: Transport
    ) -> Iterator[bytes]:
        """The reply, or none; only a transfer has more than one message."""
        if self._transfers is not None:
            replies = self._transfers.respond(query, source[0], transport)
            if replies is not None:
                return replies
        responder = self.responder if self._view is None else self._view(parse_address(source[0]))
        reply = responder.respond(query, local_address, transport)
        return iter(() if reply is None else (reply,))

    # UDP

    def _serve_udp(self, udp: socket.socket, address: IPAddress) -> None:
        drain = self._drain_wildcard if address.is_unspecified else self._drain
        asyncio.get_running_loop().add_reader(udp, drain, udp, _unmapped(address))

    def _drain(self, udp: socket.socket, local_address: IPAddress) -> None:
        for _ in range(DRAIN_MAX):
            try:
                query, source = udp.recvfrom(_DATAGRAM_MAX_SIZE)
            except BlockingIOError:
                return
            except OSError:
                # an ICMP error about an earlier reply
                continue
            for reply in self._respond(query, source, local_address, Transport.UDP):
                self._send(udp, reply, [], source)

    def _drain_wildcard(self, udp: socket.socket, local_address: IPAddress) -> None:
        for _ in range(DRAIN_MAX):
            try:
                query, ancillary, _, source = udp.recvmsg(_DATAGRAM_MAX_SIZE, _ANCILLARY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue
            queried, reply_from = _read_pktinfo(ancillary)
            for reply in self._respond(query, source, queried, Transport.UDP):
                self._send(udp, reply, reply_from, source)

    def _send(self, udp: socket.socket, reply: bytes, ancillary: list[tuple[int, int, bytes]], target: Any) -> None:
        try:
            udp.sendmsg([reply], ancillary, 0, target)
        except OSError:
            # full buffer, no route, source port 0: the asker asks again
            self.unsent += 1

    # TCP

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._is_closing or len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, TimeoutError, OSError):
                await self._serve_connection(reader, writer)
        finally:
            self._connections.discard(task)
            if task.cancelling():
                writer.transport.abort()
            else:
                writer.close()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer framed queries in order until the client closes, or is idle or does not read for IDLE_TIMEOUT."""
        local_address = _unmapped(parse_address(writer.get_extra_info("sockname")[0]))
        source = writer.get_extra_info("peername")
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT):
                size = int.from_bytes(await reader.readexactly(2), "big")
                query = await reader.readexactly(size)
            replies: Iterator[bytes] | None = None
            while True:
                async with asyncio.timeout(IDLE_TIMEOUT):
                    # one reply a turn of the loop, whoever asks: a stream of buffered queries never waits by itself
                    async with self._tcp_turn:
                        await asyncio.sleep(0)
                        if replies is None:
                            replies = self._respond(query, source, local_address, Transport.TCP)
                        reply = next(replies, None)
                    if reply is None:
                        break
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()


def _bind_pair(address: IPAddress, port: int, interface: str | None) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on the same port, not blocking."""
    for attempt in range(_PORT_ATTEMPTS):
        udp = _bind(address, port, socket.SOCK_DGRAM, interface)
        try:
            return udp, _bind(address, udp.getsockname()[1], socket.SOCK_STREAM, interface)
        except LocalError:
            udp.close()
            # a free UDP port may be taken for TCP
            if port or attempt == _PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


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
        elif address.is_unspecified:
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


def _read_pktinfo(ancillary: list[tuple[int, int, bytes]]) -> tuple[IPAddress | None, list[tuple[int, int, bytes]]]:
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


def _unmapped(address: IPAddress) -> IPAddress:
    return parse_address(str(address))
