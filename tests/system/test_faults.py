"""What goes wrong in the field, done to real daemons in the lab: crashes, sleep, moves, lost disks."""

import json
import os
import signal
import time
from contextlib import contextmanager

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.fixture
def mesh():
    with read_lab() as lab:
        yield Mesh(lab)


def joined(mesh, *hosts):
    for host in hosts:
        mesh.join(host)
    await_(lambda: mesh.ping(hosts[0], hosts[1], 1), "a ping")


def test_a_revocation_right_after_a_crash_of_the_registry_is_noticed_within_5_seconds(mesh):
    joined(mesh, "alice", "bob")
    address = mesh.address("bob")
    mesh.stop_registry("kill")
    mesh.start_registry()
    mesh.registry("revoke", "bob")
    await_(lambda: "bob" not in mesh.peers("alice"), "bob to be gone", 5)
    assert mesh.ping("alice", address, 1) == 0


def test_a_registry_killed_when_it_had_just_told_something_is_noticed_too(mesh):
    """What follows is a handshake as after anything it tells."""
    joined(mesh, "alice", "bob")
    mesh.registry("rename", "bob", "robert")
    mesh.stop_registry("kill")
    mesh.start_registry()
    mesh.registry("revoke", "robert")
    await_(lambda: not {"bob", "robert"} & set(mesh.peers("alice")), "bob to be gone", 8)


@contextmanager
def asleep(mesh, host, seconds):
    """The host's daemon does nothing for so long, and then wakes; what is done inside happens meanwhile."""
    process = mesh.members[host].process
    process.send_signal(signal.SIGSTOP)
    slept_at = time.monotonic()
    try:
        yield
        time.sleep(max(0.0, seconds - (time.monotonic() - slept_at)))
    finally:
        process.send_signal(signal.SIGCONT)
        os.kill(process.pid, signal.SIGCONT)  # nsenter stops with what it runs


def test_who_was_revoked_while_we_slept_gets_nothing_through_when_we_wake(mesh):
    joined(mesh, "alice", "bob")
    address = mesh.address("bob")
    with asleep(mesh, "alice", 6):
        answered = mesh.pinging("bob", "alice", 100)
        revoked = mesh.lab.hosts["registry"].run([*PROGRAM, "registry", "revoke", "bob"])
        assert "gone from 0 of 1 members" in revoked.stderr
        assert "not seen since: alice" in revoked.stderr
    mesh.members["alice"].wait_for("woke", 5)
    await_(lambda: "bob" not in mesh.peers("alice"), "bob to be gone", 5)
    assert mesh.ping("alice", address, 1) == 0
    assert answered() == 0


def test_who_wakes_without_a_registry_trusts_whom_it_knew(mesh):
    joined(mesh, "alice", "bob")
    address = mesh.address("alice")
    mesh.stop_registry("kill")
    with asleep(mesh, "alice", 6):
        pass
    mesh.members["alice"].wait_for("woke", 5)
    await_(lambda: mesh.ping("bob", address, 1), "a ping", 10)


def rebooted(mesh, host):
    """Off in a moment; on again with what is on its disk."""
    mesh.members[host].process.kill()
    mesh.members[host].process.wait()
    mesh.stay(host, "join", "--network", "mesh")


def test_with_the_registry_gone_two_of_three_rebooted_at_once_are_back_within_10_seconds():
    with read_lab("eim-other-port", "port-restricted", "full-cone") as lab:
        mesh = Mesh(lab)
        joined(mesh, "alice", "bob", "carol")
        address = {host: mesh.address(host) for host in mesh.members}
        pairs = [(one, other) for one in address for other in address if one != other]
        for one, other in pairs:
            await_(lambda one=one, other=other: mesh.ping(one, address[other], 1), "a ping")
        time.sleep(6)  # what is learnt is on disk after 5 s
        mesh.stop_registry("kill")
        rebooted(mesh, "alice")
        rebooted(mesh, "bob")
        began = time.monotonic()
        for one, other in pairs:
            left = 10 - (time.monotonic() - began)
            await_(lambda one=one, other=other: mesh.ping(one, address[other], 1), f"{one} to reach {other}", left)
        assert mesh.peers("alice")["registry"]["reason"] in {"no UDP answer", "registry unreachable"}
        assert not mesh.status("alice")["settled"]


def test_restored_on_a_new_disk_from_an_old_backup_it_readmits_nobody_and_gives_no_address_twice():
    with read_lab("eim-other-port", "port-restricted", "full-cone", "full-cone") as lab:
        mesh = Mesh(lab)
        joined(mesh, "alice", "bob")
        address = mesh.address("bob")
        mesh.registry("backup", "/run/backup")
        mesh.join("carol")  # after the backup: the restored registry does not know it
        taken = {mesh.address(host) for host in ("alice", "bob", "carol")}
        mesh.registry("revoke", "bob")
        await_(lambda: "bob" not in mesh.peers("alice"), "bob to be gone", 5)
        mesh.stop_registry("kill")
        lab.hosts["registry"].run(["sh", "-c", "rm /var/lib/wgdisco/*"])
        mesh.registry("restore", "/run/backup")
        mesh.start_registry()
        mesh.daemon.wait_for("restored from an old backup")
        listed = json.loads(mesh.registry("list", "-o", "json"))
        assert [member["name"] for member in listed["members"]] == ["alice"]
        assert mesh.ping("bob", registry_address(mesh), 1) == 0
        mesh.join("dave")
        assert mesh.address("dave") not in taken
        await_(lambda: mesh.ping("alice", "dave", 1), "a ping")
        assert mesh.ping("alice", address, 1) == 0
        said = "".join(mesh.members["alice"].err)
        assert "forgotten" in said
        assert said.count("member name=bob") == 1, "it was not taken back for a moment"


def registry_address(mesh):
    (registry,) = (peer for peer in mesh.status("alice")["peers"] if peer["name"] == "registry")
    return registry["allowed_ips"][0].partition("/")[0]
