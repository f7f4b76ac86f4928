"""The registry and two members behind NATs, looked at and disturbed."""

import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.system.network import PROGRAM, TUNNEL, ZONE, Network, await_
from wgdisco.lab.timeline import now
from wgdisco.lab.topology import Lab
from wgdisco.tunnel.conf import parse_conf

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.fixture
def network():
    with Lab() as lab, Network(lab) as network:
        yield network


@pytest.fixture(scope="module")
def connected():
    with Lab() as lab, Network(lab) as network:
        network.connect()
        yield network


def instance(network: Network, host: str) -> str:
    return f"{network.keys[host].to_label()}._wireguard._udp.{ZONE}"


class TestTheZone:
    def test_dig_lists_both_members(self, connected):
        answer = connected.dig("alice", "+short", "PTR", f"_wireguard._udp.{ZONE}")
        assert sorted(answer.split()) == sorted(instance(connected, host) for host in ("alice", "bob"))

    def test_dig_resolves_a_member(self, connected):
        name = instance(connected, "bob")
        host = f"{connected.keys['bob'].to_label().rstrip('=')}.{ZONE}"
        assert connected.dig("alice", "+short", "SRV", name).split() == ["0", "0", "51820", host]
        assert connected.dig("alice", "+short", "A", host).split() == ["203.0.113.10"]
        assert connected.dig("alice", "+short", "A", name).split() == ["203.0.113.10"]
        assert connected.dig("alice", "+short", "TXT", name).split() == [
            '"txtvers=1"',
            f'"pub={connected.keys["bob"]}"',
            '"allowed=10.0.0.2/32"',
        ]
        nothing = connected.dig("alice", "AAAA", name)
        assert "status: NOERROR" in nothing
        assert "ANSWER: 0" in nothing

    def test_an_unknown_member_is_denied_with_the_soa(self, connected):
        answer = connected.dig("alice", "SRV", f"{'a' * 51}q====._wireguard._udp.{ZONE}")
        assert "status: NXDOMAIN" in answer
        assert "SOA" in answer

    def test_a_name_outside_the_zone_is_refused(self, connected):
        assert "status: REFUSED" in connected.dig("alice", "A", "example.net.")

    def test_tcp_answers_the_same(self, connected):
        name = f"_wireguard._udp.{ZONE}"
        assert set(connected.dig("bob", "+tcp", "+short", "PTR", name).split()) == set(
            connected.dig("bob", "+short", "PTR", name).split()
        )


class TestStatus:
    def test_members_say_where_the_other_is_and_how_they_know(self, connected):
        assert connected.ping("bob", "alice") == 3
        said = connected.status("alice")
        assert (said["role"], said["interface"], said["zone"]) == ("member", "alice", ZONE)
        peers = {peer["public_key"]: peer for peer in said["peers"]}
        bob = peers[str(connected.keys["bob"])]
        assert (bob["path"], bob["reason"]) == ("direct", None)
        assert (bob["endpoint"], bob["endpoint_from"]) == ("203.0.113.10:51820", "zone")
        assert bob["allowed_ips"] == ["10.0.0.2/32"]
        assert bob["rx_bytes"] > 0
        assert bob["tx_bytes"] > 0
        assert abs(bob["latest_handshake"] - time.time()) < 120
        assert peers[str(connected.keys["registry"])]["endpoint_from"] == "conf"

    def test_the_registry_says_where_it_saw_them(self, connected):
        said = connected.status("registry")
        assert said["role"] == "registry"
        assert {peer["path"] for peer in said["peers"]} == {"direct"}
        assert {peer["endpoint_from"] for peer in said["peers"]} == {"packet"}

    def test_the_table_has_the_same_for_people(self, connected):
        table = connected.lab.hosts["bob"].run([*PROGRAM, "status"]).stdout
        assert "path: direct" in table
        assert re.search(r"endpoint: 192\.0\.2\.10:\d+ \(from zone\)", table)
        assert "private" not in table.lower()

    def test_no_daemon_is_exit_code_3(self, connected):
        done = connected.lab.hosts["core"].run([*PROGRAM, "status"], check=False)
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1

    def test_the_control_socket_is_not_for_everyone(self, connected):
        mode = connected.lab.hosts["alice"].run(["stat", "-c", "%a", "/run/wgdisco/alice.sock"]).stdout.strip()
        assert mode == "660"


