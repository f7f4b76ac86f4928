"""How much went through the registry's device for each member lately: bytes in each of the last intervals."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

INTERVAL = 10  # seconds
LENGTH = 60  # intervals


def _ring() -> deque[int]:
    return deque(maxlen=LENGTH)


@dataclass(slots=True)
class _History:
    rx: deque[int] = field(default_factory=_ring)
    tx: deque[int] = field(default_factory=_ring)


class Histories:
    """By host number. Who had nothing in all intervals has no history."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}
        self._histories: dict[int, _History] = {}

    def sample(self, counters: Mapping[int, tuple[int, int]]) -> None:
        """Each INTERVAL seconds: bytes received and sent so far, by host number; who is not in it is forgotten.

        Counters begin at 0 again with a new key.
        """
        last, self._last = self._last, dict(counters)
        for number in [number for number in self._histories if number not in counters]:
            del self._histories[number]
        for number, now in counters.items():
            before = last.get(number, now)
            rx, tx = (after - then if after >= then else after for after, then in zip(now, before, strict=True))
            history = self._histories.get(number)
            if history is None:
                if not rx and not tx:
                    continue
                history = self._histories[number] = _History()
            history.rx.append(rx)
            history.tx.append(tx)
            if not any(history.rx) and not any(history.tx):
                del self._histories[number]

    def of(self, number: int) -> tuple[list[int], list[int]]:
        """Bytes received and sent in each interval, the latest last; up to LENGTH."""
        history = self._histories.get(number)
        return ([], []) if history is None else (list(history.rx), list(history.tx))
