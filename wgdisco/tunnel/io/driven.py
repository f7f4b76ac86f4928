"""A whole tunnel interface as a `.conf` describes it, on an engine that is not ours.

The kernel's is made here, and goes in the end, or when the next one begins, where a run was killed: it has our key.
Another program's is there already, without keys; it is left without keys again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from wgdisco.errors import ConfigError, LocalError
from wgdisco.keys import PublicKey
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.external import ExternalWireGuard
from wgdisco.tunnel.io.interface import tunnel_interface
from wgdisco.tunnel.io.kernel import KernelWireGuard
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.path_mtu import conf_mtu, kept_to_path
from wgdisco.tunnel.io.policy import Policy, planned
from wgdisco.tunnel.io.polled import PolledDevice, without_haste
from wgdisco.tunnel.offloads import ALL, Offloads

LOG = logging.getLogger(__name__)


def chosen(kind: EngineKind) -> EngineKind:
    """`auto` decided: the kernel's where it has one and lets us."""
    if kind is not EngineKind.AUTO:
        return kind
    return EngineKind.KERNEL if KernelWireGuard.is_there() else EngineKind.USERSPACE


@asynccontextmanager
async def any_interface(
    name: str,
    conf: TunnelConf,
    kind: EngineKind,
    handshake_time: Callable[[], float] = time.time,
    offloads: Offloads = ALL,
) -> AsyncIterator[Backend]:
    """The interface on whichever engine; what is said besides concerns ours only. As `interface.tunnel_interface`."""
    if kind is EngineKind.USERSPACE:
        async with tunnel_interface(name, conf, handshake_time, offloads) as engine:
            yield engine
    else:
        async with driven_device(name, conf, kind) as (device, _link):
            yield device


@asynccontextmanager
async def driven_device(name: str, conf: TunnelConf, kind: EngineKind) -> AsyncIterator[tuple[PolledDevice, Link]]:
    """Bring the interface up on the kernel's engine or (EXTERNAL) another's, and take it down at the end.

    Raises ConfigError without a private key, LocalError when the machine does not let us.
    """
    if conf.device.private_key is None:
        raise ConfigError(f"the configuration of {name} has no PrivateKey: make one with `wgdisco genkey`")
    own_key = conf.device.private_key.public_key()
    policy = Policy(name)
    await policy.close()  # what one that was killed left
    client = await asyncio.to_thread(_taken, name, kind, own_key)
    try:
        link = await Link.open(name)
        try:
            mtu = await conf_mtu(conf)
            routes = planned(conf)
            mark = await policy.mark(conf.device.fwmark) if routes.defaults else conf.device.fwmark
            peers = tuple(map(without_haste, conf.device.peers))
            await asyncio.to_thread(client.apply, replace(conf.device, fwmark=mark, peers=peers))
            await link.configure(conf.addresses, mtu, routes.routes, routes.table)
            await policy.open(link, routes.defaults, mark, conf.addresses)
            device = PolledDevice(client)
            try:
                async with kept_to_path(link, device.status, conf, mtu):
                    yield device, link
            finally:
                await device.close()
        finally:
            try:
                await policy.close()
            finally:
                await link.remove()
    finally:
        await asyncio.to_thread(_let_go, client, own_key)


def remove_left(name: str, own_key: PublicKey) -> None:
    """Delete the kernel's interface that a daemon of ours left behind when it was killed; without one, nothing.

    It has our key, or none yet, and is one that we made.
    """
    with suppress(LocalError):
        device = KernelWireGuard.attach(name)
        key = device.status().public_key
        device.is_ours = key == own_key or (key is None and device.was_made_by_us())
        device.close()


def _taken(name: str, kind: EngineKind, own_key: PublicKey) -> KernelWireGuard | ExternalWireGuard:
    """The interface, made if it is the kernel's; LocalError when it is somebody else's."""
    client: KernelWireGuard | ExternalWireGuard
    if kind is EngineKind.EXTERNAL:
        client = ExternalWireGuard(name)
        is_free = client.status().public_key in (None, own_key)
    else:
        remove_left(name, own_key)
        client = KernelWireGuard.open(name)
        is_free = client.is_ours
    if is_free:
        return client
    client.close()
    raise LocalError(
        f"there is an interface {name} here already, with a key of its own: give another name, or leave its keys as"
        f" they are with `wgdisco join --engine {kind.value} --interface {name} --zone … --dns …`"
    )


def _let_go(client: KernelWireGuard | ExternalWireGuard, own_key: PublicKey) -> None:
    if isinstance(client, ExternalWireGuard):
        with suppress(LocalError):  # it may have ended before us
            client.apply(DeviceConfig())
    client.close()
