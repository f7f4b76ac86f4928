"""Enrolment: a short-lived tunnel under the invitation's one-time key, one request in it, and it is gone."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

from wgdisco import invitation
from wgdisco.api import EnrolRequest, SelfRecord
from wgdisco.endpoint import LINK_LOCAL, Endpoint
from wgdisco.errors import LocalError, RemoteError, TimedOutError
from wgdisco.invitation import ENROL_REGISTRY_ADDRESS, JoinLink
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.io.resolve import resolve
from wgdisco.peer.io.websocket import TLS_PORT, UDP_TIMEOUT, standing_in
from wgdisco.peer.roster import KEEPALIVE
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.interface import tunnel_device

HANDSHAKE_TIMEOUT = 10.0
ATTEMPTS = 3
MTU = 1280


async def enrol(link: JoinLink, key: PublicKey, name: str | None) -> SelfRecord:
    """Make the owner of `key` a member, under `name` unless the invitation has one.

    TimedOutError when no registry answers, RemoteError with the registry's reason, LocalError when the machine does not
    let us.
    """
    endpoints = await resolve(link.registries)
    if not endpoints:
        hosts = ", ".join(registry.rpartition(":")[0] for registry in link.registries)
        raise LocalError(f"cannot find {hosts}: check this host's network and DNS")
    private_key = invitation.enrol_private_key(link.secret)
    own = invitation.enrol_address(link.secret)
    peer = PeerConfig(link.registry_key, None, None, (ip_network(ENROL_REGISTRY_ADDRESS),), KEEPALIVE, managed=True)
    conf = TunnelConf(DeviceConfig(private_key, peers=(peer,)), (ip_interface(f"{own}/32"),), MTU)
    interface = f"wgd-join{os.getpid() % 1_000_000}"
    async with tunnel_device(interface, conf, shown=False) as (device, _link):
        _accept_local(interface)
        agent = Agent(
            (replace(peer, endpoint=endpoints[0]),), Ourselves(private_key.public_key(), LINK_LOCAL), boot_time()
        )
        agent.set_alternatives(link.registry_key, endpoints, boot_time())
        async with _handshake(device, agent, link, endpoints):
            client = RegistryClient(ENROL_REGISTRY_ADDRESS, interface)
            return await _ask(client, EnrolRequest(key.to_text(), name))


def _accept_local(interface: str) -> None:
    """A host that is a registry itself has that very address, and drops what comes from it unless told otherwise."""
    with suppress(OSError):  # not root: others do without
        Path(f"/proc/sys/net/ipv4/conf/{interface}/accept_local").write_text("1")


@asynccontextmanager
async def _handshake(
    device: Engine, agent: Agent, link: JoinLink, endpoints: tuple[Endpoint, ...]
) -> AsyncIterator[None]:
    """Have a session with the registry for as long as this lasts: by UDP or, where nothing comes back, by TLS."""
    reached = asyncio.Event()
    driver = AgentDriver(device, agent, handshake=lambda _event: reached.set(), quiet=True)
    driver.settle()
    watching = asyncio.gather(driver.follow_device(), driver.watch_status())
    try:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(UDP_TIMEOUT):
                    await reached.wait()
            except TimeoutError:
                port = device.status().listen_port
                endpoint = await stack.enter_async_context(standing_in(_tls_ports(link), port))
                agent.ourselves.stand_ins = frozenset([endpoint])
                agent.set_alternatives(link.registry_key, (*endpoints, endpoint), boot_time())
                driver.settle()
            async with asyncio.timeout(HANDSHAKE_TIMEOUT - UDP_TIMEOUT):
                await reached.wait()
            yield
    except TimeoutError as error:
        raise no_answer(link.registries) from error
    finally:
        driver.stop()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _tls_ports(link: JoinLink) -> list[str]:
    """The link does not say: the usual one of each host."""
    hosts = dict.fromkeys(registry.rpartition(":")[0] for registry in link.registries)
    return [f"{host}:{TLS_PORT}" for host in hosts]


def no_answer(registries: tuple[str, ...]) -> TimedOutError:
    """Nothing was heard from these registries."""
    where = ", ".join(f"{host} udp/{port}" for host, _, port in (registry.rpartition(":") for registry in registries))
    return TimedOutError(
        f"no answer from {where}: open it in the host's firewall and the provider's security group"
        " (or the invitation has expired or was used: ask for another)"
    )


async def _ask(client: RegistryClient, request: EnrolRequest) -> SelfRecord:
    """The same request may be made again: the registry answers the same key with the same member."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await client.enrol(request)
        except RemoteError as error:
            if error.__cause__ is None:
                raise  # the registry's own reason, not the network's
    return await client.enrol(request)
