"""One endpoint a peer, and no word about when: how an engine that is not ours is led to a peer that has several.

It begins a handshake when a keepalive is turned on, sends none within REKEY_TIMEOUT of the last, and two that cross
spoil each other. So an engine that nobody orders to begin (`is_ordered`) opens its NAT first, by packets that die
behind it, and of two the one with the greater key waits; then one endpoint has its turn after the other. With a session
there is no way to have it shake hands: another endpoint is tried by moving the peer there and sending it something
that its host answers, when the peer has said nothing where it is; and back, when it says nothing there.
"""

from dataclasses import dataclass, field

from wgdisco.endpoint import Endpoint, IPAddress, IPNetwork
from wgdisco.keys import PublicKey
from wgdisco.tunnel.events import PeerStatus
from wgdisco.tunnel.messages import KEEPALIVE_TIMEOUT, REKEY_TIMEOUT
from wgdisco.tunnel.observed import has_session

# The sender's own NAT is hop 1; a second NAT, or the first router of the provider, hop 2
OPENER_TTLS = (2, 3)
# From the openers to the first packet that is to get through
HOLD = 0.010
# One way and a tenth of a second: then the first initiation has opened a NAT, or is answered
STAGGER = 0.3
# Without being asked again, an engine is led on so long
_ASKED_FOR = 6.0
# A host that is there answers so soon
_ANSWERED_WITHIN = 1.0
# WireGuard itself answers data at the latest then
_HEARD_WITHIN = KEEPALIVE_TIMEOUT + 1.0
# A prefix shorter than this is everything: an address of it is nobody's in particular
_SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Begin:
    """Move the peer to the endpoint and have the engine begin a handshake."""

    key: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Move:
    """Move the peer there; keepalive as it is."""

    key: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Open:
    """Send something there, with that TTL, that opens our own NAT."""

    endpoint: Endpoint
    ttl: int


@dataclass(frozen=True, slots=True)
class Nudge:
    """Look at the device; then send something to `address`, inside the tunnel, that is answered."""

    key: PublicKey
    address: IPAddress


Step = Begin | Move | Open | Nudge


@dataclass(slots=True)
class _Knock:
    """No session: the endpoints in turn. `handshake` is the last one there was, in unix time."""

    endpoints: tuple[Endpoint, ...]
    is_ordered: bool
    asked_at: float
    due: float
    handshake: float | None
    last: Endpoint | None = None
    tried: dict[Endpoint, float] = field(default_factory=dict)

    def is_asked(self, now: float) -> bool:
        """Whether it goes on by itself: who orders says when."""
        return not self.is_ordered and now - self.asked_at <= _ASKED_FOR


@dataclass(slots=True)
class _Trial:
    """A session: see whether the peer is heard at the first of `others`, and if not by `until`, at the next.

    `rx` is what had come when it was last nudged, None until that is known; `was` where it was.
    """

    was: Endpoint
    others: tuple[Endpoint, ...]
    nudged: IPAddress | None
    until: float
    rx: int | None = None
    is_away: bool = False


