"""A Backend over an engine that is not ours: looked at again and again, in a thread of its own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, Event
from wgdisco.tunnel.io.backend import Capabilities
from wgdisco.tunnel.io.raw import RawSender
from wgdisco.tunnel.messages import REKEY_TIMEOUT
from wgdisco.tunnel.observed import Observed

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

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Endpoint (None: as it is) and keepalive in one step."""

    def status(self) -> DeviceStatus:
        """The device now."""

    def close(self) -> None:
        """Let go of it."""


class PolledDevice:
    """An engine of another's making, taken as it is found: only endpoints and keepalives are changed, and stay so."""

    def __init__(self, client: EngineClient) -> None:
        """Take it over; waits for one look at it."""
        self.interface = client.interface
        self._client = client
        self._sender = RawSender.open()
        self.capabilities = Capabilities(
            initiate_many=False,
            probe_via=False,
            raw_send=self._sender is not None,
            raw_receive=False,
            ttl=self._sender is not None,
            event_latency=POLL_INTERVAL,
        )
        self._observed = Observed()
        self._thread = ThreadPoolExecutor(1, "wireguard")
        self._loop = asyncio.get_running_loop()
        self._is_closed = asyncio.Event()
        self._eager_until = 0.0
        self._turns: dict[PublicKey, tuple[float, Endpoint]] = {}  # when an initiation was last asked for, and where to
        self._status, self._first = self._observed.look(client.status(), boot_time())
        self._keepalives = {peer.key: peer.persistent_keepalive for peer in self._status.peers}

    def apply(self, config: DeviceConfig) -> None:
        """Not here: whoever brought it up says what it is."""
        raise LocalError(f"{self.interface} is run by another engine: configure it with `wg`")

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Set a peer's endpoint and persistent keepalive in one step."""
        self._check(key)
        self._keepalives[key] = keepalive
        self._do(key, (endpoint, keepalive))

    def set_relays(self, endpoints: frozenset[Endpoint]) -> None:
        """This engine has no managed peers; whatever authenticates moves them."""

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
        keepalive = self._keepalives[key]
        self._do(key, (endpoint, 0), (None, keepalive or _KEEPALIVE), *(() if keepalive else ((None, 0),)))

    def probe(self, key: PublicKey, endpoint: Endpoint) -> None:
        """It cannot."""
        self._check(key)

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """Send a datagram from the device's own port, where that is permitted (`capabilities`)."""
        if self._sender is not None:
            self._sender.send(data, self._status.listen_port, endpoint, ttl, self._status.fwmark)

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
            self._status, events = self._observed.look(seen, boot_time())
            for event in events:
                yield event

    async def close(self) -> None:
        """Let go of the interface, which stays as it is."""
        self._is_closed.set()
        await asyncio.to_thread(self._thread.shutdown)
        self._client.close()
        if self._sender is not None:
            self._sender.close()

    def _check(self, key: PublicKey) -> None:
        if key not in self._keepalives:
            raise LocalError(f"no peer {key} on {self.interface}")

    def _do(self, key: PublicKey, *steps: tuple[Endpoint | None, int]) -> None:
        """Have the thread set these one after the other; what the engine refuses is said."""

        def work() -> None:
            try:
                for endpoint, keepalive in steps:
                    self._client.set_peer(key, endpoint, keepalive)
            except LocalError as error:
                LOG.warning("%s", error)

        self._thread.submit(work)
