"""The ways to a peer: endpoints that somebody tells or that were learnt, and what checks of them found."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from wgdisco.api import CandidateKind
from wgdisco.endpoint import Endpoint
from wgdisco.peer.candidate import Candidate, ordered
from wgdisco.peer.check import Ponged

# A better way takes over when it is that much faster; at equal pace the better kind does
FASTER_BY = 0.8
FASTER_BY_SECONDS = 0.010
SAME_PACE = 0.002
# What answered a check is not asked again for so long
TRUSTED_FOR = 5.0
# Learnt from packets, beside what is told
MAX_LEARNT = 4
# Checks under way, or just done
MAX_ASKED = 16
# Ways that answered: a peer may answer from as many as it likes
MAX_VERIFIED = 16


@dataclass(slots=True)
class Ways:
    """`told` by the registry, the best first; `lan` by the peer itself on our own network; `published` where the
    registry last saw it; `last_known` where it last was direct. `verified` are those that answered, `asked` when each
    was asked.
    """

    told: tuple[Candidate, ...] = ()
    lan: tuple[Endpoint, ...] = ()
    published: Endpoint | None = None
    last_known: Endpoint | None = None
    verified: dict[Endpoint, Ponged] = field(default_factory=dict)
    asked: dict[Endpoint, float] = field(default_factory=dict)
    learnt: dict[Endpoint, Candidate] = field(default_factory=dict)

    def tell(self, candidates: Iterable[Candidate]) -> list[Endpoint]:
        """What the registry tells now; the endpoints that are new."""
        known = {candidate.endpoint for candidate in self.told}
        self.told = ordered(candidates)
        return [candidate.endpoint for candidate in self.told if candidate.endpoint not in known]

    def learn(self, endpoint: Endpoint, now: float) -> None:
        """The peer was heard there: a peer-reflexive candidate (RFC 8445 section 7.3.1.3)."""
        if self.is_told(endpoint):
            return
        self.learnt.pop(endpoint, None)
        self.learnt[endpoint] = Candidate.create(CandidateKind.PEER_REFLEXIVE, endpoint, now)
        if len(self.learnt) > MAX_LEARNT:
            del self.learnt[next(iter(self.learnt))]

    def ask(self, endpoint: Endpoint, now: float) -> None:
        """A check goes there."""
        self.asked.pop(endpoint, None)
        self.asked[endpoint] = now
        if len(self.asked) > MAX_ASKED:
            del self.asked[next(iter(self.asked))]

    def asked_at(self, endpoint: Endpoint) -> float:
        """When that was; minus infinity if never."""
        return self.asked.get(endpoint, float("-inf"))

    def answer(self, pong: Ponged) -> None:
        """A check was answered. Of several in a short time the fastest tells the pace."""
        known = self.verified.pop(pong.endpoint, None)
        if known is not None and pong.at - known.at < TRUSTED_FOR:
            pong = replace(pong, rtt=min(pong.rtt, known.rtt))
        self.verified[pong.endpoint] = pong
        if len(self.verified) > MAX_VERIFIED:
            del self.verified[next(iter(self.verified))]

    def is_told(self, endpoint: Endpoint) -> bool:
        """Whether the registry tells it."""
        return any(endpoint == candidate.endpoint for candidate in self.told)

    def all(self, but: Endpoint | None) -> tuple[Endpoint, ...]:
        """All there are `but` one (the relay's), the best first."""
        told = (candidate.endpoint for candidate in self.told)
        found = dict.fromkeys((*self.lan, *told, self.published, *self.learnt, self.last_known))
        return tuple(endpoint for endpoint in found if endpoint is not None and endpoint != but)

    def best(self, now: float, but: Endpoint | None = None) -> Ponged | None:
        """The fastest of those that answered lately, `but` one: what answered long ago may be there no more."""
        lately = (pong for pong in self.verified.values() if now - pong.at <= TRUSTED_FOR)
        answered = (pong for pong in lately if pong.endpoint != but)
        return min(answered, key=lambda pong: pong.rtt, default=None)

    def is_better(self, way: Ponged, current: Ponged) -> bool:
        """Whether to change over: a little better is not enough, or two ways alike would take turns."""
        if way.rtt < current.rtt - FASTER_BY_SECONDS:
            return True
        if way.rtt < FASTER_BY * current.rtt and way.rtt < current.rtt - SAME_PACE:
            return True
        return abs(way.rtt - current.rtt) <= SAME_PACE and self._rank(way.endpoint) < self._rank(current.endpoint)

    def _rank(self, endpoint: Endpoint) -> int:
        ways = self.all(None)
        return ways.index(endpoint) if endpoint in ways else len(ways)
