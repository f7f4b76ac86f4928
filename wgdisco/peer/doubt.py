"""Doubt: data goes out on a path and nothing comes back. When it is asked about, and when it is given up.

A direct way is asked three times, then left. Nobody can be asked over the relay: there an order brings the peer back.
In both, silence may be that of who only listens.
"""

from wgdisco.peer.ways import TRUSTED_FOR
from wgdisco.tunnel.messages import KEEPALIVE_TIMEOUT

# A way in doubt is asked at these times, and lost when nothing answers by the last
PINGS_AT = (0.0, 0.1, 0.2)
MARGIN = 0.1
# The relay forgets a pair that says nothing; counters are looked at once a second
UNHEARD = 2.5
# Where an order brought the peer back over the relay, for so long its silence may be that of who only listens: then
# WireGuard's keepalive comes as late as this
LISTENS_FOR = 60.0
UNHEARD_LISTENER = KEEPALIVE_TIMEOUT + 1.0


class Doubt:
    """Of the direct way in use. `rtt` is what it takes to answer, as far as that is known (seconds)."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._pinged = 0
        self._reassured_at = float("-inf")

    def begin(self, heard_at: float, now: float) -> bool:
        """Nothing came since `heard_at`. Whether that is doubted since now: not where a check was answered lately."""
        is_listener = self._reassured_at >= heard_at and now - self._reassured_at < TRUSTED_FOR
        if self._since is not None or is_listener:
            return False
        self._since, self._pinged = now, 0
        return True

    def answered(self, now: float) -> None:
        """The way in use answers."""
        if self._since is not None:
            self._since, self._reassured_at = None, now

    def end(self) -> None:
        """Another way is in use."""
        self._since = None

    def pings_due(self, now: float) -> int:
        """How many checks are to be sent now."""
        due = 0 if self._since is None else sum(now >= self._since + at for at in PINGS_AT)
        new, self._pinged = max(0, due - self._pinged), max(due, self._pinged)
        return new

    def is_lost(self, rtt: float, now: float) -> bool:
        """Whether the way is to be left: that ends the doubt."""
        end = self._end(rtt)
        if end is None or now < end:
            return False
        self._since = None
        return True

    def get_timer(self, rtt: float) -> float | None:
        """When there is something to do; None without a doubt."""
        if self._since is not None and self._pinged < len(PINGS_AT):
            return self._since + PINGS_AT[self._pinged]
        return self._end(rtt)

    def _end(self, rtt: float) -> float | None:
        return None if self._since is None else self._since + PINGS_AT[-1] + MARGIN + rtt


class Missing:
    """Of a peer over the relay: how long it may be silent."""

    def __init__(self) -> None:
        self._is_missed = False
        self._brought_back_at = float("-inf")

    def patience(self, now: float) -> float:
        """How long it may be unheard, in seconds, before it is asked for by an order."""
        return UNHEARD if now - self._brought_back_at >= LISTENS_FOR else UNHEARD_LISTENER

    def asked(self) -> None:
        """It was."""
        self._is_missed = True

    def heard(self, now: float) -> None:
        """It is heard; if it was missed, that was perhaps all it had to say."""
        if self._is_missed:
            self._is_missed, self._brought_back_at = False, now
