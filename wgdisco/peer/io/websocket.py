"""A registry reached by a WebSocket over TLS, where no UDP comes back: a local UDP socket stands for it.

The certificate is not checked: what goes through is WireGuard, sealed for the registry's key. Whoever sits in between
learns no more than from the same datagrams in the open.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp

from wgdisco.endpoint import Endpoint
from wgdisco.machine import boot_time
from wgdisco.tunnel.io.websocket import MESSAGE_MAX_SIZE, PATH, StandIn, carry

LOG = logging.getLogger(__name__)

# How long UDP is waited for before this is tried
UDP_TIMEOUT = 3.0
UDP_RETRY = 60.0
TLS_PORT = 443
CONNECT_TIMEOUT = 5.0
# A connection that no longer answers is noticed after so long and a half, in seconds
HEARTBEAT = 15.0
RETRY_PAUSES = (0.2, 1.0, 5.0, 15.0)


@asynccontextmanager
async def standing_in(
    registries: Sequence[str], device_port: int, mark: Callable[[], int] = lambda: 0
) -> AsyncIterator[Endpoint]:
    """An endpoint on the loopback that leads to one of `registries` (HOST:PORT), for the device that has `device_port`.

    Connections are made anew when they break, for as long as this lasts. They bear `mark`, the device's own: neither
    may lead into the tunnel.
    """
    stand_in = await StandIn.open(device_port)
    connecting = asyncio.ensure_future(_connect(registries, stand_in, mark))
    try:
        yield stand_in.endpoint
    finally:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        stand_in.close()


class TlsFallback:
    """A stand-in for when UDP goes unanswered, for as long as it does; a context manager."""

    def __init__(self, mark: Callable[[], int]) -> None:
        self._mark = mark
        self._stack = AsyncExitStack()
        self._endpoints: frozenset[Endpoint] = frozenset()
        self._since: float | None = None
        self._udp_tried_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is a stand-in now."""
        return bool(self._endpoints)

    async def unanswered(self, registries: Sequence[str], device_port: int) -> frozenset[Endpoint]:
        """No registry answers; the stand-ins, one as soon as that lasts UDP_TIMEOUT and there are `registries`."""
        now = boot_time()
        self._since = now if self._since is None else self._since
        if not self._endpoints and registries and now - self._since >= UDP_TIMEOUT:
            self._udp_tried_at = now
            self._endpoints = frozenset(
                [await self._stack.enter_async_context(standing_in(registries, device_port, self._mark))]
            )
        return self._endpoints

    async def answered(self) -> frozenset[Endpoint]:
        """UDP is answered: there is no stand-in any more."""
        self._since, self._endpoints = None, frozenset()
        await self._stack.aclose()
        return self._endpoints

    def wants_udp(self) -> bool:
        """While the stand-in is what answers: whether UDP is to be tried again."""
        now = boot_time()
        if now - self._udp_tried_at < UDP_RETRY:
            return False
        self._udp_tried_at = now
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def _connect(registries: Sequence[str], stand_in: StandIn, mark: Callable[[], int]) -> None:
    connector = aiohttp.TCPConnector(socket_factory=lambda address: _socket(address, mark()))
    timeout = aiohttp.ClientTimeout(connect=CONNECT_TIMEOUT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    failures = 0
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        while True:
            for registry in registries:
                if await _carry_by(session, context, registry, stand_in):
                    failures = 0
            await asyncio.sleep(RETRY_PAUSES[min(failures, len(RETRY_PAUSES) - 1)])
            failures += 1


def _socket(address: Any, mark: int) -> socket.socket:
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    return sock


async def _carry_by(session: aiohttp.ClientSession, context: ssl.SSLContext, registry: str, stand_in: StandIn) -> bool:
    """Carry until the connection breaks; False when there was none."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            websocket = await session.ws_connect(
                f"wss://{registry}{PATH}", ssl=context, heartbeat=HEARTBEAT, max_msg_size=MESSAGE_MAX_SIZE + 1
            )
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        LOG.debug("no WebSocket to %s: %s", registry, error)
        return False
    async with websocket:
        LOG.info("registry by TLS", extra={"fields": {"registry": registry}})
        await carry(websocket, stand_in)
    return True
