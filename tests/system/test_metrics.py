"""What real daemons tell Prometheus: by the verb, on a listener, to admins; judged by promtool; and the dashboard."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM, Network, await_
from tests.test_dashboard import named, queries
from wgdisco.dnssd import metrics as dns
from wgdisco.lab.topology import Lab
from wgdisco.peer import metrics as member
from wgdisco.registry import metrics as registry
from wgdisco.tunnel import metrics as device
from wgdisco.tunnel.io.exposition import PROCESS

pytestmark = pytest.mark.usefixtures("needs_lab")

ROOT = Path(__file__).parents[2]
PROMTOOL = ROOT / ".peers/promtool"
SCRAPE = """
import sys, urllib.error, urllib.request
try:
    told = urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers={"Accept": sys.argv[2]}), timeout=5)
except urllib.error.HTTPError as error:
    told = error
print(told.headers["Content-Type"])
print(told.read().decode(), end="")
"""
OF_MEMBERS = (*device.METRICS, *member.METRICS, *PROCESS)
OF_REGISTRIES = (*device.METRICS, *registry.OF_ALL, *dns.METRICS, *PROCESS)


def names(metrics):
    return {metric.name.removesuffix("_total") for metric in metrics}


def samples(text):
    """Values by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found[(name, *sorted(labels.items()))]


def scrape(host, url, accept="text/plain"):
    """Content-Type and body."""
    kind, _, body = host.run([sys.executable, "-c", SCRAPE, url, accept]).stdout.partition("\n")
    return kind, body


@pytest.fixture(scope="module")
def mesh():
    """Alice, an admin, and bob have a direct path; all three listen."""
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.stop_registry()
        mesh.daemon = Daemon(lab.hosts["registry"], [*PROGRAM, "registry", "run", "--metrics", "9586"])
        mesh.daemon.wait_for("started")
        mesh.join("alice", "--metrics", "9586", link=mesh.registry("invite", "alice", "--admin"))
        mesh.join("bob")
        await_(lambda: mesh.peers("alice").get("bob", {}).get("path") == "direct", "alice to see bob")
        yield mesh


@pytest.fixture(scope="module")
def told(mesh):
    """What `wgdisco metrics` prints on each host."""
    mesh.lab.hosts["bob"].run(["dig", "+time=2", f"@{mesh.address('bob').rpartition('.')[0]}.1", "alice.wg.internal."])
    return {host: mesh.verb(host, "metrics") for host in ("registry", "alice", "bob")}


class TestTheNumbers:
    def test_are_all_that_are_documented_and_no_others(self, told):
        for host, expected in (
            ("alice", OF_MEMBERS),
            ("bob", OF_MEMBERS),
            ("registry", (*OF_REGISTRIES, *registry.OF_MANAGED)),
        ):
            assert {family.name for family in parse_text(told[host])} == names(expected), host

    def test_of_a_member_say_how_it_reaches_the_other(self, mesh, told):
        found = samples(told["bob"])
        assert value(found, "wgdisco_paths", path="direct") == 1
        assert value(found, "wgdisco_paths", path="relay") == 0
        assert value(found, "wgdisco_paths_not_direct", reason="no_udp_answer") == 0
        assert value(found, "wgdisco_registry_reached") == 1
        assert value(found, "wgdisco_device_peers") == 2
        assert value(found, "wgdisco_device_handshakes_total") >= 2
        assert value(found, "wgdisco_punch_orders_total") >= 1
        assert value(found, "wgdisco_punch_seconds_count", path="direct") >= 1
        assert 0 < value(found, "wgdisco_punch_seconds_sum", path="direct") < 10
        assert value(found, "wgdisco_interface_info", interface="mesh", role="member", zone=mesh.status("bob")["zone"])

    def test_of_the_registry_say_what_it_does(self, told):
        found = samples(told["registry"])
        assert value(found, "wgdisco_members", state="live") == 2
        assert value(found, "wgdisco_members", state="enrolled") == 0
        assert value(found, "wgdisco_invitations_pending") == 0
        assert value(found, "wgdisco_orders_total", result="made") >= 1
        assert value(found, "wgdisco_event_streams") == 2
        assert value(found, "wgdisco_ledger_commits_total") >= 4
        assert value(found, "wgdisco_device_receive_bytes_total") > 1000
        assert value(found, "wgdisco_stun_answers_total") > 0
        assert value(found, "wgdisco_zone_serial") > 1_700_000_000
        assert value(found, "wgdisco_drops_total", component="relay", reason="no_order") >= 0

    def test_are_all_that_the_dashboard_shows(self, told):
        there = {sample.name for text in told.values() for family in parse_text(text) for sample in family.samples}
        assert {name for query in queries() for name in named(query)} <= there

    def test_are_as_many_as_operations_md_says(self, told):
        assert max(len(samples(text)) for text in told.values()) < 200

    def test_name_nobody(self, mesh, told):
        """Members may be thousands: none is a label."""
        known = [mesh.status(host)["public_key"] for host in ("alice", "bob")] + [mesh.address("alice"), "alice", "bob"]
        for text in told.values():
            assert not [name for name in known if name in text.replace('interface="alice"', "")]

    def test_only_grow_while_members_come_and_go(self, mesh, told):
        """All counters, over a revocation and a new key, which take peers away from the device."""
        before = {host: samples(told[host]) for host in ("registry", "alice")}
        mesh.registry("add", "phone")
        mesh.registry("revoke", "phone")
        mesh.verb("bob", "rotate-key")
        for host, earlier in before.items():
            later = samples(mesh.verb(host, "metrics"))
            counters = [key for key in earlier if re.search("_total$|_count$|_bucket$|_sum$", key[0])]
            assert len(counters) > 40
            assert [key for key in counters if later[key] < earlier[key]] == []


