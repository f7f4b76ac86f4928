"""A whole tunnel interface as a `.conf` describes it: engine, addresses, MTU and routing, up and down together."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, closing, nullcontext
from dataclasses import replace

from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.link_state import LinkEvent, LinkState
from wgdisco.tunnel.io.path_mtu import conf_mtu, kept_to_path
from wgdisco.tunnel.io.policy import Policy, planned
from wgdisco.tunnel.io.uapi import UapiServer
from wgdisco.tunnel.offloads import ALL, Offloads

LOG = logging.getLogger(__name__)

_OWNER = (
    "wg may look at %s and not change it, wgdisco runs it: use wgdisco up, down, leave or rotate-key on a member, "
    "wgdisco registry add, set, rename or revoke on a registry; with --conf, change the file and start again"
)


@asynccontextmanager
async def tunnel_interface(
    name: str,
    conf: TunnelConf,
    handshake_time: Callable[[], float] = time.time,
    offloads: Offloads = ALL,
) -> AsyncIterator[Engine]:
    """Bring the interface up, and take it down at the end, whatever ends it.

    All peers are managed (formats.md, Backend). Raises ConfigError without a private key, LocalError when
    the machine does not let us. `handshake_time` is what the timestamps of initiations are made of.
    """
    async with tunnel_device(name, conf, handshake_time, offloads) as (engine, _link):
        yield engine


@asynccontextmanager
async def tunnel_device(
    name: str,
    conf: TunnelConf,
    handshake_time: Callable[[], float] = time.time,
    offloads: Offloads = ALL,
    *,
    relays: bool = False,
    shown: bool = True,
    beside: bool = False,
) -> AsyncIterator[tuple[Engine, Link]]:
    """The same, with the link, for those whose peers and routes change while it is up.

    One that `relays` tells of datagrams for others (`events.Foreign`). One that is not `shown` is none of `wg`'s
    business, and leaves no file behind when it is killed. `beside` as for `Engine.open`.
    """
    if conf.device.private_key is None:
        raise ConfigError(f"the configuration of {name} has no PrivateKey: make one with `wgdisco genkey`")
    policy = Policy(name)
    await policy.close()  # what one that was killed left
    mtu, port = await conf_mtu(conf), conf.device.listen_port
    engine = await Engine.open(name, mtu, port, handshake_time, relays=relays, offloads=offloads, beside=beside)
    try:
        link = await Link.open(name)
        try:
            routes = planned(conf)
            await link.configure(conf.addresses, mtu, routes.routes, routes.table)
            mark = await policy.mark(conf.device.fwmark) if routes.defaults else conf.device.fwmark
            peers = tuple(replace(peer, managed=True) for peer in conf.device.peers)
            engine.apply(replace(conf.device, fwmark=mark, peers=peers))
            # The mark is set before there are rules that look for it.
            await policy.open(link, routes.defaults, mark, conf.addresses)
            with await _shown(engine) if shown else nullcontext():
                async with kept_to_path(link, engine.status, conf, mtu), _followed(engine):
                    yield engine, link
        finally:
            try:
                await policy.close()
            finally:
                await link.remove()
    finally:
        await engine.close()


@asynccontextmanager
async def _followed(engine: Engine) -> AsyncIterator[None]:
    """While this lasts the engine knows the link's MTU, whoever sets it (rule M1)."""

    def told(event: LinkEvent) -> None:
        if isinstance(event, LinkState):
            engine.set_mtu(event.mtu)

    following = asyncio.ensure_future(engine.watch_link(told))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _shown(engine: Engine) -> AbstractContextManager[object]:
    """Let `wg` look at the device while this lasts; where its socket cannot be had, a line says so and that is all."""
    try:
        return closing(await UapiServer.open(engine.interface, engine, owner=_OWNER % engine.interface))
    except LocalError as error:
        LOG.info("wg does not see %s: %s", engine.interface, error)
        return nullcontext()
