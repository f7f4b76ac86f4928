"""The registry's API inside the tunnel (formats.md, API): who asks is told by the address the request comes from.

Sockets are bound to the interface as well as the address: a neighbour on the LAN cannot speak from a member's address.
"""

import asyncio
import hmac
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from ipaddress import IPv4Address
from typing import Any

from aiohttp import web

from wgdisco.api import (
    HEARTBEAT,
    SCHEMA,
    CandidatesRequest,
    EnrolRequest,
    OffersRequest,
    PunchRequest,
    Receipt,
    RotateRequest,
    StunRecord,
    to_json,
)
from wgdisco.endpoint import IPAddress
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.offers import parse_subnet
from wgdisco.proof import LeaveRequest, rotation_proof
from wgdisco.registry.approval import offer
from wgdisco.registry.candidates import validate
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Change, Kind, Revoked
from wgdisco.registry.io.connection import give_up_soon, is_acknowledged
from wgdisco.registry.io.described import add_document
from wgdisco.registry.io.feed import Consumer, Feed
from wgdisco.registry.io.gate import Gate, RefusedError, ServerLog, body_of, source_of
from wgdisco.registry.io.leaving import let_go, may_leave
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.turns import Turns
from wgdisco.registry.orders import Asked, Orders
from wgdisco.registry.receipt import recall, seal, unseal
from wgdisco.registry.records import member_records, network_record, order_record, self_record
from wgdisco.tunnel.noise import static_static

LOG = logging.getLogger(__name__)

PORT = 80
BODY_MAX_SIZE = 16 * 1024
# A member keeps a connection for what must not wait for one
KEPT_FOR = 3600.0
# Of one address; a member has one or two, and STREAMS_MAX at most while it comes and goes
CONNECTIONS_MAX = 32
# All members come at once when the registry was away
BACKLOG = 1024


