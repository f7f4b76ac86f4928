"""Where a member is: its addresses, the NAT before it, and who is near. The agent and the registry are told of it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wgdisco.api import CandidatesRequest, StunRecord
from wgdisco.dnssd.io.mdns import Lan
from wgdisco.dnssd.mdns import LanPeer, LanPeerGone
from wgdisco.endpoint import LOOPBACK, Endpoint, IPNetwork, in_any
from wgdisco.errors import RemoteError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.nat import MappingBehavior
from wgdisco.peer.candidate import own_candidates
from wgdisco.peer.interfaces import LocalNetwork, MdnsPolicy, mdns_interfaces
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.io.interfaces import watch
from wgdisco.peer.io.lifetime import measure_lifetime
from wgdisco.peer.io.natcheck import NatProber
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.lifetime import Lifetime
from wgdisco.peer.natcheck import NatReport, merged

LOG = logging.getLogger(__name__)
_PER_PORT = MappingBehavior.ADDRESS_AND_PORT_DEPENDENT

# Networks whose NAT is remembered
NETWORKS_MAX = 32
# A NAT may change its ways: it is looked at again after that time
CHECK_INTERVAL = 3600.0
# Its lifetime is measured once a network, when all else is done
MEASURE_AFTER = 10.0
# So much later than a comment of the stream is due, WireGuard's keepalive goes out, in seconds
KEEPALIVE_LATER = 5
# What could not be told is tried again
TELL_RETRY = 5.0


@dataclass(slots=True)
class Outlook:
    """What is known of the NAT of one network: by IP version, and how long it remembers."""

    reports: dict[int, NatReport] = field(default_factory=dict)
    lifetime: Lifetime = field(default_factory=Lifetime)


class Surroundings:
    """See the module's docstring. `met` are ids of networks where a member was met before.

    `hearers` are told of datagrams to the device that are neither WireGuard's nor checks. `keepalive` is called when
    the registry's peer is to have another one (seconds), `moved` when addresses or default routes are others.
    """

    def __init__(
        self,
        driver: AgentDriver,
        client: RegistryClient,
        tunnel: tuple[IPNetwork, ...],
        policy: MdnsPolicy,
        met: Iterable[str],
    ) -> None:
        self.met = list(met)
        self.local = LocalNetwork()
        self.outlook = Outlook()
        self.report: NatReport | None = None
        self.keepalive: Callable[[int], None] = lambda _seconds: None
        self.moved: Callable[[], None] = lambda: None
        self.lan_peers: dict[PublicKey, tuple[Endpoint, ...]] = {}
        self._driver = driver
        self.client = client
        self._tunnel = tunnel
        self._policy = policy
        self._port = driver.device.status().listen_port
        self._prober = NatProber(driver.device)
        self.hearers: set[Callable[[bytes, Endpoint], None]] = {self._prober.receive}
        self._lan = Lan(driver.agent.ourselves.key, self._port)
        self._known: dict[str, Outlook] = {}
        self._told: CandidatesRequest | None = None
        self._due = asyncio.Event()
        self._is_nat_due = True
        self._checking = asyncio.Lock()
        self._measuring: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._is_up = False

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._watch())
            tasks.create_task(self._tell())
            tasks.create_task(self._lan.run())
            tasks.create_task(self._follow_lan())

    def receive(self, data: bytes, source: Endpoint) -> None:
        """A datagram came to the device that is neither WireGuard's nor a check."""
        for hearer in list(self.hearers):
            hearer(data, source)

    def set_known(self, keys: Iterable[PublicKey]) -> None:
        """Look for these members near by, and announce our key as it is now."""
        known = frozenset(keys)
        self._lan.set_known(known)
        self._lan.set_identity(self._driver.agent.ourselves.key, self._port)
        self.lan_peers = {key: endpoints for key, endpoints in self.lan_peers.items() if key in known}
        # who was near before it was a peer
        for key, endpoints in self.lan_peers.items():
            self._driver.agent.set_lan(key, endpoints, boot_time())

    def registry_up(self, is_up: bool) -> None:
        """The registry's stream is up: it may have forgotten what it was told."""
        self._is_up = is_up
        self._told = None
        self._set_keepalive()
        if is_up:
            self._is_nat_due = True
            self._due.set()

    def heard(self, silence: float) -> None:
        """A comment came on the registry's stream; if too late, the NAT remembers less long than was found out.

        Then the interval is the usual one, until the NAT is looked at again.
        """
        if self.outlook.lifetime.is_refuted(silence):
            self.outlook.lifetime = Lifetime()
            LOG.info("nat lifetime", extra={"fields": {"refuted": round(silence)}})
            self._set_keepalive()
            self._due.set()

    def reached(self, endpoint: Endpoint) -> None:
        """A member was reached there: if that is on our own network, look for members here from now on."""
        for address in self.local.usable():
            if endpoint.address.version == address.network.version and endpoint.address in address.network:
                network = self.local.network_id(address.interface)
                if network is not None and network not in self.met:
                    self.met = [*self.met[-NETWORKS_MAX + 1 :], network]
                    self._announce()

    async def _watch(self) -> None:
        """Let the agent know at once when our addresses or routes are others."""
        is_first = True
        async for local in watch(self._driver.device.interface):
            self.local = local
            self.moved()
            addresses = {address.address for address in local.addresses}
            ours = self._driver.agent.ourselves
            ours.addresses = frozenset(Endpoint(address, self._port) for address in addresses)
            self._look()
            if not is_first:
                LOG.info("network changed", extra={"fields": {"at": boot_time()}})
                self._driver.agent.network_changed(boot_time())
                self._driver.settle()
            is_first = False
            self._announce()
            self._is_nat_due = True
            self._due.set()

    def _look(self) -> None:
        """Take up what is known of the NAT of the network that we are on now."""
        outlook = self._known.get(self._network(), Outlook())
        if outlook is not self.outlook and self._measuring is not None:
            self._measuring.cancel()
            self._measuring = None
        self.outlook = outlook
        self.report = merged(outlook.reports)
        self._driver.agent.nat = None if self.report is None else self.report.profile
        self._set_keepalive()

    def _announce(self) -> None:
        self._lan.set_interfaces(mdns_interfaces(self.local, self._policy, self.met))

    def _network(self) -> str:
        """What tells the network we go out by from others."""
        gateway = self.local.default_gateway()
        return (self.local.network_id(gateway.interface) if gateway is not None else None) or ""

    async def _tell(self) -> None:
        """Whenever something may be new, look at the NAT and tell the registry where we may be reached."""
        while True:
            try:
                async with asyncio.timeout(CHECK_INTERVAL):
                    await self._due.wait()
            except TimeoutError:
                self._is_nat_due = True
            self._due.clear()
            if not self._is_up:
                continue
            try:
                if self._is_nat_due:
                    await self.check_nat()
                    self._is_nat_due = False
                request = self._request()
                if request != self._told:
                    self.client.heartbeat = self.outlook.lifetime.interval()
                    await self.client.tell_candidates(request)
                    self._told = request
                    self._set_keepalive()
            except RemoteError as error:
                LOG.debug("candidates not told: %s", error.reason)
                asyncio.get_running_loop().call_later(TELL_RETRY, self._due.set)

    async def check_nat(self) -> StunRecord:
        """Look at the NAT now, and return by whom. RemoteError when the registry does not answer."""
        async with self._checking:
            service = await self.client.stun()
            network = self._network()
            versions = sorted(self._versions(service))
            reports = await asyncio.gather(*(self._prober.check(service, version) for version in versions))
            if not reports or self._network() != network:
                return service
            outlook = self._known.pop(network, None) or Outlook()
            outlook.reports = dict(zip(versions, reports, strict=True))
            self._known[network] = outlook
            if len(self._known) > NETWORKS_MAX:
                del self._known[next(iter(self._known))]
            self._look()
            if self.report is not None:
                seen = [str(endpoint) for endpoint in self.report.reflexive]
                LOG.info("nat", extra={"fields": {"nat": self.report.profile.to_text(), "reflexive": seen}})
            is_measuring = self._measuring is not None and not self._measuring.done()
            if not outlook.lifetime.is_known and not is_measuring and self._tasks is not None:
                self._measuring = self._tasks.create_task(self._measure(outlook))
            return service

    def _versions(self, service: StunRecord) -> set[int]:
        """Those of IP that the registry can be asked over, and we may have a way to."""
        asked: set[int] = {Endpoint.from_text(text).address.version for text in service.endpoints}
        ours: set[int] = {one.address.version for one in self.local.usable()} | {
            route.version for route in self.local.routes
        }
        return asked & ours if ours else asked

    async def _measure(self, outlook: Outlook) -> None:
        """Find out how long the NAT remembers, where UDP goes through it."""
        await asyncio.sleep(MEASURE_AFTER)
        registry = self._driver.agent.relay
        if registry is None or in_any(registry.address, LOOPBACK):
            return
        try:
            service = await self.client.stun()
        except RemoteError:
            return  # when the stream is up again
        version = registry.address.version
        servers = [one for one in map(Endpoint.from_text, service.endpoints) if one.address.version == version]
        if not servers:
            return
        server = min(servers, key=lambda one: one.address != registry.address)
        found = await measure_lifetime(service, server, self._driver.device.status().fwmark)
        if found.is_known:
            outlook.lifetime = found
            below = None if found.below is None else round(found.below)
            LOG.info("nat lifetime", extra={"fields": {"at_least": round(found.at_least), "below": below}})
            self._due.set()

    def _set_keepalive(self) -> None:
        """The registry's comments keep the mapping alive; WireGuard's own keepalive steps in when they do not come."""
        beat = self.outlook.lifetime.interval()
        comes = self._told is not None and self._told.heartbeat == beat
        self.keepalive(beat + KEEPALIVE_LATER if comes else beat)

    def _request(self) -> CandidatesRequest:
        addresses = [address.address for address in self.local.usable()]
        # where each destination has a port of its own, none of them is of use to another
        is_shared = self.report is not None and self.report.profile.mapping is not _PER_PORT
        reflexive = self.report.reflexive if self.report is not None and is_shared else ()
        candidates = own_candidates(addresses, self._port, reflexive, (), self._tunnel, boot_time())
        nat = None if self.report is None else self.report.profile.to_text()
        beat = self.outlook.lifetime.interval() if self.outlook.lifetime.is_known else None
        return CandidatesRequest([candidate.to_record() for candidate in candidates], nat, beat)

    async def _follow_lan(self) -> None:
        async for event in self._lan.events():
            match event:
                case LanPeer(key, endpoints, at):
                    self.lan_peers[key] = endpoints
                    LOG.info("near", extra={"fields": {"at": at, "peer": str(key)}})
                case LanPeerGone(key, at):
                    self.lan_peers.pop(key, None)
            self._driver.agent.set_lan(event.key, self.lan_peers.get(event.key, ()), boot_time())
            self._driver.settle()
