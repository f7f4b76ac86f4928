"""A small crowd at a real registry, and what is written of it. How fast, no test judges."""

import pytest

from bench import registry_document
from bench.document import to_markdown
from bench.registry import Sizes, handshakes, join, mesh, steady
from tests.bench.test_throughput import MACHINE

pytestmark = pytest.mark.usefixtures("needs_lab")
SMALL = Sizes(mesh=20, moves=4, steady=30, steady_seconds=1, handshake_seconds=2, joins=4, known=10)


@pytest.fixture(scope="module")
def record():
    parts = {"handshakes": handshakes, "mesh": mesh, "steady": steady, "join": join}
    return {name: part(SMALL) for name, part in parts.items()}


def test_every_member_is_there_and_told(record):
    assert record["mesh"]["missed"] == 0
    assert 0 < record["mesh"]["p50_ms"] <= record["mesh"]["p99_ms"] <= record["mesh"]["last_max_ms"]
    assert record["steady"]["restart"]["live"] == SMALL.steady
    assert record["handshakes"]["a_core"] > 0
    assert record["join"]["p50_ms"] > 0


def test_it_is_written_down(record):
    text = to_markdown({"schema": 1, "registry": {"machine": MACHINE, **record}})
    for wanted in ("## One registry", "one of 1,000 has moved", "The limit of one machine", "where its time goes"):
        assert wanted in text
    assert text.count("registry.svg") == 1
    plot = registry_document.plot(record)
    assert plot.startswith("<svg")
    assert plot.count("stroke-width") == 2


def test_what_was_not_measured_is_missing():
    text = to_markdown({"schema": 1})
    assert "## One registry" not in text
    assert "| one of 1,000 has moved → all others are told, p99 | 250 ms | 150 ms |  | not measured |" in text
    assert registry_document.plot({}) is None
