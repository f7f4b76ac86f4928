"""What a daemon counts, as values: definitions, samples, and the two kinds of counter that need a memory.

Names, units and types are by the Prometheus conventions: seconds and bytes, counters end in `_total`. Labels are of
closed lists: no key, name or address is ever one, since there may be thousands.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram's sample: `counts` of values up to each bound, the last of which is infinity, and their `sum`."""

    counts: tuple[tuple[float, int], ...]
    sum: float


Value = float | Buckets


@dataclass(frozen=True, slots=True)
class Metric:
    """What is counted, in one line of `help`, and by what `labels`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def of(self, value: Value) -> "Family":
        """Its only sample."""
        return Family(self, (((), value),))

    def by(self, samples: Mapping[str, float] | Mapping[str, Buckets]) -> "Family":
        """A sample each by the value of its only label."""
        return Family(self, tuple(((key,), value) for key, value in samples.items()))

    def by_all(self, samples: Mapping[tuple[str, ...], float]) -> "Family":
        """A sample each by the values of its labels."""
        return Family(self, tuple(samples.items()))


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric: the values of its labels, and what was counted."""

    metric: Metric
    samples: tuple[tuple[tuple[str, ...], Value], ...]


class Histogram:
    """Counts values by how large they are; `bounds` rise."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self._bounds = (*bounds, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._sum += value
        for number, bound in enumerate(self._bounds):
            self._counts[number] += value <= bound

    def buckets(self) -> Buckets:
        """So far."""
        return Buckets(tuple(zip(self._bounds, self._counts, strict=True)), self._sum)


class Risen:
    """A counter of what several others have risen by, of which each may begin anew or go away; it never falls."""

    def __init__(self) -> None:
        self.total = 0
        self._last: dict[Hashable, int] = {}

    def observe(self, counts: Mapping[Hashable, int]) -> None:
        """What they are now."""
        for key, count in counts.items():
            last = self._last.get(key, 0)
            self.total += count - last if count >= last else count
        self._last = dict(counts)


def slug(words: str) -> str:
    """A reason as the value of a label: `under load, cookie sent` is `under_load_cookie_sent`."""
    return "_".join("".join(c if c.isascii() and c.isalnum() else " " for c in words.lower()).split())
