"""A managed member's name server: the registry, inside the tunnel, for the names of the zone."""

import asyncio
import logging
import os

from wgdisco.machine import has_ipv6
from wgdisco.peer.io.state import MemberState
from wgdisco.peer.records import Network
from wgdisco.tunnel.host_dns import NameServers
from wgdisco.tunnel.io.host_dns import HostDns, asked_by_host

LOG = logging.getLogger(__name__)


async def keep_names(state: MemberState) -> None:
    """Have the host look the zone's names up at the registry until cancelled.

    A daemon that is not root leaves it to its unit: systemd-resolved listens to root alone, whatever its capabilities.
    """
    if os.geteuid() != 0:
        return
    async with asked_by_host(state.name, zone_servers(state), state.host_dns):
        await asyncio.Event().wait()


async def tell_names(state: MemberState) -> None:
    """The same, and leave it so; LocalError where that cannot be. The interface is up."""
    await HostDns(state.name).open(zone_servers(state), state.host_dns)


def zone_servers(state: MemberState) -> NameServers:
    """The registry's addresses inside the tunnel, for the zone.

    None where a registry's own name is in the zone: it could not be looked up before there is a tunnel to it. And none
    where the zone is another than when this host joined, or a whole top-level domain: a registry is not to have names
    looked up that are none of the network's.
    """
    network = Network.of(state.memory.snapshot.network)
    zone = _plain(network.zone.to_text())
    if zone != _plain(state.zone) or "." not in zone:
        LOG.warning("names of %s are not looked up by this host: it joined %s", zone, state.zone)
        return NameServers()
    for registry in (*state.registries, *network.registries):
        host = _plain(registry.rpartition(":")[0])
        if f".{host}".endswith(f".{zone}"):
            LOG.info("names of %s are not looked up by this host: the registry's own, %s, is one", zone, host)
            return NameServers()
    servers = (address for address in network.registry_addresses if address.version == 4 or has_ipv6())
    return NameServers(tuple(servers), zone=zone)


def _plain(name: str) -> str:
    return name.rstrip(".").lower()
