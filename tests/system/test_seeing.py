"""`wgdisco ping`, `wait` and `netcheck` as a person types them: two members that punch, and two that cannot."""

import json
import re

import pytest

from tests.system.members import Mesh, read_lab

pytestmark = pytest.mark.usefixtures("needs_lab")
HOSTS = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module")
def mesh():
    """alice and bob can punch; carol's and dave's NATs are both symmetric."""
    with read_lab("port-restricted", "port-restricted", "symmetric-random", "symmetric-random") as lab:
        # IPv6 that leads nowhere: alice may try it, the others have none
        for host, address in (("registry", "2001:db8:5::10/64"), ("alice", "2001:db8:6::2/64")):
            lab.hosts[host].run(["ip", "-6", "addr", "add", address, "dev", "eth0", "nodad"])
        mesh = Mesh(lab, "--network", "home", "--endpoint", "198.51.100.10")
        for host in HOSTS:
            mesh.stay(host, "join", mesh.registry("invite", host), "--foreground")
        for host in HOSTS:
            mesh.members[host].wait_for("PEER ")
        yield mesh


def test_wait_for_the_network_and_for_direct_paths(mesh):
    assert mesh.verb("alice", "wait", "--online", "--timeout", "10") == ""
    assert mesh.verb("alice", "wait", "--direct", "bob", "--timeout", "10") == ""
    said = mesh.verb("carol", "wait", "--direct", "dave", "--timeout", "1.5", code=5)
    assert said == "wgdisco: timed out after 1.5 s: dave is relay (both NATs port-dependent)\n"
    assert "no peer 'erin' here" in mesh.verb("alice", "wait", "--direct", "erin", code=1)
    assert "wait --direct bob" in mesh.verb("alice", "wait", "bob", code=2).replace("PEER", "bob")


def test_ping_says_by_what_path(mesh):
    said = mesh.verb("alice", "ping", "bob", "--until-direct", "--timeout", "10").splitlines()
    outside = re.escape(str(mesh.lab.outside("bob")))
    address = re.escape(mesh.address("bob"))
    assert re.fullmatch(rf"pong from bob \({address}\) via {outside}:\d+ direct in [\d.]+ ms", said[-1])
    said = mesh.verb("alice", "ping", mesh.address("bob"), "-c", "2").splitlines()
    assert [line.partition(" via ")[0] for line in said] == [f"pong from bob ({mesh.address('bob')})"] * 2

    found = json.loads(mesh.verb("carol", "ping", "dave", "-o", "json"))
    assert (found["schema"], found["peer"], found["timed_out"]) == (1, "dave", False)
    (pong,) = found["pongs"]
    assert pong["path"] == "relay"
    assert pong["reason"] == "both NATs port-dependent"
    assert pong["endpoint"] == f"{mesh.lab.outside('registry')}:51820"
    said = mesh.verb("carol", "ping", "dave", "--until-direct", "--timeout", "1", code=5)
    assert "no direct path to dave" in said
    assert "it is relay (both NATs port-dependent)" in said


def test_ping_of_nobody(mesh):
    assert "there is no peer 'erin' here" in mesh.verb("alice", "ping", "erin", code=1)
    assert mesh.verb("registry", "ping", "alice", code=3).startswith("wgdisco: no member runs here")
    assert "one of them" in mesh.verb("alice", "ping", "bob", "-c", "1", "--until-direct", code=2)
    assert "is not a number" in mesh.verb("alice", "ping", "bob", "--timeout", "soon", code=2)


def test_netcheck_of_a_punchable_and_of_a_hard_nat(mesh):
    found = json.loads(mesh.verb("alice", "netcheck", "-o", "json"))
    assert found["schema"] == 1
    assert (found["interface"], found["udp"], found["registry"]) == ("home", "udp", "198.51.100.10:51820")
    (seen,) = found["ipv4"]["reflexive"]
    assert seen.startswith(f"{mesh.lab.outside('alice')}:")
    assert found["ipv6"] == {"works": False, "reflexive": []}
    nat = found["nat"]
    assert nat["mapping"] == "endpoint-independent"
    assert nat["filtering"] == "address-and-port-dependent"
    assert nat["preserves_port"] is True
    assert nat["hairpinning"] is False
    assert nat["classic"] == "Port Restricted Cone NAT"
    assert nat["lifetime"] == {"at_least": None, "below": None}
    assert found["keepalive"] == 25
    assert 0 < found["relay"]["rtt_ms"] < 1000
    expected = {peer["name"]: peer["expected"] for peer in found["peers"]}
    assert expected == {"bob": "direct", "carol": "relay", "dave": "relay"}
    assert all(peer["online"] for peer in found["peers"])

    table = mesh.verb("carol", "netcheck")
    assert "mapping:        address-and-port-dependent" in table
    assert "IPv6:           not looked at" in table
    assert re.search(r"^dave +apdm/apdf/- +relay$", table, re.MULTILINE)
    assert "start `wgdisco up away`" in mesh.verb("carol", "netcheck", "away", code=3)


# A port is the same on both sides of that NAT
HAIRPIN = """
table ip hairpin {
    chain before {
        type nat hook prerouting priority -101;
        iif lan ip daddr 203.0.113.10 udp dport 1024-65535 dnat to 192.168.2.10
    }
    chain after {
        type nat hook postrouting priority 99;
        iif lan oif lan ct status dnat snat to 203.0.113.10
    }
}
"""


def test_netcheck_sees_a_nat_that_hairpins(mesh):
    mesh.lab.hosts["nat-b"].run(["nft", "-f", "-"], text=HAIRPIN)
    assert re.search("^hairpinning: +yes$", mesh.verb("bob", "netcheck"), re.MULTILINE)


def test_one_that_went_offline(mesh):
    mesh.verb("dave", "down")
    said = mesh.verb("alice", "ping", "dave", "--timeout", "1", code=5)
    assert said.startswith("wgdisco: no answer from dave (")
    assert mesh.verb("alice", "wait", "--direct", "bob", "--timeout", "5") == ""
