"""Events of a device that tells none: what changed between one look at it and the next."""

from dataclasses import replace

from wgdisco.keys import PublicKey
from wgdisco.tunnel.events import DeviceStatus, Event, PathSeen, PeerHandshake, PeerStatus
from wgdisco.tunnel.messages import REJECT_AFTER_TIME


class Observed:
    """Tell it each look, in order.

    What other engines do not say is made up for as far as can be: `received_at` is when more bytes were first seen.
    When a handshake attempt began (`unanswered_since`) stays unknown. Engines tell handshakes in unix time, and that
    clock may be set: another time is a new handshake, earlier or later; `handshake_at` stays as it was first seen.
    """

    def __init__(self) -> None:
        self._known: dict[PublicKey, PeerStatus] = {}

    def look(self, status: DeviceStatus, now: float) -> tuple[DeviceStatus, list[Event]]:
        """The status made whole, and what happened since the last look.

        At the first one, sessions that still stand are news.
        """
        events: list[Event] = []
        known: dict[PublicKey, PeerStatus] = {}
        for peer in status.peers:
            known[peer.key] = self._look_at(peer, self._known.get(peer.key), now, events)
        self._known = known
        return replace(status, peers=tuple(known.values())), events

    @staticmethod
    def _look_at(peer: PeerStatus, before: PeerStatus | None, now: float, events: list[Event]) -> PeerStatus:
        if before is not None and peer.handshake_unix == before.handshake_unix:
            peer = replace(peer, handshake_at=before.handshake_at)
        has_heard = before is not None and peer.rx_bytes > before.rx_bytes
        received_at = now if has_heard else before.received_at if before is not None else peer.handshake_at
        if peer.endpoint is not None and peer.handshake_unix is not None:
            if before is None:
                stands = peer.handshake_at is not None and now - peer.handshake_at < REJECT_AFTER_TIME
            else:
                stands = peer.handshake_unix != before.handshake_unix
            if stands:
                events.append(PeerHandshake(peer.key, peer.endpoint, now))
            elif has_heard and before is not None and peer.endpoint != before.endpoint:
                events.append(PathSeen(peer.key, peer.endpoint, now))
        return replace(peer, received_at=received_at)