@pytest.mark.skipif(not PROMTOOL.exists(), reason="`scripts/peers promtool` has not unpacked it")
@pytest.mark.parametrize("host", ["registry", "alice"])
def test_promtool_has_nothing_to_say_about_them(told, host):
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=told[host], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


class TestTheListener:
    @pytest.mark.parametrize("host", ["registry", "alice"])
    def test_speaks_as_it_is_asked_to(self, mesh, host):
        kind, text = scrape(mesh.lab.hosts[host], "http://127.0.0.1:9586/metrics")
        assert kind.startswith("text/plain; version=0.0.4")
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
        kind, body = scrape(mesh.lab.hosts[host], "http://127.0.0.1:9586/metrics", accept)
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith("# EOF\n")
        assert {one.name for one in parse_openmetrics(body)} == {one.name for one in parse_text(text)}

    def test_is_of_the_loopback_alone(self, mesh):
        done = mesh.lab.hosts["registry"].run(["ss", "-Hltn", "sport = 9586"]).stdout.split()
        assert done[3] == "127.0.0.1:9586"

    def test_is_there_where_nobody_asked_for_one_not_at_all(self, mesh):
        assert ":9586" not in mesh.lab.hosts["bob"].run(["ss", "-Hltn"]).stdout

    def test_no_page_of_a_browser_reads_it_by_a_name_of_its_own(self, mesh):
        host = mesh.lab.hosts["alice"]
        host.run(["sh", "-c", "echo 127.0.0.1 evil.example >> /etc/hosts"])
        _, said = scrape(host, "http://evil.example:9586/metrics")
        assert said == "ask by address: a name may be anybody's\n"


def test_the_api_tells_admins_alone(mesh):
    where = f"http://{mesh.address('alice').rpartition('.')[0]}.1/metrics"
    kind, text = scrape(mesh.lab.hosts["alice"], where)
    assert kind.startswith("text/plain; version=0.0.4")
    assert value(samples(text), "wgdisco_members", state="live") == 2
    _, said = scrape(mesh.lab.hosts["bob"], where)
    assert "only admins may ask" in json.loads(said)["error"]


def test_pinned_daemons_tell_as_much_as_they_know():
    with Lab() as lab, Network(lab) as network:
        network.connect()
        told = {host: lab.hosts[host].run([*PROGRAM, "metrics", host]).stdout for host in ("registry", "alice")}
    for host, expected in (("alice", OF_MEMBERS), ("registry", OF_REGISTRIES)):
        assert {family.name for family in parse_text(told[host])} == names(expected), host
    assert value(samples(told["alice"]), "wgdisco_paths", path="direct") == 1
    assert value(samples(told["alice"]), "wgdisco_registry_reached") == 1
    assert value(samples(told["registry"]), "wgdisco_members", state="live") == 2
    assert value(samples(told["registry"]), "wgdisco_dns_answers_total", result="answered") > 0
