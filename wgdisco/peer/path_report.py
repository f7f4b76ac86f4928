"""What a member reports to its registry of its paths, and when: at once when one is another, figures now and then.

A member that nobody uses reports nothing: its paths stay as they are.
"""

from collections.abc import Callable, Iterable

from wgdisco.api import PathWord, PeerReport
from wgdisco.keys import PublicKey
from wgdisco.paths import PATHS_MAX, RTT_MAX, PathRecord, PathsRequest
from wgdisco.peer.report import REGISTRY_NAME

LOOK_INTERVAL = 5.0  # seconds: paths are not told more often
FIGURES_INTERVAL = 30.0
RoundTrip = Callable[[PublicKey], float | None]


class PathReporter:
    """What was told last, and whether there is more to tell."""

    def __init__(self) -> None:
        self._told: tuple[PathRecord, ...] = ()
        self._told_at = float("-inf")

    def begin_anew(self) -> None:
        """The registry may have forgotten what it was told."""
        self._told, self._told_at = (), float("-inf")

    def due(self, peers: Iterable[PeerReport], rtt: RoundTrip, now: float) -> PathsRequest | None:
        """What is to be told now, if anything. `peers` are as `status` has them; `rtt` is in seconds."""
        paths = tuple(_record(peer, rtt) for peer in peers if is_worth_a_word(peer))[:PATHS_MAX]
        if paths == self._told:
            return None
        has_moved = list(map(_way, paths)) != list(map(_way, self._told))
        return PathsRequest(list(paths)) if has_moved or now - self._told_at >= FIGURES_INTERVAL else None

    def told(self, request: PathsRequest, now: float) -> None:
        """The registry has taken it."""
        self._told, self._told_at = tuple(request.paths), now


def is_worth_a_word(peer: PeerReport) -> bool:
    """Of members, and not of what was never tried."""
    if peer.name in (None, REGISTRY_NAME):
        return False
    return peer.path != PathWord.IDLE.value or peer.latest_handshake is not None


def _way(path: PathRecord) -> tuple[str, str, str | None, str | None]:
    return path.peer, path.path, path.reason, path.endpoint


def _record(peer: PeerReport, round_trip: RoundTrip) -> PathRecord:
    rtt = round_trip(PublicKey.from_text(peer.public_key))
    handshake = peer.latest_handshake
    return PathRecord(
        peer.public_key,
        peer.path,
        peer.reason,
        peer.endpoint,
        None if rtt is None else min(round(rtt * 1000, 3), RTT_MAX),
        None if handshake is None else max(0, int(handshake)),
        peer.rx_bytes,
        peer.tx_bytes,
    )
