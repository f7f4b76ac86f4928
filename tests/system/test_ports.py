"""Members whose network lets out less than WireGuard's port: what the registry's further ports do for them."""

import subprocess
import sys

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")


LISTEN = "import socket, time; s = socket.create_server(('', 8443)); print('listening'); time.sleep(600)"


def let_out(router, *accepted):
    """From now on the hosts behind `router` reach nothing outside but what the rules accept."""
    rules = "".join(f"oifname wan {rule} accept; " for rule in accepted)
    router.run(
        ["nft", "-f", "-"],
        text=f"""
        table ip strict {{
            chain forward {{
                type filter hook forward priority -5;
                {rules}oifname wan counter drop;
                iifname wan udp sport != {{ 443, 53 }} counter drop;
            }}
        }}
        """,
    )


@pytest.fixture
def lab():
    with read_lab() as lab:
        yield lab


def test_where_only_udp_443_is_let_out_a_member_joins_by_it(lab):
    let_out(lab.hosts["nat-a"], "udp dport { 443, 53 }")
    mesh = Mesh(lab, "--also-port", "443")
    mesh.join("alice")
    assert mesh.ping("alice", mesh.peers("alice")["registry"]["allowed_ips"][0].partition("/")[0]) == 3
    assert mesh.peers("alice")["registry"]["endpoint"] == "198.51.100.10:443"


def test_further_ports_come_and_go_with_the_daemon_and_members_hear_of_them(lab):
    registry = lab.hosts["registry"]
    mesh = Mesh(lab)
    mesh.join("alice")
    assert "redirect" not in registry.run(["nft", "list", "ruleset"]).stdout
    said = registry.run([*PROGRAM, "registry", "set", "also-port", "443,53"]).stderr
    assert "lets nothing else out: UDP 443, UDP 53" in said
    await_(lambda: "redirect to :51820" in registry.run(["nft", "list", "ruleset"]).stdout, "the redirect")

    def told():
        return lab.hosts["alice"].run(["cat", "/var/lib/wgdisco/mesh.json"]).stdout

    await_(lambda: '"198.51.100.10:443"' in told() and '"198.51.100.10:53"' in told(), "alice to remember", 15)
    mesh.registry("set", "also-port", "none")
    await_(lambda: "redirect" not in registry.run(["nft", "list", "ruleset"]).stdout, "the redirect to go")
    mesh.registry("set", "also-port", "443")
    mesh.stop_registry()
    assert "redirect" not in registry.run(["nft", "list", "ruleset"]).stdout
    assert mesh.registry("invite", "bob").startswith("wgdisco://198.51.100.10:51820,198.51.100.10:443/1/")


def test_a_port_that_is_not_one_is_refused_in_one_line(lab):
    registry = lab.hosts["registry"]

    def refused(*words):
        done = registry.run([*PROGRAM, "registry", *words], check=False)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.returncode, done.stderr

    assert refused("init", "--also-port", "x")[0] == 2
    assert refused("init", "--tls-port", "1,2")[0] == 2
    mesh = Mesh(lab, "--tls-port", "8443")
    mesh.stop_registry()
    assert refused("set", "also-port", "51820") == (
        1,
        "wgdisco: UDP 51820 is the registry's port already: give others\n",
    )
    assert refused("set", "nobody", "also-port", "1")[0] == 2
    other = registry.popen([sys.executable, "-u", "-c", LISTEN], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == "listening\n"
        mesh.start_registry()  # it goes on without
        mesh.daemon.wait_for("TCP port 8443 (tls-port) cannot be had")
        assert mesh.registry("set", "tls-port", "443") == ""
        code, said = refused("set", "tls-port", "8443")
        assert (code, "TCP port 8443 is in use by python" in said) == (1, True), said
    finally:
        other.kill()
        other.communicate()


def test_where_no_udp_is_let_out_a_member_joins_and_is_reached_by_tls(lab):
    let_out(lab.hosts["nat-a"], "tcp dport 443")
    mesh = Mesh(lab, "--tls-port", "443")
    mesh.join("alice")
    mesh.join("bob")
    assert mesh.ping("alice", "bob") == 3
    assert mesh.ping("bob", "alice") == 3
    registry, bob = mesh.peers("alice")["registry"], mesh.peers("alice")["bob"]
    assert (registry["path"], registry["reason"]) == (bob["path"], bob["reason"]) == ("relay", "no UDP answer")
    assert registry["endpoint"] == bob["endpoint"]
    assert registry["endpoint"].startswith("127.0.0.1:")
    alice = mesh.peers("bob")["alice"]
    assert (alice["path"], alice["endpoint"]) == ("relay", "198.51.100.10:51820")
    assert lab.hosts["registry"].run(["stat", "-c", "%a", "/var/lib/wgdisco/tls.pem"]).stdout.strip() == "600"


@pytest.mark.soak
def test_a_member_goes_back_to_udp_when_that_is_let_out_again_and_to_tls_when_not(lab):
    router = lab.hosts["nat-a"]
    let_out(router, "tcp dport 443")
    mesh = Mesh(lab, "--tls-port", "443")
    mesh.join("alice")
    address = mesh.peers("alice")["registry"]["allowed_ips"][0].partition("/")[0]
    assert mesh.ping("alice", address) == 3
    router.run(["nft", "delete", "table", "ip", "strict"])
    await_(lambda: mesh.peers("alice")["registry"]["endpoint"] == "198.51.100.10:51820", "UDP", 75)
    assert mesh.peers("alice")["registry"]["path"] == "direct"
    assert mesh.ping("alice", address) == 3
    let_out(router, "tcp dport 443")
    await_(lambda: mesh.peers("alice")["registry"]["path"] == "relay", "TLS", 75)
    assert mesh.ping("alice", address) == 3
