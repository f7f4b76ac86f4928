"""Events of a device that tells none: what changed between one look at it and the next."""

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
        self._sent: dict[PublicKey, _Sent] = {}

    def begun(self, key: PublicKey, now: float) -> None:
        """We had the engine begin a handshake: what it sends now is not somebody else's wish."""
        self._sent.setdefault(key, _Sent()).begun_at = now

    def moved(self, key: PublicKey, endpoint: Endpoint) -> None:
        """We gave a peer this endpoint: to find it there is no news."""
        if key in self._known:
            self._known[key] = replace(self._known[key], endpoint=endpoint)

    def look(self, status: DeviceStatus, now: float) -> tuple[DeviceStatus, list[Event]]:
        """The status made whole, and what happened since the last look.

        At the first one, sessions that still stand are news.
        """
        events: list[Event] = []
        known: dict[PublicKey, PeerStatus] = {}
        for peer in status.peers:
            before = self._known.get(peer.key)
            known[peer.key] = seen = self._look_at(peer, before, now, events)
            if before is not None:
                self._look_for_silence(seen, before, now, events)
        self._known = known
        self._sent = {key: sent for key, sent in self._sent.items() if key in known}
        return replace(status, peers=tuple(known.values())), events

    @staticmethod
    def _look_at(peer: PeerStatus, before: PeerStatus | None, now: float, events: list[Event]) -> PeerStatus:
        if before is not None and peer.handshake_unix == before.handshake_unix:
            peer = replace(peer, handshake_at=before.handshake_at)
        has_heard = before is not None and peer.rx_bytes > before.rx_bytes
        received_at = now if has_heard else before.received_at if before is not None else peer.handshake_at
        if peer.endpoint is not None and peer.handshake_unix is not None:
            stands = has_session(peer, now) if before is None else peer.handshake_unix != before.handshake_unix
            if stands:
                events.append(PeerHandshake(peer.key, peer.endpoint, now))
            elif has_heard and before is not None and peer.endpoint != before.endpoint:
                events.append(PathSeen(peer.key, peer.endpoint, now))
        return replace(peer, received_at=received_at)

    def _look_for_silence(self, peer: PeerStatus, before: PeerStatus, now: float, events: list[Event]) -> None:
        sent = self._sent.setdefault(peer.key, _Sent())
        if peer.rx_bytes > before.rx_bytes:
            sent.unheard_since = None
        if peer.tx_bytes <= before.tx_bytes:
            return
        if not has_session(peer, now):
            if now - sent.begun_at > _OWN_TRIES:
                events.append(PeerWanted(peer.key, now))
        elif sent.unheard_since is None:
            sent.unheard_since = now if peer.rx_bytes == before.rx_bytes else None
        elif now - sent.unheard_since >= SILENT_AFTER:
            events.append(PeerSilent(peer.key, peer.received_at, now))


def has_session(peer: PeerStatus, now: float) -> bool:
    """Whether its last handshake is young enough that data may be sent."""
    return peer.handshake_at is not None and now - peer.handshake_at < REJECT_AFTER_TIME
