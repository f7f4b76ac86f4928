"""What time it is for a member whose clock may be wrong: a machine without a battery boots in 1970, another in 2035.

Handshake timestamps must never go back towards the same peer, or it refuses them (WireGuard section 5.1). They follow
unix time, and otherwise the time that has passed. What they may reach is on disk before they do: the next start begins
above that, whatever its clock says then.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from wgdisco.tunnel.tai64n import EARLIEST

# Further from the registry's time than this, in seconds, a clock is wrong.
SKEW_MAX = 120.0
# How far handshake timestamps may go before that has to be kept on disk again, in seconds
AHEAD = 1800.0


class Clock:
    """All arguments `unix` are what the host's clock says, `now` is the boot-time clock; seconds.

    `kept` is what the disk has: handshake timestamps stay below it.
    """

    def __init__(self, kept: float, confirmed_at: float, now: float) -> None:
        self.kept = kept
        self._confirmed_at = confirmed_at
        self._latest = (kept + 1.0, now)
        self._registry: tuple[float, float] | None = None

    def registry_said(self, registry_unix: float, now: float) -> None:
        """The registry's clock, as it has just told it."""
        self._registry = (registry_unix, now)

    def time(self, unix: float, now: float) -> float:
        """Unix time: the host's, unless the registry knows better."""
        told = self._registry_time(now)
        return unix if told is None or told < EARLIEST or abs(told - unix) <= SKEW_MAX else told

    def handshake_time(self, unix: float, now: float) -> float:
        """The time for the timestamp of an initiation. It never goes back."""
        return min(self._following(unix, now), self.kept)

    def to_keep(self, unix: float, now: float) -> float:
        """What has to be on disk from now on."""
        return self._following(unix, now) + AHEAD

    def is_due(self, unix: float, now: float) -> bool:
        """Whether that is to be written now, not to be held up."""
        return self._following(unix, now) > self.kept - AHEAD / 2

    def note(self, unix: float, now: float) -> str | None:
        """What is wrong with the clock, and what to do, for a person."""
        told = self._registry_time(now)
        if told is not None and abs(told - unix) > SKEW_MAX:
            if told < EARLIEST <= unix:
                return f"clock: the registry's says {_date(told)}: whoever runs it has to set it"
            return f"clock: this host's says {_date(unix)}, the registry's {_date(told)}: set it"
        if told is None and unix < max(EARLIEST, self._confirmed_at - SKEW_MAX):
            return f"clock: this host's says {_date(unix)}, and it has been later than that: set it"
        return None

    def _registry_time(self, now: float) -> float | None:
        return None if self._registry is None else self._registry[0] + now - self._registry[1]

    def _following(self, unix: float, now: float) -> float:
        value, at = self._latest
        following = max(unix, value + now - at)
        self._latest = (following, now)
        return following


def parse_date(text: str | None) -> float | None:
    """Unix time of an HTTP Date header (RFC 9110 section 5.6.7); None when it is none."""
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _date(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M UTC}"
