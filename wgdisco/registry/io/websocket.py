"""WireGuard in a WebSocket over TLS, for members whose network lets out no UDP at all: only with `--tls-port`.

To whoever does not ask for that very thing the port is a web server that has nothing. A connection lives on what the
device answers: one that it says nothing to ends soon, and the device says nothing to strangers.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from wgdisco.errors import LocalError
from wgdisco.registry.io.certificate import server_context
from wgdisco.tunnel.io.websocket import MESSAGE_MAX_SIZE, PATH, StandIn, carry

LOG = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
CONNECTIONS_A_SOURCE = 32
# From the connection to the request, and from there to the device's first datagram; then between datagrams
REQUEST_TIMEOUT = 10.0
FIRST_TIMEOUT = 15.0
IDLE_TIMEOUT = 60.0
LINGER = 0.5


class _Connection:
    """One TCP connection; `asked` when its request has come, `ended` when it was served."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()


class WebSocketServer:
    """See the module's docstring. `wireguard_port` is the device's; the certificate is at `certificate`."""

    def __init__(self, wireguard_port: int, certificate: Path) -> None:
        self.port: int | None = None
        self._wireguard_port = wireguard_port
        self._certificate = certificate
        self._runner: web.ServerRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sources: Counter[str] = Counter()
        self._connections: dict[asyncio.BaseProtocol, _Connection] = {}

    async def listen(self, port: int | None, hosts: Sequence[str]) -> None:
        """Listen on TCP `port` of every address, as `hosts`, or (None) on none; LocalError when it cannot be had."""
        if port == self.port:
            return
        await self.close()
        if port is None:
            return
        context = server_context(self._certificate, hosts)
        listeners = _listeners(port)
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), handle_signals=False)
        await self._runner.setup()
        self.port = port
        for listener in listeners:
            self._start(self._accept(listener, context))

    async def close(self) -> None:
        """End every connection."""
        self.port = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # Connections

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    accepted, address = await loop.sock_accept(listener)
                except OSError:
                    await asyncio.sleep(0.1)  # no descriptor left, or it is gone already
                    continue
                source = str(address[0])
                if self._sources.total() >= CONNECTIONS_MAX or self._sources[source] >= CONNECTIONS_A_SOURCE:
                    accepted.close()
                    continue
                self._sources[source] += 1
                self._start(self._serve(accepted, source, context))

    async def _serve(self, accepted: socket.socket, source: str, context: ssl.SSLContext) -> None:
        """Until the connection has ended, or nothing was asked for in time."""
        assert self._runner is not None
        assert self._runner.server is not None
        connection, transport = _Connection(), None
        protocol = self._runner.server()
        self._connections[protocol] = connection
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                loop = asyncio.get_running_loop()
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, accepted, ssl=context, ssl_shutdown_timeout=LINGER
                )
                await connection.asked.wait()
            await connection.ended.wait()
            await asyncio.sleep(LINGER)  # for the answer to go out
        except (OSError, TimeoutError):
            pass  # ssl.SSLError is an OSError
        finally:
            del self._connections[protocol]
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]
            if transport is None:
                accepted.close()
            elif not transport.is_closing():
                transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = self._connections.get(request.protocol)
        if connection is None or connection.asked.is_set():
            return _nothing()
        connection.asked.set()
        try:
            websocket = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_MAX_SIZE + 1, timeout=1.0)
            if request.path != PATH or not websocket.can_prepare(request):
                return _nothing()
            stand_in = await StandIn.open(self._wireguard_port)
            with suppress(ConnectionError):
                try:
                    await websocket.prepare(request)
                    await carry(websocket, stand_in, FIRST_TIMEOUT, IDLE_TIMEOUT)
                    await websocket.close()
                finally:
                    stand_in.close()
            return websocket
        finally:
            connection.ended.set()


def _nothing() -> web.Response:
    response = web.Response(status=404, headers={"Server": ""})  # nobody needs to know what it is
    response.force_close()
    return response


def _listeners(port: int) -> list[socket.socket]:
    """TCP sockets of both families, or of IPv4 alone where there is no IPv6."""
    listeners: list[socket.socket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
        listeners.append(listener)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("", port))
            listener.listen(128)
        except OSError as error:
            for one in listeners:
                one.close()
            raise LocalError(f"TCP port {port} (tls-port) cannot be had: {error.strerror}") from error
    return listeners
