"""Why a path is not direct: every reason of the closed list, in the lab (clock: test_clock.py)."""

import sys

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import await_
from wgdisco.api import Reason

pytestmark = pytest.mark.usefixtures("needs_lab")

# A registry of another version: the same program, but for the number its API is of
OTHER_VERSION = "import wgdisco.api as api; api.SCHEMA = 2; from wgdisco.__main__ import main; sys.exit(main())"
DROP_ALL = """
table inet closed {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
    }
}
"""


def reason(mesh, host, peer):
    """None as well where no daemon can be asked yet."""
    peers = (mesh.status_if_up(host) or {"peers": []})["peers"]
    return next((told["reason"] for told in peers if told["name"] == peer), None)


def await_reason(mesh, host, peer, wanted, seconds=20.0):
    await_(lambda: reason(mesh, host, peer) == wanted.value, f"{host} to say {wanted.value} of {peer}", seconds)


def test_two_hard_nats_are_relayed_and_say_why():
    with read_lab("symmetric-random", "symmetric-sequential") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        mesh.join("bob")
        await_(lambda: mesh.peers("alice")["bob"]["path"] == "relay", "the relay")
        await_reason(mesh, "alice", "bob", Reason.BOTH_PORT_DEPENDENT)
        assert mesh.ping("alice", "bob") == 3


def test_the_reasons_of_a_network_that_comes_and_goes():
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        mesh.join("bob")
        await_(lambda: mesh.peers("alice")["bob"]["path"] == "direct", "a direct path")
        assert reason(mesh, "alice", "bob") is None

        lab.block_direct()
        assert mesh.ping("alice", "bob", 20) > 0
        await_reason(mesh, "alice", "bob", Reason.NO_UDP_ANSWER)
        assert mesh.peers("alice")["bob"]["path"] == "relay"
        lab.unblock_direct()

        mesh.members["bob"].process.kill()
        mesh.members["bob"].process.wait()
        mesh.ping("alice", "bob", 3)
        await_reason(mesh, "alice", "bob", Reason.PEER_OFFLINE, 40.0)

        mesh.stop_registry("kill")
        mesh.verb("alice", "down")
        mesh.members["alice"].process.wait()
        mesh.stay("alice", "up")
        await_(lambda: reason(mesh, "alice", "bob"), "the members it remembers")
        mesh.ping("alice", "bob", 1)
        await_reason(mesh, "alice", "bob", Reason.REGISTRY_UNREACHABLE)

        host = lab.hosts["alice"]
        host.run(["nft", "-f", "-"], text=DROP_ALL)
        await_reason(mesh, "alice", "registry", Reason.HOST_FIREWALL)
        host.run(["nft", "delete", "table", "inet", "closed"])

        mesh.daemon = Daemon(
            lab.hosts["registry"], [sys.executable, "-c", f"import sys; {OTHER_VERSION}", "registry", "run"]
        )
        mesh.daemon.wait_for("started")
        await_reason(mesh, "alice", "registry", Reason.VERSION, 40.0)
        assert any("another version" in note for note in mesh.status("alice")["notes"])
        mesh.stop_registry()

        mesh.start_registry()
        await_(lambda: mesh.status("alice")["settled"], "the registry", 40.0)
        assert reason(mesh, "alice", "bob") in {Reason.PEER_OFFLINE.value, Reason.NOT_YET_TRIED.value}
        mesh.registry("revoke", "alice")
        await_reason(mesh, "alice", "bob", Reason.REVOKED)
        assert any("no longer a member" in note for note in mesh.status("alice")["notes"])
