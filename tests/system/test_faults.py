"""What goes wrong in the field, done to real daemons in the lab: crashes, sleep, moves, lost disks."""

import os
import signal
import time
from contextlib import contextmanager

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import await_

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
        mesh.registry("revoke", "bob")
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
