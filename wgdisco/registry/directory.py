"""The directory: what the registry knows of its peers' endpoints, folded from what its device observes.

Device events go in; entries, and from them the zone's instances, come out. An endpoint is live while an authenticated
packet came from it within 180 s; then it is stale: out of the zone, still an entry (formats.md, Liveness).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from wgdisco.api import CandidateRecord, Origin, PathWord, PeerReport, Reason
from wgdisco.endpoint import LOOPBACK, Endpoint, IPNetwork, in_any
from wgdisco.keys import PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, Event, PathSeen, PeerHandshake, PeerStatus

LIVE_FOR = 180.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer. `seen_at` is the last authenticated packet from `endpoint`, `handshake_at` the last handshake.

    `candidates` and `nat` are what it says of itself, as far as it may.
    """

    key: PublicKey
    allowed_ips: tuple[IPNetwork, ...]
    endpoint: Endpoint | None = None
    seen_at: float | None = None
    handshake_at: float | None = None
    live: bool = False
    candidates: tuple[CandidateRecord, ...] = ()
    nat: str | None = None


@dataclass(frozen=True, slots=True)
class Handshaken:
    """A peer completed a handshake from `endpoint`."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class Published:
    """The zone has this endpoint for the peer from now on."""

    key: PublicKey
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The zone has the peer no longer; `why` is one phrase."""

    key: PublicKey
    why: str
    at: float


DirectoryEvent = Handshaken | Published | Withdrawn


