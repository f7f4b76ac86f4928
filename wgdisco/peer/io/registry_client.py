"""The registry's API as a member uses it: HTTP inside the tunnel, and its stream of events.

The socket is bound to the tunnel's interface: no other network is ever asked. What comes back is bounded in size and
checked field by field (`peer.records`); anything else is an error or ends the stream, which is then begun anew.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv6Address
from typing import Any, TypeVar

import aiohttp

from wgdisco.api import (
    HEARTBEAT,
    SCHEMA,
    CandidatesRequest,
    EndpointChange,
    EnrolRequest,
    MemberRecord,
    OffersRequest,
    Order,
    PunchRequest,
    Receipt,
    Removed,
    RotateRequest,
    SelfRecord,
    Snapshot,
    StunRecord,
    to_json,
)
from wgdisco.endpoint import IPAddress
from wgdisco.errors import RemoteError
from wgdisco.keys import PublicKey
from wgdisco.paths import PathsRequest
from wgdisco.peer import records
from wgdisco.peer.clock import parse_date
from wgdisco.peer.io.reply import CHUNK, MAX_REPLY_SIZE, bounded, phrase, reason
from wgdisco.peer.stream import EventParser, ServerEvent
from wgdisco.proof import LeaveRequest
from wgdisco.tunnel.messages import REKEY_AFTER_TIME

HTTP_PORT = 80
REQUEST_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
# How much later than it is due a comment of the stream may come
SILENCE = 35.0
# What was sent so lately that a handshake now follows from it, where it was due: the stream needs no proof
JUST_NOW = 1.0
# No handshake follows another that soon where nothing has happened; some of WireGuard's REKEY_AFTER_TIME for a late one
DUE_AFTER = REKEY_AFTER_TIME - 5.0
# For what must not wait for a connection: one is kept, silently, and given up when it does not answer in time
KEPT_FOR = 3600.0
KEPT_TIMEOUT = 2.0
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 10.0
# How often, in seconds, how many times and for how long the far end is asked whether it still knows the stream
PROBE_INTERVAL = 1
PROBE_COUNT = 3
PROBE_TIME = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StreamUp:
    """The registry answers."""


@dataclass(frozen=True, slots=True)
class StreamDown:
    """The stream has ended or could not be had; `why` is one phrase. It is tried again.

    `is_other_version`: because the registry speaks another version of the API.
    """

    why: str
    is_other_version: bool = False


@dataclass(frozen=True, slots=True)
class RegistryTime:
    """The registry's clock says `unix`, in seconds."""

    unix: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The stream is alive; `silence` is how long nothing was heard on it before, in seconds.

    It is 0 where another interval was asked for meanwhile.
    """

    silence: float = 0.0


StreamEvent = (
    StreamUp
    | StreamDown
    | RegistryTime
    | Heartbeat
    | Snapshot
    | MemberRecord
    | Removed
    | EndpointChange
    | Order
    | Receipt
)

_PARSERS: Mapping[str, Callable[[Any], StreamEvent]] = {
    "snapshot": records.parse_snapshot,
    "member": records.parse_member,
    "receipt": Receipt.from_json,
    "removed": records.parse_removed,
    "endpoint": records.parse_endpoint,
    "order": records.parse_order,
}


class RegistryClient:
    """One registry at `address` inside the tunnel on `interface` (None: not bound, for an address of this host)."""

    def __init__(
        self, address: IPAddress, interface: str | None, port: int = HTTP_PORT, silence: float = SILENCE
    ) -> None:
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        self._base = f"http://{host}" if port == HTTP_PORT else f"http://{host}:{port}"
        self._interface = interface
        self.heartbeat = HEARTBEAT  # what the registry was asked for
        self._silence = silence
        self._heard_at = float("-inf")
        self._shook_hands_at = float("-inf")
        self._connection: asyncio.Transport | None = None  # the stream's
        self._begin_anew = asyncio.Event()
        self._kept: aiohttp.ClientSession | None = None

    async def enrol(self, request: EnrolRequest) -> SelfRecord:
        """`POST /v1/enrol`. RemoteError with the registry's reason, or for what cannot be understood."""
        reply = await self._post("/v1/enrol", {"schema": SCHEMA, **asdict(request)})
        try:
            return records.parse_self(reply)
        except ValueError as error:
            raise RemoteError(f"the registry's answer cannot be used: {error}") from error

    async def announce_key(self, asked: RotateRequest) -> None:
        """`POST /v1/self/rotate`: another key will follow ours. RemoteError with the registry's reason."""
        await self._post("/v1/self/rotate", {"schema": SCHEMA, **asdict(asked)})

    async def hand_back(self, receipt: str) -> bool:
        """`POST /v1/receipt`: what the registry gave us to keep; True when it had forgotten some of it."""
        reply = await self._post("/v1/receipt", to_json(Receipt(receipt)))
        return isinstance(reply, dict) and reply.get("recalled") is True

    def shook_hands(self, at: float) -> None:
        """The device has, with the registry's, at `at` on its clock: it may have begun anew, and not know the stream.

        Not where the handshake was due, and the registry has just sent something: to acknowledge that is what most of
        those follow from.
        """
        is_due, self._shook_hands_at = at - self._shook_hands_at >= DUE_AFTER, at
        if not is_due or asyncio.get_running_loop().time() - self._heard_at >= JUST_NOW:
            self.probe()

    def probe(self) -> None:
        """Have the kernels find out whether the far end still has the stream; one that it has not ends at once.

        TCP keepalive for PROBE_TIME (RFC 9293, section 3.8.4): a registry that was killed and is back answers with a
        reset, which nothing else would bring about, since only it ever sends.
        """
        if self._connection is None or self._connection.is_closing():
            return
        sock = self._connection.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has just ended
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBE_COUNT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_INTERVAL)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        asyncio.get_running_loop().call_later(PROBE_TIME, _end_probe, self._connection)

    def begin_anew(self) -> None:
        """Cut the stream, or the wait for it, and ask for a snapshot."""
        self._begin_anew.set()
        if self._connection is not None:
            self._connection.abort()

    async def punch(self, peer: PublicKey, *, leave: bool = False) -> bool:
        """`POST /v1/punch`: order `peer` and us to punch; False when it is offline or no member (any longer).

        Or `leave` the relay: the two reach each other directly.

        RemoteError when there is no answer, or not now. It goes over a connection that is there already: a new one
        would cost a round trip.
        """
        status, _ = await self._ask("POST", "/v1/punch", to_json(PunchRequest(peer.to_text(), leave)))
        if status not in (202, 404, 409):
            raise RemoteError(f"the registry answers {status}")
        return status == 202

    async def tell_candidates(self, request: CandidatesRequest) -> None:
        """`PUT /v1/self/candidates`: where we may be reached. RemoteError when the registry does not take it."""
        if not await self._tell("candidates", to_json(request)):
            raise RemoteError("the registry takes no candidates")

    async def tell_offers(self, request: OffersRequest) -> None:
        """`PUT /v1/self/offers`: what is behind us. RemoteError when the registry does not take it."""
        if not await self._tell("offers", to_json(request)):
            raise RemoteError("the registry is of a version that knows no subnets behind members: update it")

    async def tell_paths(self, request: PathsRequest) -> bool:
        """`PUT /v1/self/paths`: what our paths are; False at a registry that does not want to know."""
        return await self._tell("paths", {"schema": SCHEMA, **asdict(request)})

    async def _tell(self, what: str, body: Any) -> bool:
        status, _ = await self._ask("PUT", f"/v1/self/{what}", body)
        if status not in (200, 404):
            raise RemoteError(f"the registry answers {status}")
        return status == 200

    async def leave(self, asked: LeaveRequest) -> None:
        """`DELETE /v1/self`: we are no member any longer. RemoteError when the registry does not take it."""
        status, _ = await self._ask("DELETE", "/v1/self", {"schema": SCHEMA, **asdict(asked)})
        if status != 202:
            raise RemoteError(f"the registry answers {status}")

    async def stun(self) -> StunRecord:
        """`GET /v1/stun`: where to find out how our NAT behaves; nowhere, at a registry that does not tell."""
        status, body = await self._ask("GET", "/v1/stun", None)
        if status == 404:
            return StunRecord([], "", "", 0)
        if status != 200:
            raise RemoteError(f"the registry answers {status}")
        try:
            return StunRecord.from_json(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise RemoteError("the registry's answer cannot be used") from error

    async def close(self) -> None:
        """Close the connection that was kept."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await kept.close()

    async def follow(self) -> AsyncIterator[StreamEvent]:
        """`GET /v1/events` without end: a registry that is gone is tried again."""
        backoff = BACKOFF_FIRST
        was_other_version = False
        last_id = ""
        while True:
            parser = EventParser(last_id)
            is_up = is_other_version = False
            try:
                async with contextlib.aclosing(self._stream(parser)) as stream:
                    async for event in stream:
                        if not is_up:
                            is_up = True
                            backoff = backoff if was_other_version else BACKOFF_FIRST
                            yield StreamUp()
                        yield event
                why, last_id = "the registry ended the stream", parser.last_id
            except ValueError as error:
                # What was missed is unknown: begin with a snapshot.
                why, last_id = f"the registry sent what cannot be used: {error}", ""
                is_other_version = isinstance(error, records.VersionError)
            except RemoteError as error:
                why, last_id = error.reason, ""
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why, last_id = phrase(error), parser.last_id
            yield StreamDown(why, is_other_version)
            was_other_version = is_other_version
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff):
                    await self._begin_anew.wait()
            backoff = min(backoff * 2, BACKOFF_MOST)
            if self._begin_anew.is_set():
                self._begin_anew.clear()
                backoff, last_id = BACKOFF_FIRST, ""

    async def _stream(self, parser: EventParser) -> AsyncGenerator[StreamEvent, None]:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if parser.last_id:
            headers["Last-Event-ID"] = parser.last_id
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        async with (
            self._session(timeout) as session,
            await self._in_time(
                session.get(f"{self._base}/v1/events", headers=headers, allow_redirects=False)
            ) as response,
        ):
            if response.status != 200:
                raise RemoteError(await reason(response))
            if response.content_type != "text/event-stream":
                raise ValueError("not a stream of events")
            self._connection = None if response.connection is None else response.connection.transport
            told = parse_date(response.headers.get("Date"))
            if told is not None:
                yield RegistryTime(told)
            yield Heartbeat()
            self._heard_at, heartbeat = asyncio.get_running_loop().time(), self.heartbeat
            try:
                while chunk := await self._in_time(response.content.read(CHUNK)):
                    now = asyncio.get_running_loop().time()
                    silence, self._heard_at = now - self._heard_at, now
                    if heartbeat != self.heartbeat:
                        silence, heartbeat = 0.0, self.heartbeat  # this comment was not waited for
                    events = parser.feed(chunk)
                    if not events:
                        yield Heartbeat(silence)
                    for event in events:
                        parsed = _parse_event(event)
                        if parsed is not None:
                            yield parsed
                        if self._begin_anew.is_set():
                            return
            finally:
                self._connection = None

    async def _in_time(self, what: Awaitable[_T]) -> _T:
        """What comes before the stream has been silent for too long; else TimeoutError."""
        async with asyncio.timeout(self.heartbeat + self._silence):
            return await what

    async def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body; on a new connection when the kept one has died. RemoteError when there is no answer."""
        for is_last in (False, True):
            if self._kept is None:
                self._kept = self._session(aiohttp.ClientTimeout(total=KEPT_TIMEOUT), keep=True)
            kept = self._kept
            try:
                async with kept.request(method, f"{self._base}{path}", json=body, allow_redirects=False) as response:
                    answer = response.status, await bounded(response, MAX_REPLY_SIZE)
                if is_last:  # it has forgotten one connection, and so the other
                    self.probe()
                return answer
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                if self._kept is kept:
                    self._kept = None
                await kept.close()
                if is_last:
                    raise RemoteError(f"the registry does not answer inside the tunnel ({phrase(error)})") from error
        raise AssertionError("the second try returns or raises")

    async def _post(self, path: str, body: Any) -> Any:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        headers = {"Accept-Encoding": "identity"}
        try:
            async with (
                self._session(timeout) as session,
                session.post(f"{self._base}{path}", json=body, headers=headers, allow_redirects=False) as response,
            ):
                if response.status not in (200, 201, 202, 204):
                    raise RemoteError(await reason(response))
                reply = await bounded(response, MAX_REPLY_SIZE)
                return json.loads(reply) if reply else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RemoteError(f"the registry does not answer inside the tunnel ({phrase(error)})") from error
        except (ValueError, RecursionError) as error:
            raise RemoteError("the registry's answer cannot be used: it is too large or not JSON") from error

    def _session(self, timeout: aiohttp.ClientTimeout, *, keep: bool = False) -> aiohttp.ClientSession:
        connector = (
            aiohttp.TCPConnector(keepalive_timeout=KEPT_FOR, limit=4, socket_factory=self._socket)
            if keep
            else aiohttp.TCPConnector(force_close=True, socket_factory=self._socket)
        )
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )

    def _socket(self, address: Any) -> socket.socket:
        family, kind, protocol = address[:3]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            if self._interface is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode() + b"\0")
        except OSError:
            sock.close()
            raise
        return sock


def _end_probe(connection: asyncio.Transport) -> None:
    if not connection.is_closing():
        with contextlib.suppress(OSError):
            connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)


def _parse_event(event: ServerEvent) -> StreamEvent | None:
    """None for an event this version does not know."""
    parser = _PARSERS.get(event.name)
    if parser is None:
        return None
    try:
        data = json.loads(event.data)
        records.check_version(data)
        return parser(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
