"""`wgdisco registry run`: a registry that keeps its own members, in its store.

What changes is stored first, then applied to the device, the directory, the zone and the event streams, in this order.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_network
from pathlib import Path
from typing import Any

from wgdisco.api import StatusReport
from wgdisco.dnssd.export import describe
from wgdisco.dnssd.feed import Audience, Setup
from wgdisco.dnssd.io.process import ZoneProcess
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.zone import public_zone
from wgdisco.endpoint import LOOPBACK, Endpoint, IPAddress, in_any
from wgdisco.errors import LocalError
from wgdisco.invitation import ENROL_REGISTRY_ADDRESS
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time, has_ipv6
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Change, Invitation, Member, Network, Revoked
from wgdisco.registry.hub import firewall_need, hub_rules, hub_subnets
from wgdisco.registry.io import setup
from wgdisco.registry.io.commands import COMMANDS, Commands
from wgdisco.registry.io.daemon import dns_drops
from wgdisco.registry.io.feed import Feed
from wgdisco.registry.io.inside import Inside
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.metrics import Counted
from wgdisco.registry.io.publisher import Publisher
from wgdisco.registry.io.relay import NO_RELAY, Relaying
from wgdisco.registry.io.secondaries import addresses_of, with_servers, zone_command
from wgdisco.registry.io.serials import Serials
from wgdisco.registry.io.store import CERTIFICATE
from wgdisco.registry.io.stun import StunServer
from wgdisco.registry.io.takeover import Takeover
from wgdisco.registry.io.upkeep import Upkeep
from wgdisco.registry.io.websocket import WebSocketServer
from wgdisco.registry.membership import Membership
from wgdisco.registry.public_dns import DNS_PORT, PublicDns
from wgdisco.registry.records import network_record, roster
from wgdisco.registry.stun import StunResponder
from wgdisco.tunnel.burst import engine_name
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.events import DeviceStatus, Event, PathSeen, PeerHandshake
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.control import ControlServer, refuse_second_daemon
from wgdisco.tunnel.io.driven import chosen, driven_device
from wgdisco.tunnel.io.firewall import kept_open
from wgdisco.tunnel.io.forwarding import Hub, hub
from wgdisco.tunnel.io.interface import tunnel_device
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.subnets import SubnetRoutes
from wgdisco.tunnel.notation import IPInterface
from wgdisco.tunnel.offloads import Offloads

LOG = logging.getLogger(__name__)

FORWARDING_INTERVAL = 60.0
# How long a revoked member's tunnel stands, for it to hear that it is revoked
PARTING = 0.05
# At most 200 initiations a second towards those met before
INITIATION_GAP = 0.005


async def run(
    *, store: Path, dns: PublicDns, engine: EngineKind, offloads: Offloads, metrics: Endpoint | None, version: str
) -> None:
    """Run until cancelled, or until the interface is taken away. LocalError without a network in `store`."""
    engine = await asyncio.to_thread(chosen, engine)
    ledger = Ledger.open(store)
    try:
        network = ledger.membership.network
        await refuse_second_daemon(network.name)
        conf = _conf(ledger.membership, with_ipv6=has_ipv6())
        full_tunnel = any(member.full_tunnel for member in ledger.membership.members.values())
        beside = setup.server_beside(network)
        engine = engine if beside is None else EngineKind.USERSPACE  # no other can do that
        async with (
            kept_open(firewall_need(network, full_tunnel=full_tunnel), network.firewall),
            _opened(ledger.membership, conf, engine, offloads, beside) as (device, link, relaying, takeover),
            hub(network.name) as forwarder,
        ):
            registry = _Registry(
                ledger, device, link, relaying, forwarder, conf, version, engine, dns, metrics, takeover
            )
            await registry.serve()
    finally:
        await ledger.close()


@asynccontextmanager
async def _opened(
    membership: Membership, conf: TunnelConf, kind: EngineKind, offloads: Offloads, beside: str | None
) -> AsyncIterator[tuple[Backend, Link, Relaying, Takeover | None]]:
    """The interface on whichever engine, and what relays beside it; ours may have to take the place of `beside`."""
    name = membership.network.name
    if kind is EngineKind.USERSPACE:
        is_beside = beside is not None
        async with tunnel_device(name, conf, offloads=offloads, relays=True, beside=is_beside) as (engine, link):
            takeover = None if beside is None else Takeover(beside, engine, link, membership)
            yield engine, link, Relaying(engine.send_burst), takeover
    else:
        async with driven_device(name, conf, kind) as (device, link):
            relaying = Relaying.beside(device, membership.network)
            try:
                yield device, link, relaying, None
            finally:
                relaying.close()


def _conf(membership: Membership, *, with_ipv6: bool) -> TunnelConf:
    network = membership.network
    address4, address6 = network.registry_addresses
    addresses: list[IPInterface] = [
        IPv4Interface((address4, network.prefix4.prefixlen)),
        IPv4Interface((ENROL_REGISTRY_ADDRESS, 32)),
    ]
    if with_ipv6:
        addresses.append(IPv6Interface((address6, network.prefix6.prefixlen)))
    return TunnelConf(_device_config(membership, with_ipv6=with_ipv6), tuple(addresses), network.mtu)


def _device_config(membership: Membership, *, with_ipv6: bool) -> DeviceConfig:
    config = membership.device_config()
    peers = (
        replace(peer, managed=True)
        if with_ipv6
        else replace(peer, managed=True, allowed_ips=tuple(n for n in peer.allowed_ips if n.version == 4))
        for peer in config.peers
    )
    return replace(config, peers=tuple(peers))


class _Registry:
    """What the tasks share."""

    def __init__(
        self,
        ledger: Ledger,
        device: Backend,
        link: Link,
        relaying: Relaying,
        forwarder: Hub,
        conf: TunnelConf,
        version: str,
        kind: EngineKind,
        dns: PublicDns,
        metrics: Endpoint | None,
        takeover: Takeover | None = None,
    ) -> None:
        self._ledger = ledger
        self._membership = ledger.membership
        self._device = device
        self._link = link
        self._forwarder = forwarder
        self._routes = SubnetRoutes(device.interface, conf.addresses)
        self._mark = 0
        self._upkeep = Upkeep(ledger, device.status)
        self._forwarding_due = asyncio.Event()
        self._takeover = takeover  # stays when it is done
        self._network_record = network_record(self._membership)
        self._with_ipv6 = any(address.version == 6 for address in conf.addresses)
        network = self._membership.network
        prefixes = (network.prefix4, network.prefix6)
        self._directory = Directory(DeviceConfig(), prefixes)
        self._in_directory: tuple[Network, dict[PublicKey, Member]] | None = None
        self._set_directory()
        names = ZoneNames.from_text(network.zone)
        serials = Serials(ledger.store)
        self._publisher = Publisher(
            device, self._directory, names, serials.following, version, engine=engine_name(kind)
        )
        self._publisher.heard = self._heard
        self._publisher.moved = self._moved
        self._publisher.named = self._name
        self._publisher.roster = lambda: roster(self._membership)
        self._publisher.publish(changed=True)
        self.relaying = relaying
        self._publisher.foreign = self.relaying.pass_on
        self._feed = Feed(self._membership, self._directory)
        zone = names.to_text()
        self._websocket = WebSocketServer(network.listen_port, ledger.store.path.with_name(CERTIFICATE))
        self._stun = StunServer(StunResponder(network.private_key, time.time))
        commands = Commands(ledger, self._directory, self._feed, relaying.relay)
        self._inside = Inside(
            *(ledger, self._directory, self._publisher, self._feed, relaying, self._stun, commands, zone),
            device.status,
            self._drops,
        )
        self._dns = dns
        listening = () if dns.listen is None else (dns.listen.address,)
        secondaries, self._name_servers = with_servers(dns.secondaries, (*listening, *addresses_of(network.hosts)))
        setup = Setup(zone, Profile.STRICT, (), None, dns.published, secondaries)
        self._server = ZoneProcess(self._publisher.zone, setup)
        self._publisher.follow = self._server.follow
        bound = {name: commands.named(name) for name in COMMANDS}
        bound["zone"] = zone_command(self._describe)
        if takeover is not None:
            bound["takeover"] = self._tell_takeover
        counted = Counted(self._publisher, self._server, ledger, self._feed, relaying, self._stun, self._inside.orders)
        self._inside.add_metrics(counted.families)
        self._control = ControlServer(device.interface, self._report, bound, counted.families, metrics)
        self._proofs: set[asyncio.Task[None]] = set()
        ledger.follow = self._follow

    async def serve(self) -> None:
        """Run all of it, and take it down in the end."""
        network, interface = self._membership.network, self._device.interface
        own: list[IPAddress] = [network.registry_addresses[0]]
        if self._with_ipv6:
            own.append(network.registry_addresses[1])
        try:
            await self._upkeep.expire()
            await self._forward()  # before anything is let in that it confines
            if self._takeover is not None:
                self._takeover.begin()
            # by the loopback too, since the host itself may ask; nobody else comes in by it
            for link in (interface, "lo"):
                for address in own:
                    if not self._dns.covers(address):
                        self._server.bind(address, DNS_PORT, Audience.MEMBERS, link)
                await self._inside.start(own, link)
            await self._inside.start([ENROL_REGISTRY_ADDRESS], interface)
            if self._dns.listen is not None:
                if any(map(self._dns.covers, own)):
                    LOG.warning(
                        "--dns %s takes the port inside the tunnel too: members are told what strangers are; give the"
                        " public address itself",
                        self._dns.listen,
                    )
                audience = Audience.ALL_STRANGERS if self._dns.is_full else Audience.STRANGERS
                self._server.bind(self._dns.listen.address, self._dns.listen.port, audience)
            await self._serve_tls()
            await self._stun.start(network.endpoints, interface)
            await self._control.start()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._server.run())
                tasks.create_task(self._publisher.follow_device())
                tasks.create_task(self._publisher.watch_silence())
                tasks.create_task(self._call_back())
                tasks.create_task(self._take_over())
                tasks.create_task(self._upkeep.run())
                tasks.create_task(self._inside.run())
                tasks.create_task(self._keep_forwarding())
                fields = {
                    "interface": interface,
                    "zone": network.zone,
                    "dns": str(self._dns.listen or own[0]),
                }
                LOG.info("started", extra={"fields": fields})
        finally:
            for task in self._proofs:
                task.cancel()
            self._stun.close()
            await self._routes.close()
            await self._control.close()
            await self._websocket.close()
            await self._inside.close()
            self._server.close()
            self._ledger.follow = None

    # What the device tells

    def _heard(self, event: Event) -> None:
        match event:
            case PeerHandshake(key, endpoint, _) | PathSeen(key, endpoint, _):
                pass
            case _:
                return
        member = self._membership.members.get(key)
        if member is not None and member.proven:
            if self._takeover is not None:
                self._takeover.heard(member)
            self._ledger.store.observe(key, endpoint, time.time())
            self._moved([key])
        elif isinstance(event, PeerHandshake) and key not in self._membership.invitations:
            task = asyncio.ensure_future(self._prove(event))
            self._proofs.add(task)
            task.add_done_callback(self._proofs.discard)

    async def _prove(self, event: PeerHandshake) -> None:
        """A first handshake with a member's own key, or with its next one."""
        try:
            await self._ledger.change(lambda: (self._membership.prove(event.key, time.time()), None))
        except LocalError as error:
            LOG.error("%s", error)
            return
        if event.key in self._membership.members:
            self._directory.observe_event(event)
            self._publisher.publish()
            self._heard(event)

    def _report(self) -> StatusReport:
        report = self._publisher.report()
        notes = [*report.notes, *([] if self.relaying.is_there else [NO_RELAY])]
        return replace(report, drops=self._drops(self._device.status()), notes=notes)

    def _drops(self, status: DeviceStatus) -> dict[str, int]:
        device = {reason.value: count for reason, count in status.drops.items()} | self._inside.drops
        return device | dns_drops(self._server) | self.relaying.drops() | self._stun.drops()

    def _describe(self) -> dict[str, Any]:
        """The zone as strangers may have it."""
        zone = self._publisher.zone
        shown = zone if self._dns.is_full else public_zone(zone, self._dns.published)
        return describe(shown, self._name_servers, self._server.transferred, self._server.given)

    def _name(self, key: PublicKey) -> str | None:
        member = self._membership.members.get(key)
        return None if member is None else member.name

    def _moved(self, keys: Iterable[PublicKey]) -> None:
        keys = list(keys)
        for key in keys:
            entry = self._directory.entry(key)
            self.relaying.relay.locate(key, entry.endpoint if entry is not None and entry.live else None)
        members = (self._membership.members.get(key) for key in keys)
        self._feed.refresh([member for member in members if member is not None])

    # What the store tells

    async def _follow(self, changes: list[Change]) -> None:
        """Changes are stored and facts: now the device, the directory, the zone and the streams have them."""
        known = self._known
        numbers = {member.number for member in self._membership.members.values()}
        told = [self._feed.part(member) for member in known.values() if member.number not in numbers]
        if any(told):
            await asyncio.sleep(PARTING)
        self._apply()
        if self._set_directory():  # not where somebody is but invited, or not proven yet
            self._publisher.publish(changed=True)
        self.relaying.follow(known, self._membership)
        routes = [ip_network(invitation.address) for invitation in self._membership.invitations.values()]
        touched = {change.fact.number for change in changes if isinstance(change.fact, Member)}
        if self._network_record != (record := network_record(self._membership)):
            self._network_record = record
            touched.update(member.number for member in self._membership.members.values())
        before = [member for member in known.values() if member.number in touched]
        after = [member for member in self._membership.members.values() if member.number in touched]
        self._feed.refresh([*after, *before], facts=True)
        self._inside.follow()
        if any(isinstance(change.fact, Revoked) for change in changes):
            self._feed.give_receipt()
        if not all(isinstance(change.fact, Invitation) for change in changes):
            self._forwarding_due.set()
        await self._serve_tls()
        try:
            await self._link.set_routes(routes)
        except LocalError as error:
            LOG.error("%s", error)

    def _apply(self) -> None:
        """Have the device hold the members as they are now."""
        config = _device_config(self._membership, with_ipv6=self._with_ipv6)
        self._device.apply(replace(config, fwmark=self._mark))

    def _set_directory(self) -> bool:
        """Have the directory know the members as they are now; whether they, or the network, are others."""
        proven = {key: member for key, member in self._membership.members.items() if member.proven}
        network = replace(self._membership.network, next_host=0)
        if (network, proven) == self._in_directory:
            return False
        self._in_directory = network, proven
        peers = [PeerConfig(key, allowed_ips=self._membership.allowed_ips(member)) for key, member in proven.items()]
        fixed = {key: member.endpoint for key, member in proven.items() if member.endpoint is not None}
        self._directory.set_peers(peers, boot_time(), fixed)
        self._known = proven
        return True

    async def _serve_tls(self) -> None:
        """By TLS too, where the network has a port for it; the registry goes on without."""
        network = self._membership.network
        try:
            await self._websocket.listen(network.tls_port, network.hosts)
        except LocalError as error:
            LOG.error("%s", error)

    async def _forward(self) -> None:
        interface = self._device.interface
        is_alone = self._takeover is None or self._takeover.is_done
        beside = None if is_alone else self._membership.network.predecessor
        await self._forwarder.apply(hub_rules(self._membership, interface, await self._forwarder.uplinks(), beside))
        subnets = hub_subnets(self._membership)
        if subnets and not self._mark:
            self._mark = await self._routes.mark()
            self._apply()
        await self._routes.set(subnets)

    async def _keep_forwarding(self) -> None:
        """Forward as membership says now; and look now and then where the default routes lead.

        All rules are written anew, so while members come by the dozen it takes a third of the time at most.
        """
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FORWARDING_INTERVAL):
                    await self._forwarding_due.wait()
            self._forwarding_due.clear()
            began = loop.time()
            try:
                await self._forward()
            except LocalError as error:
                LOG.error("%s", error)
            await asyncio.sleep(2 * (loop.time() - began))

    # What time brings

    async def _call_back(self) -> None:
        """Greet those met before where they were last; what they answer puts them into the zone."""
        for seen in self._ledger.store.observations():
            member = self._membership.members.get(seen.key)
            if member is None or member.endpoint is not None or in_any(seen.endpoint.address, LOOPBACK):
                continue
            # a keepalive that is switched on goes out at once, and asks for a session to go out in
            self._device.set_peer(seen.key, seen.endpoint, 1)
            self._device.set_peer(seen.key, seen.endpoint, 0)
            await asyncio.sleep(INITIATION_GAP)

    async def _take_over(self) -> None:
        """Have the place of the server that this network was adopted from, if that is still to be taken."""
        if self._takeover is not None:
            await self._takeover.run(self._ledger.store.observations())
        if self._membership.network.predecessor is not None:
            await self._ledger.change(lambda: (self._membership.succeed(), None))

    async def _tell_takeover(self, _asked: dict[str, Any]) -> dict[str, Any]:
        return {} if self._takeover is None else self._takeover.report()