class Turns:
    """See the module's docstring. `can_open`: whether openers can be sent."""

    def __init__(self, own: PublicKey | None, can_open: bool) -> None:
        self._own = own
        self._can_open = can_open
        self._knocks: dict[PublicKey, _Knock] = {}
        self._trials: dict[PublicKey, _Trial] = {}
        self._steps: list[Step] = []

    def initiate(self, peer: PeerStatus, endpoints: tuple[Endpoint, ...], now: float, *, is_ordered: bool) -> None:
        """Shake hands with the peer at one of these; without any there is nothing to do."""
        if not endpoints:
            return
        if not is_ordered and has_session(peer, now) and peer.endpoint is not None:
            if peer.key not in self._trials:
                self._try(peer, peer.endpoint, endpoints, now)
            return
        self._trials.pop(peer.key, None)
        knock = self._knocks.get(peer.key)
        if knock is None or knock.is_ordered != is_ordered or not (is_ordered or knock.is_asked(now)):
            due = now if is_ordered else now + self._open(peer.key, endpoints)
            knock = self._knocks[peer.key] = _Knock(endpoints, is_ordered, now, due, peer.handshake_unix)
        elif knock.last is not None and knock.last not in endpoints:
            knock.due = now
        knock.endpoints, knock.asked_at = endpoints, now
        self._knock(peer.key, knock, now)

    def begun_at(self, key: PublicKey) -> float:
        """When the engine was last led on to begin with the peer."""
        knock = self._knocks.get(key)
        return float("-inf") if knock is None else max(knock.tried.values(), default=float("-inf"))

    def moved(self, key: PublicKey) -> None:
        """Somebody else says where the peer is."""
        self._trials.pop(key, None)

    def look(self, peer: PeerStatus) -> None:
        """The peer as it is now."""
        knock, trial = self._knocks.get(peer.key), self._trials.get(peer.key)
        if knock is not None and knock.handshake != peer.handshake_unix:
            del self._knocks[peer.key]
        if trial is not None and trial.rx is None:
            trial.rx = peer.rx_bytes
        elif trial is not None and trial.rx is not None and peer.rx_bytes > trial.rx:
            del self._trials[peer.key]  # wherever it is heard, there the engine sends

    @property
    def watched(self) -> set[PublicKey]:
        """The peers that `look` is to be told of."""
        return self._knocks.keys() | self._trials.keys()

    def forget(self, key: PublicKey) -> None:
        """The peer is gone, and what was still to be done with it."""
        self._knocks.pop(key, None)
        self._trials.pop(key, None)
        self._steps = [step for step in self._steps if isinstance(step, Open) or step.key != key]

    def handle_timer(self, now: float) -> None:
        """Do what is due; early or repeated calls are harmless."""
        for key, knock in self._knocks.items():
            if knock.is_asked(now):
                self._knock(key, knock, now)
            elif not knock.is_ordered:
                knock.due = float("inf")  # nobody wants it any more: a timer that has passed would come again at once
        for key, trial in list(self._trials.items()):
            if now >= trial.until:
                self._try_next(key, trial, now)

    def get_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        due = [knock.due for knock in self._knocks.values() if knock.is_asked(knock.due)]
        return min((*due, *(trial.until for trial in self._trials.values())), default=None)

    def steps(self) -> list[Step]:
        """What is to be done, in order; each is returned once."""
        steps, self._steps = self._steps, []
        return steps

    def _open(self, key: PublicKey, endpoints: tuple[Endpoint, ...]) -> float:
        """Open our NAT towards these; how long to wait then."""
        wait = STAGGER if self._own is not None and self._own.raw > key.raw else 0.0
        if self._can_open:
            beyond = [endpoint for endpoint in endpoints if not endpoint.is_private]
            self._steps += [Open(endpoint, ttl) for ttl in OPENER_TTLS for endpoint in beyond]
            wait += HOLD if beyond else 0.0
        return wait

    def _knock(self, key: PublicKey, knock: _Knock, now: float) -> None:
        if now >= knock.due:
            endpoint = min(knock.endpoints, key=lambda one: knock.tried.get(one, float("-inf")))
            knock.tried = {one: at for one, at in knock.tried.items() if one in knock.endpoints} | {endpoint: now}
            knock.last = endpoint
            knock.due = now + REKEY_TIMEOUT
            self._steps.append(Begin(key, endpoint))

    def _try(self, peer: PeerStatus, was: Endpoint, endpoints: tuple[Endpoint, ...], now: float) -> None:
        others = tuple(endpoint for endpoint in endpoints if endpoint != was)
        self._open(peer.key, others)
        inside = inner_address(peer.allowed_ips)
        self._trials[peer.key] = _Trial(was, others, inside, now + _ANSWERED_WITHIN)
        self._nudge(peer.key, self._trials[peer.key])

    def _try_next(self, key: PublicKey, trial: _Trial, now: float) -> None:
        if trial.others:
            (there, *others) = trial.others
            trial.others, trial.is_away = tuple(others), True
            trial.until = now + _HEARD_WITHIN
            self._steps.append(Move(key, there))
            self._nudge(key, trial)
            return
        del self._trials[key]
        if trial.is_away:
            self._steps.append(Move(key, trial.was))
            self._nudge(key, trial)

    def _nudge(self, key: PublicKey, trial: _Trial) -> None:
        trial.rx = None
        if trial.nudged is not None:
            self._steps.append(Nudge(key, trial.nudged))


def inner_address(allowed_ips: tuple[IPNetwork, ...]) -> IPAddress | None:
    """An address that is routed to a peer with these, best its own; None where there is none in particular."""
    particular = [network for network in allowed_ips if network.prefixlen >= _SHORTEST]
    if not particular:
        return None
    narrowest = min(particular, key=lambda network: network.max_prefixlen - network.prefixlen)
    return narrowest.network_address if narrowest.num_addresses == 1 else narrowest.network_address + 1
