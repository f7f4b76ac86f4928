"""WireGuard's datagrams in a WebSocket: on either end a UDP socket on the loopback stands for the other.

A binary message is a datagram. To the device that socket is an endpoint like any other. Datagrams that find no room are
dropped, as anywhere on their way.
"""

import asyncio
from contextlib import suppress
from typing import Self, cast

from aiohttp import ClientWebSocketResponse, WSMsgType, web

from wgdisco.endpoint import Endpoint, parse_address

LOOPBACK = "127.0.0.1"
PATH = "/wireguard"
MESSAGE_MAX_SIZE = 2048
QUEUE_MAX = 256


class StandIn(asyncio.DatagramProtocol):
    """The socket. It hears one port of this host, and speaks to that alone: `endpoint` is where that one speaks to."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_MAX)
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls, port: int) -> Self:
        """Stand in towards whoever has UDP `port` on the loopback."""
        loop = asyncio.get_running_loop()
        _, stand_in = await loop.create_datagram_endpoint(cls, (LOOPBACK, 0), (LOOPBACK, port))
        return stand_in

    @property
    def endpoint(self) -> Endpoint:
        """Where the device sends what is to go through."""
        assert self._transport is not None
        address, port = self._transport.get_extra_info("sockname")
        return Endpoint(parse_address(address), port)

    def send(self, data: bytes) -> None:
        """Let the device hear a datagram."""
        if self._transport is not None and data:
            self._transport.sendto(data)

    def close(self) -> None:
        """No more."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.DatagramProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """The device sends."""
        if len(data) <= MESSAGE_MAX_SIZE:
            with suppress(asyncio.QueueFull):
                self.received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """The device's port is closed just now."""


async def carry(
    connection: web.WebSocketResponse | ClientWebSocketResponse,
    stand_in: StandIn,
    first: float | None = None,
    idle: float | None = None,
) -> None:
    """Carry both ways until the connection ends, or the device has said nothing for `idle` seconds, `first` to begin.

    A connection that does not take what it is given for so long ends too.
    """
    both = (
        asyncio.ensure_future(_into(connection, stand_in)),
        asyncio.ensure_future(_out_of(connection, stand_in, first, idle)),
    )
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _into(connection: web.WebSocketResponse | ClientWebSocketResponse, stand_in: StandIn) -> None:
    async for message in connection:
        if message.type is not WSMsgType.BINARY:
            return
        stand_in.send(message.data)


async def _out_of(
    connection: web.WebSocketResponse | ClientWebSocketResponse,
    stand_in: StandIn,
    limit: float | None,
    idle: float | None,
) -> None:
    with suppress(TimeoutError, ConnectionError):
        while True:
            async with asyncio.timeout(limit):
                await connection.send_bytes(await stand_in.received.get())
            limit = idle
