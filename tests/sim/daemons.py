"""The registry and the member on virtual hosts: the real cores, driven as their daemons drive them on sockets."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.sim.host import EPHEMERAL_PORT, WIREGUARD_PORT, Alarm, Host
from wgdisco.api import PathWord
from wgdisco.dnssd.browser import Browser, InstanceFound, InstanceGone, Pace, RegistryReachable, RegistryUnreachable
from wgdisco.dnssd.instance import ServiceInstance
from wgdisco.dnssd.responder import Responder
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint
from wgdisco.peer.actions import Initiate, SetPeer
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.news import News
from wgdisco.registry.directory import Directory, DirectoryEvent, Published, Withdrawn
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import Event

ZONE = "wg.example."
DNS_PORT = 53
STATUS_INTERVAL = 1.0


class Registry:
    """Device, directory, zone and responder on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.told: list[DirectoryEvent] = []
        self._serial = 0
        host.bind(DNS_PORT, self._answer)
        host.on_event = self._device_event
        self.start()

    def start(self) -> None:
        """Begin, or begin again, knowing nothing but the configuration."""
        self.host.apply()
        config = DeviceConfig(peers=tuple(self.host.peers.values()))
        self._directory = Directory(config, self.host.tunnel)
        self.responder = Responder(self._snapshot())
        self._watch()

    def _device_event(self, event: Event) -> None:
        self._directory.observe_event(event)
        self._publish()

    def _watch(self) -> None:
        now = self.host.network.now
        deadline = self._directory.get_timer()
        if deadline is not None and now >= deadline and self.host.is_up:
            self._directory.observe_status(self.host.device.status(), now)
            self._publish()
        self.host.network.clock.at(now + STATUS_INTERVAL, self._watch)

    def _publish(self) -> None:
        events = self._directory.events()
        self.told += events
        if any(isinstance(event, Published | Withdrawn) for event in events):
            self.responder.zone = self._snapshot()

    def _snapshot(self) -> Zone:
        self._serial = max(self._serial + 1, int(self.host.unix_time()))
        instances = [ServiceInstance(key, endpoint, allowed) for key, endpoint, allowed in self._directory.published()]
        return Zone.create(ZONE, self._serial, instances)

    def _answer(self, query: bytes, source: Endpoint) -> None:
        reply = self.responder.respond(query, self.host.address)
        if reply is not None:
            self.host.send(reply, DNS_PORT, source)


@dataclass(frozen=True, slots=True)
class Told:
    """News and when."""

    at: float
    news: News


class Member:
    """Device, agent and browser on one host. `dns` is where the registry answers."""

    def __init__(self, host: Host, registry: Host, dns: Endpoint) -> None:
        self.host = host
        self.dns = dns
        self.told: list[Told] = []
        self._network = host.network
        for other, config in host.peers.items():
            host.peers[other] = replace(config, managed=True)
        host.apply()
        own_key = host.private.public_key()
        registry_key = registry.private.public_key()
        peers = tuple(host.peers.values())
        wanted = [peer.public_key for peer in peers if peer.public_key != registry_key]
        ours = frozenset({Endpoint(host.address, WIREGUARD_PORT), Endpoint(host.inner, WIREGUARD_PORT)})
        ourselves = Ourselves(own_key, host.tunnel, (registry_key,), ours)
        self.agent = Agent(peers, ourselves, self._network.now)
        self.browser = Browser(ZONE, wanted, self._network.random.randbytes, also=[own_key])
        self._agent_alarm = Alarm(self._network, self._agent_due)
        self._browser_alarm = Alarm(self._network, self._browser_due)
        self._port = EPHEMERAL_PORT
        host.bind(self._port, self._reply)
        host.on_event = self._device_event
        host.settle()
        self._watch()
        self._browser_due()

    def path(self, other: Host) -> PathWord:
        """The path to the other in one word."""
        return PathWord(self.agent.report(self.host.status(other)).path)

    def endpoint(self, other: Host) -> Endpoint | None:
        """Where the device sends what goes to the other."""
        return self.host.status(other).endpoint

    def _device_event(self, event: Event) -> None:
        self.agent.device_event(event)
        self._settle()

    def _watch(self) -> None:
        if self.host.is_up:
            self.agent.device_status(self.host.device.status(), self._network.now)
            self._settle()
        self._network.clock.at(self._network.now + STATUS_INTERVAL, self._watch)

    def _reply(self, data: bytes, source: Endpoint) -> None:
        if source == self.dns:
            self.browser.receive_reply(data, self._network.now)
            self._settle()

    def _agent_due(self) -> None:
        self.agent.handle_timer(self._network.now)
        self._settle()

    def _browser_due(self) -> None:
        self.browser.handle_timer(self._network.now)
        self._settle()

    def _settle(self) -> None:
        now = self._network.now
        for query in self.browser.queries_to_send():
            if query.tcp:
                self.browser.query_failed(query.id, now)
            else:
                self.host.send(query.data, self._port, self.dns)
        for event in self.browser.events():
            match event:
                case InstanceFound(instance, _):
                    self.agent.instance_found(instance.key, instance.endpoint, now)
                case InstanceGone(key, _):
                    self.agent.instance_gone(key, now)
                case RegistryReachable():
                    self.agent.registry_reachable(True, now)
                case RegistryUnreachable():
                    self.agent.registry_reachable(False, now)
                case _:
                    pass
        for action in self.agent.actions():
            match action:
                case SetPeer(key, endpoint, keepalive):
                    self.host.device.set_peer(key, endpoint, keepalive, now)
                case Initiate(key, endpoints):
                    self.host.device.initiate(key, endpoints, now)
            self.host.settle()
        self.told += [Told(now, news) for news in self.agent.news()]
        self.browser.set_pace(Pace.SETTLED if self.agent.all_live() else Pace.PATH_MISSING)
        self._agent_alarm.set(self.agent.get_timer())
        self._browser_alarm.set(self.browser.get_timer())


def all_of(*conditions: Callable[[], bool]) -> Callable[[], bool]:
    """All of them at once."""
    return lambda: all(condition() for condition in conditions)
