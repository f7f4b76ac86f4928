"""A Backend over an engine that is not ours: looked at again and again, in a thread of its own.

Such an engine tells of nothing, and drops what is for a peer without an endpoint. So peers without a session have the
relay as their endpoint, where there is one: the initiation that goes there says that the peer is wanted, and gets
through once there is an order.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, Event, PeerStatus
from wgdisco.tunnel.io.backend import Capabilities
from wgdisco.tunnel.messages import REKEY_TIMEOUT
from wgdisco.tunnel.observed import Observed, has_session

LOG = logging.getLogger(__name__)

POLL_INTERVAL = 1.0
# While a handshake may be under way
EAGER_INTERVAL = 0.2
EAGER_FOR = 10.0
# A keepalive that goes from off to on is sent at once, and begins a handshake where there is no session
_KEEPALIVE = 25


class EngineClient(Protocol):
    """An interface that is up, driven by calls that wait; LocalError when it is gone or refuses."""

    interface: str

    def change(self, config: DeviceConfig, gone: Iterable[PublicKey] = ()) -> None:
        """Make it as `config` says but for peers it does not name, of which those `gone` go."""

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Endpoint (None: as it is) and keepalive in one step."""

    def status(self) -> DeviceStatus:
        """The device now."""

    def close(self) -> None:
        """Let go of it."""