@pytest.mark.skipif(shutil.which("wg") is None, reason="wg (wireguard-tools) is not installed")
class TestWg:
    """The same socket as wgdisco-tunnel's, to look at: the daemon says what the device is."""

    def test_show_and_showconf(self, connected):
        for name in TUNNEL:
            host = connected.lab.hosts[name]
            assert host.run(["wg", "show", "interfaces"]).stdout == f"{name}\n"
            assert host.run(["wg", "show", name]).stdout.count("latest handshake") == 2
            assert host.run(["wg", "show", name, "listen-port"]).stdout == "51820\n"
            whole = host.run(["cat", f"/run/lab/{name}.conf"]).stdout
            shown = parse_conf(host.run(["wg", "showconf", name]).stdout, "shown").device
            configured = parse_conf(whole, "conf").device
            assert shown.private_key == configured.private_key
            assert {(peer.public_key, peer.allowed_ips) for peer in shown.peers} == {
                (peer.public_key, peer.allowed_ips) for peer in configured.peers
            }
            assert host.run(["stat", "-c", "%a", f"/run/wireguard/{name}.sock"]).stdout == "700\n"

    @pytest.mark.rule("U5")
    def test_set_is_refused_with_a_line_that_says_what_to_use(self, connected):
        alice = connected.lab.hosts["alice"]
        before = alice.run(["wg", "showconf", "alice"]).stdout
        done = alice.run(["wg", "set", "alice", "listen-port", "7", "fwmark", "9"], check=False)
        assert done.stderr == "Unable to modify interface: Operation not permitted\n"
        assert alice.run(["wg", "showconf", "alice"]).stdout == before
        said = connected.timeline.said
        assert connected.timeline.wait(lambda: any("wg may look" in (one.event or "") for one in said), 5)
        refusals = [one for one in said if "wg may look" in (one.event or "")]
        assert [one.host for one in refusals] == ["alice"]
        assert "wgdisco up, down, leave" in refusals[0].event


