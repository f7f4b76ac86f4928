"""One TCP session between two members, through all that the daemons around it go through."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import await_
from tests.system.test_faults import asleep

pytestmark = pytest.mark.usefixtures("needs_lab")
HEARTBEAT = [sys.executable, str(Path(__file__).with_name("heartbeat.py"))]
SLEEP = 10.0


def say_where(lab, address):
    """Where the registry's name leads, for all hosts."""
    for host in ("registry", "alice", "bob"):
        lab.hosts[host].run(["sh", "-c", "cat >/run/lab-hosts"], text=f"127.0.0.1 localhost\n{address} vpn.test\n")


@pytest.fixture
def mesh():
    with read_lab() as lab:
        say_where(lab, "198.51.100.10")
        for host in ("registry", "alice", "bob"):
            lab.hosts[host].run(["mount", "--bind", "/run/lab-hosts", "/etc/hosts"])
        mesh = Mesh(lab, "--endpoint", "vpn.test:51820")
        mesh.join("alice")
        mesh.join("bob")
        await_(lambda: mesh.ping("alice", "bob", 1), "a ping")
        yield mesh


@pytest.fixture
def gap(mesh):
    """Call it for the longest time without an echo since the last call, in seconds."""
    with (
        mesh.lab.hosts["alice"].popen([*HEARTBEAT, "serve"], stdout=subprocess.PIPE) as server,
        mesh.lab.hosts["bob"].popen(
            [*HEARTBEAT, mesh.address("alice")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client,
    ):
        assert server.stdout.readline() == "listening\n"
        assert client.stdout.readline() == "connected\n"

        def ask():
            client.stdin.write("\n")
            client.stdin.flush()
            said = client.stdout.readline()
            assert said, "the session broke"
            return float(said)

        yield ask
        client.kill()
        server.kill()


def settled(mesh):
    return mesh.status("alice")["settled"] and mesh.status("bob")["settled"]


def move(mesh):
    registry = mesh.lab.hosts["registry"]
    registry.run(["ip", "addr", "del", "198.51.100.10/24", "dev", "eth0"])
    registry.run(["sh", "-c", "ip -4 addr show eth0 | grep -q 100.11/ || ip addr add 198.51.100.11/24 dev eth0"])
    registry.run(["ip", "route", "replace", "default", "via", "198.51.100.1"])
    say_where(mesh.lab, "198.51.100.11")


def test_a_session_lives_through_sleep_restart_move_and_rotation(mesh, gap):
    def after(what):
        """The longest gap of what was just done, once the session goes on."""
        gaps[what] = gap()
        deadline = time.monotonic() + 30
        while (more := gap_of_a_second()) >= 1:
            gaps[what] = max(gaps[what], more)
            assert time.monotonic() < deadline, f"the session stands still after {what}"

    def gap_of_a_second():
        time.sleep(1)
        return gap()

    gaps = {}
    time.sleep(1)
    after("nothing")
    with asleep(mesh, "alice", SLEEP):
        pass
    mesh.members["alice"].wait_for("woke", 5)
    after("10 s of sleep")
    mesh.stop_registry("kill")
    mesh.start_registry()
    await_(lambda: settled(mesh), "both to be content", 30)
    after("a registry killed and back")
    move(mesh)
    await_(lambda: (mesh.peers("alice")["registry"]["endpoint"] or "").startswith("198.51.100.11"), "the move", 60)
    await_(lambda: settled(mesh), "both to be content", 60)
    after("a registry moved")
    for host in ("alice", "bob"):
        mesh.verb(host, "rotate-key")
        after(f"the key of {host} changed")
    print("\n" + "\n".join(f"{longest:6.2f} s without an echo: {what}" for what, longest in gaps.items()))
    slept = gaps.pop("10 s of sleep")
    assert SLEEP <= slept < SLEEP + 10
    assert max(gaps.values()) < 2
