"""Drives an agent: device events, the device's counters and the clock go in; what it wants done goes to the device."""

import asyncio
import logging
from collections.abc import Callable

from wgdisco.api import StatusReport
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.metrics import Family
from wgdisco.peer.actions import Action, AskOrder, Initiate, LeaveRelay, Probe, SendRaw, SetPeer, SetRelays
from wgdisco.peer.agent import Agent
from wgdisco.peer.io.interfaces import local_addresses
from wgdisco.peer.io.path_news import tell
from wgdisco.peer.metrics import Punches, families
from wgdisco.peer.news import Checked
from wgdisco.tunnel.device import CHECK_MAGIC
from wgdisco.tunnel.events import DeviceGone, PathSeen, PeerHandshake, RawReceived
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.exposition import Source
from wgdisco.tunnel.metrics import DeviceCounts

LOG = logging.getLogger(__name__)

STATUS_INTERVAL = 1.0
# How often to look which addresses are ours, in status intervals
ADDRESSES_EVERY = 30


class AgentDriver:
    """Call `settle` after telling the agent anything.

    `settled` is called after each settling, `handshake` for each handshake that completes, `ask_order` where a member
    is to be punched, `leave_relay` where it is reached directly now, `raw` with datagrams that are neither WireGuard's
    nor checks, `checked` with answered checks.
    `quiet` logs nothing. `counts` and `punches` are what there is to count.
    """

    def __init__(
        self,
        device: Backend,
        agent: Agent,
        settled: Callable[[], None] = lambda: None,
        handshake: Callable[[PeerHandshake], None] = lambda _event: None,
        ask_order: Callable[[PublicKey], None] = lambda _key: None,
        raw: Callable[[RawReceived], None] = lambda _raw: None,
        checked: Callable[[Checked], None] = lambda _checked: None,
        leave_relay: Callable[[PublicKey], None] = lambda _key: None,
        *,
        quiet: bool = False,
    ) -> None:
        self.device = device
        self.agent = agent
        self.counts = DeviceCounts()
        self.punches = Punches()
        self._settled = settled
        self._handshake = handshake
        self._ask_order = ask_order
        self._raw = raw
        self._checked = checked
        self._leave_relay = leave_relay
        self._quiet = quiet
        self._timer: asyncio.TimerHandle | None = None

    async def follow_device(self) -> None:
        """Let the agent know what the device sees; LocalError when the interface is taken away."""
        async for event in self.device.events():
            if isinstance(event, DeviceGone):
                raise LocalError(f"{self.device.interface} is gone: {event.reason}")
            if isinstance(event, RawReceived):
                self._raw_received(event)
                continue
            self.agent.device_event(event)
            if isinstance(event, PeerHandshake):
                self.counts.handshakes += 1
                self._handshake(event)
            self.settle()
            if isinstance(event, PathSeen) and not self._quiet:
                fields = {"at": event.at, "peer": str(event.key), "endpoint": str(event.endpoint)}
                LOG.info("data", extra={"fields": fields})

    async def watch_status(self) -> None:
        """Let the agent look at the device's counters, and now and then at our addresses."""
        turn = 0
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            turn += 1
            if turn % ADDRESSES_EVERY == 0:
                await self.look_at_addresses()
            status, now = self.device.status(), boot_time()
            self.counts.observe(status)
            self.punches.keep(frozenset(peer.key for peer in status.peers))
            self.punches.settle(now)
            self.agent.device_status(status, now)
            self.settle()

    async def look_at_addresses(self) -> None:
        """Let the agent know which addresses are ours: before it hears where others are, and now and then."""
        port = self.device.status().listen_port
        addresses = await local_addresses()
        self.agent.ourselves.addresses = frozenset(Endpoint(address, port) for address in addresses)

    def settle(self) -> None:
        """Carry out and tell what the agent has, and arm the next deadline."""
        for action in self.agent.actions():
            self._act(action)
        for news in self.agent.news():
            if news.key not in self.agent.ourselves.registries:
                self.punches.tell(news)
            if isinstance(news, Checked):
                self._checked(news)
            elif not self._quiet:
                tell(news)
        self._settled()
        self.stop()
        deadline = self.agent.get_timer()
        if deadline is not None:
            delay = max(0.0, deadline - boot_time())
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_fired)

    def counted(self, report: Callable[[], StatusReport], is_reached: Callable[[], bool]) -> Source:
        """What there is for Prometheus; `is_reached`: a registry answers."""

        def source() -> list[Family]:
            keys, status = self.agent.ourselves.registries, self.device.status()
            return families(report(), status, self.counts, self.punches, keys, is_reached=is_reached())

        return source

    def stop(self) -> None:
        """Let the next deadline pass; `settle` arms one again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self.agent.handle_timer(boot_time())
        self.settle()

    def _raw_received(self, event: RawReceived) -> None:
        if event.data[:4] == CHECK_MAGIC:
            self.agent.raw_received(event, boot_time())
            self.settle()
        else:
            self._raw(event)

    def _act(self, action: Action) -> None:
        match action:
            case SetPeer(key, endpoint, keepalive):
                self.device.set_peer(key, endpoint, keepalive)
            case Initiate(key, endpoints):
                self.device.initiate(key, endpoints)
            case SendRaw(data, endpoint, ttl):
                self.device.send_raw(data, endpoint, ttl)
            case Probe(key, endpoint):
                self.device.probe(key, endpoint)
            case SetRelays(endpoints):
                self.device.set_relays(endpoints)
            case LeaveRelay(key):
                self._leave_relay(key)
            case AskOrder(key):
                if not self._quiet:
                    LOG.info("ordered", extra={"fields": {"at": boot_time(), "peer": str(key)}})
                self._ask_order(key)
