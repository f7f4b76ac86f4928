"""Where a member is: its addresses, the NAT before it, and who is near. The agent and the registry are told of it."""

import asyncio
import logging
from collections.abc import Iterable

from wgdisco.api import CandidatesRequest
from wgdisco.dnssd.io.mdns import Lan
from wgdisco.dnssd.mdns import LanPeer, LanPeerGone
from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.errors import RemoteError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.nat import MappingBehavior
from wgdisco.peer.candidate import own_candidates
from wgdisco.peer.interfaces import LocalNetwork, MdnsPolicy, mdns_interfaces
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.io.interfaces import watch
from wgdisco.peer.io.natcheck import NatProber
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.natcheck import NatReport

LOG = logging.getLogger(__name__)
_PER_PORT = MappingBehavior.ADDRESS_AND_PORT_DEPENDENT

# Networks whose NAT is remembered
NETWORKS_MAX = 32
# A NAT may change its ways: it is looked at again after that time
CHECK_INTERVAL = 600.0
# What could not be told is tried again
TELL_RETRY = 5.0


class Surroundings:
    """See the module's docstring. `met` are ids of networks where a member was met before."""

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
        self.report: NatReport | None = None
        self.lan_peers: dict[PublicKey, tuple[Endpoint, ...]] = {}
        self._driver = driver
        self._client = client
        self._tunnel = tunnel
        self._policy = policy
        self._port = driver.device.status().listen_port
        self._prober = NatProber(driver.device)
        self._lan = Lan(driver.agent.ourselves.key, self._port)
        self._known: dict[str, NatReport] = {}
        self._told: CandidatesRequest | None = None
        self._due = asyncio.Event()
        self._is_up = False

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._tell())
            tasks.create_task(self._lan.run())
            tasks.create_task(self._follow_lan())

    def receive(self, data: bytes, source: Endpoint) -> None:
        """A datagram came to the device that is neither WireGuard's nor a check."""
        self._prober.receive(data, source)

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
        if is_up:
            self._told = None
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
            addresses = {address.address for address in local.addresses}
            ours = self._driver.agent.ourselves
            ours.addresses = frozenset(Endpoint(address, self._port) for address in addresses)
            self.report = self._known.get(self._network())
            self._driver.agent.nat = None if self.report is None else self.report.profile
            if not is_first:
                LOG.info("network changed", extra={"fields": {"at": boot_time()}})
                self._driver.agent.network_changed(boot_time())
                self._driver.settle()
            is_first = False
            self._announce()
            self._due.set()

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
                pass
            self._due.clear()
            if not self._is_up:
                continue
            try:
                await self._check_nat()
                request = self._request()
                if request != self._told:
                    await self._client.tell_candidates(request)
                    self._told = request
            except RemoteError as error:
                LOG.debug("candidates not told: %s", error.reason)
                asyncio.get_running_loop().call_later(TELL_RETRY, self._due.set)

    async def _check_nat(self) -> None:
        service = await self._client.stun()
        network = self._network()
        versions = {Endpoint.from_text(text).address.version for text in service.endpoints}
        reports = [await self._prober.check(service, version) for version in sorted(versions)]
        if not reports or self._network() != network:
            return
        seen = tuple(endpoint for report in reports for endpoint in report.reflexive)
        first = reports[0]
        self.report = NatReport(first.profile, seen, first.preserved, first.block, first.rtt)
        self._known.pop(network, None)
        self._known[network] = self.report
        if len(self._known) > NETWORKS_MAX:
            del self._known[next(iter(self._known))]
        self._driver.agent.nat = first.profile
        fields = {"nat": first.profile.to_text(), "reflexive": [str(endpoint) for endpoint in seen]}
        LOG.info("nat", extra={"fields": fields})

    def _request(self) -> CandidatesRequest:
        addresses = [address.address for address in self.local.usable()]
        # where each destination has a port of its own, none of them is of use to another
        is_shared = self.report is not None and self.report.profile.mapping is not _PER_PORT
        reflexive = self.report.reflexive if self.report is not None and is_shared else ()
        candidates = own_candidates(addresses, self._port, reflexive, (), self._tunnel, boot_time())
        nat = None if self.report is None else self.report.profile.to_text()
        return CandidatesRequest([candidate.to_record() for candidate in candidates], nat)

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
