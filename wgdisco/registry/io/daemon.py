"""`wgdisco registry run --conf FILE`: a registry whose peers are pinned in a file.

The device, the directory and the zone's DNS server in one loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from ipaddress import ip_network

from wgdisco.dnssd.instance import OwnInstance
from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.responder import Profile
from wgdisco.endpoint import Endpoint
from wgdisco.registry.directory import Directory
from wgdisco.registry.io.publisher import Publisher
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.host_dns import DnsMode
from wgdisco.tunnel.io.control import ControlServer, refuse_second_daemon
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.host_dns import asked_by_host
from wgdisco.tunnel.io.interface import tunnel_interface
from wgdisco.tunnel.offloads import Offloads

LOG = logging.getLogger(__name__)


async def run(
    *,
    interface: str,
    conf: TunnelConf,
    zone: ZoneNames,
    dns: Endpoint,
    exact: bool,
    publish_self: bool,
    self_endpoint: Endpoint | None,
    offloads: Offloads,
    host_dns: DnsMode,
    version: str,
) -> None:
    """Run until cancelled, or until the interface is taken away (LocalError)."""
    await refuse_second_daemon(interface)
    async with (
        tunnel_interface(interface, conf, offloads=offloads) as engine,
        asked_by_host(interface, conf.dns, host_dns),
    ):
        own = _own_instance(engine, conf, self_endpoint) if publish_self else None
        directory = Directory(conf.device, conf.tunnel_prefixes(), exact)
        profile = Profile.WGSD_EXACT if exact else Profile.STRICT
        publisher = Publisher(engine, directory, zone, serials(), version, own, profile)
        server = DnsServer(publisher.responder)
        control = ControlServer(interface, publisher.report)
        try:
            for link in _links(dns, interface, conf):
                await server.start([(dns.address, dns.port)], link)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(publisher.follow_device())
                tasks.create_task(publisher.watch_silence())
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


def _own_instance(engine: Engine, conf: TunnelConf, endpoint: Endpoint | None) -> OwnInstance | None:
    status = engine.status()
    if status.public_key is None:
        return None
    addresses = tuple(ip_network(address.ip) for address in conf.addresses)
    return OwnInstance(status.public_key, status.listen_port, endpoint, addresses, conf.tunnel_prefixes())


def serials() -> Callable[[], int]:
    """Serials from unix time, ever higher while this process runs."""
    last = 0

    def following() -> int:
        nonlocal last
        last = max(last + 1, int(time.time()))
        return last

    return following
