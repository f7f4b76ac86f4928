"""`wgdisco join`, pinned mode: keys from the member's own `.conf`, endpoints from the registry's zone.

Device events, zone events and the clock go to the agent; what it wants done goes to the device, what it has to tell to
the log.
"""

import asyncio
import logging

from wgdisco.api import PathWord, StatusReport
from wgdisco.dnssd.browser import (
    InstanceFound,
    InstanceGone,
    Pace,
    RegistryReachable,
    RegistryUnreachable,
    ZoneRefused,
)
from wgdisco.dnssd.io.client import ZoneFollower
from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import Endpoint, in_any
from wgdisco.errors import LocalError
from wgdisco.peer.agent import Agent, Found, News, Ourselves, PathChanged, Refused
from wgdisco.peer.io.interfaces import local_addresses
from wgdisco.peer.path import Action, Initiate, SetPeer
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import DeviceGone, PathSeen
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.control import ControlServer, refuse_second_daemon
from wgdisco.tunnel.io.engine import boot_time
from wgdisco.tunnel.io.interface import tunnel_interface

LOG = logging.getLogger(__name__)

STATUS_INTERVAL = 1.0
# How often to look which addresses are ours, in status intervals
ADDRESSES_EVERY = 30


async def run(*, interface: str, conf: TunnelConf, zone: ZoneNames, dns: Endpoint, version: str) -> None:
    """Run until cancelled, or until the interface is taken away (LocalError)."""
    await refuse_second_daemon(interface)
    async with tunnel_interface(interface, conf) as device:
        LOG.info("started", extra={"fields": {"interface": interface, "zone": zone.to_text(), "dns": str(dns)}})
        member = _Member(device, conf, zone, dns, version)
        control = ControlServer(interface, member.report)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(member.follow_device())
                tasks.create_task(member.ask_zone())
                tasks.create_task(member.follow_zone())
                tasks.create_task(member.watch_status())
                await control.start()
        finally:
            member.close()
            await control.close()


class _Member:
    """What the tasks share."""

    def __init__(self, device: Backend, conf: TunnelConf, zone: ZoneNames, dns: Endpoint, version: str) -> None:
        self._device = device
        self._zone = zone
        self._dns = dns
        self._version = version
        own_key = device.status().public_key
        assert own_key is not None, "tunnel_interface refuses a configuration without a private key"
        # A list of peers that all members share holds our own key too; to the device it is none (rule U9).
        peers = tuple(peer for peer in conf.device.peers if peer.public_key != own_key)
        registries = tuple(peer.public_key for peer in peers if _is_registry(peer, dns))
        wanted = [peer.public_key for peer in peers if peer.public_key not in registries]
        ourselves = Ourselves(own_key, conf.tunnel_prefixes(), registries)
        self._agent = Agent(peers, ourselves, boot_time())
        self._follower = ZoneFollower(dns, zone.to_text(), wanted, also=[own_key])
        self._timer: asyncio.TimerHandle | None = None
        self._is_known_zone = False
        self._settle()

    def close(self) -> None:
        """Let the clock go; the device is about to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def follow_device(self) -> None:
        """Let the agent know what the device sees."""
        async for event in self._device.events():
            if isinstance(event, DeviceGone):
                raise LocalError(f"{self._device.interface} is gone: {event.reason}")
            self._agent.device_event(event)
            self._settle()
            if isinstance(event, PathSeen):
                fields = {"at": event.at, "peer": str(event.key), "endpoint": str(event.endpoint)}
                LOG.info("data", extra={"fields": fields})

    async def ask_zone(self) -> None:
        """Keep asking the registry."""
        await self._follower.run()

    async def follow_zone(self) -> None:
        """Let the agent know what the zone says, but not before it knows which addresses are ours."""
        await self._look_at_addresses()
        async for event in self._follower.events():
            now = boot_time()
            match event:
                case InstanceFound(instance, _):
                    self._is_known_zone = True
                    self._agent.instance_found(instance.key, instance.endpoint, now)
                case InstanceGone(key, _):
                    self._agent.instance_gone(key, now)
                case RegistryReachable():
                    self._agent.registry_reachable(True, now)
                    LOG.info("registry reachable", extra={"fields": {"dns": str(self._dns)}})
                case RegistryUnreachable():
                    self._agent.registry_reachable(False, now)
                    LOG.warning("registry unreachable", extra={"fields": {"dns": str(self._dns)}})
                case ZoneRefused():
                    self._zone_refused()
            self._settle()

    async def watch_status(self) -> None:
        """Let the agent look at the device's counters, and now and then at our addresses."""
        turn = 0
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            turn += 1
            if turn % ADDRESSES_EVERY == 0:
                await self._look_at_addresses()
            self._agent.device_status(self._device.status(), boot_time())
            self._settle()

    async def _look_at_addresses(self) -> None:
        port = self._device.status().listen_port
        self._agent.ourselves.addresses = frozenset(Endpoint(address, port) for address in await local_addresses())

    def report(self) -> StatusReport:
        """For the control socket."""
        status = self._device.status()
        return StatusReport(
            role="member",
            interface=self._device.interface,
            public_key=None if status.public_key is None else status.public_key.to_text(),
            listen_port=status.listen_port,
            zone=self._zone.to_text(),
            engine="userspace (reference)",
            version=self._version,
            peers=[self._agent.report(peer) for peer in status.peers],
            drops={reason.value: count for reason, count in status.drops.items()},
        )

    def _settle(self) -> None:
        """Carry out and tell what the agent has, set the pace of the zone, and arm the next deadline."""
        for action in self._agent.actions():
            self._act(action)
        for news in self._agent.news():
            _tell(news)
        self._follower.set_pace(Pace.SETTLED if self._agent.all_live() else Pace.PATH_MISSING)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._agent.get_timer()
        if deadline is not None:
            delay = max(0.0, deadline - boot_time())
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._agent.handle_timer(boot_time())
        self._settle()

    def _act(self, action: Action) -> None:
        match action:
            case SetPeer(key, endpoint, keepalive):
                self._device.set_peer(key, endpoint, keepalive)
            case Initiate(key, endpoints):
                self._device.initiate(key, endpoints)

    def _zone_refused(self) -> None:
        """A server that never knew the zone is a mistake in the settings; one that forgot it may remember."""
        message = f"the DNS server {self._dns} does not serve {self._zone.to_text()}: check --zone and --dns"
        if not self._is_known_zone:
            raise LocalError(message)
        LOG.warning(message)


def _is_registry(peer: PeerConfig, dns: Endpoint) -> bool:
    """Whether the zone's server is at the peer's endpoint, or inside the tunnel at the peer."""
    if peer.endpoint is None:
        return False
    return peer.endpoint.address == dns.address or in_any(dns.address, peer.allowed_ips)


def _tell(news: News) -> None:
    match news:
        case Found(key, endpoint, at):
            LOG.info("found", extra={"fields": {"at": at, "peer": str(key), "endpoint": str(endpoint)}})
        case Refused(key, endpoint, why, at):
            refused = {"at": at, "peer": str(key), "endpoint": str(endpoint), "reason": why}
            LOG.warning("endpoint refused", extra={"fields": refused})
        case PathChanged(key, path, reason, endpoints, at):
            told: dict[str, object] = {"at": at, "peer": str(key)}
            if path is PathWord.PUNCHING:
                told["endpoints"] = [str(endpoint) for endpoint in endpoints]
            elif endpoints:
                told["endpoint"] = str(endpoints[0])
            if reason is not None:
                told["reason"] = reason.value
            LOG.info(path.value, extra={"fields": told})
