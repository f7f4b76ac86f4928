"""The Grafana dashboard in examples/: its queries are of metrics there are, and Prometheus reads them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.test_metrics import ALL
from wgdisco.metrics import Kind

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "examples/grafana"
PROMTOOL = ROOT / ".peers/promtool"
SUFFIXES = ("_bucket", "_count", "_sum")
needs_promtool = pytest.mark.skipif(not PROMTOOL.exists(), reason="`scripts/peers promtool` has not unpacked it")


def queries():
    panels = json.loads((GRAFANA / "wgdisco.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def named(query):
    return re.findall(r"\b(?:wgdisco|process)_[a-z_]+", query)


def test_it_names_every_metric_of_ours_and_no_other():
    series = {metric.name for metric in ALL if metric.kind is not Kind.HISTOGRAM}
    series |= {metric.name + suffix for metric in ALL if metric.kind is Kind.HISTOGRAM for suffix in SUFFIXES}
    shown = {name for query in queries() for name in named(query)}
    assert shown <= series
    unseen = {metric.name for metric in ALL if not any(name.startswith(metric.name) for name in shown)}
    assert unseen == {"process_virtual_memory_bytes"}


def test_rates_are_of_counters_and_nothing_else_is():
    counters = {metric.name for metric in ALL if metric.kind is Kind.COUNTER}
    rated = {name for query in queries() for name in re.findall(r"(?:rate|increase)\((\w+)", query)}
    assert {name.removesuffix("_bucket").removesuffix("_count") for name in rated} == counters | {
        "wgdisco_punch_seconds"
    }
    assert not [name for query in queries() for name in named(query) if name in counters and name not in rated]


def test_by_is_of_labels_there_are():
    labels = {label for metric in ALL for label in metric.labels} | {"instance", "le", "job"}
    for query in queries():
        for told in re.findall(r"(?:by|on|group_left) ?\(([^)]*)\)", query):
            assert set(re.split(", *", told)) <= labels, query
        for label in re.findall(r'(\w+)=~?"', query):
            assert label in labels, query


def test_panels_do_not_lie_on_each_other():
    taken = set()
    for panel in json.loads((GRAFANA / "wgdisco.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@needs_promtool
def test_prometheus_reads_the_queries(tmp_path):
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@needs_promtool
def test_prometheus_reads_its_configuration():
    command = [PROMTOOL, "check", "config", GRAFANA / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
