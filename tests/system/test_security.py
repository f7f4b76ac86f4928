"""What must not be possible, tried on real daemons (docs/security.md names these)."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_
from tests.system.test_registry import Joiner

pytestmark = pytest.mark.usefixtures("needs_lab")
OUTSIDER = [sys.executable, str(Path(__file__).with_name("outsider.py"))]
DUMP = """
import sqlite3
print(*(body for body, in sqlite3.connect("/var/lib/wgdisco/registry.db").execute("SELECT body FROM fact")))
"""
REGISTRY = "198.51.100.10"


@pytest.fixture(scope="module")
def mesh():
    """A registry, and alice who joined by a link in a file."""
    with read_lab("eim-other-port", "port-restricted", "port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.link = mesh.registry("invite", "alice", "--group", "dev")
        lab.hosts["alice"].write_file("/run/link", mesh.link)
        mesh.stay("alice", "join", "@/run/link", "--verbose")
        mesh.members["alice"].wait_for("PEER ")
        yield mesh


def outsider(mesh, host, *words):
    return json.loads(mesh.lab.hosts[host].run([*OUTSIDER, *words], timeout=120).stdout)


def registry_address(mesh):
    return mesh.peers("alice")["registry"]["allowed_ips"][0].partition("/")[0]


def test_a_port_scan_from_outside_finds_nothing_that_answers(mesh):
    assert outsider(mesh, "core", "scan", REGISTRY) == {"tcp": [], "udp": []}


def forged(link):
    """The same but for its secret, which is random."""
    return f"{link.rpartition('/')[0]}/{base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip('=')}"


def test_a_link_that_is_used_expired_revoked_or_forged_makes_nobody_a_member(mesh):
    """An expired one is refused in words until the registry looks, each 30 s; the others are met with silence."""
    expired = mesh.registry("invite", "late", "--expires", "1s")
    revoked = mesh.registry("invite", "never")
    mesh.registry("revoke", "never")
    time.sleep(1)
    links = {"bob": mesh.link, "carol": revoked, "dave": forged(revoked), "core": expired}
    with mesh.lab.capture() as capture:
        tries = {
            host: mesh.lab.hosts[host].popen(
                [*PROGRAM, "join", link, "--network", "x"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for host, link in links.items()
        }
        said = {host: process.communicate(timeout=60)[1] for host, process in tries.items()}
    registry = mesh.lab.outside("registry")
    for host in ("bob", "carol", "dave"):
        assert tries[host].returncode == 5, said[host]
        assert said[host].startswith(f"wgdisco: no answer from {REGISTRY} udp/51820")
        assert said[host].count("\n") == 1
        stranger = mesh.lab.outside(host)
        assert any((packet.source, packet.destination) == (stranger, registry) for packet in capture.packets)
        answers = [packet for packet in capture.packets if (packet.source, packet.destination) == (registry, stranger)]
        # that nothing listens on TCP 443 is the kernel's answer
        assert [packet for packet in answers if packet.is_udp] == []
    assert tries["core"].returncode in {1, 5}
    assert "expired" in said["core"]
    members = {one["name"] for one in json.loads(mesh.registry("list", "-o", "json"))["members"]}
    assert "alice" in members
    assert not members & {"late", "never"}


def test_a_link_for_two_is_of_no_use_to_a_third(mesh):
    link = mesh.registry("invite", "--uses", "2")
    bob = mesh.lab.hosts["bob"]
    joiners = []
    try:
        for number in range(3):
            joiners.append(Joiner(bob, link, only_enrol=True, name=f"guest{number}"))
            joiners[-1].wait(lambda said: "enrolled" in said or "refused" in said)
        assert [next(iter(joiner.said[0])) for joiner in joiners] == ["enrolled", "enrolled", "refused"]
        assert "used up" in joiners[2].said[0]["refused"]["error"]
    finally:
        for joiner in joiners:
            joiner.stop()


def test_a_neighbour_of_the_registry_cannot_speak_from_a_members_address(mesh):
    """The core is on the registry's LAN: it sends to the address inside the tunnel by the registry's own."""
    address, alice = registry_address(mesh), mesh.address("alice")
    core = mesh.lab.hosts["core"]
    core.run(["ip", "route", "add", f"{address}/32", "via", REGISTRY])
    core.run(["ip", "addr", "add", f"{alice}/32", "dev", "lo"])
    try:
        for source in (alice, "198.51.100.1"):
            assert outsider(mesh, "core", "ask", source, address) == {"http": False, "dns": False}
    finally:
        core.run(["ip", "addr", "del", f"{alice}/32", "dev", "lo"])
        core.run(["ip", "route", "del", f"{address}/32", "via", REGISTRY])
    assert outsider(mesh, "alice", "ask", alice, address) == {"http": True, "dns": True}


def test_secrets_are_in_no_log_no_process_list_and_no_environment(mesh):
    alice = mesh.lab.hosts["alice"]

    def stored():
        return json.loads(alice.run(["cat", "/var/lib/wgdisco/mesh.json"]).stdout)

    first = stored()
    mesh.verb("alice", "rotate-key")
    second = stored()
    facts = mesh.lab.hosts["registry"].run([sys.executable, "-c", DUMP]).stdout
    secrets = {*re.findall(r'"(?:private|preshared)_key":"([^"]+)"', facts), mesh.link.rpartition("/")[2]}
    secrets |= {
        state[name] for state in (first, second) for name in ("private_key", "preshared_key", "next_private_key")
    }
    secrets.discard(None)
    assert len(secrets) >= 5
    for state in (first, second):
        assert state["private_key"] not in facts, "a member's own key never leaves it"
    said = "".join(text for one in (mesh.members["alice"], mesh.daemon) for text in (*one.out, *one.err))
    said += mesh.verb("alice", "status") + mesh.verb("alice", "status", "-o", "json")
    said += mesh.registry("list", "-o", "json") + mesh.registry("show", "alice", "-o", "json")
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                said += (process / name).read_bytes().decode(errors="replace")
            except OSError:
                continue  # it has ended
    assert "key changed" in said
    assert "registry\0run" in said
    for secret in secrets:
        assert secret not in said
        assert secret.rstrip("=") not in said


def test_a_damaged_link_is_not_repeated(mesh):
    secret = mesh.link.rpartition("/")[2]
    for link in (mesh.link[:-1], mesh.link + "A", mesh.link.replace("/1/", "/9/"), "x" + mesh.link):
        mesh.lab.hosts["bob"].write_file("/run/link", link)
        said = mesh.verb("bob", "join", "@/run/link", code=2)
        assert secret[:10] not in said
        assert said.count("\n") == 1
    await_(lambda: mesh.status("alice")["settled"], "alice to be content")
