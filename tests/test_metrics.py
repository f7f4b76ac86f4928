"""Counters that need a memory, and the table of all metrics in docs/operations.md."""

import re
from pathlib import Path

from wgdisco.dnssd import metrics as dns
from wgdisco.metrics import Histogram, Kind, Risen, slug
from wgdisco.peer import metrics as member
from wgdisco.registry import metrics as registry
from wgdisco.tunnel import metrics as device
from wgdisco.tunnel.io.exposition import PROCESS

ROOT = Path(__file__).parents[1]
BY_WHOM = {
    "all": (*device.METRICS, *PROCESS),
    "members": member.METRICS,
    "registries": (*registry.OF_ALL, *dns.METRICS),
    "registries with a store": registry.OF_MANAGED,
}
ALL = [metric for metrics in BY_WHOM.values() for metric in metrics]


def test_a_histogram_counts_all_that_are_not_above_a_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)
    buckets = histogram.buckets()
    assert buckets.counts == ((1.0, 2), (2.0, 3), (float("inf"), 4))
    assert buckets.sum == 102.0


class TestRisen:
    def test_adds_what_each_has_risen_by(self):
        risen = Risen()
        risen.observe({"a": 10, "b": 5})
        risen.observe({"a": 12, "b": 5})
        assert risen.total == 17

    def test_what_went_away_or_began_anew_takes_nothing_with_it(self):
        risen = Risen()
        risen.observe({"a": 10, "b": 5})
        risen.observe({"a": 10})
        assert risen.total == 15
        risen.observe({"a": 3, "b": 1})
        assert risen.total == 19


def test_a_reason_is_one_word():
    assert slug("under load, cookie sent") == "under_load_cookie_sent"
    assert slug("no UDP answer") == "no_udp_answer"
    assert slug('}\n"Ω') == ""


def test_names_are_by_the_conventions():
    for metric in ALL:
        assert re.fullmatch(r"(wgdisco|process)(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
        assert not re.search("(_ms|_milliseconds|_kib|_minutes)", metric.name)
    assert len({metric.name for metric in ALL}) == len(ALL)


def test_operations_md_has_them_all():
    wanted = [
        f"| `{metric.name}{'{' + ','.join(metric.labels) + '}' if metric.labels else ''}` | {metric.kind.value}"
        f" | {whom} | {metric.help} |"
        for whom, metrics in BY_WHOM.items()
        for metric in metrics
    ]
    text = (ROOT / "docs/operations.md").read_text()
    there = [line for line in text.splitlines() if re.match(r"\| `(wgdisco|process)_", line)]
    assert there == wanted, "\n".join(["the table is to be:", *wanted])
