"""The daemon's own API, inside the tunnel, against its document."""

import json
import sys
from pathlib import Path

import pytest

from tests.system.test_registry import mesh  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("needs_lab")
CONFORMING = str(Path(__file__).parents[1] / "registry/io/conforming.py")


@pytest.mark.parametrize("words", [(), ("--admin",)], ids=["member", "admin"])
def test_the_daemon_answers_as_its_document_says(mesh, words):  # noqa: F811
    alice = mesh.joiner("alice", mesh.invite("laptop1", *words))
    bob = mesh.joiner("bob", mesh.invite("laptop2"))
    address = alice.enrolled()["network"]["registry_addresses"][0]
    bob.event("snapshot")
    alice.event("member", lambda data: data["name"] == "laptop2")
    command = [sys.executable, CONFORMING, f"http://{address}", "6"]
    done = mesh.lab.hosts["alice"].run(command, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    for label in ("GET /v1/self", "GET /v1/members", "GET /v1/health", "GET /v1/stun", "GET /v1/openapi.json"):
        assert seen[label] == [200], label
    assert alice.ask("get /v1/members")["body"]["members"][0]["name"] == "laptop2"
