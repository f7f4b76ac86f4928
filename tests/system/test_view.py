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


def ask(mesh, host, path, body="-"):
    """The registry's answer to a host, inside the tunnel; not more often than it likes."""
    time.sleep(0.2)
    prefix = mesh.address(host).rpartition(".")[0]
    command = [sys.executable, "-c", ASK, f"http://{prefix}.1{path}", body]
    return json.loads(mesh.lab.hosts[host].run(command).stdout)


def member(mesh, host, name):
    return next(one for one in ask(mesh, host, "/v1/view")["members"] if one["name"] == name)


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
