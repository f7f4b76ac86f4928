"""What the registry shows of real members: their paths as they report them, as an admin and as a member see it."""

import json
import sys
import time

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import await_

pytestmark = pytest.mark.usefixtures("needs_lab")

ASK = """
import json, sys, urllib.request
url, body = sys.argv[1:]
data = None if body == "-" else body.encode()
request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=5).read().decode())
"""
PAGE = """
import sys, urllib.request
page = urllib.request.urlopen(sys.argv[1], timeout=5)
print("Content-Security-Policy:", page.headers["Content-Security-Policy"], page.read().decode())
"""


def registry(mesh, host):
    return f"{mesh.address(host).rpartition('.')[0]}.1"


def ask(mesh, host, path, body="-"):
    """The registry's answer to a host, inside the tunnel; not more often than it likes."""
    time.sleep(0.2)
    command = [sys.executable, "-c", ASK, f"http://{registry(mesh, host)}{path}", body]
    return json.loads(mesh.lab.hosts[host].run(command).stdout)


def member(mesh, host, name):
    return next(one for one in ask(mesh, host, "/v1/view")["members"] if one["name"] == name)


def invitations(mesh):
    return sorted(ask(mesh, "alice", "/v1/view")["invitations"], key=lambda one: one["name"])


def path(mesh, host, name):
    return next(iter(member(mesh, host, name)["paths"]), {})


def test_an_admin_sees_how_members_reach_each_other_and_a_member_does_not():
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice", link=mesh.registry("invite", "alice", "--admin"))
        mesh.join("bob")
        await_(lambda: path(mesh, "alice", "bob").get("path") == "direct", "bob to report a direct path", 20)
        bob, alice = member(mesh, "alice", "bob"), member(mesh, "alice", "alice")
        told = bob["paths"][0]
        assert told["peer"] == alice["public_key"]
        assert told["reason"] is None
        assert told["endpoint"].startswith(f"{lab.outside('alice')}:")
        assert 0 < told["rtt_ms"] < 1000
        assert told["rx_bytes"] > 0
        assert bob["online"]
        assert bob["handshake_at"] is not None
        assert bob["rx_bytes"] > 0
        assert member(mesh, "bob", "alice")["paths"] == []
        assert path(mesh, "bob", "bob")["peer"] == alice["public_key"]

        lab.block_direct()
        assert mesh.ping("alice", "bob", 20) > 0
        await_(lambda: path(mesh, "alice", "bob").get("path") == "relay", "bob to report the relay", 30)
        assert path(mesh, "alice", "bob")["reason"] == "no UDP answer"
        assert ask(mesh, "alice", "/v1/view")["relay"]["bytes"] > 0


def test_an_admin_invites_renames_and_revokes_from_a_member_and_the_page_is_there():
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        mesh.registry("set", "alice", "role", "admin")
        made = ask(mesh, "alice", "/v1/invite", '{"name": "bob", "expires": "10m"}')
        assert [one["state"] for one in invitations(mesh)] == ["used", "pending"]
        mesh.join("bob", link=made["link"])
        await_(lambda: member(mesh, "alice", "bob")["online"], "bob to be online")
        told = next(one for one in invitations(mesh) if one["id"] == made["id"])
        assert (told["state"], told["used_by"]) == ("used", ["bob"])

        bob = json.dumps({"public_key": member(mesh, "alice", "bob")["public_key"], "name": "robert"})
        ask(mesh, "alice", "/v1/rename", bob)
        assert member(mesh, "alice", "robert")["online"]
        assert ask(mesh, "alice", "/v1/revoke", bob)["unseen"] == []
        assert [one["name"] for one in ask(mesh, "alice", "/v1/view")["members"]] == ["alice"]
        await_(lambda: any("no longer a member" in note for note in mesh.status("bob")["notes"]), "bob to hear of it")

        page = lab.hosts["alice"].run([sys.executable, "-c", PAGE, f"http://{registry(mesh, 'alice')}/"]).stdout
        assert page.startswith("Content-Security-Policy: default-src 'none'")
        assert "<title>wgdisco</title>" in page


def test_the_registry_keeps_what_it_knows_of_invitations_and_asks_for_paths_again_after_a_restart():
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice", link=mesh.registry("invite", "alice", "--admin"))
        mesh.join("bob")
        await_(lambda: path(mesh, "alice", "bob"), "bob to report its path", 20)
        mesh.stop_registry("kill")
        mesh.start_registry()
        await_(lambda: path(mesh, "alice", "bob"), "bob to report its path again", 40)
        assert {one["used_by"][0] for one in invitations(mesh)} == {"alice", "bob"}
