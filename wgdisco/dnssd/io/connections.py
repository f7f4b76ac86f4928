"""TCP connections of askers (RFC 7766): pipelined queries, answered in order.

They are bounded, and so is what they hold in memory. Where one more comes, the one that was idle longest goes: whoever
holds thousands open keeps nobody out who has a question. Where more is held, that of those that hold something goes
which has made no progress for longest. All together get a bounded share of each turn of the loop, in turn; of two
answers one is to a first question, that long queues are not waited for.
"""

import asyncio
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from enum import Enum
from typing import cast

from wgdisco.dnssd.forwarding import is_refused
from wgdisco.dnssd.io.forwarder import Forwarder
from wgdisco.dnssd.io.transfer import Transfers
from wgdisco.dnssd.responder import TCP_IDLE_TIMEOUT, Answerer, Transport
from wgdisco.endpoint import IPAddress, parse_address

CONNECTIONS_MAX = 1024
IDLE_TIMEOUT = TCP_IDLE_TIMEOUT
# so many replies a turn of the loop, and none is begun later than this, in seconds
TURN_REPLIES = 16
TURN_TIME = 0.002
# bytes that all may hold: queries that wait, and replies that were not taken
HELD_MAX = 1 << 24

_IDLE_CHECK = 1.0
_LENGTH_SIZE = 2
# what is read at once, into memory that all share
_READ_SIZE = 1 << 14
# a query of any size, or many that are pipelined
_WAITING_MAX = (1 << 16) + _LENGTH_SIZE
# replies that the asker has not taken; the kernel has room for more
_UNREAD_MAX = 1 << 15
_BACKLOG = 1024


class Became(Enum):
    """What became of a connection; the asker ended those that are in none."""

    OPENED = "opened"
    IDLE = "ended: idle"
    TOO_MANY = "ended: too many"
    TOO_MUCH = "ended: too much unread"


