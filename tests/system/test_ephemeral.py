"""Ephemeral members, with real daemons: one link for many, and each of them gone when it goes."""

import json
import os
import signal
import sys
import time

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")

# The command line takes no period as short as this
SHORT = """
import asyncio, sys
from wgdisco.tunnel.io.control import send_command
asked = {"groups": ["all"], "uses": 9, "lifetime": 3600, "ephemeral": float(sys.argv[1])}
print(asyncio.run(send_command("mesh", "invite", asked))["link"])
"""
STATE = "/var/lib/wgdisco/mesh.json"


def short_link(mesh, period):
    return mesh.lab.hosts["registry"].run([sys.executable, "-c", SHORT, str(period)]).stdout.strip()


def listed(mesh):
    return {member["name"]: member for member in json.loads(mesh.registry("list", "-o", "json"))["members"]}


def kill(mesh, host):
    mesh.members[host].process.kill()
    mesh.members[host].process.wait()


def in_zone(mesh, name):
    registry = json.loads(mesh.registry("list", "-o", "json"))
    script = "import dns.resolver, sys; r = dns.resolver.Resolver(configure=False); r.nameservers = [sys.argv[1]]\n"
    script += "try: print(r.resolve(sys.argv[2], 'A')[0])\nexcept dns.resolver.NXDOMAIN: print('none')"
    own = json.loads(mesh.lab.hosts["registry"].run(["ip", "-j", "-4", "address", "show", "mesh"]).stdout)
    server = own[0]["addr_info"][0]["local"]
    command = [sys.executable, "-c", script, server, f"{name}.{registry['zone']}"]
    return mesh.lab.hosts["registry"].run(command).stdout.strip()


@pytest.fixture
def mesh():
    with read_lab() as lab:
        yield Mesh(lab)


def test_who_ends_is_gone_at_once_and_the_next_has_the_name(mesh):
    link = mesh.registry("invite", "--ephemeral", "web", "--uses", "9")
    mesh.join("bob")
    mesh.join("alice", link=link)
    await_(lambda: "web" in mesh.peers("bob"), "bob to see web")
    first = listed(mesh)["web"]
    assert first["ephemeral"] == 600.0
    assert "ephemeral: gone when not heard for 10m" in mesh.registry("show", "web")
    assert in_zone(mesh, "web") == first["addresses"][0]
    began = time.monotonic()
    assert mesh.members["alice"].process.stop() == 0
    assert time.monotonic() - began < 5
    await_(lambda: "web" not in mesh.peers("bob"), "bob to hear of it", 5)
    assert "web" not in listed(mesh)
    assert in_zone(mesh, "web") == "none"
    assert mesh.lab.hosts["alice"].run(["ls", "-A", "/var/lib/wgdisco"]).stdout == ""
    mesh.join("alice", link=link)
    await_(lambda: mesh.peers("bob").get("web", {}).get("path") == "direct", "bob to see the next, without being asked")
    second = listed(mesh)["web"]
    assert second["public_key"] != first["public_key"]
    assert second["addresses"] != first["addresses"]
    assert mesh.status("bob")["notes"] == []


def test_who_is_killed_goes_when_it_was_not_heard_or_is_back_with_its_state(mesh):
    link = short_link(mesh, 12)
    mesh.join("bob")
    mesh.join("alice", "--name", "web", link=link)
    key = listed(mesh)["web"]["public_key"]
    kill(mesh, "alice")
    mesh.join("alice", link=link)
    assert (listed(mesh)["web"]["public_key"], len(listed(mesh))) == (key, 2)
    kill(mesh, "alice")
    await_(lambda: "web" not in listed(mesh), "it to vanish", 40)
    await_(lambda: "web" not in mesh.peers("bob"), "bob to hear of it", 5)
    mesh.daemon.wait_for("vanished")
    mesh.join("alice", link=link)
    assert listed(mesh)["web"]["public_key"] == key
    await_(lambda: mesh.ping("bob", listed(mesh)["web"]["addresses"][0], 1), "a ping")


def test_without_its_state_it_comes_back_under_another_name(mesh):
    link = mesh.registry("invite", "--ephemeral=3m", "--uses", "9")
    mesh.join("alice", "--name", "web", link=link)
    kill(mesh, "alice")
    mesh.lab.hosts["alice"].run(["rm", STATE])
    mesh.stay("alice", "join", link, "--name", "web")
    mesh.members["alice"].wait_for("web-2 is a member of mesh")
    assert list(listed(mesh)) == ["web", "web-2"]


@pytest.mark.soak
def test_who_was_paused_and_is_forgotten_ends_and_is_one_again_when_it_is_started(mesh):
    link = short_link(mesh, 8)
    mesh.join("bob")
    mesh.join("alice", "--name", "web", link=link)
    first = listed(mesh)["web"]
    daemon = mesh.members["alice"]
    daemon.process.send_signal(signal.SIGSTOP)
    await_(lambda: "web" not in listed(mesh), "it to be forgotten", 40)
    os.kill(daemon.process.pid, signal.SIGCONT)  # nsenter was stopped with it, and passes it on
    assert daemon.process.wait(90) == 1
    await_(lambda: "had forgotten this member" in "".join(daemon.err), "what it says")
    mesh.join("alice", link=link)
    again = listed(mesh)["web"]
    assert (again["public_key"], again["addresses"] == first["addresses"]) == (first["public_key"], False)


@pytest.mark.soak
def test_a_restarted_registry_keeps_them_for_a_full_period(mesh):
    mesh.join("bob")
    mesh.join("alice", "--name", "web", link=short_link(mesh, 8))
    mesh.stop_registry()
    kill(mesh, "alice")
    time.sleep(9)  # what passes while the registry is down does not count
    mesh.start_registry()
    began = time.monotonic()
    assert "web" in listed(mesh)
    await_(lambda: "web" not in listed(mesh), "it to vanish", 60)
    assert time.monotonic() - began > 7


def test_leave_needs_nobody_to_revoke(mesh):
    mesh.join("alice")
    said = mesh.verb("alice", "leave", "--yes")
    assert said.strip() == "left mesh"
    await_(lambda: not listed(mesh), "the registry to forget it", 5)
    assert "was revoked" in mesh.lab.hosts["registry"].run([*PROGRAM, "registry", "invite", "alice"]).stderr
    mesh.join("bob")
    mesh.stop_registry()
    assert "may now revoke" in mesh.verb("bob", "leave", "--yes")


def test_a_period_too_short_for_a_quiet_member_is_refused(mesh):
    done = mesh.lab.hosts["registry"].run([*PROGRAM, "registry", "invite", "--ephemeral=30s"], check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--ephemeral: at least 3m" in done.stderr
