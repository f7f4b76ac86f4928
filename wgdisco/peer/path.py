"""One remote peer's path: where it may be reached, whether it is, and what to do about it.

::

    Idle ──wanted──► Punching ──authenticated packet──► Live
      ▲                │ ▲                                │
      └─ not any more ─┘ └────── nothing authenticates ───┘

A path that works is left alone: what the zone says meanwhile is kept for when it stops working.
"""

from bisect import bisect_right
from dataclasses import dataclass

from wgdisco.api import Origin, PathWord, Reason
from wgdisco.endpoint import LOOPBACK, Endpoint, in_any
from wgdisco.keys import PublicKey
from wgdisco.nat import NatProfile
from wgdisco.peer.actions import Initiate, PathAction, SetPeer
from wgdisco.tunnel.events import PeerStatus
from wgdisco.tunnel.messages import REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT

# When initiations go out after punching begins, in seconds; then one each PUNCH_INTERVAL. The engine sends the same
# bytes each time while they are young, so that an answer to any of them is good.
PUNCH_OFFSETS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
PUNCH_INTERVAL = 5.0
# An unanswered handshake counts as a dead path once the engine's own retransmission has gone unanswered too.
DEAD_AFTER = REKEY_TIMEOUT + 0.5

# A peer that keeps the path open as we do is heard once a keepalive; this much later it may have moved.
SILENT_MARGIN = 5.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody wants the peer. `was_live`: there was a path once."""

    was_live: bool = False


@dataclass(frozen=True, slots=True)
class Punching:
    """Wanted, and nothing authenticated yet. `step` counts initiations since `since`."""

    since: float
    step: int = 0


@dataclass(frozen=True, slots=True)
class Live:
    """Authenticated packets come from `endpoint`."""

    endpoint: Endpoint
    since: float


State = Idle | Punching | Live


def path_word(state: State, *, is_relayed: bool) -> PathWord:
    """A path in one word."""
    match state:
        case Live(endpoint, _):
            return PathWord.RELAY if is_relayed else PathWord.LAN if endpoint.is_private else PathWord.DIRECT
        case Punching():
            return PathWord.PUNCHING
        case Idle(was_live):
            return PathWord.STALE if was_live else PathWord.IDLE


class Path:
    """See the module's docstring. `eager` paths are wanted from the start and for ever."""

    def __init__(self, key: PublicKey, keepalive: int, configured: Endpoint | None, now: float) -> None:
        self.key = key
        self.keepalive = keepalive
        self.configured = configured
        self.alternatives: tuple[Endpoint, ...] = ()
        self.published: Endpoint | None = None
        self.last_known: Endpoint | None = None
        self.eager = keepalive > 0
        # The device begins by itself where it was given an endpoint and a keepalive: that is the first step done.
        self.state: State = Punching(now, step=0 if configured is None else 1) if self.eager else Idle()
        self.is_silent = False
        self._wanted_at = now
        self._actions: list[PathAction] = []

    # What happens

    def zone_said(self, endpoint: Endpoint | None, now: float) -> None:
        """The zone has this endpoint for the peer, or (None) has it no longer."""
        if endpoint == self.published:
            return
        is_move = self.published is not None and endpoint is not None
        self.published = endpoint
        match self.state:
            case Punching() if endpoint is not None:
                self._punch(now)
            case Live(current, _) if is_move and endpoint is not None and endpoint != current:
                # Idle tunnels would notice only at the next rekey. Whichever answers first is in use afterwards.
                self._actions.append(Initiate(self.key, (current, endpoint)))
            case _:
                pass

    def set_alternatives(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """What the peer's names resolve to now: all of it is tried while nothing answers."""
        if endpoints == self.alternatives:
            return
        self.alternatives = endpoints
        if endpoints and isinstance(self.state, Punching):
            self._punch(now)

    def set_keepalive(self, keepalive: int, now: float) -> None:
        """How often to keep the path open (seconds): 0 leaves it to whoever sends, anything else wants it for ever."""
        self.keepalive = keepalive
        self.eager = keepalive > 0
        if self.eager and isinstance(self.state, Idle):
            self._punch(now)

    def restart(self, now: float) -> None:
        """Shake hands anew, since the other side has forgotten us."""
        if not isinstance(self.state, Punching):
            self._punch(now)

    def wanted(self, now: float) -> None:
        """Somebody sends to the peer."""
        self._wanted_at = now
        if isinstance(self.state, Idle):
            self._punch(now)

    def authenticated(self, endpoint: Endpoint, now: float) -> bool:
        """An authenticated packet came from `endpoint`; True when that is news."""
        self.last_known = endpoint
        match self.state:
            case Live(current, _) if current == endpoint:
                return False
            case Live(_, since):
                self.state = Live(endpoint, since)
            case _:
                self.state = Live(endpoint, now)
        return True

    def observe(self, status: PeerStatus, now: float) -> bool:
        """Judge a path by what the device counts; True when it was found dead, or nobody wants it any more."""
        if isinstance(self.state, Punching) and not self.eager and now - self._wanted_at >= REKEY_ATTEMPT_TIME:
            self.state = Idle(was_live=self.last_known is not None)
            return True
        if not isinstance(self.state, Live):
            return False
        unanswered = status.unanswered_since
        heard = status.received_at if status.received_at is not None else self.state.since
        self.is_silent = self.eager and now - heard >= self.keepalive + SILENT_MARGIN
        silent = unanswered is not None and now - unanswered >= DEAD_AFTER and heard < unanswered
        expired = status.handshake_at is not None and now - status.handshake_at >= REJECT_AFTER_TIME
        if silent or (expired and self.eager):
            self._punch(now)
            return True
        if expired:
            self.state = Idle(was_live=True)
            return True
        return False

    def handle_timer(self, now: float) -> None:
        """Send the next initiation when it is due; what was missed (a suspend) is not made up for."""
        due = self.get_timer()
        if due is None or now < due or not isinstance(self.state, Punching):
            return
        since, step = self.state.since, self.state.step
        self.state = Punching(since, max(step + 1, _steps_within(now - since)))
        self._initiate()

    def get_timer(self) -> float | None:
        """When the next initiation is due; None when there is none to send."""
        if not isinstance(self.state, Punching) or not self.candidates():
            return None
        since, step = self.state.since, self.state.step
        if step < len(PUNCH_OFFSETS):
            return since + PUNCH_OFFSETS[step]
        return since + PUNCH_OFFSETS[-1] + PUNCH_INTERVAL * (step - len(PUNCH_OFFSETS) + 1)

    def actions(self) -> list[PathAction]:
        """What the device is to do; each is returned once."""
        actions, self._actions = self._actions, []
        return actions

    # What there is to see

    def candidates(self) -> tuple[Endpoint, ...]:
        """Endpoints to try, the likeliest first."""
        known = (self.published, self.configured, *self.alternatives, self.last_known)
        return tuple(dict.fromkeys(endpoint for endpoint in known if endpoint is not None))

    def origin(self, endpoint: Endpoint | None) -> Origin | None:
        """Where this endpoint of the peer came from."""
        if endpoint is None:
            return None
        if endpoint == self.published:
            return Origin.ZONE
        return Origin.CONF if endpoint == self.configured or endpoint in self.alternatives else Origin.PACKET

    def word(self) -> PathWord:
        """The path in one word."""
        # on the loopback is a socket of ours that stands for TLS
        is_relayed = isinstance(self.state, Live) and in_any(self.state.endpoint.address, LOOPBACK)
        return path_word(self.state, is_relayed=is_relayed)

    def reason(self, registry_reachable: bool, own_nat: NatProfile | None = None) -> Reason | None:
        """Why it is neither direct nor lan; None when it is."""
        match self.state:
            case Live(endpoint, _) if in_any(endpoint.address, LOOPBACK):
                return Reason.NO_UDP_ANSWER
            case Live():
                return None
            case Idle(was_live):
                return Reason.PEER_OFFLINE if was_live else Reason.NOT_YET_TRIED
            case Punching() if self.candidates():
                return Reason.NO_UDP_ANSWER
            case Punching():
                return Reason.PEER_OFFLINE if registry_reachable else Reason.REGISTRY_UNREACHABLE

    # What follows

    def _punch(self, now: float) -> None:
        if not isinstance(self.state, Punching):
            self._wanted_at = now
        self.state = Punching(now)
        candidates = self.candidates()
        if candidates:
            self._actions.append(SetPeer(self.key, candidates[0], self.keepalive))
            self.handle_timer(now)

    def _initiate(self) -> None:
        self._actions.append(Initiate(self.key, self.candidates()))


def _steps_within(elapsed: float) -> int:
    """How many initiations are due within `elapsed` seconds from the begin of punching."""
    steady = elapsed - PUNCH_OFFSETS[-1]
    return bisect_right(PUNCH_OFFSETS, elapsed) if steady < 0 else len(PUNCH_OFFSETS) + int(steady // PUNCH_INTERVAL)