class PolledDevice:
    """An engine of another's making. What is not applied to it stays as it was found."""

    capabilities = Capabilities(
        initiate_many=False,
        probe_via=False,
        raw_send=False,
        raw_receive=False,
        ttl=False,
        event_latency=POLL_INTERVAL,
    )

    def __init__(self, client: EngineClient) -> None:
        """Take it over; waits for one look at it."""
        self.interface = client.interface
        self._client = client
        self._observed = Observed()
        self._thread = ThreadPoolExecutor(1, "wireguard")
        self._loop = asyncio.get_running_loop()
        self._is_closed = asyncio.Event()
        self._eager_until = 0.0
        self._turns: dict[PublicKey, tuple[float, Endpoint]] = {}  # when an initiation was last asked for, and where to
        self._status, self._first = self._observed.look(client.status(), boot_time())
        self._keepalives = {peer.key: peer.persistent_keepalive for peer in self._status.peers}
        self._applied: DeviceConfig | None = None
        self._relay: Endpoint | None = None

    def apply(self, config: DeviceConfig) -> None:
        """Have the thread make the device as `config` says; endpoints and keepalives of peers that are there stay.

        A peer that replaces another has no allowed IPs until it is told that it replaces nobody any more.
        """
        peers = tuple(replace(peer, allowed_ips=()) if peer.replaces is not None else peer for peer in config.peers)
        config = replace(config, peers=peers)
        before, self._applied = self._applied, config
        if config == before:
            return
        known = {} if before is None else {peer.public_key: peer for peer in before.peers}
        gone = self._keepalives.keys() - {peer.public_key for peer in peers}
        for peer in peers:
            was = known.get(peer.public_key)
            if was is not None and was.persistent_keepalive != peer.persistent_keepalive:
                self._keepalives[peer.public_key] = peer.persistent_keepalive
        changed = tuple(self._as_new(peer) for peer in peers if known.get(peer.public_key) != peer)
        self._keepalives = {
            peer.public_key: self._keepalives.get(peer.public_key, peer.persistent_keepalive) for peer in peers
        }
        seen = {peer.key: peer for peer in self._status.peers}
        self._status = replace(self._status, peers=tuple(seen.get(peer.public_key) or _unseen(peer) for peer in peers))
        self._submit(lambda: self._client.change(replace(config, peers=changed), gone))

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Set a peer's endpoint and persistent keepalive in one step."""
        self._check(key)
        self._keepalives[key] = keepalive
        self._do(key, (endpoint, keepalive))

    def set_relays(self, endpoints: frozenset[Endpoint]) -> None:
        """Whatever authenticates moves peers here; those without a session are reached by the first of these."""
        before, self._relay = self._relay, next(iter(endpoints), None)
        if self._relay != before:
            self._lead_to_relay(boot_time(), before)

    def initiate(self, key: PublicKey, endpoints: tuple[Endpoint, ...]) -> None:
        """Have it shake hands with the first of `endpoints`, next time with the following one.

        It knows one endpoint a peer, and sends no initiation within REKEY_TIMEOUT of the last.
        """
        self._check(key)
        now = boot_time()
        self._eager_until = now + EAGER_FOR
        at, last = self._turns.get(key, (-REKEY_TIMEOUT, None))
        if last in endpoints and now - at < REKEY_TIMEOUT:
            return
        endpoint = endpoints[(endpoints.index(last) + 1) % len(endpoints)] if last in endpoints else endpoints[0]
        self._turns[key] = now, endpoint
        self._observed.begun(key, now)
        keepalive = self._keepalives[key]
        self._do(key, (endpoint, 0), (None, keepalive or _KEEPALIVE), *(() if keepalive else ((None, 0),)))

    def probe(self, key: PublicKey, endpoint: Endpoint) -> None:
        """It cannot."""
        self._check(key)

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """It cannot."""

    def status(self) -> DeviceStatus:
        """The device at the last look, at most POLL_INTERVAL ago."""
        return self._status

    async def events(self) -> AsyncIterator[Event]:
        """Events in order, to one consumer, who has it looked at; ends after DeviceGone or close()."""
        first, self._first = self._first, []
        for event in first:
            yield event
        while not self._is_closed.is_set():
            pause = EAGER_INTERVAL if boot_time() < self._eager_until else POLL_INTERVAL
            try:
                async with asyncio.timeout(pause):
                    await self._is_closed.wait()
                return
            except TimeoutError:
                pass
            try:
                seen = await self._loop.run_in_executor(self._thread, self._client.status)
            except LocalError as error:
                yield DeviceGone(str(error))
                return
            now = boot_time()
            self._status, events = self._observed.look(seen, now)
            self._lead_to_relay(now)
            for event in events:
                yield event

    async def close(self) -> None:
        """Let go of the interface, which stays as it is."""
        self._is_closed.set()
        await asyncio.to_thread(self._thread.shutdown)
        self._client.close()

    def _check(self, key: PublicKey) -> None:
        if key not in self._keepalives:
            raise LocalError(f"no peer {key} on {self.interface}")

    def _do(self, key: PublicKey, *steps: tuple[Endpoint | None, int]) -> None:
        """Have the thread set these one after the other; what the engine refuses is said."""

        for endpoint, _ in steps:
            if endpoint is not None:
                self._observed.moved(key, endpoint)
                peers = (replace(one, endpoint=endpoint) if one.key == key else one for one in self._status.peers)
                self._status = replace(self._status, peers=tuple(peers))

        def work() -> None:
            for endpoint, keepalive in steps:
                self._client.set_peer(key, endpoint, keepalive)

        self._submit(work)

    def _submit(self, work: Callable[[], None]) -> None:
        def tried() -> None:
            try:
                work()
            except LocalError as error:
                LOG.warning("%s", error)

        self._thread.submit(tried)

    def _as_new(self, peer: PeerConfig) -> PeerConfig:
        """One that is there keeps its endpoint and keepalive; one that is new is at the relay, if it is managed."""
        if peer.public_key in self._keepalives:
            return replace(peer, endpoint=None, persistent_keepalive=self._keepalives[peer.public_key])
        at_relay = peer.managed and not peer.persistent_keepalive
        return replace(peer, endpoint=self._relay or peer.endpoint) if at_relay else peer

    def _lead_to_relay(self, now: float, before: Endpoint | None = None) -> None:
        """Have managed peers without a session at the relay; `before` it was elsewhere."""
        if self._relay is None or self._applied is None:
            return
        # the registry alone has a keepalive, and is where it is
        managed = {peer.public_key for peer in self._applied.peers if peer.managed and not peer.persistent_keepalive}
        for peer in self._status.peers:
            begun_at, _ = self._turns.get(peer.key, (float("-inf"), None))
            is_idle = not has_session(peer, now) and now - begun_at > EAGER_FOR
            if peer.key in managed and peer.endpoint != self._relay and (is_idle or peer.endpoint == before):
                self._do(peer.key, (self._relay, self._keepalives[peer.key]))


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
