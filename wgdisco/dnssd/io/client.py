"""The browser on sockets: follows one zone at one server until it is stopped."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterable

from wgdisco.dnssd.browser import TCP_TIMEOUT, Browser, BrowserEvent, Pace, Query, RegistryUnreachable
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time

_DRAIN_MAX = 64
_DATAGRAM_MAX_SIZE = 65535


class ZoneFollower:
    """Keeps asking `server` for `wanted` in `zone`; ValueError for a zone that is none.

    A server that is down, refuses or is unreachable is asked on and told of by the browser's events. Event times are
    on the clock of `boot_time`.
    """

    def __init__(
        self, server: Endpoint, zone: str, wanted: Iterable[PublicKey], also: Iterable[PublicKey] = (), mark: int = 0
    ) -> None:
        """`also` as in `Browser`; `mark` is what the queries bear for policy routing (SO_MARK), 0 for none."""
        self.browser = Browser(zone, wanted, secrets.token_bytes, also)
        self._server = server
        self._mark = mark
        self._udp: socket.socket | None = None
        self._is_unreachable = False
        self._timer: asyncio.TimerHandle | None = None
        self._tcp: set[asyncio.Task[None]] = set()
        self._events: asyncio.Queue[BrowserEvent | None] = asyncio.Queue()
        self._is_running = False

    async def run(self) -> None:
        """Follow until cancelled; then every socket is closed and `events` ends."""
        self._is_running = True
        try:
            self._wake()
            await asyncio.get_running_loop().create_future()
        finally:
            self._is_running = False
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tcp:
                task.cancel()
            await asyncio.gather(*self._tcp, return_exceptions=True)
            self._close_udp()
            self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[BrowserEvent]:
        """Events in order, to one consumer; ends after `run` does."""
        while (event := await self._events.get()) is not None:
            yield event

    def poll_now(self) -> None:
        """Ask at once."""
        self.browser.poll_now(boot_time())
        self._settle()

    def set_pace(self, pace: Pace) -> None:
        """How often to ask once all are found."""
        self.browser.set_pace(pace)
        self._settle()

    def set_wanted(self, keys: Iterable[PublicKey]) -> None:
        """Follow these keys from now on."""
        self.browser.set_wanted(keys)
        self._settle()

    def _wake(self) -> None:
        self.browser.handle_timer(boot_time())
        self._settle()

    def _settle(self) -> None:
        """Carry out what the browser wants after any call into it."""
        if not self._is_running:
            return
        while queries := self.browser.queries_to_send():
            if self._udp is None or self._is_unreachable:
                # the way to the server may begin at another address now
                self._open_udp()
            for query in queries:
                self._send(query)
        for event in self.browser.events():
            self._is_unreachable = isinstance(event, RegistryUnreachable)
            self._events.put_nowait(event)
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self.browser.get_timer() - boot_time())
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _send(self, query: Query) -> None:
        if query.tcp:
            task = asyncio.get_running_loop().create_task(self._ask_by_tcp(query))
            self._tcp.add(task)
            task.add_done_callback(self._tcp.discard)
            return
        try:
            if self._udp is not None:
                self._udp.send(query.data)
                return
        except OSError:
            self._close_udp()
        self.browser.query_failed(query.id, boot_time())

    # UDP

    def _open_udp(self) -> None:
        """A fresh connected socket: the kernel picks source address and port, and tells of ICMP errors."""
        self._close_udp()
        host, port = str(self._server.address), self._server.port
        family = socket.AF_INET if self._server.address.version == 4 else socket.AF_INET6
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            self._set_mark(udp)
            udp.connect(socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4])
        except OSError:
            udp.close()
            return
        self._udp = udp
        asyncio.get_running_loop().add_reader(udp, self._receive, udp)

    def _close_udp(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()
            self._udp = None

    def _receive(self, udp: socket.socket) -> None:
        now = boot_time()
        for _ in range(_DRAIN_MAX):
            try:
                data = udp.recv(_DATAGRAM_MAX_SIZE)
            except BlockingIOError:
                break
            except OSError:
                # an ICMP error; it does not say for which query
                self.browser.query_failed(None, now)
                break
            self.browser.receive_reply(data, now)
        self._settle()

    # TCP

    async def _ask_by_tcp(self, query: Query) -> None:
        try:
            async with asyncio.timeout(TCP_TIMEOUT):
                reply = await self._exchange(query.data)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.browser.query_failed(query.id, boot_time())
        else:
            self.browser.receive_reply(reply, boot_time())
        self._settle()

    async def _exchange(self, data: bytes) -> bytes:
        host, port = str(self._server.address), self._server.port
        family = socket.AF_INET if self._server.address.version == 4 else socket.AF_INET6
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setblocking(False)
            self._set_mark(tcp)
            address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
            await asyncio.get_running_loop().sock_connect(tcp, address)
            reader, writer = await asyncio.open_connection(sock=tcp)
        except BaseException:
            tcp.close()
            raise
        try:
            writer.write(len(data).to_bytes(2, "big") + data)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(size)
        finally:
            writer.close()

    def _set_mark(self, sock: socket.socket) -> None:
        if self._mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
