"""An interface that is up, run by another engine than ours: taken as it is found, and left so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wgdisco.errors import LocalError
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io.external import ExternalWireGuard
from wgdisco.tunnel.io.kernel import KernelWireGuard
from wgdisco.tunnel.io.link import addresses_of
from wgdisco.tunnel.io.polled import PolledDevice


@asynccontextmanager
async def found_interface(interface: str, kind: EngineKind) -> AsyncIterator[tuple[PolledDevice, TunnelConf]]:
    """Of the kernel's WireGuard or (EXTERNAL) of an engine with a UAPI socket; and what it was told, but its key.

    LocalError where there is none, or no key yet. It keeps its keys, peers, addresses and routes.
    """
    is_external = kind is EngineKind.EXTERNAL
    device = PolledDevice(ExternalWireGuard(interface) if is_external else KernelWireGuard.attach(interface))
    try:
        status = device.status()
        if status.public_key is None:
            raise LocalError(f"{interface} has no private key yet: set it with `wg set {interface} private-key FILE`")
        config = DeviceConfig(None, status.listen_port, status.fwmark, found_peers(status))
        yield device, TunnelConf(config, await addresses_of(interface))
    finally:
        await device.close()


def found_peers(status: DeviceStatus) -> tuple[PeerConfig, ...]:
    """The peers that a device has, as it was told of them; preshared keys are left out."""
    return tuple(
        PeerConfig(peer.key, None, peer.endpoint, peer.allowed_ips, peer.persistent_keepalive) for peer in status.peers
    )
