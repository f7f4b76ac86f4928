"""The agent: what a member decides. Device events, zone events and time go in; device actions and news come out.

It holds one path a peer (`CheckedPath` to members of a registry's network, `Path` to all others) and what concerns
them all: which endpoints may be applied at all, where the relay is, the check datagrams, and how eagerly the zone is to
be followed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from wgdisco.api import PathWord, PeerReport
from wgdisco.endpoint import LOOPBACK, Endpoint, IPNetwork, in_any, is_beyond_link
from wgdisco.keys import PublicKey
from wgdisco.nat import NatProfile
from wgdisco.peer.actions import Action, PathAction, Ping, Probe, SendRaw, SetRelays
from wgdisco.peer.budget import Budget
from wgdisco.peer.candidate import Candidate
from wgdisco.peer.check import Checks, Pinged, Ponged
from wgdisco.peer.checked import CheckedPath
from wgdisco.peer.news import Checked, Found, News, Ordered, PathChanged, Refused
from wgdisco.peer.path import Live, Path, Punching
from wgdisco.peer.punch import ORDERS_BURST, ORDERS_RATE
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import (
    DeviceStatus,
    Event,
    PathSeen,
    PeerHandshake,
    PeerSilent,
    PeerStatus,
    PeerWanted,
    RawReceived,
)


@dataclass(slots=True)
class Ourselves:
    """What is ours and must never be applied to a peer: tunnel prefixes, and endpoints that lead back to us.

    `registries` are the peers that serve the zone. `addresses` are the host's own with the listen port; `reflexive`
    what the zone says of our own key. `stand_ins` are endpoints on the loopback that lead to a registry all the same.
    """

    key: PublicKey
    tunnel: tuple[IPNetwork, ...]
    registries: tuple[PublicKey, ...] = ()
    addresses: frozenset[Endpoint] = frozenset()
    reflexive: Endpoint | None = field(default=None)
    stand_ins: frozenset[Endpoint] = frozenset()

    def refuse(self, endpoint: Endpoint) -> str | None:
        """Why `endpoint` must not be a peer's; None when it may."""
        address = endpoint.address
        if endpoint in self.stand_ins:
            return None
        if in_any(address, LOOPBACK):
            return "loopback"
        if not is_beyond_link(address):
            return "not a unicast address beyond the link"
        if in_any(address, self.tunnel):
            return "inside the tunnel"
        if endpoint == self.reflexive or endpoint in self.addresses:
            return "our own"
        return None


