"""A member whose machine boots with a wrong clock: libfaketime gives its daemon one."""

from pathlib import Path

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM, await_

# The program faketime would stand between us and the daemon: a signal would not reach that.
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime (faketime) is not installed"),
]


def boot(mesh, when):
    """alice's machine goes down at once and comes up again, its clock at `when`."""
    mesh.members["alice"].process.kill()
    mesh.members["alice"].process.wait()
    # the clock alone: timers of the machine go on as they do, and so do its files
    only = ["env", f"LD_PRELOAD={LIBRARIES[0]}", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]
    at = [] if when is None else [*only, f"FAKETIME=@{when}"]
    mesh.members["alice"] = Daemon(mesh.lab.hosts["alice"], [*at, *PROGRAM, "up"])


def meet(mesh):
    """alice reaches the registry and bob."""
    await_(lambda: mesh.lab.hosts["alice"].run([*PROGRAM, "status"], check=False).returncode == 0, "alice", 15)
    for name in ("registry", "bob"):
        await_(lambda n=name: mesh.peers("alice").get(n, {}).get("path") == "direct", f"alice to {name}", 15)
    assert mesh.ping("alice", "bob") == 3


def test_with_a_wrong_clock_a_rebooted_member_is_back_and_status_names_the_clock():
    with read_lab() as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        mesh.join("bob")
        meet(mesh)
        for when in ("1970-01-02 00:00:00", "2035-01-01 00:00:00", None):
            boot(mesh, when)
            meet(mesh)
            notes = mesh.status("alice")["notes"]
            if when is None:
                assert notes == []
            else:
                (note,) = notes
                assert note.startswith(f"clock: this host's says {when[:10]}")
                assert note.endswith("set it")


def test_without_an_answer_the_clock_is_the_reason():
    with read_lab() as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        mesh.stop_registry()
        boot(mesh, "1970-01-02 00:00:00")
        await_(lambda: lab.hosts["alice"].run([*PROGRAM, "status"], check=False).returncode == 0, "alice", 15)
        await_(lambda: mesh.peers("alice")["registry"]["reason"] == "clock", "the reason", 10)
        assert mesh.status("alice")["notes"][0].startswith("clock: this host's says 1970-01-02")
