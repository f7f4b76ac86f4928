"""What the zone's server counts: numbers that only grow, by kind and name. It tells them to the registry as JSON."""

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any

# more names than there are of all kinds; what tells more is not ours
_NAMES_MAX = 256


class Kind(Enum):
    """What is counted."""

    ANSWERS = "answers"  # replies to queries, by result
    DROPS = "drops"  # what got no reply, by reason
    TRANSFERS = "transfers"  # what secondaries asked for
    PASSED = "passed on"  # queries about other zones, by what became of them
    CONNECTIONS = "connections"  # of TCP, by what became of them


Tally = dict[Kind, Counter[str]]


def joined(*tallies: Tally) -> Tally:
    """Their sum, with every kind in it, and no 0."""
    return {kind: sum((tally[kind] for tally in tallies if kind in tally), Counter()) for kind in Kind}


def to_json(tally: Tally) -> dict[str, dict[str, int]]:
    """For `from_json`."""
    return {kind.value: dict(counts) for kind, counts in tally.items()}


def from_json(said: Mapping[str, Any]) -> Tally:
    """Read it back; ValueError, TypeError or AttributeError when it is none."""
    return {Kind(kind): numbers(counts) for kind, counts in said.items()}


def numbers(said: Mapping[str, Any]) -> Counter[str]:
    """Numbers by name; ValueError, TypeError or OverflowError when they are none, or too many."""
    if len(said) > _NAMES_MAX:
        raise ValueError("too many")
    return Counter({str(what): int(count) for what, count in said.items()})