class Connections:
    """All connections of a server. With `transfers`, the zone's secondaries are answered by that."""

    def __init__(self, transfers: Transfers | None = None) -> None:
        self.transfers = transfers
        self.counts: Counter[Became] = Counter()
        self._servers: list[asyncio.Server] = []
        # by when each was last of use, the longest ago first
        self._open: OrderedDict[_Connection, float] = OrderedDict()
        # of these, those that hold something
        self._holding: OrderedDict[_Connection, None] = OrderedDict()
        self.read_into = memoryview(bytearray(_READ_SIZE))
        self._new: deque[_Connection] = deque()
        self._ready: deque[_Connection] = deque()
        self._is_for_new = False
        self._held = 0
        self._turn: asyncio.Handle | None = None
        self._check: asyncio.TimerHandle | None = None

    async def listen(self, tcp: socket.socket, answerer: Answerer, forwarder: Forwarder | None = None) -> None:
        """Take connections at a socket that is bound; what the answerer refuses, `forwarder` may take."""
        loop = asyncio.get_running_loop()

        def accepted() -> _Connection:
            return _Connection(self, answerer, forwarder)

        self._servers.append(await loop.create_server(accepted, sock=tcp, backlog=_BACKLOG))
        if self._check is None:
            self._check = loop.call_later(_idle_check(), self._close_idle)

    async def close(self) -> None:
        """End all. May be called twice."""
        for handle in (self._turn, self._check):
            if handle is not None:
                handle.cancel()
        self._turn = self._check = None
        for server in self._servers:
            server.close()
        for connection in list(self._open):
            connection.abort()
        self._open.clear()
        self._new.clear()
        self._ready.clear()
        for server in self._servers:
            await server.wait_closed()
        self._servers = []
        await asyncio.sleep(0)  # what was aborted goes in the next turn of the loop

    # what connections tell

    def opened(self, connection: "_Connection") -> None:
        """One more."""
        self.counts[Became.OPENED] += 1
        while len(self._open) >= CONNECTIONS_MAX:
            self._end(next(iter(self._open)), Became.TOO_MANY)
        self.used(connection)

    def holds(self, connection: "_Connection", size: int) -> None:
        """It has so many bytes in memory now."""
        self._held += size - connection.held
        connection.held = size
        if not size:
            self._holding.pop(connection, None)
        elif connection not in self._holding:
            self._holding[connection] = None
        while self._held > HELD_MAX:
            self._end(next(iter(self._holding)), Became.TOO_MUCH)

    def used(self, connection: "_Connection") -> None:
        """It was of use: not idle."""
        self._open[connection] = asyncio.get_running_loop().time()
        self._open.move_to_end(connection)
        if connection in self._holding:
            self._holding.move_to_end(connection)

    def is_open(self, connection: "_Connection") -> bool:
        """Whether it still counts."""
        return connection in self._open

    def closed(self, connection: "_Connection") -> None:
        """It is no more."""
        self._open.pop(connection, None)
        self._holding.pop(connection, None)
        self._held -= connection.held
        connection.held = 0

    def ready(self, connection: "_Connection") -> None:
        """It has something to be answered."""
        (self._ready if connection.has_asked else self._new).append(connection)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._answer_some)

    def _answer_some(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + TURN_TIME
        for _ in range(min(TURN_REPLIES, len(self._new) + len(self._ready))):
            self._is_for_new = not self._is_for_new
            first = self._new if self._is_for_new else self._ready
            connection = (first or self._new or self._ready).popleft()
            connection.is_waiting = False
            if self.is_open(connection):
                connection.answer_one()
            if loop.time() > until:
                break
        self._turn = loop.call_soon(self._answer_some) if self._new or self._ready else None

    def _end(self, connection: "_Connection", why: Became) -> None:
        self.counts[why] += 1
        self.closed(connection)
        connection.abort()

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._open:
            oldest, used_at = next(iter(self._open.items()))
            if now - used_at < IDLE_TIMEOUT:
                break
            self._end(oldest, Became.IDLE)
        self._check = loop.call_later(_idle_check(), self._close_idle)


class _Connection(asyncio.BufferedProtocol):
    """One asker. `is_waiting`: it is among those whose turn will come. `held` is what it has in memory, in bytes."""

    def __init__(self, connections: Connections, answerer: Answerer, forwarder: Forwarder | None = None) -> None:
        self.is_waiting = self.has_asked = False
        self.held = 0
        self._connections = connections
        self._answerer = answerer
        self._forwarder = forwarder
        self._forwarded = 0
        self._received = bytearray()
        self._is_unread = False
        self._has_ended = False
        # what is left of the reply to a secondary
        self._transfer: Iterator[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_UNREAD_MAX)
        self._source = str(transport.get_extra_info("peername")[0])
        self._local: IPAddress = parse_address(transport.get_extra_info("sockname")[0])
        self._connections.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.closed(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._connections.read_into

    def buffer_updated(self, size: int) -> None:
        self._received += self._connections.read_into[:size]
        if len(self._received) > _WAITING_MAX:
            self._transport.pause_reading()
        self._weigh()
        self._wait_turn()

    def eof_received(self) -> bool:
        """Who has asked all may say so, and is answered still."""
        self._has_ended = True
        if not self._has_work():
            return False
        self._wait_turn()
        return True

    def pause_writing(self) -> None:
        self._is_unread = True

    def resume_writing(self) -> None:
        self._is_unread = False
        self._connections.used(self)
        self._weigh()
        self._wait_turn()

    def answer_one(self) -> None:
        """Answer the first query that is whole; a message that gets no reply changes nothing."""
        if self._is_unread or not self._has_work():
            return
        reply = self._next_reply()
        self.has_asked = True
        self._connections.used(self)
        if reply is not None:
            self._write(reply)
        self._weigh()
        if len(self._received) <= _WAITING_MAX and not self._has_ended:
            self._transport.resume_reading()
        self._wait_turn()
        self._close_when_done()

    def _deliver(self, reply: bytes) -> None:
        """What was passed on is answered; there may be nobody any more."""
        self._forwarded -= 1
        if not self._transport.is_closing():
            self._write(reply)
            self._connections.used(self)
            self._weigh()
            self._close_when_done()

    def _write(self, reply: bytes) -> None:
        self._transport.write(len(reply).to_bytes(_LENGTH_SIZE, "big") + reply)

    def _weigh(self) -> None:
        if self._connections.is_open(self):
            self._connections.holds(self, len(self._received) + self._transport.get_write_buffer_size())

    def _close_when_done(self) -> None:
        if self._has_ended and not self._forwarded and not self._has_work():
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    def _wait_turn(self) -> None:
        if not self.is_waiting and not self._is_unread and self._has_work():
            self.is_waiting = True
            self._connections.ready(self)

    def _has_work(self) -> bool:
        return self._transfer is not None or self._query_size() is not None

    def _next_reply(self) -> bytes | None:
        """The next message of a transfer, or the reply to the next query."""
        if self._transfer is None:
            size = self._query_size()
            assert size is not None
            query = bytes(self._received[_LENGTH_SIZE : _LENGTH_SIZE + size])
            del self._received[: _LENGTH_SIZE + size]
            transfers = self._connections.transfers
            self._transfer = None if transfers is None else transfers.respond(query, self._source, Transport.TCP)
            if self._transfer is None:
                return self._answered(query)
        message = next(self._transfer, None)
        if message is None:
            self._transfer = None
        return message

    def _answered(self, query: bytes) -> bytes | None:
        reply = self._answerer.answer(query, self._source, self._local, Transport.TCP)
        if self._forwarder is None or reply is None or not is_refused(reply):
            return reply
        if not self._forwarder.forward(query, self._source, self._deliver, whole=True):
            return reply
        self._forwarded += 1
        return None

    def _query_size(self) -> int | None:
        """The size of the first query, when all of it is here."""
        if len(self._received) < _LENGTH_SIZE:
            return None
        size = int.from_bytes(self._received[:_LENGTH_SIZE], "big")
        return size if len(self._received) >= _LENGTH_SIZE + size else None


def _idle_check() -> float:
    return min(_IDLE_CHECK, IDLE_TIMEOUT / 2)
