"""The agent: what a member decides. Device events, zone events and time go in; device actions and news come out.

It holds one `Path` a peer and the two things that concern them all: which endpoints may be applied at all, and how
eagerly the zone is to be followed.
"""

from dataclasses import dataclass, field

from wgdisco.api import PathWord, PeerReport, Reason
from wgdisco.endpoint import LINK_LOCAL, LOOPBACK, Endpoint, IPNetwork, in_any
from wgdisco.keys import PublicKey
from wgdisco.peer.path import Action, Live, Path, Punching
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import DeviceStatus, Event, PathSeen, PeerHandshake, PeerStatus, PeerWanted


@dataclass(frozen=True, slots=True)
class Found:
    """The zone told an endpoint that may be used."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The zone told an endpoint that must not be applied; `why` is one phrase."""

    key: PublicKey
    endpoint: Endpoint
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A path has another word or other endpoints: the one in use, or those that are tried while punching."""

    key: PublicKey
    path: PathWord
    reason: Reason | None
    endpoints: tuple[Endpoint, ...]
    at: float


News = Found | Refused | PathChanged


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
        if in_any(address, LINK_LOCAL) or address.is_unspecified or address.is_multicast:
            return "not a unicast address beyond the link"
        if in_any(address, self.tunnel):
            return "inside the tunnel"
        if endpoint == self.reflexive or endpoint in self.addresses:
            return "our own"
        return None


class Agent:
    """See the module's docstring. `peers` are the device's, in its order; `set_peers` gives it others later.

    Whoever changes peers tells the device first: an action for a peer that is gone there would be refused.
    """

    def __init__(self, peers: tuple[PeerConfig, ...], ourselves: Ourselves, now: float) -> None:
        self.ourselves = ourselves
        self._paths: dict[PublicKey, Path] = {}
        self._told: dict[PublicKey, tuple[PathWord, tuple[Endpoint, ...]]] = {}
        self._actions: list[Action] = []
        self._news: list[News] = []
        self._registry_reachable = True
        self.set_peers(peers, now)

    # Who the peers are

    def set_peers(self, peers: tuple[PeerConfig, ...], now: float) -> None:
        """Have paths to these peers and no others; a path that stays keeps its state."""
        wanted = {peer.public_key for peer in peers}
        for key in [key for key in self._paths if key not in wanted]:
            self.remove_peer(key)
        for peer in peers:
            self.add_peer(peer, now)

    def add_peer(self, peer: PeerConfig, now: float) -> None:
        """Have a path to `peer`; to one that is there already, only its keepalive may be news."""
        path = self._paths.get(peer.public_key)
        if path is None:
            path = Path(peer.public_key, peer.persistent_keepalive, peer.endpoint, now)
            self._paths[peer.public_key] = path
        elif path.keepalive != peer.persistent_keepalive:
            path.set_keepalive(peer.persistent_keepalive, now)
        self._settle(path, now)

    def remove_peer(self, key: PublicKey) -> None:
        """Forget a peer's path, and what was still to be done and told about it; without one, nothing."""
        if self._paths.pop(key, None) is not None:
            self._told.pop(key, None)
            self._actions = [action for action in self._actions if action.key != key]
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
        if path is not None:
            usable = tuple(endpoint for endpoint in endpoints if self.ourselves.refuse(endpoint) is None)
            path.set_alternatives(usable, now)
            self._settle(path, now)

    # What happens

    def device_event(self, event: Event) -> None:
        """The device told something."""
        match event:
            case PeerHandshake(key, endpoint, at) | PathSeen(key, endpoint, at):
                path = self._paths.get(key)
                if path is not None:
                    path.authenticated(endpoint, at)
                    self._settle(path, at)
            case PeerWanted(key, at):
                path = self._paths.get(key)
                if path is not None:
                    path.wanted(at)
                    self._settle(path, at)
            case _:
                pass

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
            for path in [path for key, path in self._paths.items() if key in self.ourselves.registries]:
                path.restart(now)
                self._settle(path, now)
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
        return status.report(path.word(), path.reason(self._registry_reachable), path.origin(status.endpoint))

    def _settle(self, path: Path, now: float) -> None:
        """Take over what a path wants done, and tell when its word or endpoint is another than last told."""
        self._actions.extend(path.actions())
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
            reason = path.reason(self._registry_reachable)
            self._news.append(PathChanged(path.key, path.word(), reason, endpoints, now))
