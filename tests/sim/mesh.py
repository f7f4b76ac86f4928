"""A network of members on virtual hosts: registry with orders and relay, members with checked paths.

The API is carried as messages inside the tunnel, said again until they are acknowledged, as TCP does it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.host import WIREGUARD_PORT, Alarm, Host
from wgdisco.api import Order, PathWord, parse_candidate, to_json
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.actions import AskOrder, Initiate, Probe, SendRaw, SetPeer, SetRelays
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.candidate import own_candidates, parse_candidates
from wgdisco.peer.check import Checks
from wgdisco.peer.news import News
from wgdisco.registry.candidates import validate
from wgdisco.registry.directory import Directory
from wgdisco.registry.orders import Orders
from wgdisco.registry.records import order_record
from wgdisco.registry.relay import Relay
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import Event, Foreign, PathSeen, PeerHandshake, RawReceived
from wgdisco.tunnel.noise import static_static

API_PORT = 80
STATUS_INTERVAL = 1.0
RTO = 0.25
_ACK = b"ack"


class Channel:
    """Messages to one inner address, each said again until it is acknowledged."""

    def __init__(self, host: Host, receive: Callable[[dict, Endpoint], None]) -> None:
        self._host = host
        self._receive = receive
        self._number = 0
        self._unacknowledged: set[int] = set()
        self._seen: set[tuple[Endpoint, int]] = set()
        host.bind(API_PORT, self._arrived)

    def send(self, message: dict, to: Endpoint) -> None:
        self._number += 1
        data = json.dumps({"number": self._number, "message": message}).encode()
        self._unacknowledged.add(self._number)
        self._say(self._number, data, to, RTO)

    def _say(self, number: int, data: bytes, to: Endpoint, pause: float) -> None:
        if number in self._unacknowledged:
            self._host.send(data, API_PORT, to)
            clock = self._host.network.clock
            clock.at(clock.now + pause, lambda: self._say(number, data, to, 2 * pause))

    def _arrived(self, data: bytes, source: Endpoint) -> None:
        if data[:3] == _ACK:
            self._unacknowledged.discard(int(data[3:]))
            return
        told = json.loads(data)
        self._host.send(_ACK + str(told["number"]).encode(), API_PORT, source)
        if (source, told["number"]) not in self._seen:
            self._seen.add((source, told["number"]))
            self._receive(told["message"], source)


class MeshRegistry:
    """Device, directory, orders and relay on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.relay = Relay()
        self.orders = Orders()
        host.on_event = self._device_event
        host.apply()
        self.directory = Directory(DeviceConfig(peers=tuple(host.peers.values())), host.tunnel)
        self._channel = Channel(host, self._asked)
        self._members = {Endpoint(other.inner, API_PORT): other.private.public_key() for other in host.peers}
        self._inner = {key: endpoint for endpoint, key in self._members.items()}

    def comment(self, interval: float) -> None:
        """Say to each member, each `interval` seconds from now on, that we are there."""
        for endpoint in self._members:
            self._channel.send({}, endpoint)
        clock = self.host.network.clock
        clock.at(clock.now + interval, lambda: self.comment(interval))

    def _device_event(self, event: Event) -> None:
        now = self.host.network.now
        if isinstance(event, Foreign):
            forward = self.relay.receive(event, now)
            if forward is not None:
                for row in Burst(forward.data, forward.row).rows():
                    self.host.send_raw(bytes(row), forward.endpoint)
            return
        self.directory.observe_event(event)
        if isinstance(event, PeerHandshake | PathSeen):
            self.relay.locate(event.key, event.endpoint)

    def _asked(self, message: dict, source: Endpoint) -> None:
        asker = self._members[source]
        entry = self.directory.entry(asker)
        if "candidates" in message:
            records = [parse_candidate(one) for one in message["candidates"]]
            self.directory.tell(asker, validate(records, entry.endpoint, (), self.host.tunnel), message["nat"])
            return
        peer = PublicKey.from_text(message["peer"])
        if not next(other for other in self.host.peers if other.private.public_key() == peer).is_up:
            self._channel.send({"offline": message["peer"]}, source)
            return
        made = self.orders.request(asker, peer, self.host.network.now, self.directory.places(asker, peer))
        if made is not None and made[1]:
            relayed = self.relay.admit(asker, peer, self.host.network.now)
            for side, other in ((asker, peer), (peer, asker)):
                order = order_record(self.directory, made[0], other, relayed)
                self._channel.send(to_json(order), self._inner[side])


