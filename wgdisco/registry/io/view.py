"""`GET /v1/view` and its events, and `PUT /v1/self/paths`: what the network looks like, and what members add to that.

A stream is told what is different from what it was shown, once a second at most. Nothing is queued for it: who takes
too long to take the next piece is cut.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from aiohttp import web

from wgdisco.api import SCHEMA
from wgdisco.machine import boot_time
from wgdisco.paths import PathsRequest
from wgdisco.registry.facts import Member, Role
from wgdisco.registry.histories import INTERVAL
from wgdisco.registry.io.connection import give_up_soon
from wgdisco.registry.io.gate import Gate, Rates, RefusedError, source_of
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.view import Row, View, changed_rows, view_json, with_members
from wgdisco.tunnel.events import DeviceStatus

STREAMS_MAX = 4
CHANGE_INTERVAL = 1.0
COMMENT_INTERVAL = 15.0
COMMENT = ": still here\n\n"
WRITE_TIMEOUT = 10.0
# How long rows are kept, in seconds, when nobody looks
ROWS_FOR = 60.0
PATHS_BODY_MAX_SIZE = 512 * 1024
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_NOTHING: Row = {"drops": {}, "relay": {}}


class _Stream:
    """One open stream, and what it was shown."""

    def __init__(self, member: Member, transport: asyncio.Transport | None) -> None:
        self.number = member.number
        self.role = member.role
        self.shown: dict[str, Row] = {}
        self.told: Row = {}
        self.ended = False
        self._transport = transport

    def cut(self) -> None:
        """End it at once."""
        self.ended = True
        if self._transport is not None:
            self._transport.abort()


class ViewApi:
    """Adds its routes to `router`. `status` asks the device; `rest` tells drops and what the relay counts."""

    def __init__(self, ledger: Ledger, gate: Gate, router: web.UrlDispatcher, view: View) -> None:
        self.status: Callable[[], DeviceStatus] = lambda: DeviceStatus(None, 0, 0, (), {})
        self.rest: Callable[[DeviceStatus], Row] = lambda _status: dict(_NOTHING)
        self.serial: Callable[[], int] = lambda: 0
        self._membership = ledger.membership
        self._gate = gate
        self._view = view
        self._looks = Rates(20, 0.2)
        self._reports = Rates(5, 2.0)
        self._looked_at = float("-inf")
        self._rest: Row = _NOTHING
        self._streams: list[_Stream] = []
        router.add_get("/v1/view", self._get, allow_head=False)
        router.add_get("/v1/view/events", self._events, allow_head=False)
        router.add_put("/v1/self/paths", self._paths)

    async def run(self) -> None:
        """Sample what goes through the device, until cancelled."""
        while True:
            self._view.sample(self.status())
            if not self._streams and boot_time() - self._looked_at > ROWS_FOR:
                self._view.forget()
            await asyncio.sleep(INTERVAL)

    def follow(self) -> None:
        """Membership has changed: streams of who is gone, or has another role, end."""
        self._view.follow()
        self._looked_at = float("-inf")
        roles = {member.number: member.role for member in self._membership.members.values()}
        for stream in list(self._streams):
            if roles.get(stream.number) is not stream.role:
                stream.cut()

    def close(self) -> None:
        """Cut every stream."""
        for stream in list(self._streams):
            stream.cut()

    # The paths

    async def _get(self, request: web.Request) -> web.StreamResponse:
        member = await self._gate.member(request)
        self._looks.take(source_of(request))
        response = web.StreamResponse(headers={"Content-Type": "application/json", **_HEADERS})
        await response.prepare(request)
        give_up_soon(request.transport)
        try:
            await _send(response, self._whole(member, _Stream(member, None)))
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        member = await self._gate.member(request)
        self._looks.take(source_of(request))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **_HEADERS})
        await response.prepare(request)
        give_up_soon(request.transport)
        stream = _Stream(member, request.transport)
        theirs = [other for other in self._streams if other.number == stream.number]
        if len(theirs) >= STREAMS_MAX:
            theirs[0].cut()
            self._streams.remove(theirs[0])
        self._streams.append(stream)
        try:
            await self._tell(stream, response)
        except (ConnectionError, TimeoutError):
            stream.cut()
        finally:
            if stream in self._streams:
                self._streams.remove(stream)
        return response

    async def _tell(self, stream: _Stream, response: web.StreamResponse) -> None:
        told_at = float("-inf")
        while not stream.ended:
            member = self._membership.by_number(stream.number)
            if member is None:
                return
            pieces = self._next(member, stream)
            if pieces is None and time.monotonic() - told_at >= COMMENT_INTERVAL:
                pieces = [COMMENT]
            if pieces is not None:
                told_at = time.monotonic()
                await _send(response, pieces)
            await asyncio.sleep(CHANGE_INTERVAL)

    async def _paths(self, request: web.Request) -> web.StreamResponse:
        await self._gate.member(request)
        self._reports.take(source_of(request))
        large = request.clone(client_max_size=PATHS_BODY_MAX_SIZE)
        member, told = await self._gate.told(large, PathsRequest.from_json)
        taken = self._view.reports.take(self._membership, member, told.paths, time.time())
        if taken is None:
            raise RefusedError(503, "members have reported as many paths as this registry keeps")
        return web.json_response({"schema": SCHEMA, "paths": taken})

    # What is told

    def _look(self) -> None:
        """Once for all streams that are told in the same second."""
        now = boot_time()
        if now - self._looked_at >= CHANGE_INTERVAL / 2:
            self._looked_at = now
            status = self.status()
            self._view.look(status, time.time(), now)
            self._rest = self.rest(status)

    def _told(self, member: Member) -> Row:
        """All but the members."""
        rest = self._rest if member.role is Role.ADMIN else _NOTHING
        invitations = self._view.invitations(member, time.time())
        return {**self._view.head(member), "invitations": invitations, **rest}

    def _next(self, member: Member, stream: _Stream) -> Iterable[str] | None:
        """The next event, None when there is nothing new."""
        if not stream.told:
            return chain(["event: view\ndata: "], self._whole(member, stream), ["\n\n"])
        change = self._change(member, stream)
        return None if change is None else chain(["event: change\ndata: "], with_members(*change), ["\n\n"])

    def _whole(self, member: Member, stream: _Stream) -> Iterator[str]:
        self._look()
        stream.shown, stream.told = self._view.rows(member), self._told(member)
        serial = self.serial() if member.role is Role.ADMIN else None
        return view_json(stream.told, serial, int(time.time()), list(stream.shown.values()))

    def _change(self, member: Member, stream: _Stream) -> tuple[Row, list[Row]] | None:
        """What is new, if anything, and the members of whom something is."""
        self._look()
        shown, old = stream.shown, stream.told
        rows, new = stream.shown, stream.told = self._view.rows(member), self._told(member)
        changed = changed_rows(shown, rows)
        removed = [key for key in shown if key not in rows]
        if not changed and not removed and old == new:
            return None
        always = {"drops": new["drops"], "relay": new["relay"]}
        rest = {name: new[name] for name in ("network", "self", "invitations") if new[name] != old[name]}
        return {"time": int(time.time()), "removed": removed, **always, **rest}, changed


async def _send(response: web.StreamResponse, pieces: Iterable[str]) -> None:
    """Others have their turn in between; TimeoutError when it takes too long."""
    for piece in pieces:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await response.write(piece.encode())
        await asyncio.sleep(0)
