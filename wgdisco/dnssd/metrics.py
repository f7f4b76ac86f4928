"""What the zone's server counts, for Prometheus. It is told by a process that strangers talk to: names are bounded."""

from collections import Counter
from collections.abc import Iterable
from enum import Enum

from wgdisco.dnssd.forwarding import Passed
from wgdisco.dnssd.responder import DROPPED, Outcome
from wgdisco.dnssd.tally import Kind as Counted
from wgdisco.dnssd.tally import Tally
from wgdisco.dnssd.transfer import Request
from wgdisco.metrics import Family, Kind, Metric, slug

ANSWERS = Metric(
    "wgdisco_dns_answers_total", Kind.COUNTER, "Answers to queries about the zone, by result.", ("result",)
)
PASSED = Metric(
    "wgdisco_dns_forwarded_total", Kind.COUNTER, "Queries about other zones, by what became of them.", ("result",)
)
TRANSFERS = Metric(
    "wgdisco_dns_transfers_total", Kind.COUNTER, "Queries of secondaries, by what became of them.", ("result",)
)
CONNECTIONS = Metric(
    "wgdisco_dns_connections_total",
    Kind.COUNTER,
    "TCP connections to the zone's server, by what became of them.",
    ("result",),
)
RESTARTS = Metric("wgdisco_dns_restarts_total", Kind.COUNTER, "How often the zone's server had to be started again.")
METRICS = (ANSWERS, PASSED, TRANSFERS, CONNECTIONS, RESTARTS)

OTHER = "other"
_NAMES_MAX = 32
_NAME_MAX_SIZE = 40
_ANSWERS = [what for what in Outcome if what not in DROPPED]


def families(tally: Tally, restarts: int, connections: Iterable[Enum] = ()) -> list[Family]:
    """All but the drops; `connections` are what becomes of them."""
    return [
        ANSWERS.by(_named(tally[Counted.ANSWERS], _ANSWERS)),
        PASSED.by(_named(tally[Counted.PASSED], Passed)),
        TRANSFERS.by(_named(tally[Counted.TRANSFERS], Request)),
        CONNECTIONS.by(_named(tally[Counted.CONNECTIONS], connections)),
        RESTARTS.of(restarts),
    ]


def drops(tally: Tally) -> dict[str, float]:
    """What got no reply, by reason."""
    return _named(tally[Counted.DROPS], DROPPED)


def _named(counts: Counter[str], known: Iterable[Enum] = ()) -> dict[str, float]:
    """By the value of a label: all that are known, and as many others as an honest server could have."""
    found: dict[str, float] = dict.fromkeys(sorted(slug(what.value) for what in known), 0)
    for what, count in sorted(counts.items()):
        name = slug(what)
        if name not in found and (len(found) >= _NAMES_MAX or not 0 < len(name) <= _NAME_MAX_SIZE):
            name = OTHER
        found[name] = found.get(name, 0) + count
    return found
