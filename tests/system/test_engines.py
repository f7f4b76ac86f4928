"""Members by join link on engines that are not ours."""

import shutil

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import await_

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"),
]


def path(mesh, host, to):
    return mesh.peers(host).get(to, {}).get("path")


def bring_up(lab, host):
    """An interface without keys, named as the network."""
    lab.hosts[host].run(["wireguard-go", "mesh"])
    await_(lambda: lab.hosts[host].run(["wg", "show", "mesh"], check=False).returncode == 0, "wireguard-go")


@pytest.mark.parametrize("external", [("alice",), ("bob",), ("alice", "bob")], ids=["one side", "the other", "both"])
def test_members_on_wireguard_go(external):
    with read_lab() as lab:
        mesh = Mesh(lab)
        for host in ("alice", "bob"):
            if host in external:
                bring_up(lab, host)
            mesh.join(host, *(["--engine", "external"] if host in external else []))
        assert mesh.ping("alice", "bob", count=10) >= 8
        assert mesh.ping("bob", "alice") == 3
        for one, other in (("alice", "bob"), ("bob", "alice")):
            await_(lambda one=one, other=other: path(mesh, one, other) == "direct", f"{one} to reach {other}", 20.0)
            assert mesh.status(one)["engine"] == "external" or one not in external
        for host in external:
            mesh.verb(host, "down")
            await_(lambda host=host: "peer" not in lab.hosts[host].run(["wg", "show", "mesh"]).stdout, "no peers")
            lab.hosts[host].run(["ip", "link", "delete", "mesh"])
