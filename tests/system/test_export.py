"""The way out: what `wgdisco export` writes is run by wg-quick and wireguard-go in the place of our daemons."""

import shutil
from itertools import permutations

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(
        shutil.which("wireguard-go") is None or shutil.which("wg-quick") is None,
        reason="wireguard-go or wg-quick is not installed",
    ),
]
HOSTS = ("registry", "alice", "bob")


def wg_quick(lab, host, verb):
    command = ["env", "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go", "wg-quick", verb, "/run/mesh.conf"]
    return lab.hosts[host].run(command)


def test_a_network_goes_on_as_plain_wireguard_with_what_was_exported():
    with read_lab("eim-other-port", "port-restricted") as lab:
        mesh = Mesh(lab)
        for name in ("alice", "bob"):
            mesh.join(name)
        for one, other in permutations(("alice", "bob")):
            await_(lambda a=one, b=other: mesh.peers(a).get(b, {}).get("path") == "direct", f"{one} to {other}", 20)
        addresses = {name: mesh.address(name) for name in ("alice", "bob")}
        hub = mesh.peers("alice")["registry"]["allowed_ips"][0].partition("/")[0]
        for name in ("alice", "bob"):
            mesh.verb(name, "down")
            mesh.members[name].process.wait()
        for host in HOSTS:
            said = lab.hosts[host].run([*PROGRAM, "export", "-o", "/run/mesh.conf"])
            assert said.stdout + said.stderr == ""
        mesh.stop_registry()
        for host in HOSTS:
            wg_quick(lab, host, "up")
        for name in ("alice", "bob"):
            assert mesh.ping(name, hub) == 3
        for one, other in permutations(("alice", "bob")):
            await_(lambda a=one, b=other: mesh.ping(a, addresses[b], 1), f"{one} to reach {other}", 20)
        for host in HOSTS:
            wg_quick(lab, host, "down")
