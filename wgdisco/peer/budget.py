"""How often something may be done, whoever asks for it."""

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """A token bucket: `burst` at once, `rate` a second."""

    burst: float
    rate: float
    _spent: float = 0.0
    _at: float = 0.0

    def take(self, now: float) -> bool:
        """Do it once more, unless that is too often."""
        self._spent = max(0.0, self._spent - (now - self._at) * self.rate)
        self._at = now
        if self._spent > self.burst - 1:
            return False
        self._spent += 1
        return True
