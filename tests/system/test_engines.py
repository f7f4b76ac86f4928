"""Members by join link on engines that are not ours."""

import shutil

import pytest

from tests.interop.engines import need
from tests.system.members import Mesh, read_lab
from tests.system.network import await_
from tests.system.test_external import BORINGTUN, has_kernel_wireguard

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"),
]


WIREGUARD_GO = ("wireguard-go",)


def path(mesh, host, to):
    return mesh.peers(host).get(to, {}).get("path")


def bring_up(lab, host, program=WIREGUARD_GO):
    """An interface without keys, named as the network."""
    lab.hosts[host].run([*program, "mesh"])
    await_(lambda: lab.hosts[host].run(["wg", "show", "mesh"], check=False).returncode == 0, program[0])


def connect(engine, hosts, patience=1, program=WIREGUARD_GO):
    """Two members reach each other, those of `hosts` on that engine; in the end it is as it was."""
    with read_lab() as lab:
        mesh = Mesh(lab, patience=patience)
        for host in ("alice", "bob"):
            if host in hosts and engine == "external":
                bring_up(lab, host, program)
            mesh.join(host, *(["--engine", engine] if host in hosts else []))
        # boringtun shakes hands anew when it is moved, and may have to wait for that
        assert mesh.ping("alice", "bob", count=10 if program == WIREGUARD_GO else 100) >= 8
        assert program == BORINGTUN or mesh.ping("bob", "alice") == 3
        for one, other in (("alice", "bob"), ("bob", "alice")):
            reached = f"{one} to reach {other}"
            await_(lambda one=one, other=other: path(mesh, one, other) == "direct", reached, 20.0 * patience)
            assert mesh.status(one)["engine"] == engine or one not in hosts
        for one, other in (("alice", "bob"), ("bob", "alice")):
            await_(lambda one=one, other=other: mesh.ping(one, other) == 3, f"{one} to hear {other} each time", 10.0)
        for host in hosts:
            mesh.verb(host, "down")
            if engine == "external":
                await_(lambda host=host: "peer" not in lab.hosts[host].run(["wg", "show", "mesh"]).stdout, "no peers")
                lab.hosts[host].run(["ip", "link", "delete", "mesh"])
            else:
                await_(lambda host=host: "mesh" not in lab.hosts[host].run(["ip", "link"]).stdout, "no interface")


BOTH_WAYS = pytest.mark.parametrize(
    "hosts", [("alice",), ("bob",), ("alice", "bob")], ids=["one side", "the other", "both"]
)


@BOTH_WAYS
def test_members_on_wireguard_go(hosts):
    connect("external", hosts)


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param(("alice",), id="one side"),
        pytest.param(("bob",), id="the other", marks=pytest.mark.soak),
        pytest.param(("alice", "bob"), id="both", marks=pytest.mark.soak),
    ],
)
def test_members_on_boringtun(hosts):
    need("boringtun")
    connect("external", hosts, program=BORINGTUN)


def test_a_direct_way_that_breaks_is_left_for_the_relay():
    """Soon: WireGuard's session there would last for another three minutes."""
    with read_lab() as lab:
        mesh = Mesh(lab)
        for host in ("alice", "bob"):
            bring_up(lab, host)
            mesh.join(host, "--engine", "external")
        mesh.ping("alice", "bob")
        for one, other in (("alice", "bob"), ("bob", "alice")):
            await_(lambda one=one, other=other: path(mesh, one, other) == "direct", f"{one} to reach {other}", 20.0)
        address = mesh.peers("bob")["alice"]["endpoint"].rpartition(":")[0]
        rules = ("prerouting", f"ip saddr {address} drop"), ("output", f"ip daddr {address} drop")
        chains = "".join(f"chain {at} {{ type filter hook {at} priority -400; {rule}; }}; " for at, rule in rules)
        lab.hosts["bob"].run(["nft", f"table inet broken {{ {chains} }}"])
        assert mesh.ping("alice", "bob", count=100) >= 50
        for one, other in (("alice", "bob"), ("bob", "alice")):
            await_(lambda one=one, other=other: path(mesh, one, other) == "relay", f"{one} to relay to {other}", 20.0)


@BOTH_WAYS
def test_members_on_the_kernel(hosts):
    if not has_kernel_wireguard():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")
    connect("kernel", hosts, patience=6)