@pytest.mark.skipif(shutil.which("wg") is None, reason="wg (wireguard-tools) is not installed")
@pytest.mark.rule("U1")
def test_a_socket_that_is_anothers_is_left_alone_and_the_daemon_runs(network):
    """As where two namespaces share /run. A dead one is taken over."""
    hold = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); print('bound', flush=True)"
    registry = network.lab.hosts["registry"]
    path = "/run/wireguard/registry.sock"
    registry.run(["mkdir", "/run/wireguard"])
    held = [sys.executable, "-c", f"{hold}; s.listen(); s.accept()", path]
    with registry.popen(held, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == "bound\n"
        network.start("registry")
        network.wait("registry", "started")
        told = [said for said in network.timeline.said if said.event.startswith("wg does not see registry: another")]
        assert len(told) == 1
        assert network.stop("registry") == 0
        assert registry.run(["test", "-S", path], check=False).returncode == 0
        holder.kill()
    mark = now()
    network.start("registry")
    network.wait("registry", "started", after=mark)
    assert registry.run(["wg", "show", "registry", "listen-port"]).stdout == "51820\n"
    assert network.stop("registry") == 0
    assert registry.run(["test", "-S", path], check=False).returncode == 1


def test_a_moved_member_is_answerable_at_once(network):
    """Formats: within 50 ms of the authenticated packet that proved it, here the median of five moves."""
    network.start("registry")
    network.wait("registry", "started")
    delays = []
    asker = """
import socket, struct, sys, time
name, port = sys.argv[1], int(sys.argv[2])
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.rstrip(".").split("."))
query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!2H", 33, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.1); s.connect(("198.51.100.10", 53))
for _ in range(20000):
    try:
        s.send(query); reply = s.recv(4096)
    except (TimeoutError, ConnectionRefusedError):
        continue
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    if struct.pack("!3H", 0, 0, port) in reply:
        print(at); break
    time.sleep(0.009)  # so often everybody is answered
"""
    for port in range(41000, 41005):
        conf = network.lab.hosts["bob"].run(["cat", "/run/lab/bob.conf"]).stdout
        network.lab.hosts["bob"].write_file(
            "/run/lab/bob.conf", re.sub(r"ListenPort = \d+", f"ListenPort = {port}", conf)
        )
        command = [sys.executable, "-c", asker, instance(network, "bob"), str(port)]
        with network.lab.hosts["registry"].popen(command, stdout=-1) as watcher:
            since = now()
            network.start("bob")
            proved = network.wait("registry", "handshake", "bob", after=since)
            answered = float(watcher.communicate(timeout=20)[0])
        delays.append(answered - proved.at)
        network.stop("bob")
    assert sorted(delays)[2] < 0.050, delays


def test_the_registry_publishes_itself_and_answers_as_wgsd_does_when_told_to():
    with Lab() as lab, Network(lab) as network:
        network.start("registry", "--wgsd-exact", "--self")
        network.wait("registry", "started")
        network.start("alice")
        network.wait("registry", "published", "alice")
        browse = network.dig("alice", "+noall", "+answer", "PTR", f"_wireguard._udp.{ZONE}").splitlines()
        assert [line.split()[1] for line in browse] == ["0", "0"], "wgsd's TTL"
        assert [line.split()[4] for line in browse] == [instance(network, "alice"), instance(network, "registry")]
        own = network.dig("alice", "+noall", "+answer", "AAAA", instance(network, "registry")).split()
        assert own[3:5] == ["A", "198.51.100.10"], "wgsd gives the endpoint's family, whatever was asked"
        assert "status: NXDOMAIN" in network.dig("alice", "SOA", ZONE)


def test_a_registry_that_dies_takes_no_tunnel_with_it_and_is_found_again(network):
    network.connect()
    network.stop("registry")
    assert network.ping("alice", "bob", 20) == 20
    since = now()
    network.start("registry")
    # Settled members ask once a minute; that they are not in the zone tells them to shake hands again.
    network.wait("registry", "published", "alice", seconds=65, after=since)
    network.wait("registry", "published", "bob", seconds=65, after=since)
    assert network.ping("bob", "alice", 5) == 5


def test_rubbish_from_the_dns_server_is_survived(network):
    liar = """
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("198.51.100.10", 53)); print("up", flush=True)
while True:
    query, source = s.recvfrom(4096)
    noise = os.urandom(30)
    for reply in (noise, query[:2] + noise, query, query[:2] + b"\\x85\\x80" + query[4:] + noise):
        s.sendto(reply, source)
"""
    with network.lab.hosts["registry"].popen([sys.executable, "-c", liar], stdout=-1) as server:
        assert server.stdout.readline() == "up\n"
        network.start("alice")
        network.wait("alice", "started")
        time.sleep(3)
        assert {peer["path"] for peer in network.status("alice")["peers"]} == {"punching"}
        server.kill()
    network.start("registry")
    network.wait("registry", "handshake", "alice", seconds=30)
    network.start("bob")
    network.wait("alice", "direct", "bob", seconds=30)


def test_a_nat_with_a_new_address_is_recovered_from(network):
    """Bob's NAT gets another address under a running ping: the registry learns it, alice follows."""
    network.connect()
    since = now()
    nat = network.lab.hosts["nat-b"]
    nat.run(["ip", "addr", "flush", "dev", "wan"])
    nat.run(["ip", "addr", "add", "203.0.113.20/25", "dev", "wan"])
    nat.run(["ip", "route", "add", "default", "via", "203.0.113.1"])
    await_(lambda: network.ping("alice", "bob", 3) == 3, "pings to come through again", 60)
    moved = network.wait("registry", "published", "bob", after=since)
    assert moved.fields["endpoint"] == "203.0.113.20:51820"


def test_without_a_keepalive_the_tunnel_comes_with_the_first_packet():
    with Lab() as lab, Network(lab, keepalive=0) as network:
        network.start("registry")
        network.wait("registry", "started")
        network.start("alice")
        network.start("bob")
        network.wait("alice", "found", "bob")
        network.wait("bob", "found", "alice")
        peers = {peer["public_key"]: peer for peer in network.status("alice")["peers"]}
        assert peers[str(network.keys["bob"])]["path"] == "idle"
        # Both have to want it: until the registry carries orders, neither knows of the other's wish.
        network.ping("alice", "bob", 1)
        await_(lambda: network.ping("bob", "alice", 1), "a ping to come through", 10)
        network.wait("alice", "direct", "bob")


@pytest.mark.parametrize("stop", ["TERM", "INT"])
def test_nothing_is_left_behind(network, stop):
    network.start("registry")
    network.wait("registry", "started")
    network.start("alice")
    network.wait("registry", "handshake", "alice")
    for name in ("alice", "registry"):
        host = network.lab.hosts[name]
        await_(
            lambda h=host, n=name: h.run(["test", "-S", f"/run/wgdisco/{n}.sock"], check=False).returncode == 0,
            "socket",
        )
        host.run(["pkill", f"-{stop}", "-n", "-f", f"wgdisco.*{name}.conf"])
        await_(lambda h=host, n=name: h.run(["ip", "link", "show", n], check=False).returncode != 0, "no interface")
        await_(lambda h=host: h.run(["ls", "/run/wgdisco"]).stdout == "", "no socket")
        assert TUNNEL[name][:5] not in host.run(["ip", "route"]).stdout
        assert "51820" not in host.run(["ss", "-Huln"]).stdout
