"""A managed member's interface: our addresses in the network, and nothing that is the host's own already."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_interface

from wgdisco.endpoint import in_any
from wgdisco.errors import LocalError
from wgdisco.machine import has_ipv6, port_in_use
from wgdisco.peer.io.interfaces import local_addresses
from wgdisco.peer.io.state import MemberState
from wgdisco.peer.roster import Roster
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.driven import any_interface
from wgdisco.tunnel.notation import IPInterface


@asynccontextmanager
async def member_interface(
    state: MemberState, roster: Roster, engine: EngineKind, handshake_time: Callable[[], float]
) -> AsyncIterator[Backend]:
    """The interface without peers, up and down with this; LocalError when the network overlaps what is here.

    The port is the last one, so that others find us where we were, unless somebody has it now.
    """
    for address in await local_addresses(without=None if engine is EngineKind.USERSPACE else state.name):
        if in_any(address, roster.network.prefixes):
            raise LocalError(
                f"this host has {address} already, which is inside the network {state.name}: "
                "is it joined twice? Stop the other, or have the network given other prefixes"
            )
    port = 0 if state.listen_port and port_in_use(state.listen_port) else state.listen_port
    conf = TunnelConf(DeviceConfig(state.private_key, port), interface_addresses(roster))
    async with any_interface(state.name, conf, engine, handshake_time, state.offloads) as device:
        yield device


def interface_addresses(roster: Roster) -> tuple[IPInterface, ...]:
    """Our own, each with the network's prefix it is in: that routes the whole of it into the tunnel."""
    prefixes = [prefix for prefix in roster.network.prefixes if prefix.version == 4 or has_ipv6()]
    return tuple(
        ip_interface(f"{address}/{prefix.prefixlen}")
        for address in roster.own_addresses()
        for prefix in prefixes
        if prefix.version == address.version and address in prefix
    )
