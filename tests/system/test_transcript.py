"""A network in five lines: what README prints, typed; then more members, a stock device, a revocation, and again."""

import json
import os
import re
import shutil
import subprocess
import time
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")

README = Path(__file__).parents[2] / "README.md"
HOSTS = {"vps": "registry", "laptop1": "alice", "laptop2": "bob"}
needs_wireguard_go = pytest.mark.skipif(
    shutil.which("wireguard-go") is None or shutil.which("wg-quick") is None,
    reason="wireguard-go or wg-quick is not installed",
)


def transcript():
    """The lines of README's section, as (host, words)."""
    section = README.read_text().partition("## A network in five lines")[2].partition("\n## ")[0]
    block = section.partition("```console\n")[2].partition("```")[0]
    return [(host, words.split()) for host, words in re.findall(r"^(\w+)\$ +(.*)$", block, re.MULTILINE)]


class Terminals:
    """Types a line on a host, and reads on; there is no systemd, so what its units would run is run here."""

    def __init__(self, lab):
        self.lab = lab
        self.link = ""
        self.open = []

    def type(self, host, words):
        assert words[:2] == ["sudo", "wgdisco"]
        name, command = HOSTS[host], [*PROGRAM, *words[2:]]
        if words[2] == "join":
            return self._join(name, command)
        done = self.lab.hosts[name].run(command)
        if words[3] == "init":
            daemon = self.lab.hosts[name].popen([*PROGRAM, "registry", "run"], stderr=subprocess.PIPE)
            assert "started" in daemon.stderr.readline()
            self.open.append(daemon.stderr)
        elif words[3] == "invite":
            self.link = done.stdout.strip()
        return done.stdout + done.stderr

    def _join(self, name, command):
        """Where it asks, the link is typed; what it prints until the table is whole."""
        ours, theirs = os.openpty()
        process = self.lab.hosts[name].popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        asked = ""
        while not asked.endswith("link: "):  # what is typed before is thrown away, as by every password prompt
            asked += process.stdout.read(1)
        os.write(ours, f"{self.link}\n".encode())
        said = ""
        while not re.search(r"^registry .*\n", said, re.MULTILINE):
            line = process.stdout.readline()
            assert line, said
            said += line
        os.close(theirs)
        self.open += [process.stdout, os.fdopen(ours, "wb")]
        return said

    def close(self):
        for stream in self.open:
            stream.close()


def test_the_five_lines_of_readme_make_a_network():
    lines = transcript()
    assert len(lines) == 6, "five lines, and a ping"
    with read_lab() as lab:
        terminals = Terminals(lab)
        started = time.monotonic()
        for host, words in lines[:5]:
            terminals.type(host, words)
        host, words = lines[5]
        shown = json.loads(lab.hosts["registry"].run([*PROGRAM, "registry", "show", "laptop1", "-o", "json"]).stdout)
        assert words[0] == "ping"
        command = ["ping", "-q", "-c", "3", "-i", "0.2", shown["addresses"][0]]
        assert " 0% packet loss" in lab.hosts[HOSTS[host]].run(command).stdout
        assert time.monotonic() - started < 180
    terminals.close()


def device_file(mesh, name, *flags):
    """`registry add`, and its file where the device is."""
    text = mesh.registry("add", name, "--conf", *flags)
    mesh.lab.hosts["dave"].write_file(f"/run/lab/{name}.conf", text)
    return f"/run/lab/{name}.conf"


def wg_quick(mesh, verb, path):
    mesh.lab.hosts["dave"].run(["env", "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go", "wg-quick", verb, path])


MEMBERS = ("alice", "bob", "carol")


def one_network(mesh):
    """From the first member to the end of it all."""
    for name in MEMBERS:
        mesh.join(name)
    for one, other in permutations(MEMBERS, 2):
        await_(lambda a=one, b=other: mesh.peers(a).get(b, {}).get("path") == "direct", f"{one} to {other}", 20)
        assert mesh.ping(one, other) == 3

    phone = device_file(mesh, "phone")
    wg_quick(mesh, "up", phone)
    for name in MEMBERS:
        await_(lambda n=name: mesh.ping("dave", n, 1), f"the phone to reach {name}", 20)
        assert mesh.ping(name, "phone") == 3
    wg_quick(mesh, "down", phone)

    guest = device_file(mesh, "guest", "--group", "guests")
    wg_quick(mesh, "up", guest)
    hub = mesh.peers("alice")["registry"]["allowed_ips"][0].partition("/")[0]
    await_(lambda: mesh.ping("dave", hub, 1), "the guest to reach the registry", 20)
    assert [mesh.ping("dave", name, 1) for name in MEMBERS] == [0, 0, 0]
    wg_quick(mesh, "down", guest)

    mesh.registry("revoke", "carol")
    await_(lambda: all("carol" not in mesh.peers(name) for name in ("alice", "bob")), "carol to be gone", 5)
    assert mesh.ping("alice", "bob") == 3
    assert "carol" not in mesh.registry("list")


@needs_wireguard_go
def test_three_members_and_a_stock_device_until_one_is_revoked_and_all_of_it_again():
    with read_lab("eim-other-port", "port-restricted", "port-restricted", "port-restricted") as lab:
        for _ in range(2):
            mesh = Mesh(lab)
            one_network(mesh)
            for name in MEMBERS:
                mesh.verb(name, "leave", "--yes")
            mesh.stop_registry()
            mesh.registry("uninstall", "--yes")


@needs_wireguard_go
def test_a_restart_of_the_registry_holds_up_a_devices_traffic_for_less_than_2_seconds():
    """A device that talks to a member through the registry, both behind NATs: the registry alone can begin anew."""
    with read_lab("eim-other-port", "port-restricted", "port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        wg_quick(mesh, "up", device_file(mesh, "phone"))
        await_(lambda: mesh.ping("dave", "alice", 1), "the phone to reach alice", 20)
        time.sleep(4)  # where they are is on disk after 3 s
        command = ["ping", "-D", "-i", "0.05", "-W", "1", mesh.address("alice")]
        with lab.hosts["dave"].popen(command, stdout=subprocess.PIPE) as pings:
            pings.stdout.readline()
            pings.stdout.readline()
            mesh.stop_registry("kill")
            died_at = time.time()
            mesh.start_registry()
            starting = time.time() - died_at
            time.sleep(3)
            pings.terminate()
            echoes = [float(at) for at in re.findall(r"^\[([0-9.]+)\].* bytes from", pings.stdout.read(), re.MULTILINE)]
        gap = max(later - earlier for earlier, later in pairwise(echoes))
        print(f"\n{gap:.2f} s without an echo, of which the registry took {starting:.2f} s to start")
        assert echoes[-1] > died_at + starting + 2, "it goes on"
        assert gap < starting + 1
