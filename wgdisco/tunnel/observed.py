"""Events of a device that tells none: what changed between one look at it and the next."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel.events import DeviceStatus, Event, PathSeen, PeerHandshake, PeerSilent, PeerStatus, PeerWanted
from wgdisco.tunnel.messages import REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT

# Silence is told of when it is longer than it takes to look and to answer
SILENT_AFTER = 1.0
# What an engine sends of itself after one initiation that we had it send
_OWN_TRIES = REKEY_ATTEMPT_TIME + REKEY_TIMEOUT


@dataclass(slots=True)
class _Sent:
    """What a peer is being sent: when we had the engine begin last, and since when nothing has come back."""

    begun_at: float = float("-inf")
    unheard_since: float | None = None


class Observed:
    """Tell it each look, in order.

    What other engines do not say is made up for as far as can be: `received_at` is when more bytes were first seen.
    When a handshake attempt began (`unanswered_since`) stays unknown. Engines tell handshakes in unix time, and that
    clock may be set: another time is a new handshake, earlier or later; `handshake_at` stays as it was first seen.
    A peer is wanted when something is sent to it without a session: nothing but an initiation can be.
    """

    def __init__(self) -> None:
        self._known: dict[PublicKey, PeerStatus] = {}
        self._told: dict[PublicKey, PeerStatus] = {}  # as the engine told them at the last look
        self._heard_at: dict[PublicKey, Endpoint] = {}
        self._moved: set[PublicKey] = set()
        self._sent: dict[PublicKey, _Sent] = {}

    @property
    def known(self) -> Mapping[PublicKey, PeerStatus]:
        """The peers at the last look, made whole."""
        return self._known

    def begun(self, key: PublicKey, now: float) -> None:
        """We had the engine begin a handshake: what it sends now is not somebody else's wish."""
        self._sent.setdefault(key, _Sent()).begun_at = now

    def moved(self, key: PublicKey, endpoint: Endpoint) -> None:
        """We gave a peer this endpoint: to find it there is no news; to hear it there is, after the next look."""
        self._moved.add(key)
        self._told.pop(key, None)
        if key in self._known:
            self._known[key] = replace(self._known[key], endpoint=endpoint)

    def look(
        self, status: DeviceStatus, now: float, stale: Container[PublicKey] = ()
    ) -> tuple[DeviceStatus, list[Event]]:
        """The status made whole, and what happened since the last look.

        At the first one, sessions that still stand are news. A peer that is the very same object as last time did
        nothing meanwhile. What is said of those `stale` is from before they were moved, and passed over.
        """
        events: list[Event] = []
        known: dict[PublicKey, PeerStatus] = {}
        for peer in status.peers:
            key = peer.key
            before = self._known.get(key)
            if before is not None and (self._told.get(key) is peer or key in stale):
                known[key] = before
                continue
            known[key] = seen = self._look_at(peer, before, now, events)
            if before is not None:
                self._look_for_silence(seen, before, now, events)
        if known.keys() != self._known.keys():
            for kept in (self._sent, self._heard_at):
                for key in kept.keys() - known.keys():
                    del kept[key]
            self._moved &= known.keys()
        self._known = known
        self._told = {peer.key: peer for peer in status.peers if peer.key not in stale}
        return replace(status, peers=tuple(known.values())), events

    def _look_at(self, peer: PeerStatus, before: PeerStatus | None, now: float, events: list[Event]) -> PeerStatus:
        key, endpoint = peer.key, peer.endpoint
        if before is not None and peer.handshake_unix == before.handshake_unix:
            peer = replace(peer, handshake_at=before.handshake_at)
        has_heard = before is not None and _grew(before.rx_bytes, peer.rx_bytes)
        received_at = now if has_heard else before.received_at if before is not None else peer.handshake_at
        if endpoint is not None and peer.handshake_unix is not None:
            stands = has_session(peer, now) if before is None else peer.handshake_unix != before.handshake_unix
            if stands:
                events.append(PeerHandshake(key, endpoint, now))
            elif has_heard and key not in self._moved and endpoint != self._heard_at.get(key):
                events.append(PathSeen(key, endpoint, now))
            if before is None or stands or (has_heard and key not in self._moved):
                self._heard_at[key] = endpoint
        self._moved.discard(key)
        return replace(peer, received_at=received_at)

    def _look_for_silence(self, peer: PeerStatus, before: PeerStatus, now: float, events: list[Event]) -> None:
        sent = self._sent.setdefault(peer.key, _Sent())
        if _grew(before.rx_bytes, peer.rx_bytes):
            sent.unheard_since = None
        if not _grew(before.tx_bytes, peer.tx_bytes):
            return
        if not has_session(peer, now):
            if now - sent.begun_at > _OWN_TRIES:
                events.append(PeerWanted(peer.key, now))
        elif sent.unheard_since is None:
            sent.unheard_since = now if peer.rx_bytes == before.rx_bytes else None
        elif now - sent.unheard_since >= SILENT_AFTER:
            events.append(PeerSilent(peer.key, peer.received_at, now))


def _grew(before: int, after: int) -> bool:
    """Whether a counter went on, from zero where the peer was added anew meanwhile."""
    return after > before or 0 < after < before


def has_session(peer: PeerStatus, now: float) -> bool:
    """Whether its last handshake is young enough that data may be sent."""
    return peer.handshake_at is not None and now - peer.handshake_at < REJECT_AFTER_TIME
