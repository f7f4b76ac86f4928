"""`wgdisco registry run`: the device, the directory and the zone's DNS server in one loop.

Device event → directory → zone snapshot → answer; nothing between them waits, so an endpoint is answerable as soon as
the packet that proved it has been handled.
"""

import asyncio
import logging
import time
from ipaddress import ip_network

from wgdisco.api import StatusReport
from wgdisco.dnssd.instance import OwnInstance, ServiceInstance
from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.responder import Profile, Responder
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.registry.directory import Directory, Handshaken, Published, Withdrawn
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.events import DeviceGone
from wgdisco.tunnel.io.control import ControlServer, refuse_second_daemon
from wgdisco.tunnel.io.engine import Engine, boot_time
from wgdisco.tunnel.io.interface import tunnel_interface

LOG = logging.getLogger(__name__)

# How often the device's counters are looked at, in seconds: what they tell (silence) is a matter of minutes.
STATUS_INTERVAL = 1.0


async def run(
    *,
    interface: str,
    conf: TunnelConf,
    zone: ZoneNames,
    dns: Endpoint,
    exact: bool,
    publish_self: bool,
    self_endpoint: Endpoint | None,
    version: str,
) -> None:
    """Run until cancelled, or until the interface is taken away (LocalError)."""
    await refuse_second_daemon(interface)
    async with tunnel_interface(interface, conf) as engine:
        registry = _Registry(engine, conf, zone, exact, publish_self, self_endpoint, version)
        server = DnsServer(registry.responder)
        control = ControlServer(interface, registry.report)
        try:
            for link in _links(dns, interface, conf):
                await server.start([(dns.address, dns.port)], link)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(registry.follow_device())
                tasks.create_task(registry.watch_silence())
                LOG.info("started", extra={"fields": {"interface": interface, "zone": zone.to_text(), "dns": str(dns)}})
                await control.start()
        finally:
            await control.close()
            await server.close()


def _links(dns: Endpoint, interface: str, conf: TunnelConf) -> tuple[str | None, ...]:
    """By which links the DNS server is to be reached; None is any.

    An address inside the tunnel is bound to the tunnel, and to the host itself: Linux answers on every link for every
    address it has, and a neighbour on the outside could otherwise ask there.
    """
    inside = any(dns.address == address.ip for address in conf.addresses)
    return (interface, "lo") if inside else (None,)


class _Registry:
    """What the tasks share: the directory, and the responder that answers from its latest snapshot."""

    def __init__(
        self,
        engine: Engine,
        conf: TunnelConf,
        names: ZoneNames,
        exact: bool,
        publish_self: bool,
        self_endpoint: Endpoint | None,
        version: str,
    ) -> None:
        self._engine = engine
        self._names = names
        self._version = version
        tunnel = conf.tunnel_prefixes()
        self._directory = Directory(conf.device, tunnel, exact)
        self._serial = 0
        status = engine.status()
        own = None
        if publish_self and status.public_key is not None:
            addresses = tuple(ip_network(address.ip) for address in conf.addresses)
            own = OwnInstance(status.public_key, status.listen_port, self_endpoint, addresses, tunnel)
        self._own = own
        self._refreshing: asyncio.Handle | None = None
        self.responder = Responder(self._snapshot(), Profile.WGSD_EXACT if exact else Profile.STRICT)

    async def follow_device(self) -> None:
        """Fold every device event into the zone at once."""
        async for event in self._engine.events():
            if isinstance(event, DeviceGone):
                raise LocalError(f"{self._engine.interface} is gone: {event.reason}")
            self._directory.observe_event(event)
            self._publish()

    async def watch_silence(self) -> None:
        """Take what went silent out of the zone."""
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            now = boot_time()
            deadline = self._directory.get_timer()
            if deadline is not None and now >= deadline:
                self._directory.observe_status(self._engine.status(), now)
                self._publish()

    def report(self) -> StatusReport:
        """For the control socket."""
        status = self._engine.status()
        return StatusReport(
            role="registry",
            interface=self._engine.interface,
            public_key=None if status.public_key is None else status.public_key.to_text(),
            listen_port=status.listen_port,
            zone=self._names.to_text(),
            engine="userspace (reference)",
            version=self._version,
            peers=[self._directory.report(peer) for peer in status.peers],
            drops={reason.value: count for reason, count in status.drops.items()},
        )

    def _publish(self) -> None:
        events = self._directory.events()
        if any(isinstance(event, Published | Withdrawn) for event in events):
            self._refresh_soon()
        for event in events:
            match event:
                case Handshaken(key, endpoint, at):
                    LOG.info("handshake", extra={"fields": {"at": at, "peer": str(key), "endpoint": str(endpoint)}})
                case Published(key, endpoint, at):
                    LOG.info("published", extra={"fields": {"at": at, "peer": str(key), "endpoint": str(endpoint)}})
                case Withdrawn(key, why, at):
                    LOG.info("stale", extra={"fields": {"at": at, "peer": str(key), "reason": why}})

    def _refresh_soon(self) -> None:
        """One snapshot, and one serial, for all that one turn of the loop brings: members return by the thousand."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        self._refreshing = None
        self.responder.zone = self._snapshot()

    def _snapshot(self) -> Zone:
        self._serial = max(self._serial + 1, int(time.time()))
        instances = {
            key: ServiceInstance(key, endpoint, allowed) for key, endpoint, allowed in self._directory.published()
        }
        return Zone(self._names, self._serial, instances, self._own)
