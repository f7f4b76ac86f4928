"""`wgdisco registry run --conf FILE`, or `--interface NAME`: a registry of a file's peers, or of an interface's.

The device, the directory and the zone's DNS server in one loop.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network

from wgdisco.api import StatusReport
from wgdisco.dnssd.export import describe
from wgdisco.dnssd.feed import Audience, Setup
from wgdisco.dnssd.instance import OwnInstance
from wgdisco.dnssd.io.process import ZoneProcess
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.secondaries import Secondaries
from wgdisco.dnssd.tally import Kind
from wgdisco.endpoint import LOOPBACK, Endpoint, IPNetwork, in_any
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.registry.directory import LIVE_FOR, Directory
from wgdisco.registry.io.metrics import of_zone
from wgdisco.registry.io.publisher import Publisher
from wgdisco.registry.io.secondaries import with_servers, zone_command
from wgdisco.tunnel import burst
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.events import PeerHandshake
from wgdisco.tunnel.host_dns import DnsMode
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.control import ControlServer, refuse_second_daemon
from wgdisco.tunnel.io.driven import any_interface, chosen
from wgdisco.tunnel.io.found import found_interface, found_peers
from wgdisco.tunnel.io.host_dns import asked_by_host
from wgdisco.tunnel.offloads import Offloads

LOG = logging.getLogger(__name__)

PEERS_INTERVAL = 1.0  # as often as the device is looked at


async def run(
    *,
    interface: str,
    conf: TunnelConf | None,
    engine: EngineKind,
    zone: ZoneNames,
    dns: Endpoint,
    exact: bool,
    publish_self: bool,
    self_endpoint: Endpoint | None,
    offloads: Offloads,
    host_dns: DnsMode,
    version: str,
    metrics: Endpoint | None = None,
    secondaries: Secondaries | None = None,
) -> None:
    """Run until cancelled, or until the interface is taken away (LocalError).

    Without a `conf` the interface is up, the kernel's or (EXTERNAL) of an engine with a UAPI socket, taken as found.
    """
    await refuse_second_daemon(interface)
    is_found = conf is None
    engine = await asyncio.to_thread(chosen, engine)
    opened = (
        found_interface(interface, engine) if conf is None else _opened(interface, conf, engine, offloads, host_dns)
    )
    async with opened as (device, conf):
        own = _own_instance(device, conf, self_endpoint) if publish_self else None
        directory = Directory(conf.device, conf.tunnel_prefixes(), exact)
        profile = Profile.WGSD_EXACT if exact else Profile.STRICT
        name = burst.engine_name(engine)
        publisher = Publisher(device, directory, zone, serials(), version, own, name, in_order=exact)
        own_endpoint = dns if self_endpoint is None else self_endpoint
        secondaries, servers = with_servers(secondaries, (dns.address, own_endpoint.address))
        server = ZoneProcess(publisher.zone, Setup(zone.to_text(), profile, (), own, secondaries=secondaries))
        publisher.follow = server.follow
        commands = {"zone": zone_command(lambda: describe(publisher.zone, servers, server.transferred, server.given))}

        def report() -> StatusReport:
            told = publisher.report()
            return replace(told, drops=told.drops | dns_drops(server))

        control = ControlServer(interface, report, commands, lambda: of_zone(publisher, server), metrics)
        try:
            for link in _links(dns, interface, conf):
                is_public = link is None and not in_any(dns.address, LOOPBACK)
                audience = Audience.ALL_STRANGERS if is_public else Audience.ALL
                server.bind(dns.address, dns.port, audience, link)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.run())
                tasks.create_task(publisher.follow_device())
                tasks.create_task(publisher.watch_silence())
                if is_found:
                    tasks.create_task(_follow_peers(device, publisher))
                LOG.info("started", extra={"fields": {"interface": interface, "zone": zone.to_text(), "dns": str(dns)}})
                await control.start()
        finally:
            await control.close()
            server.close()


@asynccontextmanager
async def _opened(
    interface: str, conf: TunnelConf, engine: EngineKind, offloads: Offloads, host_dns: DnsMode
) -> AsyncIterator[tuple[Backend, TunnelConf]]:
    async with (
        any_interface(interface, conf, engine, offloads=offloads) as device,
        asked_by_host(interface, conf.dns, host_dns),
    ):
        yield device, conf


async def _follow_peers(device: Backend, publisher: Publisher) -> None:
    """Others configure it, with `wg` or whatever brought it up: its peers are ours as they come and go."""
    known: dict[PublicKey, frozenset[IPNetwork]] | None = None
    while True:
        status, now = device.status(), boot_time()
        peers = {peer.key: frozenset(peer.allowed_ips) for peer in status.peers}  # engines tell them in any order
        if known is not None and known != peers:
            publisher.directory.set_peers(found_peers(status), now)
            for peer in status.peers:
                at = peer.handshake_at
                # its first handshake was told before we knew whose it was
                if peer.key not in known and peer.endpoint is not None and at is not None and now - at < LIVE_FOR:
                    publisher.directory.observe_event(PeerHandshake(peer.key, peer.endpoint, at))
            publisher.publish(changed=True)
        known = peers
        await asyncio.sleep(PEERS_INTERVAL)


def _links(dns: Endpoint, interface: str, conf: TunnelConf) -> tuple[str | None, ...]:
    """By which links the DNS server is to be reached; None is any.

    An address inside the tunnel is bound to the tunnel, and to the host itself: Linux answers on every link for every
    address it has, and a neighbour on the outside could otherwise ask there.
    """
    inside = any(dns.address == address.ip for address in conf.addresses)
    return (interface, "lo") if inside else (None,)


def _own_instance(device: Backend, conf: TunnelConf, endpoint: Endpoint | None) -> OwnInstance | None:
    status = device.status()
    if status.public_key is None:
        return None
    addresses = tuple(ip_network(address.ip) for address in conf.addresses)
    return OwnInstance(status.public_key, status.listen_port, endpoint, addresses, conf.tunnel_prefixes())


def dns_drops(server: ZoneProcess) -> dict[str, int]:
    """What the zone's server gave no reply, by reason."""
    return {f"dns: {reason}": count for reason, count in server.tally()[Kind.DROPS].items()}


def serials() -> Callable[[], int]:
    """Serials from unix time, ever higher while this process runs."""
    last = 0

    def following() -> int:
        nonlocal last
        last = max(last + 1, int(time.time()))
        return last

    return following
