"""What every request to the registry's API goes through: whose it is, by which name it came, and how often."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from wgdisco.api import SCHEMA
from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.errors import LocalError, RemoteError
from wgdisco.registry.facts import Member
from wgdisco.registry.io.ledger import Ledger

LOG = logging.getLogger(__name__)

ENROL_BURST = 10
ENROL_INTERVAL = 1.0
_RATES_MAX = 4096
# Half a body is held for so many seconds
BODY_TIMEOUT = 30.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")


class RefusedError(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gate:
    """`names` are the host names the registry goes by, besides its addresses, `hosts`."""

    def __init__(self, ledger: Ledger, names: Sequence[str]) -> None:
        self.hosts: set[str] = set()
        self._ledger = ledger
        self._names = {name.lower().removesuffix(".") for name in names}
        self._rates = Rates(ENROL_BURST, ENROL_INTERVAL)

    @web.middleware
    async def checked(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """The middleware: no request of another site gets in, and no error out but as one line."""
        try:
            self._check_host(request)
            if request.method not in ("GET", "HEAD"):
                self._check_change(request)
            return await handler(request)
        except RefusedError as refusal:
            return error(refusal.status, str(refusal))
        except RemoteError as refusal:
            return error(403, refusal.reason)
        except LocalError as trouble:
            LOG.error("%s", trouble)
            return error(503, "the registry cannot store this now: ask whoever runs it, and try again")
        except web.HTTPException as answer:
            told = error(answer.status, answer.reason.lower())
            if "Allow" in answer.headers:  # with 405 (RFC 9110 section 15.5.6)
                told.headers["Allow"] = answer.headers["Allow"]
            return told

    def _check_host(self, request: web.Request) -> None:
        """Only our own names: a page of another site that points its name here (DNS rebinding) does not get in."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise RefusedError(421, "this host is not served here: use the registry's address in the tunnel")

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        if name.startswith("["):
            name, _, port = name[1:].partition("]")
            port = port.removeprefix(":")
        else:
            name, _, port = name.partition(":")
        if port and not (port.isascii() and port.isdigit()):
            return False
        try:
            return str(parse_address(name)) in self.hosts
        except ValueError:
            return name.removesuffix(".") in self._names

    def _check_change(self, request: web.Request) -> None:
        if request.content_type != "application/json":
            raise RefusedError(415, "Content-Type must be application/json")
        for origin in request.headers.getall("Origin", []):
            scheme, separator, host = origin.partition("://")
            if not separator or scheme != "http" or not self._is_ours(host):
                raise RefusedError(403, "another site may not ask for this")

    async def member(self, request: web.Request) -> Member:
        """Whose own address the request comes from."""
        member = self._ledger.membership.by_address(source_of(request))
        if member is None:
            raise RefusedError(403, "only members may ask: join with a link from `wgdisco registry invite`")
        if not member.proven:
            # its first request may overtake the event of the handshake that carried it
            key = member.public_key
            await self._ledger.change(lambda: (self._ledger.membership.prove(key, time.time()), None))
            member = self._ledger.membership.by_address(source_of(request))
            if member is None:
                raise RefusedError(403, "this membership has just ended")
        return member

    async def told(self, request: web.Request, parse: Callable[[Any], _T]) -> tuple[Member, _T]:
        """Who asks, and the request's body. That may be long in coming: who is gone by then asks for nothing."""
        told = await body_of(request, parse)
        return await self.member(request), told

    def limit(self, request: web.Request) -> None:
        """Not too many changes of one address."""
        self._rates.take(source_of(request))


class ServerLog(logging.LoggerAdapter[logging.Logger]):
    """Of the HTTP server: what is no HTTP is counted (`drops`), and not told with a traceback each time."""

    def __init__(self) -> None:
        super().__init__(LOG)
        self.drops: Counter[str] = Counter()

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As a logger does."""
        if isinstance(kwargs.get("exc_info"), HttpProcessingError):
            self.drops["api: not HTTP"] += 1
        else:
            super().log(level, msg, *args, **kwargs)


class Rates:
    """Of each address `burst` at once, and one each `interval` seconds.

    What is kept is when the bucket would be full.
    """

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._full_at: dict[IPAddress, float] = {}

    def take(self, source: IPAddress) -> None:
        """One more; 429 when it is one too many."""
        now = time.monotonic()
        full_at = max(now, self._full_at.pop(source, now)) + self._interval
        if full_at > now + self._burst * self._interval:
            self._full_at[source] = full_at - self._interval
            raise RefusedError(429, "too many requests: wait a second")
        self._full_at[source] = full_at
        if len(self._full_at) > _RATES_MAX:
            del self._full_at[next(iter(self._full_at))]


def source_of(request: web.Request) -> IPAddress:
    """The address the request came from, as the socket has it; ValueError never: the kernel wrote it."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if peer is None:
        raise RefusedError(400, "the connection is gone")
    return parse_address(peer[0])


async def body_of(request: web.Request, parse: Callable[[Any], _T]) -> _T:
    """The request's body, parsed from JSON; 400 with what is wrong with it, 408 when it is too slow."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            data = await request.read()
    except TimeoutError as late:
        raise RefusedError(408, "the body did not come in time: send it at once") from late
    except (ConnectionError, web.RequestPayloadError) as wrong:
        raise RefusedError(400, "the body is not whole") from wrong
    try:
        return parse(json.loads(data))
    except (ValueError, RecursionError) as wrong:
        reason = str(wrong) if type(wrong) is ValueError else "the body is not JSON"
        raise RefusedError(400, reason) from wrong


def error(status: int, reason: str) -> web.Response:
    """An error as the API tells it."""
    return web.json_response({"schema": SCHEMA, "error": reason}, status=status)
