"""A stream of events as a member of a crowd has it."""

import asyncio
import re
from collections import Counter
from typing import Protocol

from bench import population

INSIDE = population.inner(1)
_TAIL = 2048
_ENDPOINT = re.compile(rb'"endpoint": ?"([0-9.:]+)"')


class Listeners(Protocol):
    """Whose stream it is, and who counts."""

    counts: Counter[str]

    def told(self, stream: "Stream", endpoints: list[bytes]) -> None:
        """A stream says where members are now."""

    def reopen(self, number: int) -> None:
        """That member's was cut."""


class Stream(asyncio.Protocol):
    """One member's stream of events. `ready` when it has had its snapshot, `ended` when it is cut."""

    def __init__(self, crowd: Listeners, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._rest = b""
        self._in_snapshot = self.is_ready = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(f"GET /v1/events HTTP/1.1\r\nHost: {INSIDE}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Some of it."""
        crowd = self._crowd
        crowd.counts["stream bytes"] += len(data)
        text = self._rest + data
        if self.is_ready:
            if b"event: endpoint" in text:
                crowd.told(self, _ENDPOINT.findall(text))
            end = text.rfind(b"\n\n")
            self._rest = text[end + 2 :][-_TAIL:] if end >= 0 else text[-_TAIL:]
            return
        self._rest = text[-64:]
        self._in_snapshot = self._in_snapshot or b"event: snapshot" in text
        if self._in_snapshot and self._rest.endswith(b"\n\n\r\n"):
            self.is_ready, self._rest = True, b""
            crowd.counts["ready"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """It is cut."""
        self._crowd.counts["streams cut"] += 1
        self._crowd.counts["ready"] -= self.is_ready
        self.is_ready = False
        if self._transport is not None:
            self._crowd.reopen(self._number)

    def close(self) -> None:
        """Leave it."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