class Agent:
    """See the module's docstring. `peers` are the device's, in its order; `set_peers` gives it others later.

    Whoever changes peers tells the device first: an action for a peer that is gone there would be refused. `checks` are
    for members of a registry's network, which relays (`relays`). `managed`: the device's capability.
    """

    def __init__(
        self,
        peers: tuple[PeerConfig, ...],
        ourselves: Ourselves,
        now: float,
        checks: Checks | None = None,
        *,
        managed: bool = True,
    ) -> None:
        self.ourselves = ourselves
        self.nat: NatProfile | None = None
        self._paths: dict[PublicKey, Path | CheckedPath] = {}
        self._checked: dict[PublicKey, CheckedPath] = {}
        self._checks = checks
        self._managed = managed
        self.relay: Endpoint | None = None
        self._orders = Budget(ORDERS_BURST, ORDERS_RATE)
        self._told: dict[PublicKey, tuple[PathWord, tuple[Endpoint, ...]]] = {}
        self._actions: list[Action] = []
        self._news: list[News] = []
        self._registry_reachable = True
        self.set_peers(peers, now)

    # Who the peers are

    def set_peers(self, peers: tuple[PeerConfig, ...], now: float, members: frozenset[PublicKey] = frozenset()) -> None:
        """Have paths to these peers and no others; a path that stays keeps its state.

        `members` of a registry's network are reached by its orders and over its relay.
        """
        wanted = {peer.public_key for peer in peers}
        for key in [key for key in self._paths if key not in wanted]:
            self.remove_peer(key)
        for peer in peers:
            if peer.public_key in members:
                self._add_member(peer, now)
            else:
                self.add_peer(peer, now)
        if self._checks is not None:
            self._checks.set_peers(frozenset(self._checked), self.ourselves.key)

    def add_peer(self, peer: PeerConfig, now: float) -> None:
        """Have a path to `peer`; to one that is there already, only its keepalive may be news."""
        path = self._paths.get(peer.public_key)
        if path is None:
            path = Path(peer.public_key, peer.persistent_keepalive, peer.endpoint, now)
            self._paths[peer.public_key] = path
        elif isinstance(path, Path) and path.keepalive != peer.persistent_keepalive:
            path.set_keepalive(peer.persistent_keepalive, now)
        self._settle(path, now)

    def _add_member(self, peer: PeerConfig, now: float) -> None:
        path = self._checked.get(peer.public_key)
        if path is None:
            self.remove_peer(peer.public_key)  # it was a key announced to follow another
            path = CheckedPath(peer.public_key, self.relay, managed=self._managed)
            self._paths[peer.public_key] = self._checked[peer.public_key] = path
        if peer.endpoint is not None:
            path.set_last_known(peer.endpoint)
        self._settle(path, now)

    def remove_peer(self, key: PublicKey) -> None:
        """Forget a peer's path, and what was still to be done and told about it; without one, nothing."""
        self._checked.pop(key, None)
        if self._paths.pop(key, None) is not None:
            self._told.pop(key, None)
            self._actions = [action for action in self._actions if getattr(action, "key", None) != key]
            self._news = [news for news in self._news if news.key != key]

    def restart(self, key: PublicKey, now: float) -> None:
        """Shake hands anew with a peer that seems to have forgotten us, or moved."""
        path = self._paths.get(key)
        if path is not None:
            path.restart(now)
            self._settle(path, now)

    def set_alternatives(self, key: PublicKey, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """What the names of a peer resolve to now; endpoints that must not be applied are left out."""
        path = self._paths.get(key)
        if isinstance(path, Path):
            usable = tuple(endpoint for endpoint in endpoints if self.ourselves.refuse(endpoint) is None)
            path.set_alternatives(usable, now)
            self._settle(path, now)

    # Members of a registry's network

    def set_candidates(
        self, key: PublicKey, candidates: Iterable[Candidate], nat: NatProfile | None, now: float
    ) -> None:
        """What the registry tells of a member."""
        path = self._checked.get(key)
        if path is not None:
            path.set_candidates(self._usable(candidates), nat, now)
            self._settle(path, now)

    def set_lan(self, key: PublicKey, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Where a member says it is on our own network (mDNS)."""
        path = self._checked.get(key)
        if path is not None:
            path.set_lan(tuple(e for e in endpoints if self.ourselves.refuse(e) is None), now)
            self._settle(path, now)

    def ordered(
        self, key: PublicKey, initiator: PublicKey, candidates: Iterable[Candidate], nat: NatProfile | None, now: float
    ) -> None:
        """The registry's order to punch; one for nobody we know, or one too many, is passed over."""
        path = self._checked.get(key)
        if path is not None and self._orders.take(now):
            is_initiator = initiator == self.ourselves.key
            path.ordered(self._usable(candidates), nat, is_initiator, now)
            self._news.append(Ordered(key, is_initiator, path.candidates(), now))
            self._settle(path, now)

    def order_refused(self, key: PublicKey, now: float, *, is_offline: bool) -> None:
        """There is no order: the member is offline, or (else) the registry did not answer."""
        path = self._checked.get(key)
        if path is not None:
            path.refused(now, is_offline)
            self._settle(path, now)

    def want(self, key: PublicKey, now: float) -> None:
        """Have a path to a member, as if somebody sent to it."""
        path = self._checked.get(key)
        if path is not None:
            path.wanted(now)
            self._settle(path, now)

    def ping(self, key: PublicKey, now: float) -> None:
        """Check the endpoint in use, and tell what comes back."""
        path = self._checked.get(key)
        if path is not None and isinstance(path.state, Live) and path.state.endpoint != self.relay:
            self._act(Ping(key, path.state.endpoint), now)

    def network_changed(self, now: float) -> None:
        """Our own addresses or routes are others: the registry hears it first, then every peer that is reached."""
        paths = sorted(self._paths.values(), key=lambda path: path.key not in self.ourselves.registries)
        for path in paths:
            if isinstance(path, CheckedPath):
                path.network_changed(now)
            elif isinstance(path.state, Live):
                self._actions.append(Probe(path.key, path.state.endpoint))
            self._settle(path, now)

    def _probe_registries(self) -> None:
        for key in self.ourselves.registries:
            path = self._paths.get(key)
            if path is not None and isinstance(path.state, Live):
                self._actions.append(Probe(key, path.state.endpoint))

    def _usable(self, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        return tuple(one for one in candidates if self.ourselves.refuse(one.endpoint) is None)

    # What happens

    def device_event(self, event: Event) -> None:
        """The device told something."""
        match event:
            case PeerHandshake(key, endpoint, at) | PathSeen(key, endpoint, at):
                path = self._paths.get(key)
                if path is not None:
                    path.authenticated(endpoint, at)
                    if key in self.ourselves.registries:
                        self._follow_relay(endpoint, at)
                    self._settle(path, at)
            case PeerWanted(key, at):
                path = self._paths.get(key)
                if path is not None:
                    path.wanted(at)
                    self._settle(path, at)
            case PeerSilent(key, heard_at, at):
                checked = self._checked.get(key)
                if checked is not None and checked.silent(heard_at, at):
                    # our own NAT may have forgotten us: the registry shall see where we are before it is asked
                    self._probe_registries()
                if checked is not None:
                    self._settle(checked, at)
            case _:
                pass

    def raw_received(self, raw: RawReceived, now: float) -> None:
        """A check datagram, or what is none."""
        if self._checks is None:
            return
        event = self._checks.receive(raw.data, raw.source, now)
        self._actions += [SendRaw(data, endpoint) for data, endpoint in self._checks.datagrams_to_send()]
        path = None if event is None else self._checked.get(event.key)
        match event:
            case Pinged() if path is not None and self.ourselves.refuse(event.source) is None:
                path.pinged(event)
                self._settle(path, now)
            case Ponged() if path is not None:
                path.ponged(event)
                self._news.append(Checked(event.key, event.endpoint, event.seen, event.rtt, now))
                self._settle(path, now)
            case _:
                pass

    def _follow_relay(self, endpoint: Endpoint, now: float) -> None:
        """Where the registry is, there is the relay."""
        if self._checks is None or endpoint == self.relay:
            return
        self.relay = endpoint
        self._actions.append(SetRelays(frozenset({endpoint})))
        for path in self._checked.values():
            path.set_relay(endpoint)
            self._settle(path, now)

    def device_status(self, status: DeviceStatus, now: float) -> None:
        """Look at the device's counters: once a second is enough."""
        for peer in status.peers:
            path = self._paths.get(peer.key)
            if path is not None and path.observe(peer, now):
                self._settle(path, now)

    def instance_found(self, key: PublicKey, endpoint: Endpoint, now: float) -> None:
        """The zone has an endpoint for `key`."""
        if key == self.ourselves.key:
            self.ourselves.reflexive = endpoint
        path = self._paths.get(key)
        if path is None:
            return
        why = self.ourselves.refuse(endpoint)
        if why is not None:
            self._news.append(Refused(key, endpoint, why, now))
            return
        self._news.append(Found(key, endpoint, now))
        path.zone_said(endpoint, now)
        self._settle(path, now)

    def instance_gone(self, key: PublicKey, now: float) -> None:
        """The zone no longer has `key`; a path that works goes on working.

        If it is our own key, the registry has forgotten us: shake hands with it again.
        """
        if key == self.ourselves.key:
            self.ourselves.reflexive = None
            for registry in self.ourselves.registries:
                self.restart(registry, now)
        gone = self._paths.get(key)
        if gone is not None:
            gone.zone_said(None, now)
            self._settle(gone, now)

    def registry_reachable(self, reachable: bool, now: float) -> None:
        """The zone's server answers, or has ceased to: then see whether the registry itself still knows us."""
        if reachable != self._registry_reachable:
            self._registry_reachable = reachable
            for path in self._paths.values():
                if not reachable and path.key in self.ourselves.registries:
                    path.restart(now)
                self._settle(path, now)

    def handle_timer(self, now: float) -> None:
        """Do what is due; early or repeated calls are harmless."""
        for path in self._paths.values():
            path.handle_timer(now)
            self._settle(path, now)

    # What follows

    def get_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        deadlines = [deadline for path in self._paths.values() if (deadline := path.get_timer()) is not None]
        return min(deadlines, default=None)

    def actions(self) -> list[Action]:
        """What the device is to do; each is returned once."""
        actions, self._actions = self._actions, []
        return actions

    def news(self) -> list[News]:
        """What there is to tell a person; each is returned once."""
        news, self._news = self._news, []
        return news

    def is_live(self, key: PublicKey) -> bool:
        """Whether authenticated packets come from the peer."""
        path = self._paths.get(key)
        return path is not None and isinstance(path.state, Live)

    def is_trying(self, now: float) -> bool:
        """Whether a direct path may still be found in the next moment."""
        return any(path.is_trying(now) for path in self._checked.values())

    def published(self, key: PublicKey) -> Endpoint | None:
        """What the zone last said of the peer."""
        path = self._paths.get(key)
        return None if path is None else path.published

    def all_live(self) -> bool:
        """Whether every peer that is wanted is reached, and none is silent that should be heard.

        Registries are silent by nature: they keep no path open, members do.
        """
        return not any(
            isinstance(path.state, Punching)
            or (isinstance(path.state, Live) and path.is_silent and path.key not in self.ourselves.registries)
            for path in self._paths.values()
        )

    def report(self, status: PeerStatus) -> PeerReport:
        """One peer for the status output."""
        path = self._paths[status.key]
        reason = path.reason(self._registry_reachable, self.nat)
        return status.report(path.word(), reason, path.origin(status.endpoint))

    def round_trip(self, key: PublicKey) -> float | None:
        """To a member by the way in use, in seconds, where it is known."""
        return (path.rtt() or None) if (path := self._checked.get(key)) is not None else None

    def _act(self, action: PathAction, now: float) -> None:
        """Hand an action on, checks sealed."""
        if not isinstance(action, Ping):
            self._actions.append(action)
        elif self._checks is not None and self.ourselves.refuse(action.endpoint) is None:
            data = self._checks.ping(action.key, action.endpoint, now)
            if data is not None:
                self._actions.append(SendRaw(data, action.endpoint, action.ttl))

    def _settle(self, path: Path | CheckedPath, now: float) -> None:
        """Take over what a path wants done, and tell when its word or endpoint is another than last told."""
        for action in path.actions():
            self._act(action, now)
        endpoints: tuple[Endpoint, ...] = ()
        match path.state:
            case Live(endpoint, _):
                endpoints = (endpoint,)
            case Punching():
                endpoints = path.candidates()
            case _:
                pass
        told = (path.word(), endpoints)
        if self._told.get(path.key) != told:
            self._told[path.key] = told
            reason = path.reason(self._registry_reachable, self.nat)
            self._news.append(PathChanged(path.key, path.word(), reason, endpoints, now))
