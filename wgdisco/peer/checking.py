"""One peer's checks: which are sent beside an attempt, and which of the ways that answered is to be used.

That a peer is heard from elsewhere does not say that it is reached there. It is asked there and where it was, and an
answer from elsewhere waits a little for the other.
"""

from collections.abc import Iterable

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.actions import Ping
from wgdisco.peer.budget import Budget
from wgdisco.peer.check import Pinged, Ponged
from wgdisco.peer.punch import TOLD_BURST, TOLD_RATE
from wgdisco.peer.ways import TRUSTED_FOR, Ways

# How long an answer from elsewhere waits for one from where the peer was
SETTLE = 0.02
# A check that may yet be answered: a triggered one would only be one more
IN_PROGRESS = 0.1


class Checking:
    """Checks of `ways`; its methods return those to be sent. `is_spoken`: the peer has asked or answered one."""

    def __init__(self, key: PublicKey, ways: Ways) -> None:
        self.is_spoken = False
        self._key = key
        self._ways = ways
        self._told = Budget(TOLD_BURST, TOLD_RATE)
        self._elsewhere_at = float("-inf")
        self._settle_at: float | None = None

    def ask(self, endpoint: Endpoint, now: float) -> Ping:
        """Whether the peer answers there."""
        self._ways.ask(endpoint, now)
        return Ping(self._key, endpoint)

    def ask_told(self, endpoints: Iterable[Endpoint], now: float) -> list[Ping]:
        """Ask at once at what is new; somebody may tell something new all the time."""
        return [self.ask(endpoint, now) for endpoint in endpoints if self._told.take(now)]

    def ask_elsewhere(self, endpoint: Endpoint, now: float) -> Ping:
        """The peer was heard there, not where it is reached."""
        self._elsewhere_at = now
        return self.ask(endpoint, now)

    def asked(self, ping: Pinged) -> list[Ping]:
        """The peer asks from there: so it can be asked there (a triggered check)."""
        self.is_spoken = True
        verified = self._ways.verified.get(ping.source)
        is_known = verified is not None and ping.at - verified.at <= TRUSTED_FOR
        if is_known or ping.at - self._ways.asked_at(ping.source) <= IN_PROGRESS:
            return []
        return [self.ask(ping.source, ping.at)]

    def answered(self, pong: Ponged) -> None:
        """The peer answers there."""
        self.is_spoken = True
        self._ways.answer(pong)

    def compare(self, current: Endpoint, now: float, is_final: bool = False) -> Endpoint | Ping | None:
        """The way to use rather than `current`, since it is better, or answers where that does not.

        Or a check of `current`, when it has yet to show whether it does. `is_final`: it had its time for that.
        """
        best = self._ways.best(now, but=current)
        if best is None:
            return None
        now_used = self._ways.verified.get(current)
        if now_used is not None and now_used.at >= self._elsewhere_at:
            return best.endpoint if self._ways.is_better(best, now_used) else None
        if is_final or (self._ways.is_told(best.endpoint) and not self._ways.is_told(current)):
            return best.endpoint  # the registry has seen it move, too
        if self._settle_at is not None:
            return None
        asked_at = self._ways.asked_at(current)
        is_asked = now - asked_at <= IN_PROGRESS
        self._settle_at = max(now, (asked_at if is_asked else now) + best.rtt) + SETTLE
        return None if is_asked else self.ask(current, now)

    def is_settled(self, now: float) -> bool:
        """Whether what `compare` waits for had its time: told once."""
        if self._settle_at is None or now < self._settle_at:
            return False
        self._settle_at = None
        return True

    def get_timer(self) -> float | None:
        """When that is."""
        return self._settle_at
