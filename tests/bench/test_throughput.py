"""The benchmark runs, and its document says what was measured and what was not. How fast, no test judges."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.document import Target, to_markdown
from bench.record import machine
from bench.remains import classify

ROOT = Path(__file__).parents[2]
MACHINE = {
    "date": "2026-01-01 00:00 UTC",
    "commit": "abc",
    "cpu": "a processor",
    "cores": 2,
    "kernel": "6.1",
    "python": "3.11.2",
    "libcrypto": "OpenSSL 3",
    "load_before": 0.1,
}


@pytest.mark.usefixtures("needs_lab")
@pytest.mark.skipif(shutil.which("iperf3") is None or shutil.which("wg") is None, reason="iperf3 or wg not installed")
def test_an_engine_is_measured_and_written_down(tmp_path):
    command = [sys.executable, "-m", "bench.throughput", "--rounds", "1", "--seconds", "1", "--to", tmp_path]
    words = ["--engines", "reference,kernel", "--figures", "tcp,ping_idle,memory"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "performance.json").read_text())
    found = record["throughput"]
    assert found["failed"] == []
    assert "reference" in found["engines"]
    assert len(found["engines"]) + len(found["skipped"]) == 2
    for engine in found["engines"]:
        of_engine = found["rounds"][0][engine]
        assert of_engine["tcp_gbit"] > 0
        assert of_engine["ping_idle_p99_us"] >= of_engine["ping_idle_p50_us"] > 0
    assert found["rounds"][0]["reference"]["cpu_sender_us"] > 0
    assert found["rounds"][0]["reference"]["rss_mib"] > 10
    document = (tmp_path / "performance.md").read_text()
    assert "| wgdisco, plain Python |" in document
    assert all(reason in document for reason in found["skipped"].values())
    assert "wgdisco, plain Python" in (tmp_path / "performance.svg").read_text()


def test_what_was_never_measured_is_said_to_be():
    document = to_markdown({"schema": 1})
    assert document.count("not measured") == 27
    assert "reached" not in document


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"), [(1.19, 1.0, "**missed**"), (1.2, 1.0, "reached"), (3.2, 2.0, "aim reached")]
)
def test_a_missed_target_is_shown_as_missed(ours, theirs, verdict):
    rounds = [{"compiled": {"tcp_gbit": ours}, "wireguard-go": {"tcp_gbit": theirs}}]
    throughput = {
        "mtu": 1420,
        "seconds": 1,
        "engines": {name: {"title": name, "version": ""} for name in rounds[0]},
        "skipped": {},
        "failed": [],
        "medians": {name: {"tcp_gbit": [one["tcp_gbit"]] * 3} for name, one in rounds[0].items()},
        "rounds": rounds,
        "machine": MACHINE,
    }
    row = next(line for line in to_markdown({"throughput": throughput}).splitlines() if "TCP one stream ÷" in line)
    assert row.endswith(f"| {ours / theirs:.3g} | {verdict} |")


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(21, "**missed**"), (20, "reached"), (11, "reached"), (10, "aim reached"), (1, "aim reached")],
)
def test_of_costs_less_is_better(value, verdict):
    assert Target("", [value], 20, 10, less=True).row()[-1] == verdict


def test_a_sample_belongs_to_the_call_that_it_was_taken_in():
    kernel = "([kernel.kallsyms])"
    sending = [f"_copy_from_iter {kernel}", f"udp_sendmsg {kernel}", f"__sys_sendmsg {kernel}", "__libc_sendmsg (libc)"]
    assert classify(sending).startswith("UDP send")
    assert classify([f"tun_chr_read_iter {kernel}", f"ksys_read {kernel}"]) == "TUN read"
    assert classify([f"handle_softirqs {kernel}", "seal (/usr/lib/libcrypto.so.3)"]).startswith("scheduler")
    assert classify(["138922 [unknown] (/usr/lib/libcrypto.so.3)"]).startswith("sealing")
    assert classify(["_PyEval_EvalFrameDefault (/usr/bin/python3.11)"]) == "Python"


def test_a_tunnel_beside_dns_is_shown_with_what_it_keeps_beside_knot_and_a_mirror():
    beside = {
        "seconds": 6,
        "load": 19_990.0,
        "gbit": {"alone": [2.0, 3.0], "ours": [1.9, 2.7], "knot": [1.9, 2.85], "mirror": [2.0, 3.0]},
        "answer_p50_ms": 0.9,
        "answer_p99_ms": 5.1,
        "server_processor": 0.2,
        "machine": machine(),
    }
    document = to_markdown({"schema": 1, "beside": beside})
    assert (
        "| a full tunnel beside 20,000 questions a second ÷ alone | 0.9 | 0.9 | 0.925 (0.9 to 0.95) | aim reached |"
        in (document)
    )
    assert "| … ÷ beside as many to Knot | 0.9 | 0.9 | 0.974 (0.947 to 1) | aim reached |" in document
    assert "| … ÷ beside as many to a mirror | 0.9 | 0.9 | 0.925 (0.9 to 0.95) | aim reached |" in document
    assert "| … an answer then, p99 | 5 ms | 5 ms | 5.1 ms | **missed** |" in document
    assert "| while Knot is asked | 2.38 | 0.95 | 1.9 2.85 |" in document