@dataclass(frozen=True, slots=True)
class Told:
    """News and when."""

    at: float
    news: News


class MeshMember:
    """Device and agent on one host; the registry's API is at `registry.inner`."""

    def __init__(self, host: Host, registry: Host) -> None:
        self.host = host
        self.told: list[Told] = []
        self.asked_at: dict[PublicKey, float] = {}
        self._network = host.network
        self._registry = registry
        host.apply()
        self._api = Endpoint(registry.inner, API_PORT)
        registry_key = registry.private.public_key()
        ours = frozenset({Endpoint(host.address, WIREGUARD_PORT), Endpoint(host.inner, WIREGUARD_PORT)})
        own_key = host.private.public_key()
        ourselves = Ourselves(own_key, host.tunnel, (registry_key,), ours)
        checks = Checks(own_key, lambda key: static_static(host.private, key), self._network.random.randbytes)
        self.agent = Agent((), ourselves, self._network.now, checks)
        peers = tuple(host.peers.values())
        members = frozenset(peer.public_key for peer in peers if peer.public_key != registry_key)
        self.agent.set_peers(peers, self._network.now, members)
        self._channel = Channel(host, self._heard)
        self._alarm = Alarm(self._network, self._due)
        host.on_event = self._device_event
        host.settle()
        self._settle()
        self._watch()

    def tell_candidates(self) -> None:
        """Say where we may be reached."""
        now = self._network.now
        candidates = own_candidates([self.host.address], WIREGUARD_PORT, (), (), self.host.tunnel, now)
        records = [vars_of(one.to_record()) for one in candidates]
        self._channel.send({"candidates": records, "nat": None}, self._api)

    def want(self, other: Host) -> None:
        """Send a packet to the other."""
        self.host.ping(other)

    def path(self, other: Host) -> PathWord:
        return PathWord(self.agent.report(self.host.status(other)).path)

    def endpoint(self, other: Host) -> Endpoint | None:
        return self.host.status(other).endpoint

    def network_changed(self) -> None:
        self.agent.network_changed(self._network.now)
        self._settle()

    def _heard(self, message: dict, _source: Endpoint) -> None:
        if not message:
            return  # a comment: to acknowledge it was all
        if "offline" in message:
            self.agent.order_refused(PublicKey.from_text(message["offline"]), self._network.now, is_offline=True)
            self._settle()
            return
        del message["schema"]
        candidates = [parse_candidate(one) for one in message.pop("candidates")]
        order = Order(candidates=candidates, **message)
        now = self._network.now
        peer, initiator = PublicKey.from_text(order.peer), PublicKey.from_text(order.initiator)
        self.agent.ordered(peer, initiator, parse_candidates(order.candidates, now), None, now)
        self._settle()

    def _device_event(self, event: Event) -> None:
        if isinstance(event, RawReceived):
            self.agent.raw_received(event, self._network.now)
        else:
            self.agent.device_event(event)
        self._settle()

    def _watch(self) -> None:
        if self.host.is_up:
            self.agent.device_status(self.host.device.status(), self._network.now)
            self._settle()
        self._network.clock.at(self._network.now + STATUS_INTERVAL, self._watch)

    def _due(self) -> None:
        self.agent.handle_timer(self._network.now)
        self._settle()

    def _settle(self) -> None:
        now = self._network.now
        while actions := self.agent.actions():
            for action in actions:
                match action:
                    case SetPeer(key, endpoint, keepalive):
                        self.host.device.set_peer(key, endpoint, keepalive, now)
                    case Initiate(key, endpoints):
                        self.host.device.initiate(key, endpoints, now)
                    case Probe(key, endpoint):
                        self.host.device.probe(key, endpoint, now)
                    case SetRelays(endpoints):
                        self.host.device.set_relays(endpoints)
                    case SendRaw(data, endpoint, ttl):
                        self.host.send_raw(data, endpoint, ttl)
                    case AskOrder(key):
                        self.asked_at.setdefault(key, now)
                        self._channel.send({"peer": key.to_text()}, self._api)
                self.host.settle()
        self.told += [Told(now, news) for news in self.agent.news()]
        self._alarm.set(self.agent.get_timer())


def vars_of(record: object) -> dict:
    """A slotted dataclass as a dict."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
