"""A Backend over an engine that is not ours: looked at again and again, and led on by what can be set.

Such an engine tells of nothing, and drops what is for a peer without an endpoint. So peers without a session have the
relay as their endpoint, where there is one: the initiation that goes there says that the peer is wanted, and gets
through once there is an order. What the engine does not do itself, raw sockets do on its port (CAP_NET_RAW).
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, Event, PeerHandshake, PeerStatus, RawReceived
from wgdisco.tunnel.io.backend import Capabilities
from wgdisco.tunnel.io.looker import EngineClient, Looker
from wgdisco.tunnel.io.raw import RawSender, Tap
from wgdisco.tunnel.looks import EAGER_FOR, INTERVAL
from wgdisco.tunnel.observed import Observed, has_session
from wgdisco.tunnel.raw import other_filter
from wgdisco.tunnel.turns import Begin, Move, Nudge, Open, Step, Turns, inner_address

LOG = logging.getLogger(__name__)

# A keepalive that goes from off to on is sent at once, and begins a handshake where there is no session
_KEEPALIVE = 25
# Of what comes to the port beside WireGuard's: in the kernel, and taken in one turn
_BUFFER = 1 << 18
_A_TURN = 64
# Something that nobody takes for WireGuard's, or anything
_OPENER = b"\0"
# RFC 863; a host where nothing listens there says so
_DISCARD = 9


class PolledDevice:
    """An engine of another's making. What is not applied to it stays as it was found."""

    def __init__(self, client: EngineClient) -> None:
        """Take it over, inside a running loop; waits for one look at it."""
        self.interface = client.interface
        self._client = client
        self._observed = Observed()
        self._status, first = self._observed.look(client.status(), boot_time())
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._tell(first)
        self._keepalives = {peer.key: peer.persistent_keepalive for peer in self._status.peers}
        self._applied: DeviceConfig | None = None
        self._managed: set[PublicKey] = set()  # members: the registry alone has a keepalive, and is where it is
        self._relay: Endpoint | None = None
        self._waiting: dict[PublicKey, PeerConfig] = {}
        self._renewed: dict[PublicKey, float] = {}
        port = self._status.listen_port
        self._taps = {v: tap for v in (4, 6) if (tap := Tap.open(v, other_filter(port, v), _BUFFER)) is not None}
        # who sends checks must hear the answers
        self._sender = RawSender.open() if self._taps else None
        can_send, can_hear = self._sender is not None, bool(self._taps)
        if not can_send:
            LOG.warning(
                "no CAP_NET_RAW: no checks beside %s, and members are reached over the relay only", self.interface
            )
        self.capabilities = Capabilities(
            initiate_many=False,
            managed=False,
            probe_via=False,
            raw_send=can_send,
            raw_receive=can_hear,
            ttl=can_send,
            event_latency=INTERVAL,
        )
        self._turns = Turns(self._status.public_key, can_send)
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._is_closed = False
        self._applied_by = 0  # what was done last when it was applied, and when each peer was moved
        self._moved_by: dict[PublicKey, int] = {}
        self._moved: dict[PublicKey, Endpoint] = {}  # not in the status yet
        self._looker = Looker(client, port, self._from_thread, self._gone_in_thread)
        for tap in self._taps.values():
            self._loop.add_reader(tap.fileno(), self._raw_readable, tap)
        self._looker.start()

    def apply(self, config: DeviceConfig) -> None:
        """Have the thread make the device as `config` says; endpoints and keepalives of peers that are there stay.

        A peer that replaces another has no allowed IPs until it is told that it replaces nobody any more.
        """
        peers = tuple(replace(peer, allowed_ips=()) if peer.replaces is not None else peer for peer in config.peers)
        config = replace(config, peers=peers)
        before, self._applied = self._applied, config
        if config == before:
            return
        self._managed = {peer.public_key for peer in peers if peer.managed and not peer.persistent_keepalive}
        known = {} if before is None else {peer.public_key: peer for peer in before.peers}
        gone = self._keepalives.keys() - {peer.public_key for peer in peers}
        for key in gone:
            self._turns.forget(key)
            self._renewed.pop(key, None)
        for peer in peers:
            was = known.get(peer.public_key)
            if was is not None and was.persistent_keepalive != peer.persistent_keepalive:
                self._keepalives[peer.public_key] = peer.persistent_keepalive
        changed = [self._as_new(peer) for peer in peers if known.get(peer.public_key) != peer]
        waiting = {key: peer for key, peer in self._waiting.items() if key not in gone}
        self._waiting = waiting | {peer.public_key: peer for peer in changed if self._has_to_wait(peer)}
        self._keepalives = {
            peer.public_key: self._keepalives.get(peer.public_key, peer.persistent_keepalive) for peer in peers
        }
        seen = {peer.key: peer for peer in self.status().peers}
        self._status = replace(self._status, peers=tuple(seen.get(peer.public_key) or _unseen(peer) for peer in peers))
        told = replace(config, peers=tuple(peer for peer in changed if peer.public_key not in self._waiting))
        self._applied_by = self._looker.do(lambda: self._client.change(told, gone))

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Set a peer's endpoint and persistent keepalive in one step; one that is off stays so until its turn."""
        self._check(key)
        self._keepalives[key] = keepalive
        self._turns.moved(key)
        peer = self._observed.known.get(key)
        stands = peer is not None and has_session(peer, boot_time())
        if self._client.renews:
            self._renew(key, endpoint, is_session_lost=stands and endpoint not in (None, peer and peer.endpoint))
            return
        is_off = peer is None or not (peer.persistent_keepalive or stands)
        self._do(key, (endpoint, 0 if is_off else keepalive))

    def set_relays(self, endpoints: frozenset[Endpoint]) -> None:
        """Whatever authenticates moves peers here; those without a session are reached by the first of these."""
        before, self._relay = self._relay, next(iter(endpoints), None)
        if self._relay != before:
            self._lead_to_relay(boot_time(), before)

    def initiate(self, key: PublicKey, endpoints: tuple[Endpoint, ...]) -> None:
        """Have it shake hands at these, one after the other.

        It knows one endpoint a peer, and sends no initiation within REKEY_TIMEOUT of the last.
        """
        self._check(key)
        self._looker.expect()
        peer = self._observed.known.get(key) or _unseen(PeerConfig(key))
        self._turns.initiate(peer, endpoints, boot_time(), is_ordered=key in self._managed)
        if self._soon is None:  # many at once are settled at once
            self._soon = self._loop.call_soon(self._settle)

    def probe(self, key: PublicKey, endpoint: Endpoint) -> None:
        """It cannot."""
        self._check(key)

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """Send a datagram from the device's own port, where that is permitted (`capabilities`)."""
        if self._sender is not None:
            self._sender.send(data, self._status.listen_port, endpoint, ttl, self._status.fwmark)

    def status(self) -> DeviceStatus:
        """The device at the last look, at most INTERVAL ago."""
        if self._moved:
            moved, self._moved = self._moved, {}
            peers = (replace(one, endpoint=moved.get(one.key, one.endpoint)) for one in self._status.peers)
            self._status = replace(self._status, peers=tuple(peers))
        return self._status

    async def events(self) -> AsyncIterator[Event]:
        """Events in order, to one consumer; ends after DeviceGone or close()."""
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, DeviceGone):
                return

    async def close(self) -> None:
        """Let go of the interface, which stays as it is."""
        self._is_closed = True
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        for tap in self._taps.values():
            self._loop.remove_reader(tap.fileno())
            tap.close()
        await asyncio.to_thread(self._looker.close)
        self._client.close()
        if self._sender is not None:
            self._sender.close()
        self._events.put_nowait(None)

    # What is seen

    def _from_thread(self, status: DeviceStatus, done: int) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._looked, status, done)

    def _gone_in_thread(self, reason: str) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, DeviceGone(reason))

    def _looked(self, status: DeviceStatus, done: int) -> None:
        """The device as it was after so much was done to it."""
        if done < self._applied_by or self._is_closed:
            return
        self._moved_by = {key: by for key, by in self._moved_by.items() if by > done}
        if status.listen_port != self._status.listen_port:
            for version, tap in self._taps.items():
                tap.set_filter(other_filter(status.listen_port, version))
        now = boot_time()
        self._status, events = self._observed.look(status, now, self._moved_by)
        self._moved.clear()
        for key in self._turns.watched - self._moved_by.keys():
            peer = self._observed.known.get(key)
            if peer is not None:
                self._turns.look(peer)
        self._lead_to_relay(now)
        self._tell(events)
        for event in events:
            if isinstance(event, PeerHandshake) and event.key not in self._moved_by:
                self._restore_keepalive(event.key)
        self._settle()

    def _restore_keepalive(self, key: PublicKey) -> None:
        """It was off for as long as there was no session."""
        wanted = self._keepalives.get(key)
        if wanted is not None and self._observed.known[key].persistent_keepalive != wanted:
            self._do(key, (None, wanted))

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            self._events.put_nowait(event)

    def _raw_readable(self, tap: Tap) -> None:
        for source, data in tap.receive(_A_TURN):
            self._events.put_nowait(RawReceived(data, source))

    # What is done

    def _settle(self) -> None:
        """Do what is due, and arm the next deadline."""
        now = boot_time()
        self._soon = None
        self._turns.handle_timer(now)
        for step in self._turns.steps():
            self._carry_out(step, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._turns.get_timer()
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - now), self._settle)

    def _carry_out(self, step: Step, now: float) -> None:
        match step:
            case Begin(key, endpoint) if self._client.renews:
                self._observed.begun(key, now)
                self._renew(key, endpoint, is_session_lost=True)
            case Begin(key, endpoint):
                self._observed.begun(key, now)
                keepalive = self._keepalives[key]
                off = () if keepalive else ((None, 0),)
                self._do(key, (endpoint, 0), (None, keepalive or _KEEPALIVE), *off)
            case Move(key, endpoint):
                self._do(key, (endpoint, self._keepalives[key]))
            case Open(endpoint, ttl):
                self.send_raw(_OPENER, endpoint, ttl)
            case Nudge(_, address):
                self._looker.do(self._looker.look)
                self._looker.do(lambda: self._nudge(address))

    def _nudge(self, address: IPAddress) -> None:
        """Send an address inside of the tunnel something that its host, or at least its WireGuard, answers."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
            sock.sendto(b"", (str(address), _DISCARD))

    def _renew(self, key: PublicKey, endpoint: Endpoint | None, *, is_session_lost: bool) -> None:
        """Move a peer of an engine that adds it anew; then somebody has to shake hands.

        A keepalive that is turned on begins nothing there, and a packet does.
        """
        self._do(key, (endpoint, self._keepalives[key]))
        peer = self._observed.known.get(key)
        inside = None if peer is None else inner_address(peer.allowed_ips)
        if is_session_lost and inside is not None:
            self._renewed[key] = boot_time()
            self._looker.do(lambda: self._nudge(inside))

    def _check(self, key: PublicKey) -> None:
        if key not in self._keepalives:
            raise LocalError(f"no peer {key} on {self.interface}")

    def _do(self, key: PublicKey, *steps: tuple[Endpoint | None, int]) -> None:
        """Have the thread set these one after the other; what the engine refuses is said."""

        new = self._waiting.pop(key, None)
        there, keepalive = steps[0]
        change = None
        if new is not None and self._applied is not None:
            peer = replace(new, endpoint=there, persistent_keepalive=keepalive)
            change = replace(self._applied, peers=(peer,))

        def work() -> None:
            if change is not None:
                self._client.change(change)
            for endpoint, keepalive in steps:
                self._client.set_peer(key, endpoint, keepalive)

        done_by = self._looker.do(work)
        for endpoint, _ in steps:
            if endpoint is not None:
                self._observed.moved(key, endpoint)
                self._moved[key] = endpoint
                self._moved_by[key] = done_by

    # The relay

    def _as_new(self, peer: PeerConfig) -> PeerConfig:
        """One that is there keeps its endpoint and keepalive; one that is new is at the relay, if it is managed."""
        if peer.public_key in self._keepalives:
            return replace(peer, endpoint=None, persistent_keepalive=self._keepalives[peer.public_key])
        if peer.managed:
            return peer if peer.persistent_keepalive else replace(peer, endpoint=self._relay or peer.endpoint)
        return without_haste(peer)

    def _has_to_wait(self, peer: PeerConfig) -> bool:
        """Whether the engine is not to know it yet: the registry, while nobody knows where it is.

        wireguard-go begins a handshake with nobody as soon as something is sent, and waits REKEY_TIMEOUT after that.
        """
        is_new = peer.public_key not in self._keepalives or peer.public_key in self._waiting
        return is_new and peer.managed and peer.persistent_keepalive > 0 and peer.endpoint is None

    def _lead_to_relay(self, now: float, before: Endpoint | None = None) -> None:
        """Have managed peers without a session at the relay; `before` it was elsewhere."""
        if self._relay is None or not self._managed:
            return
        for peer in self.status().peers:
            begun_at = max(self._turns.begun_at(peer.key), self._renewed.get(peer.key, float("-inf")))
            is_idle = not has_session(peer, now) and now - begun_at > EAGER_FOR
            if peer.key in self._managed and peer.endpoint != self._relay and (is_idle or peer.endpoint == before):
                self._do(peer.key, (self._relay, self._keepalives[peer.key]))


def without_haste(peer: PeerConfig) -> PeerConfig:
    """A new peer whose endpoint is to be found has no keepalive until then.

    Its engine would begin a handshake with nobody, and wait REKEY_TIMEOUT after that.
    """
    return peer if peer.endpoint is not None else replace(peer, persistent_keepalive=0)


def _unseen(peer: PeerConfig) -> PeerStatus:
    return PeerStatus(
        key=peer.public_key,
        endpoint=peer.endpoint,
        allowed_ips=peer.allowed_ips,
        has_preshared_key=peer.preshared_key is not None,
        persistent_keepalive=peer.persistent_keepalive,
        handshake_at=None,
        handshake_unix=None,
        received_at=None,
        unanswered_since=None,
        rx_bytes=0,
        tx_bytes=0,
    )
