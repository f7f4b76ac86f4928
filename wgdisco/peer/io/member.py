"""A managed member: the registry tells it who its peers are, and it remembers them.

The stream of events is followed while it is up; while it is down, the zone is polled for endpoints. Neither is needed
to keep, or to begin again with, the peers that are known.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from wgdisco.api import (
    EndpointChange,
    MemberRecord,
    Order,
    Receipt,
    Removed,
    RotateRequest,
    Snapshot,
    StatusReport,
)
from wgdisco.endpoint import LOOPBACK, in_any
from wgdisco.errors import LocalError, RemoteError
from wgdisco.invitation import JoinLink
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.machine import SleepWatch, boot_time
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.candidate import parse_candidates
from wgdisco.peer.check import Checks
from wgdisco.peer.io.behind import Behind, let_in
from wgdisco.peer.io.clock import HostClock
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.io.finder import RegistryFinder
from wgdisco.peer.io.member_interface import member_interface
from wgdisco.peer.io.member_names import keep_names
from wgdisco.peer.io.orders import OrderDesk, parse_nat
from wgdisco.peer.io.parting import Parting
from wgdisco.peer.io.path_report import ReportDesk
from wgdisco.peer.io.registry_client import Heartbeat, RegistryClient, RegistryTime, StreamDown, StreamEvent, StreamUp
from wgdisco.peer.io.roster_news import log_news
from wgdisco.peer.io.state import MemberState, StateStore
from wgdisco.peer.io.surroundings import Surroundings
from wgdisco.peer.io.zone_fallback import ZoneFallback
from wgdisco.peer.report import (
    REGISTRY_NAME,
    Trouble,
    blame,
    engine_notes,
    is_settled,
    notes,
)
from wgdisco.peer.roster import Roster
from wgdisco.peer.roster_news import OlderEpoch
from wgdisco.proof import rotation_proof
from wgdisco.tunnel import burst
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.events import PeerHandshake, RawReceived
from wgdisco.tunnel.firewall import Need
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.io.control import Command, ControlServer
from wgdisco.tunnel.io.driven import chosen
from wgdisco.tunnel.io.firewall import closed_in_the_end, open_again
from wgdisco.tunnel.io.gateway import Gateway
from wgdisco.tunnel.io.leftovers import take_back
from wgdisco.tunnel.noise import static_static

LOG = logging.getLogger(__name__)

# How long remembered members wait, at the start and on waking, for the registry to say that they still are
GRACE = 2.0
# How long until `connected` is told how it stands, reached or not
SETTLE_TIMEOUT = 15.0
SAVE_INTERVAL = 5.0
CONFIRM_INTERVAL = 600.0
# How long others get to hear of our next key before we use it
ANNOUNCE_TIME = 2.0
# Members that are reached at the start, before anybody sends to them
MAX_GREETED = 32


async def run(
    state: MemberState,
    store: StateStore,
    version: str,
    sleeps: SleepWatch,
    connected: Callable[[StatusReport], None] = lambda _r: None,
    link: JoinLink | None = None,
) -> None:
    """Run until cancelled, told to stop, or until the interface is taken away (LocalError).

    `sleeps` is what the loop waits in. `connected` is called once, when the registry and the members that are online
    answer, or SETTLE_TIMEOUT is over. `link` is what an ephemeral member came by.
    """
    roster = Roster(state.private_key.public_key(), state.accept, state.memory, state.offline_trust, state.exit_name)
    async with AsyncExitStack() as stack:
        # before anything is waited for: the verb has opened it
        await stack.enter_async_context(closed_in_the_end(Need(state.name, state.listen_port), state.firewall))
        clock = HostClock(state)
        state = clock.reserve(state, store)
        engine = await asyncio.to_thread(chosen, state.engine)
        await take_back(state.name)  # what one that was killed left
        device = await stack.enter_async_context(member_interface(state, roster, engine, clock.handshake_time))
        forwarder = await stack.enter_async_context(let_in(state, device.interface))
        need = Need(state.name, device.status().listen_port, full_tunnel=forwarder is not None)
        await open_again(need, state.firewall)
        LOG.info("started", extra={"fields": {"interface": device.interface, "network": state.name}})
        for note in engine_notes(engine):
            LOG.warning("%s", note)
        member = _Managed(device, engine, state, store, roster, clock, version, connected, forwarder)
        stack.push_async_callback(member.behind.close)
        if state.exit_name is not None:
            await member.behind.route()  # or not at all: nothing shall leave by another way
        control = ControlServer(device.interface, member.report, member.commands(), member.metrics, state.metrics)
        sleeps.woke = member.woke
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(task)
                    for task in (
                        member.driver.follow_device(),
                        member.driver.watch_status(),
                        member.surroundings.run(),
                        member.follow_registry(),
                        member.zone.run(),
                        member.finder.run(),
                        member.keep(),
                        keep_names(state),
                        member.behind.run(),
                        member.parting.watch(link, member.stream_up),
                        member.paths.run(),
                    )
                ]
                await control.start()
                await member.stopping.wait()
                for task in running:
                    task.cancel()
        finally:
            sleeps.woke = lambda: None
            await member.parting.end()
            member.close()
            await member.disconnect()
            await member.save()
            await control.close()  # after the state is kept: who waits for us to be down may write it next


class _Managed:
    """What the tasks share."""

    def __init__(
        self,
        device: Backend,
        engine: EngineKind,
        state: MemberState,
        store: StateStore,
        roster: Roster,
        clock: HostClock,
        version: str,
        connected: Callable[[StatusReport], None],
        forwarder: Gateway | None,
    ) -> None:
        self.stopping = asyncio.Event()
        self._device = device
        self._engine = engine
        self._state = state
        self._store = store
        self._roster = roster
        self._clock = clock
        self._version = version
        self._connected: Callable[[StatusReport], None] | None = connected
        self._registry_key = roster.network.registry_key
        self.stream_up = asyncio.Event()
        self._saved_at = 0.0
        self._older_epoch: OlderEpoch | None = None
        self._trouble = Trouble()
        self._has_snapshot = False
        self._handed_back = False  # since the stream is up
        self._known = False  # whether members need not wait any longer
        self._greeted: set[PublicKey] = set()
        ourselves = Ourselves(roster.own_key, roster.network.prefixes, (self._registry_key,))
        checks = Checks(roster.own_key, self._shared, os.urandom)
        agent = Agent((), ourselves, boot_time(), checks, managed=device.capabilities.managed)
        self.driver = AgentDriver(
            device, agent, self._look, self._handshake, self._ask, self._raw, leave_relay=self._leave
        )
        self.metrics = self.driver.counted(self.report, self.stream_up.is_set)
        self._client = RegistryClient(roster.network.registry_addresses[0], device.interface)
        self.parting = Parting(roster, self._client, self._shared, self._registry_key)
        self._orders = OrderDesk(self.driver, self._client, self.stream_up)
        self.zone = ZoneFallback(self.driver, roster, self.stream_up)
        self.finder = RegistryFinder(
            self.driver,
            self._registry_key,
            lambda: self._state.registries,
            lambda: roster.network.tls,
            self._firewalled,
        )
        self.surroundings = Surroundings(self.driver, self._client, roster.network.prefixes, state.mdns, state.met)
        self.surroundings.keepalive = self._set_keepalive
        self.behind = Behind(device.interface, state, roster, self._client, forwarder, self._refresh)
        self.surroundings.moved = self.behind.changed
        self.paths = ReportDesk(self._client, agent, lambda: self.report().peers)
        self._refresh()
        loop = asyncio.get_running_loop()
        self._deadlines = [loop.call_later(GRACE, self._release), loop.call_later(SETTLE_TIMEOUT, self._give_up)]

    def close(self) -> None:
        """No more timers."""
        for deadline in self._deadlines:
            deadline.cancel()
        self._orders.close()
        self.driver.stop()

    def woke(self) -> None:
        """The machine slept: who is a member may have changed, so ask before anything goes to or comes from one."""
        LOG.info("woke")
        self._known = False
        self._greeted.clear()
        self._refresh()
        self._client.begin_anew()
        self._deadlines.append(asyncio.get_running_loop().call_later(GRACE, self._release))

    async def disconnect(self) -> None:
        """Close what is kept open towards the registry."""
        await self._client.close()

    # Tasks

    async def follow_registry(self) -> None:
        """Let the roster know what the registry says."""
        await self.driver.look_at_addresses()
        async for event in self._client.follow():
            if isinstance(event, Receipt):
                await self._keep_receipt(event)
            else:
                self._stream_event(event)
            self.driver.settle()

    async def keep(self) -> None:
        """Keep on disk what is worth it, and look whether members are still to be trusted."""
        trusted = True
        while True:
            await asyncio.sleep(SAVE_INTERVAL)
            if self._roster.check_trust(self._clock.time()) != trusted:
                trusted = not trusted
                self._refresh()
            is_old = boot_time() - self._saved_at > CONFIRM_INTERVAL
            if self._remembered() != self._state or is_old or self._clock.is_due():
                await self.save()

    async def save(self) -> None:
        """Keep what is known now, or forget what is over; a disk that refuses is told of, and the tunnel goes on."""
        handshake_time = self._clock.to_keep()
        self._state = replace(self._remembered(), memory=self._roster.memory(), handshake_time=handshake_time)
        self._saved_at = boot_time()
        try:
            if self.parting.is_for_good:
                await asyncio.to_thread(self._store.forget, self._state.name)
            else:
                await asyncio.to_thread(self._store.save, self._state)
        except LocalError as error:
            LOG.warning("%s", error)
        self._clock.kept(self._state)

    # Commands of the control socket

    def commands(self) -> dict[str, Command]:
        """By name."""
        return {
            "rotate-key": self._rotate_key,
            "leave": self.parting.go,
            "accept": self._accept,
            "netcheck": self._netcheck,
            "stop": self._stop,
        }

    async def _stop(self, _told: dict[str, Any]) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.05, self.stopping.set)  # once the answer is out
        return {}

    async def _netcheck(self, _told: dict[str, Any]) -> dict[str, Any]:
        from wgdisco.peer.io.netcheck import netcheck  # noqa: PLC0415  what it loads few ever need

        return await netcheck(self.surroundings, self._roster, self._device, self.finder.endpoint())

    async def _accept(self, told: dict[str, Any]) -> dict[str, Any]:
        name = told.get("name")
        if not isinstance(name, str):
            raise LocalError("accept whom? give a NAME")
        key = self._roster.accept(name)
        self._refresh()
        await self.save()
        return {"key": key.to_text()}

    async def _rotate_key(self, _told: dict[str, Any]) -> dict[str, Any]:
        """Announce the next key over the old tunnel, then use it: sessions under the old one still receive."""
        if not self.stream_up.is_set():
            raise LocalError("the registry is unreachable: a key can be changed only when it is told")
        next_key = self._state.next_private_key or PrivateKey(os.urandom(32))
        self._state = replace(self._state, next_private_key=next_key)
        await asyncio.to_thread(self._store.save, self._remembered())
        shared = self._shared(self._registry_key)
        assert shared is not None, "there is a session with it"
        proof = rotation_proof(shared, next_key.public_key())
        await self._client.announce_key(RotateRequest(next_key.public_key().to_text(), proof))
        await asyncio.sleep(ANNOUNCE_TIME)
        self._state = replace(self._state, private_key=next_key, next_private_key=None)
        await asyncio.to_thread(self._store.save, self._remembered())
        self._roster.own_key = self.driver.agent.ourselves.key = next_key.public_key()
        self._refresh()
        for key in (self._registry_key, *self._roster.members):
            self.driver.agent.restart(key, boot_time())
        self.driver.settle()
        LOG.info("key changed", extra={"fields": {"key": str(next_key.public_key())}})
        return {"key": next_key.public_key().to_text()}

    # What is told

    def report(self) -> StatusReport:
        """For the control socket."""
        status = self._device.status()
        names = {member.key: member.name for member in self._roster.members.values()}
        names[self._registry_key] = REGISTRY_NAME
        online = self._roster.online()
        trouble = replace(self._trouble, clock=self._clock.note())
        peers = []
        for peer in status.peers:
            told = replace(self.driver.agent.report(peer), name=names.get(peer.key))
            peers.append(blame(told, trouble, online.get(peer.key) if self.stream_up.is_set() else None))
        return StatusReport(
            role="member",
            interface=self._device.interface,
            public_key=None if status.public_key is None else status.public_key.to_text(),
            listen_port=status.listen_port,
            zone=self._roster.network.zone.origin.to_text(),
            engine=burst.engine_name(self._engine),
            version=self._version,
            peers=peers,
            drops={reason.value: count for reason, count in status.drops.items()},
            notes=[
                *notes(self._roster, self._clock.time(), self._older_epoch, trouble),
                *self.behind.notes(self.surroundings.local),
                *engine_notes(self._engine),
            ],
            settled=self._has_snapshot and self.stream_up.is_set() and is_settled(peers),
        )

    # Inside

    def _stream_event(self, event: StreamEvent) -> None:
        agent, roster, now = self.driver.agent, self._roster, self._clock.time()
        match event:
            case StreamUp():
                self.stream_up.set()
                self._trouble = Trouble()
                self._handed_back = False
                self.surroundings.registry_up(True)
                self.behind.registry_up(True)
                self.paths.registry_up(True)
                agent.registry_reachable(True, boot_time())
                LOG.info("registry reachable")
            case StreamDown(why, is_other_version):
                self._trouble = replace(self._trouble, is_other_version=is_other_version)
                self._stream_down(why)
            case RegistryTime(unix):
                self._clock.registry_said(unix)
            case Heartbeat(silence):
                roster.confirm(now)
                self.surroundings.heard(silence)
            case Snapshot():
                self._older_epoch = None
                try:
                    roster.snapshot(event, now)
                except ValueError as error:
                    LOG.warning("snapshot refused: %s", error)
                    return
                self._state = replace(self._state, registries=tuple(event.network.registries))
                self._known = self._has_snapshot = True
                self._refresh()
            case MemberRecord():
                roster.member(event)
                self._refresh()
            case Removed(key, _):
                if key == roster.own_key.to_text():
                    self._trouble = replace(self._trouble, is_revoked=True)
                    LOG.warning("revoked")
                roster.removed(event)
                self._refresh()
            case EndpointChange():
                roster.endpoint(event)
                self._tell_endpoints()
            case Order():
                self._orders.given(event)

    def _ask(self, key: PublicKey) -> None:
        self._orders.ask(key)

    def _leave(self, key: PublicKey) -> None:
        self._orders.leave(key)

    def _firewalled(self, is_firewalled: bool) -> None:
        self._trouble = replace(self._trouble, is_firewalled=is_firewalled)

    def _raw(self, raw: RawReceived) -> None:
        self.surroundings.receive(raw.data, raw.source)

    def _shared(self, key: PublicKey) -> bytes | None:
        return static_static(self._state.private_key, key)

    async def _keep_receipt(self, told: Receipt) -> None:
        """Hand the last one back to a registry that may have been restored since; it comes before all else it tells."""
        kept = self._state.receipt
        if kept and kept != told.receipt and not self._handed_back:
            try:
                if await self._client.hand_back(kept):
                    LOG.warning("the registry had forgotten what was revoked, and was told")
                    self._client.begin_anew()  # what it tells now is from before
                    return
            except RemoteError as error:
                LOG.warning("receipt not taken: %s", error.reason)
                return
        self._handed_back = True
        if kept != told.receipt:
            self._state = replace(self._state, receipt=told.receipt)
            self._saved_at = 0.0

    def _stream_down(self, why: str) -> None:
        agent = self.driver.agent
        if self.stream_up.is_set():
            self.stream_up.clear()
            self.surroundings.registry_up(False)
            self.behind.registry_up(False)
            self.paths.registry_up(False)
            agent.registry_reachable(False, boot_time())
            LOG.warning("registry unreachable", extra={"fields": {"reason": why}})
        if not self._trouble.is_other_version:
            # it may have been heard once more while it went away
            agent.restart(self._registry_key, boot_time())

    def _handshake(self, event: PeerHandshake) -> None:
        if event.key == self._registry_key:
            self._client.shook_hands(event.at)
        if self._roster.rotated(event.key):
            self._refresh()

    def _release(self) -> None:
        if not self._known:
            self._known = True
            self._refresh()
            self.driver.settle()

    def _refresh(self) -> None:
        """Have device and agent hold the peers of the roster as it is now."""
        peers = self._roster.peers(self._clock.time(), self._state.endpoints)
        if not self._known:
            peers = peers[:1]  # the registry
        state, port = self._state, self._device.status().listen_port
        mark = self.behind.mark
        self._device.apply(self._roster.device_config(state.private_key, state.preshared_key, port, peers, mark))
        self.behind.changed()
        members = frozenset(one.key for one in self._roster.members.values() if not one.is_device)
        self.driver.agent.set_peers(peers, boot_time(), members)
        self.surroundings.set_known(members)
        for news in self._roster.news():
            self._older_epoch = news if isinstance(news, OlderEpoch) else self._older_epoch
            log_news(news)
        if self._known:
            self._tell_endpoints()
        self.driver.settle()

    def _set_keepalive(self, seconds: int) -> None:
        if seconds != self._roster.keepalive:
            self._roster.keepalive = seconds
            self._refresh()

    def _tell_endpoints(self) -> None:
        """The agent is told of changes only: it reports each."""
        agent, now = self.driver.agent, boot_time()
        agent.ourselves.reflexive = self._roster.own_endpoint
        endpoints = self._roster.live_endpoints()
        for key, is_online in self._roster.online().items():
            endpoint = endpoints[key]
            if not is_online:
                agent.instance_gone(key, now)
            elif endpoint is not None and agent.published(key) != endpoint:
                agent.instance_found(key, endpoint, now)
            told = self._roster.told_of(key)
            if told is not None:
                agent.set_candidates(key, parse_candidates(told.candidates, now), parse_nat(told.nat), now)
        self._greet()

    def _greet(self) -> None:
        """At the start have a path to every member that is online, up to a number: then they are a ping away."""
        if not self.stream_up.is_set():
            return
        for key, is_online in self._roster.online().items():
            if is_online and key not in self._greeted and len(self._greeted) < MAX_GREETED:
                self._greeted.add(key)
                self.driver.agent.want(key, boot_time())

    def _look(self) -> None:
        """Tell once that all who can be reached are."""
        if self._connected is None or not self._has_snapshot or self.driver.agent.is_trying(boot_time()):
            return
        if (report := self.report()).settled:
            connected, self._connected = self._connected, None
            connected(report)

    def _give_up(self) -> None:
        """Tell how it stands when not all could be reached in time."""
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(self.report())

    def _remembered(self) -> MemberState:
        """The state as it would be kept now, but for when it was confirmed."""
        status = self._device.status()
        memory = replace(self._roster.memory(), confirmed_at=self._state.memory.confirmed_at)
        endpoints = dict(self._state.endpoints)
        for peer in status.peers:
            stays = peer.endpoint is not None and not in_any(peer.endpoint.address, LOOPBACK)
            is_own = peer.endpoint != self.driver.agent.relay or peer.key == self._registry_key
            if peer.endpoint is not None and stays and is_own and self.driver.agent.is_live(peer.key):
                self.surroundings.reached(peer.endpoint)
                endpoints[peer.key] = peer.endpoint
        kept = {key: at for key, at in endpoints.items() if key == self._registry_key or key in self._roster.members}
        met = tuple(self.surroundings.met)
        return replace(self._state, memory=memory, endpoints=kept, listen_port=status.listen_port, met=met)
