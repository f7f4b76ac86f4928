"""`wgdisco join`, pinned mode: keys from the member's own `.conf`, endpoints from the registry's zone.

What the zone says goes to the agent, which `driver.py` drives.
"""

import asyncio
import logging

from wgdisco.api import StatusReport
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
from wgdisco.machine import boot_time
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.report import engine_notes
from wgdisco.tunnel import burst
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.host_dns import DnsMode
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.control import ControlServer, refuse_second_daemon
from wgdisco.tunnel.io.driven import any_interface, chosen
from wgdisco.tunnel.io.found import found_interface
from wgdisco.tunnel.io.host_dns import asked_by_host
from wgdisco.tunnel.offloads import Offloads

LOG = logging.getLogger(__name__)


async def run(
    *,
    interface: str,
    conf: TunnelConf,
    zone: ZoneNames,
    dns: Endpoint,
    offloads: Offloads,
    engine: EngineKind,
    host_dns: DnsMode,
    metrics: Endpoint | None,
    version: str,
) -> None:
    """Run until cancelled, or until the interface is taken away (LocalError)."""
    await refuse_second_daemon(interface)
    engine = await asyncio.to_thread(chosen, engine)
    async with (
        any_interface(interface, conf, engine, offloads=offloads) as device,
        asked_by_host(interface, conf.dns, host_dns),
    ):
        notes = engine_notes(engine)
        for note in notes:
            LOG.warning("%s", note)
        await _run_on(device, conf, zone, dns, metrics, version, burst.engine_name(engine), notes)


async def run_attached(
    *, interface: str, engine: EngineKind, zone: ZoneNames, dns: Endpoint, metrics: Endpoint | None, version: str
) -> None:
    """The same on an interface that is up, of an engine with a UAPI socket (EXTERNAL) or of the kernel's WireGuard.

    It keeps its keys, peers, addresses and routes; endpoints and keepalives stay as they are at the end.
    """
    await refuse_second_daemon(interface)
    async with found_interface(interface, engine) as (device, conf):
        await _run_on(device, conf, zone, dns, metrics, version, engine.value, [])


async def _run_on(
    device: Backend,
    conf: TunnelConf,
    zone: ZoneNames,
    dns: Endpoint,
    metrics: Endpoint | None,
    version: str,
    engine: str,
    notes: list[str],
) -> None:
    interface = device.interface
    LOG.info("started", extra={"fields": {"interface": interface, "zone": zone.to_text(), "dns": str(dns)}})
    member = _Member(device, conf, zone, dns, version, engine, notes)
    control = ControlServer(interface, member.report, None, member.metrics, metrics)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(member.driver.follow_device())
            tasks.create_task(member.ask_zone())
            tasks.create_task(member.follow_zone())
            tasks.create_task(member.driver.watch_status())
            await control.start()
    finally:
        member.driver.stop()
        await control.close()


class _Member:
    """What the tasks share."""

    def __init__(
        self,
        device: Backend,
        conf: TunnelConf,
        zone: ZoneNames,
        dns: Endpoint,
        version: str,
        engine: str,
        notes: list[str],
    ) -> None:
        self._device = device
        self._engine = engine
        self._notes = notes
        self._zone = zone
        self._dns = dns
        self._version = version
        own_key = device.status().public_key
        assert own_key is not None, "a device without a private key is refused before"
        # A list of peers that all members share holds our own key too; to the device it is none (rule U9).
        peers = tuple(peer for peer in conf.device.peers if peer.public_key != own_key)
        registries = tuple(peer.public_key for peer in peers if _is_registry(peer, dns))
        # Who has the zone may be beyond a default route whose end only the zone knows: the question goes round it.
        mark = 0 if in_any(dns.address, conf.tunnel_prefixes()) else device.status().fwmark
        if not registries:
            registries = tuple(peer.public_key for peer in peers if _leads_to(peer, dns))
            mark = 0 if registries else mark
        wanted = [peer.public_key for peer in peers if peer.public_key not in registries]
        ourselves = Ourselves(own_key, conf.tunnel_prefixes(), registries)
        self._agent = Agent(peers, ourselves, boot_time())
        self._follower = ZoneFollower(dns, zone.to_text(), wanted, also=[own_key], mark=mark)
        self._is_known_zone = False
        self._is_reached = False
        self.driver = AgentDriver(device, self._agent, self._set_pace)
        self.metrics = self.driver.counted(self.report, lambda: self._is_reached)
        self.driver.settle()

    async def ask_zone(self) -> None:
        """Keep asking the registry."""
        await self._follower.run()

    async def follow_zone(self) -> None:
        """Let the agent know what the zone says, but not before it knows which addresses are ours."""
        await self.driver.look_at_addresses()
        async for event in self._follower.events():
            now = boot_time()
            match event:
                case InstanceFound(instance, _):
                    self._is_known_zone = True
                    self._agent.instance_found(instance.key, instance.endpoint, now)
                case InstanceGone(key, _):
                    self._agent.instance_gone(key, now)
                case RegistryReachable():
                    self._is_reached = True
                    self._agent.registry_reachable(True, now)
                    LOG.info("registry reachable", extra={"fields": {"dns": str(self._dns)}})
                case RegistryUnreachable():
                    self._is_reached = False
                    self._agent.registry_reachable(False, now)
                    LOG.warning("registry unreachable", extra={"fields": {"dns": str(self._dns)}})
                case ZoneRefused():
                    self._zone_refused()
            self.driver.settle()

    def report(self) -> StatusReport:
        """For the control socket."""
        status = self._device.status()
        return StatusReport(
            role="member",
            interface=self._device.interface,
            public_key=None if status.public_key is None else status.public_key.to_text(),
            listen_port=status.listen_port,
            zone=self._zone.to_text(),
            engine=self._engine,
            version=self._version,
            peers=[self._agent.report(peer) for peer in status.peers],
            drops={reason.value: count for reason, count in status.drops.items()},
            notes=self._notes,
        )

    def _set_pace(self) -> None:
        self._follower.set_pace(Pace.SETTLED if self._agent.all_live() else Pace.PATH_MISSING)

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
    inside = tuple(network for network in peer.allowed_ips if network.prefixlen)
    return peer.endpoint.address == dns.address or in_any(dns.address, inside)


def _leads_to(peer: PeerConfig, dns: Endpoint) -> bool:
    """Whether a default route leads to the zone's server, by a peer of whom we know where it is."""
    return peer.endpoint is not None and in_any(dns.address, peer.allowed_ips)
