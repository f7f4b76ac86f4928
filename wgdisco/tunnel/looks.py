"""When to look at a device that tells nothing: often while something may be happening, never for much of a core."""

# All is well
INTERVAL = 1.0
# A handshake may be under way that we had begun
EAGER_INTERVAL = 0.2
EAGER_FOR = 10.0
# After a handshake message was seen on its way in: the engine is done with it soon, but is the responder's handshake
# only complete with what the initiator sends next, a round trip later
AFTER_HINT = (0.01, 0.05, 0.15, 0.4)
# What looking may take of a core, whatever is seen
SHARE = 0.05
# What is too cheap to be measured
_LEAST = 0.0005


class Looks:
    """Tell it what happens, and look when `get_timer` says so. Times are seconds on one clock."""

    def __init__(self, now: float) -> None:
        self._looked_at = now
        self._earliest = now
        self._eager_until = float("-inf")
        self._hinted_at = float("-inf")
        self._due: float | None = None

    def hinted(self, now: float) -> None:
        """A handshake message came in, or seems to have: nobody has proved it."""
        self._hinted_at = now
        self._due = now + AFTER_HINT[0] if self._due is None else min(self._due, now + AFTER_HINT[0])

    def expect(self, now: float) -> None:
        """We had a handshake begun."""
        self._eager_until = now + EAGER_FOR

    def looked(self, now: float, cost: float) -> None:
        """A look began at `now` and took `cost` seconds of a core."""
        self._looked_at = now
        self._earliest = now + max(cost, _LEAST) / SHARE
        self._due = next((self._hinted_at + step for step in AFTER_HINT if self._hinted_at + step > now), None)

    def get_timer(self) -> float:
        """When to look next."""
        interval = EAGER_INTERVAL if self._looked_at < self._eager_until else INTERVAL
        due = self._looked_at + interval
        return max(self._earliest, due if self._due is None else min(due, self._due))
