"""The zone inside the tunnel: members ask through WireGuard, and nobody else is answered."""

import re

import pytest

from tests.system.network import PROGRAM, TUNNEL, ZONE, Network, complaint
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")

INSIDE = f"{TUNNEL['registry']}:53"
PUBLIC = "198.51.100.10"


@pytest.fixture(scope="module")
def connected():
    with Lab() as lab, Network(lab) as network:
        # A list of peers that all share, as people keep it, has the member's own key too.
        alice = lab.hosts["alice"]
        own = f"[Peer]\nPublicKey = {network.keys['alice']}\nEndpoint = 192.0.2.10:51820\nPersistentKeepalive = 25\n"
        alice.write_file("/run/lab/alice.conf", alice.run(["cat", "/run/lab/alice.conf"]).stdout + own)
        network.start("registry", "-v", "--dns", INSIDE)
        network.wait("registry", "started")
        for host in ("alice", "bob"):
            network.start(host, "-v", "--dns", INSIDE)
        network.wait("alice", "direct", "bob")
        network.wait("bob", "direct", "alice")
        yield network


def ask(network: Network, host: str, server: str, *more: str) -> tuple[int, str]:
    """dig's exit code (9 is no answer) and what it says."""
    command = ["dig", f"@{server}", "+norecurse", "+time=1", "+tries=1", *more, "PTR", f"_wireguard._udp.{ZONE}"]
    done = network.lab.hosts[host].run(command, check=False)
    return done.returncode, done.stdout


def test_members_get_direct_and_talk(connected):
    assert connected.ping("alice", "bob") == 3
    assert connected.ping("bob", "alice") == 3
    for host, other in (("alice", "bob"), ("bob", "alice")):
        peers = {peer["public_key"]: peer for peer in connected.status(host)["peers"]}
        assert {peer["path"] for peer in peers.values()} == {"direct"}
        assert peers[str(connected.keys[other])]["endpoint_from"] == "zone"


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_members_are_answered_inside(connected, transport):
    for host in ("alice", "bob"):
        code, said = ask(connected, host, TUNNEL["registry"], transport)
        assert code == 0
        for member in ("alice", "bob"):
            assert f"{connected.keys[member].to_label()}._wireguard._udp.{ZONE}" in said


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("host", ["core", "alice", "bob", "nat-a"])
def test_nothing_answers_on_the_public_address(connected, host, transport):
    for address in (PUBLIC, "198.51.100.11"):
        code, said = ask(connected, host, address, transport)
        assert (code, "ANSWER" in said) == (9, False)


def test_the_server_listens_inside_and_nowhere_else(connected):
    listening = connected.lab.hosts["registry"].run(["ss", "-Hltun", "sport", "=", ":53"]).stdout
    inside = [f"{TUNNEL['registry']}%{link}:53" for link in ("lo", "registry")]
    assert sorted(line.split()[4] for line in listening.splitlines()) == sorted(2 * inside)


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_a_neighbour_who_routes_the_tunnel_address_to_the_registry_is_not_answered(connected, transport):
    """Linux answers on every link for every address it has (the weak host model): the socket must not."""
    core = connected.lab.hosts["core"]
    core.run(["ip", "route", "replace", f"{TUNNEL['registry']}/32", "via", PUBLIC])
    code, said = ask(connected, "core", TUNNEL["registry"], transport)
    core.run(["ip", "route", "del", f"{TUNNEL['registry']}/32"])
    assert (code, "ANSWER" in said) == (9, False)


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_the_registry_host_itself_is_answered(connected, transport):
    code, said = ask(connected, "registry", TUNNEL["registry"], transport)
    assert code == 0
    assert connected.keys["alice"].to_label() in said


def test_nobody_is_a_peer_of_himself_and_nothing_goes_wrong_in_silence(connected):
    assert str(connected.keys["alice"]) not in {peer["public_key"] for peer in connected.status("alice")["peers"]}
    wrong = [said.fields for said in connected.timeline.said if said.fields.get("level") not in {"debug", "info"}]
    assert wrong == []


def test_no_secret_is_ever_said(connected):
    heard = repr([said.fields for said in connected.timeline.said])
    for name in TUNNEL:
        host = connected.lab.hosts[name]
        secret = re.findall(r"PrivateKey = (\S+)", host.run(["cat", f"/run/lab/{name}.conf"]).stdout)[0]
        status = host.run([*PROGRAM, "status"]).stdout + str(connected.status(name))
        arguments = host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout
        assert str(connected.keys[name]) in status
        assert "wgdisco" in arguments
        assert secret not in heard + status + arguments


def test_a_member_that_begins_before_the_registry_finds_it_when_it_comes():
    with Lab() as lab, Network(lab) as network:
        for host in ("alice", "bob"):
            network.start(host, "--dns", INSIDE)
            network.wait(host, "started")
        network.wait("alice", "registry unreachable", seconds=20)
        peers = {peer["public_key"]: peer for peer in network.status("alice")["peers"]}
        bob = peers[str(network.keys["bob"])]
        assert (bob["path"], bob["reason"]) == ("punching", "registry unreachable")
        network.start("registry", "--dns", INSIDE)
        network.wait("alice", "direct", "bob", seconds=30)
        network.wait("bob", "direct", "alice", seconds=30)
        assert network.ping("alice", "bob") == 3


def test_a_zone_of_another_name_is_refused_inside_too(connected):
    command = connected.command("alice", "--dns", INSIDE, "--zone", "other.example.", "--interface", "second")
    host = connected.lab.hosts["alice"]
    connected.stop("alice")
    done = host.run(command, check=False, timeout=20)
    assert done.returncode == 1
    assert complaint(done.stderr).startswith(f"wgdisco: the DNS server {INSIDE} does not serve other.example.")
    assert host.run([*PROGRAM, "status"], check=False).returncode == 3