class Directory:
    """See the module's docstring.

    `exact` is wgsd's way: whatever endpoint the device has is published, however old or private.
    """

    def __init__(self, config: DeviceConfig, tunnel: tuple[IPNetwork, ...], exact: bool = False) -> None:
        self._tunnel = tunnel
        self._exact = exact
        self._entries: dict[PublicKey, Entry] = {}
        self._fixed: dict[PublicKey, Endpoint] = {}
        self._published: dict[PublicKey, Endpoint] = {}
        self._events: list[DirectoryEvent] = []
        self.set_peers(config.peers, 0.0)

    def set_peers(
        self, peers: Iterable[PeerConfig], now: float, fixed: Mapping[PublicKey, Endpoint] | None = None
    ) -> None:
        """These are the peers from now on: what is known of those who stay is kept, the others are withdrawn.

        A live peer with a `fixed` endpoint is published there, wherever it speaks from.
        """
        peers = tuple(peers)
        wanted = {peer.public_key: peer.allowed_ips for peer in peers}
        if self._exact:
            self._published |= {
                peer.public_key: peer.endpoint
                for peer in peers
                if peer.endpoint is not None and peer.public_key not in self._entries
            }
        for key in [key for key in self._entries if key not in wanted]:
            self._withdraw(key, "no longer a peer", now)
            del self._entries[key]
        for key, allowed_ips in wanted.items():
            known = self._entries.get(key, Entry(key, (), self._published.get(key)))
            self._entries[key] = replace(known, allowed_ips=allowed_ips)
        before, self._fixed = self._fixed, dict(fixed or {})
        for key in {**before, **self._fixed}:
            entry = self._entries.get(key)
            moved = before.get(key) != self._fixed.get(key)
            if moved and entry is not None and entry.live and entry.endpoint is not None:
                self._publish(key, entry.endpoint, now)

    def observe_event(self, event: Event) -> None:
        """The device heard from a peer."""
        match event:
            case PeerHandshake(key, endpoint, at) if key in self._entries:
                self._observe(key, endpoint, seen_at=at, handshake_at=at)
                self._events.append(Handshaken(key, endpoint, at))
            case PathSeen(key, endpoint, at):
                self._observe(key, endpoint, seen_at=at, handshake_at=None)
            case _:
                pass

    def tell(self, key: PublicKey, candidates: Iterable[CandidateRecord], nat: str | None) -> None:
        """A peer says where else it may be reached, and behind what NAT; whoever calls has checked it."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries[key] = replace(entry, candidates=tuple(candidates), nat=nat)

    def observe_status(self, status: DeviceStatus, now: float) -> list[PublicKey]:
        """Take over when each peer was last heard, then let go of who was silent too long: their keys."""
        for peer in status.peers:
            entry = self._entries.get(peer.key)
            if entry is not None and entry.live and peer.received_at is not None and entry.seen_at is not None:
                self._entries[peer.key] = replace(entry, seen_at=max(entry.seen_at, peer.received_at))
        silent = []
        for entry in self._entries.values():
            if entry.live and entry.seen_at is not None and now - entry.seen_at >= LIVE_FOR:
                self._entries[entry.key] = replace(entry, live=False)
                silent.append(entry.key)
                if not self._exact:
                    self._withdraw(entry.key, "silent too long", now)
        return silent

    def get_timer(self) -> float | None:
        """When the first live entry may go stale, unless `observe_status` knows better by then."""
        return min(
            (e.seen_at + LIVE_FOR for e in self._entries.values() if e.live and e.seen_at is not None), default=None
        )

    def events(self) -> list[DirectoryEvent]:
        """What changed; each is returned once."""
        events, self._events = self._events, []
        return events

    def entries(self) -> tuple[Entry, ...]:
        """All of them, in the device's order."""
        return tuple(self._entries.values())

    def published(self) -> tuple[tuple[PublicKey, Endpoint, tuple[IPNetwork, ...]], ...]:
        """What the zone is to say: key, endpoint and allowed IPs, in the device's order."""
        return tuple(
            (key, self._published[key], entry.allowed_ips)
            for key, entry in self._entries.items()
            if key in self._published
        )

    def published_endpoint(self, key: PublicKey) -> Endpoint | None:
        """Where the zone is to say that a peer is."""
        return self._published.get(key)

    def entry(self, key: PublicKey) -> Entry | None:
        """One peer's."""
        return self._entries.get(key)

    def places(self, *keys: PublicKey) -> frozenset[tuple[PublicKey, Endpoint | None]]:
        """Where these peers are, to be compared."""
        return frozenset((key, entry.endpoint) for key in keys if (entry := self._entries.get(key)) is not None)

    def report(self, status: PeerStatus) -> PeerReport:
        """One peer for the status output."""
        entry = self._entries[status.key]
        word: PathWord
        reason: Reason | None
        if entry.live and entry.endpoint is not None and in_any(entry.endpoint.address, LOOPBACK):
            word, reason = PathWord.RELAY, Reason.NO_UDP_ANSWER  # by TLS
        elif entry.live and entry.endpoint is not None:
            word, reason = (PathWord.LAN if entry.endpoint.is_private else PathWord.DIRECT), None
        elif entry.seen_at is not None:
            word, reason = PathWord.STALE, Reason.PEER_OFFLINE
        else:
            word, reason = PathWord.IDLE, Reason.NOT_YET_TRIED
        origin = None
        if status.endpoint is not None:
            was_seen = entry.seen_at is not None and status.endpoint == entry.endpoint
            origin = Origin.PACKET if was_seen else Origin.CONF
        return status.report(word, reason, origin)

    def _observe(self, key: PublicKey, endpoint: Endpoint, seen_at: float, handshake_at: float | None) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        self._entries[key] = replace(
            entry, endpoint=endpoint, seen_at=seen_at, handshake_at=handshake_at or entry.handshake_at, live=True
        )
        self._publish(key, endpoint, seen_at)

    def _publish(self, key: PublicKey, seen: Endpoint, now: float) -> None:
        endpoint = self._fixed.get(key, seen)
        if self._may_publish(endpoint):
            if self._published.get(key) != endpoint:
                self._published[key] = endpoint
                self._events.append(Published(key, endpoint, now))
        elif key in self._published:
            self._withdraw(key, "its endpoint is private now", now)

    def _may_publish(self, endpoint: Endpoint) -> bool:
        return self._exact or (endpoint.is_global and not in_any(endpoint.address, self._tunnel))

    def _withdraw(self, key: PublicKey, why: str, now: float) -> None:
        if self._published.pop(key, None) is not None:
            self._events.append(Withdrawn(key, why, now))