class ApiServer:
    """See the module's docstring. `names` are the host names it goes by, besides its addresses.

    `admit` is called with two members that the relay is to forward between, `leave` with one that needs it no more to
    reach another, `proven` asked for addresses a member was
    seen at beside its endpoint, `told` called when a member has said where it may be reached; `stun` says where
    and with what a member may ask about its NAT.
    """

    def __init__(self, ledger: Ledger, directory: Directory, feed: Feed, names: Sequence[str]) -> None:
        self._ledger = ledger
        self._directory = directory
        self._feed = feed
        self.gate = Gate(ledger, names)
        self._accepting: list[asyncio.Task[None]] = []
        self._open: dict[str, list[asyncio.Transport]] = {}  # by address; no more of these than the tunnel has
        self.orders = Orders()
        self._turns = Turns()
        self.admit: Callable[[PublicKey, PublicKey], bool] = lambda _one, _other: False
        self.leave: Callable[[PublicKey, PublicKey], None] = lambda _one, _other: None
        self.proven: Callable[[PublicKey], Iterable[IPAddress]] = lambda _key: ()
        self.told: Callable[[PublicKey], None] = lambda _key: None
        self.stun: Callable[[PublicKey], StunRecord] | None = None
        application = web.Application(middlewares=[self.gate.checked], client_max_size=BODY_MAX_SIZE)
        self.router = application.router
        application.router.add_post("/v1/enrol", self._enrol)
        application.router.add_get("/v1/self", self._self, allow_head=False)
        application.router.add_get("/v1/members", self._members, allow_head=False)
        application.router.add_get("/v1/events", self._events, allow_head=False)
        application.router.add_get("/v1/stun", self._stun, allow_head=False)
        application.router.add_get("/v1/health", self._health, allow_head=False)
        application.router.add_delete("/v1/self", self._leave)
        application.router.add_post("/v1/self/rotate", self._rotate)
        application.router.add_post("/v1/receipt", self._recall)
        application.router.add_put("/v1/self/candidates", self._candidates)
        application.router.add_put("/v1/self/offers", self._offers)
        application.router.add_post("/v1/punch", self._punch)
        add_document(application.router, self.gate.member)
        self.log = ServerLog()
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=0.5,
            keepalive_timeout=KEPT_FOR,
            logger=self.log,
            auto_decompress=False,  # no member compresses what it asks
        )

    async def start(self, addresses: Sequence[IPAddress], interface: str | None, port: int = PORT) -> list[int]:
        """Listen on each address and on `interface` alone; the ports. LocalError when it cannot be.

        May be called again, for more.
        """
        if self._runner.server is None:
            await self._runner.setup()
        ports = []
        for address in addresses:
            listener = _listen(address, port, interface)
            ports.append(int(listener.getsockname()[1]))
            self.gate.hosts.add(str(address))
            self._accepting.append(asyncio.ensure_future(self._accept(listener)))
        return ports

    async def close(self) -> None:
        """End every stream and connection."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._feed.end_all()
        await self._runner.cleanup()

    async def _accept(self, listener: socket.socket) -> None:
        """Let connections in, of no address so many that there is no descriptor left for others."""
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None
        with listener:
            while True:
                try:
                    accepted, address = await loop.sock_accept(listener)
                except OSError:
                    await asyncio.sleep(0.1)  # no descriptor left, or it is gone already
                    continue
                theirs = [one for one in self._open.pop(address[0], ()) if not one.is_closing()]
                if len(theirs) < CONNECTIONS_MAX:
                    try:
                        theirs.append((await loop.connect_accepted_socket(server, accepted))[0])
                    except OSError:
                        accepted.close()
                else:
                    accepted.close()
                if theirs:
                    self._open[address[0]] = theirs

    # The paths

    async def _enrol(self, request: web.Request) -> web.StreamResponse:
        source = source_of(request)
        membership = self._ledger.membership
        if not isinstance(source, IPv4Address) or all(i.address != source for i in membership.invitations.values()):
            raise RefusedError(404, "only who holds a join link may ask for this")
        self.gate.limit(request)
        asked = await body_of(request, EnrolRequest.from_json)
        key, now = PublicKey.from_text(asked.public_key), time.time()
        member = await self._ledger.change(lambda: membership.enrol(source, key, asked.name, now))
        return web.json_response(to_json(self_record(membership, self._directory, member)))

    async def _self(self, request: web.Request) -> web.StreamResponse:
        member = await self.gate.member(request)
        return web.json_response(to_json(self_record(self._ledger.membership, self._directory, member)))

    async def _members(self, request: web.Request) -> web.StreamResponse:
        member = await self.gate.member(request)
        records = member_records(self._ledger.membership, self._directory, member)
        return web.json_response({"schema": SCHEMA, "members": [asdict(record) for record in records]})

    async def _health(self, request: web.Request) -> web.StreamResponse:
        await self.gate.member(request)
        epoch = network_record(self._ledger.membership).epoch
        return web.json_response({"schema": SCHEMA, "status": "ok", "epoch": epoch, "time": int(time.time())})

    async def _stun(self, request: web.Request) -> web.StreamResponse:
        member = await self.gate.member(request)
        if self.stun is None:
            raise RefusedError(404, "this registry has no STUN responder")
        return web.json_response(to_json(self.stun(member.public_key)), headers={"Cache-Control": "no-store"})

    async def _rotate(self, request: web.Request) -> web.StreamResponse:
        await self.gate.member(request)
        self.gate.limit(request)
        member, asked = await self.gate.told(request, RotateRequest.from_json)
        next_key = PublicKey.from_text(asked.next_key)
        membership = self._ledger.membership
        current = member.public_key
        shared = static_static(membership.network.private_key, current)
        proof = asked.proof.encode(errors="replace")
        if shared is None or not hmac.compare_digest(rotation_proof(shared, next_key).encode(), proof):
            raise RefusedError(403, "only who holds the member's key may change it")

        def command() -> tuple[list[Any], None]:
            return membership.announce_key(current, next_key), None

        await self._ledger.change(command)
        renewed = membership.members.get(current, member)
        return web.json_response(to_json(self_record(membership, self._directory, renewed)))

    async def _leave(self, request: web.Request) -> web.StreamResponse:
        await self.gate.member(request)
        self.gate.limit(request)
        member, asked = await self.gate.told(request, LeaveRequest.from_json)
        if not may_leave(self._ledger, member.public_key, asked):
            raise RefusedError(403, "only who holds the member's key may give the membership up")
        return await let_go(self._ledger, member.public_key, request)

    async def _recall(self, request: web.Request) -> web.StreamResponse:
        """A member hands back what the registry gave it to keep, and may have forgotten since."""
        await self.gate.member(request)
        _, told = await self.gate.told(request, Receipt.from_json)
        membership = self._ledger.membership
        try:
            receipt = unseal(membership.network, told.receipt)
        except ValueError as error:
            raise RefusedError(400, str(error)) from error

        def command() -> tuple[list[Change], int]:
            changes = recall(membership, receipt, time.time())
            known_better = receipt.epoch > membership.network.epoch
            return changes, sum(isinstance(change.fact, Revoked) for change in changes) + known_better

        recalled = await self._ledger.change(command)
        if recalled:
            LOG.error(
                "this registry was restored from an old backup: a member still had what was revoked since, and it is"
                " revoked again; look through `wgdisco registry list`, and invite again who is missing"
            )
        now = seal(membership.network, membership.revoked.values())
        return web.json_response({"schema": SCHEMA, "receipt": now, "recalled": bool(recalled)})

    async def _candidates(self, request: web.Request) -> web.StreamResponse:
        await self.gate.member(request)
        self.gate.limit(request)
        member, asked = await self.gate.told(request, CandidatesRequest.from_json)
        network = self._ledger.membership.network
        entry = self._directory.entry(member.public_key)
        seen = None if entry is None else entry.endpoint
        prefixes = (network.prefix4, network.prefix6)
        told = validate(asked.candidates, seen, self.proven(member.public_key), prefixes)
        self._directory.tell(member.public_key, told, asked.nat)
        self._feed.refresh([member])
        self._feed.set_heartbeat(member, asked.heartbeat or HEARTBEAT)
        self.told(member.public_key)
        return web.json_response({"schema": SCHEMA, "candidates": [asdict(one) for one in told]})

    async def _offers(self, request: web.Request) -> web.StreamResponse:
        await self.gate.member(request)
        self.gate.limit(request)
        member, asked = await self.gate.told(request, OffersRequest.from_json)
        membership, offers = self._ledger.membership, tuple(map(parse_subnet, asked.offers))
        await self._ledger.change(lambda: (offer(membership, member.public_key, offers), None))
        told = membership.members.get(member.public_key, member)
        return web.json_response(to_json(self_record(membership, self._directory, told)))

    async def _punch(self, request: web.Request) -> web.StreamResponse:
        """Who asks too often gets 429, for a member that is not there 404, for one that does not listen 409."""
        await self.gate.member(request)
        member, asked = await self.gate.told(request, PunchRequest.from_json)
        key, membership = PublicKey.from_text(asked.peer), self._ledger.membership
        other = membership.members.get(key)
        if other is None or key == member.public_key or not membership.sees(member, other):
            self.orders.asked[Asked.UNKNOWN] += 1
            raise RefusedError(404, "there is no such member")
        if asked.leave:
            self.leave(member.public_key, key)
            return web.json_response({"schema": SCHEMA}, status=202)
        if other.kind is not Kind.MEMBER or other.number not in self._feed.listening():
            self.orders.asked[Asked.OFFLINE] += 1
            raise RefusedError(409, f"{other.name} is offline")
        places = self._directory.places(member.public_key, key)
        made = self.orders.request(member.public_key, key, time.monotonic(), places)
        if made is None:
            raise RefusedError(429, "too many orders: wait a second")
        punch, is_new = made
        if is_new:
            is_relayed = self.admit(member.public_key, key)
            pair = ((member, key), (other, member.public_key))
            self._feed.order([(side, order_record(self._directory, punch, peer, is_relayed)) for side, peer in pair])
        return web.json_response({"schema": SCHEMA, "order": punch.number}, status=202)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        member = await self.gate.member(request)
        # Any site may have a member's browser ask for this, and a stream too many ends the daemon's own
        if request.headers.get("User-Agent", "").startswith("Mozilla/"):
            raise RefusedError(403, "this stream is for daemons: a browser follows /v1/view/events")
        last_id = request.headers.get("Last-Event-ID", "")
        transport = request.transport
        give_up_soon(transport)
        cut = (lambda: None) if transport is None else transport.abort
        consumer = None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            async with self._turns.turn(len(self._ledger.membership.visible_to(member))) as turn:
                member = await self.gate.member(request)  # it may have had to wait
                await response.prepare(request)
                consumer = self._feed.open(member, last_id, cut, lambda: is_acknowledged(transport))
                await _tell(consumer, response)
                await turn.heard(consumer.is_through)
            while not consumer.ended:
                await _tell(consumer, response)
        except ConnectionError:
            pass
        finally:
            if consumer is not None:
                self._feed.close(consumer)
        return response


async def _tell(consumer: Consumer, response: web.StreamResponse) -> None:
    """What is next. Nothing holds it afterwards: a snapshot is large, and the next event may be long in coming."""
    if data := await consumer.take():
        await response.write(data)


def _listen(address: IPAddress, port: int, interface: str | None) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise LocalError(f"the API cannot listen on {address} port {port}: {error.strerror}") from error
    return listener
