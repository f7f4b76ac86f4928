"""Members by join link, in the lab with a real registry: what a person types, and what then happens."""

import json
import re
import sys
import time

import pytest

from tests.system.members import Daemon, Mesh, read_lab
from tests.system.network import PROGRAM, await_

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.fixture
def mesh():
    with read_lab() as lab:
        yield Mesh(lab)


@pytest.fixture(scope="module")
def joined():
    with read_lab() as lab:
        mesh = Mesh(lab)
        mesh.link = mesh.registry("invite", "alice")
        mesh.join("alice", link=mesh.link)
        mesh.join("bob")
        await_(lambda: mesh.peers("alice").get("bob", {}).get("path") == "direct", "alice to see bob")
        yield mesh


class TestMembers:
    def test_reach_each_other_directly(self, joined):
        assert joined.ping("alice", "bob") == 3
        assert joined.ping("bob", "alice") == 3
        assert {name: peer["path"] for name, peer in joined.peers("bob").items()} == {
            "registry": "direct",
            "alice": "direct",
        }
        assert joined.status("bob")["settled"]

    def test_the_table_names_who_is_reached(self, joined):
        table = "".join(joined.members["bob"].out)
        assert re.search(r"registry +10\.\S+ +direct +198\.51\.100\.10:51820", table)
        assert re.search(r"alice +10\.\S+ +direct +192\.0\.2\.10:\d+", table)

    def test_the_same_link_again_is_harmless(self, joined):
        assert "bob" in joined.verb("alice", "join", joined.link)
        assert "bob" in joined.verb("alice", "join", "--network", "mesh")
        assert "bob" in joined.verb("alice", "up")

    def test_the_link_is_of_no_use_to_another(self, joined):
        said = joined.verb("bob", "join", joined.link, "--network", "other", code=5)
        assert "no answer from 198.51.100.10 udp/51820: open it in the host's firewall" in said
        assert said.count("\n") == 1

    def test_secrets_are_for_root_alone_and_nowhere_else(self, joined):
        host = joined.lab.hosts["alice"]
        assert host.run(["stat", "-c", "%a", "/var/lib/wgdisco/mesh.json"]).stdout.strip() == "600"
        state = json.loads(host.run(["cat", "/var/lib/wgdisco/mesh.json"]).stdout)
        said = "".join(joined.members["alice"].out + joined.members["alice"].err) + joined.verb("alice", "status")
        for secret in (state["private_key"], state["preshared_key"], joined.link.rpartition("/")[2]):
            assert secret not in said
        assert host.run(["ls", "-A", "/var/lib/wgdisco"]).stdout.split() == ["mesh.json"]

    def test_the_one_time_interface_is_gone(self, joined):
        links = joined.lab.hosts["alice"].run(["ip", "-br", "link"]).stdout
        assert "wgd-join" not in links
        assert "mesh" in links
        assert "169.254" not in joined.lab.hosts["alice"].run(["ip", "-4", "route"]).stdout

    def test_no_ping_is_lost_while_a_key_is_renewed(self, joined):
        before = joined.status("alice")["public_key"]
        answered = [joined.pinging("bob", "alice", 60), joined.pinging("alice", "bob", 60)]
        joined.verb("alice", "rotate-key")
        assert [count() for count in answered] == [60, 60]
        after = joined.status("alice")["public_key"]
        assert after != before
        assert joined.peers("bob")["alice"]["public_key"] == after
        await_(
            lambda: json.loads(joined.registry("show", "alice", "-o", "json"))["public_key"] == after, "the registry"
        )


def test_without_a_registry_it_says_what_to_open(mesh):
    link = mesh.registry("invite", "alice")
    mesh.stop_registry()
    began = time.monotonic()
    said = mesh.verb("alice", "join", link, code=5)
    assert 9 < time.monotonic() - began < 14
    assert said.startswith("wgdisco: no answer from 198.51.100.10 udp/51820: open it in the host's firewall and the")
    mesh.start_registry()
    mesh.join("alice", link=link)


def test_every_registry_of_the_link_is_tried_at_once(mesh):
    link = mesh.registry("invite", "alice").replace(
        "198.51.100.10", "198.51.100.99:51820,203.0.113.250:51820,198.51.100.10"
    )
    began = time.monotonic()
    mesh.join("alice", link=link)
    assert time.monotonic() - began < 5


def test_a_registrys_host_joins_another_network_and_not_its_own(mesh):
    """Both are called mesh, as by default, and both have the address that enrolment is at."""
    core = mesh.lab.hosts["core"]
    core.run([*PROGRAM, "registry", "init", "--endpoint", "198.51.100.1"])
    Daemon(core, [*PROGRAM, "registry", "run"]).wait_for("started")
    link = core.run([*PROGRAM, "registry", "invite"]).stdout.strip()
    taken = "there is an interface {} here already"
    assert taken.format("eth0") in mesh.verb("registry", "join", link, "--network", "eth0", code=1)
    assert taken.format("mesh") in mesh.verb("registry", "join", link, code=1)
    mesh.stay("registry", "join", link, "--network", "other")
    mesh.members["registry"].wait_for("PEER ")
    own = mesh.verb("registry", "join", mesh.registry("invite"), "--network", "own", code=1)
    assert "is the registry of that network" in own
    second = core.run([*PROGRAM, "registry", "init", "--store", "/run/other.db"], check=False)
    assert taken.format("mesh") in second.stderr


# Whether an interface takes large frames of TCP (linux/ethtool.h, ETHTOOL_GTSO)
TSO = """
import ctypes, fcntl, socket, struct
value = (ctypes.c_uint32 * 2)(0x1E, 0)
with socket.socket() as any:
    fcntl.ioctl(any, 0x8946, struct.pack("16sP16x", b"mesh", ctypes.addressof(value)))
print(value[1])
"""


def takes_large_frames(mesh, host) -> bool:
    return mesh.lab.hosts[host].run([sys.executable, "-c", TSO]).stdout.strip() == "1"


def test_down_and_up_and_leave(mesh):
    mesh.join("alice", "--offload", "udp_gso,udp_gro")
    mesh.join("bob")
    assert (takes_large_frames(mesh, "alice"), takes_large_frames(mesh, "bob")) == (False, True)
    assert mesh.status("alice")["engine"] == "userspace (compiled)"
    assert mesh.status("alice")["notes"] == []
    mesh.verb("alice", "down")
    mesh.members["alice"].process.wait()
    assert "mesh" not in mesh.lab.hosts["alice"].run(["ip", "-br", "link"]).stdout
    mesh.verb("alice", "down")
    mesh.stay("alice", "up")
    mesh.members["alice"].wait_for("PEER ")
    await_(lambda: mesh.ping("alice", "bob", 1), "a ping")
    assert not takes_large_frames(mesh, "alice"), "what was said once stays"
    assert "mesh is up" in mesh.verb("alice", "join", "--network", "mesh", "--offload", "all", code=1)
    assert "--offload: offloads are tso" in mesh.verb("alice", "join", "--network", "mesh", "--offload", "x", code=2)
    assert "give --yes" in mesh.verb("alice", "leave", code=2)
    mesh.verb("alice", "leave", "--yes")
    assert "no member of any network" in mesh.verb("alice", "leave", "--yes")
    assert mesh.lab.hosts["alice"].run(["ls", "-A", "/var/lib/wgdisco"]).stdout == ""
    assert "no network" in mesh.verb("alice", "up", code=1)


def test_a_revoked_member_is_gone_within_5_seconds(mesh):
    mesh.join("alice")
    mesh.join("bob")
    address = mesh.address("bob")
    await_(lambda: mesh.ping("alice", address, 1), "a ping")
    mesh.registry("revoke", "bob")
    await_(lambda: "bob" not in mesh.peers("alice"), "bob to be gone", 5)
    assert mesh.ping("alice", address, 1) == 0


def test_a_registry_restart_breaks_nothing_and_is_noticed(mesh):
    mesh.join("alice")
    mesh.join("bob")
    await_(lambda: mesh.ping("alice", "bob", 1), "a ping")
    answered = mesh.pinging("alice", "bob", 60)
    mesh.stop_registry("kill")
    mesh.start_registry()
    assert answered() == 60
    await_(lambda: mesh.status("alice")["settled"] and mesh.status("bob")["settled"], "both to be content", 60)
    mesh.registry("revoke", "bob")
    await_(lambda: "bob" not in mesh.peers("alice"), "bob to be gone", 60)


def test_nothing_comes_in_where_it_is_blocked(mesh):
    mesh.join("alice", "--block-incoming")
    mesh.join("bob")
    await_(lambda: mesh.ping("alice", "bob", 1), "a ping")
    assert not mesh.connects("bob", "alice")
    assert mesh.connects("alice", "bob")
    assert "wgdisco_mesh" in mesh.lab.hosts["alice"].run(["nft", "list", "tables"]).stdout
    assert "down" in mesh.verb("alice", "join", "--network", "mesh", "--no-block-incoming", code=1)
    mesh.verb("alice", "down")
    assert mesh.lab.hosts["alice"].run(["nft", "list", "tables"]).stdout == ""
    mesh.stay("alice", "join", "--network", "mesh", "--no-block-incoming")
    await_(lambda: mesh.ping("bob", "alice", 1), "a ping", 20)
    assert mesh.connects("bob", "alice")
    mesh.verb("alice", "down")
    mesh.stay("alice", "join", "--network", "mesh", "--block-incoming")
    mesh.members["alice"].wait_for("PEER ")
    mesh.members["alice"].process.kill()
    mesh.members["alice"].process.wait()
    mesh.verb("alice", "leave", "--yes")
    assert mesh.lab.hosts["alice"].run(["nft", "list", "tables"]).stdout == "", "what a killed daemon left"


def test_new_members_wait_until_they_are_accepted(mesh):
    mesh.join("alice", "--accept-peers", "ask")
    mesh.stay("bob", "join", mesh.registry("invite", "bob"))
    await_(lambda: any("wgdisco accept bob" in note for note in mesh.status("alice")["notes"]), "a note")
    assert mesh.ping("bob", "alice", 1) == 0
    mesh.verb("alice", "accept", "bob")
    await_(lambda: mesh.ping("bob", "alice", 1), "a ping")
    assert "nobody" not in mesh.verb("alice", "accept", "carol", code=1)


def test_another_key_under_a_known_name_is_refused(mesh):
    mesh.join("alice")
    mesh.join("bob")
    await_(lambda: "bob" in mesh.peers("alice"), "bob")
    mesh.registry("revoke", "bob")
    mesh.members["bob"].process.terminate()
    mesh.members["bob"].process.wait()
    mesh.verb("bob", "leave", "--yes")
    mesh.stay("bob", "join", mesh.registry("invite", "bob"))
    await_(lambda: any("its key has changed" in note for note in mesh.status("alice")["notes"]), "a note")
    assert "bob" not in mesh.peers("alice")
    mesh.verb("alice", "accept", "bob")
    await_(lambda: mesh.ping("alice", "bob", 1), "a ping")


def test_the_registry_moves_and_members_follow_within_60_seconds():
    def say_where(lab, address):
        for host in ("registry", "alice"):
            lab.hosts[host].run(
                ["sh", "-c", "cat >/run/lab-hosts", host], text=f"127.0.0.1 localhost\n{address} vpn.test\n"
            )

    with read_lab() as lab:
        say_where(lab, "198.51.100.10")
        for host in ("registry", "alice"):
            lab.hosts[host].run(["mount", "--bind", "/run/lab-hosts", "/etc/hosts"])
        mesh = Mesh(lab, "--endpoint", "vpn.test:51820")
        mesh.join("alice")
        lab.hosts["registry"].run(["ip", "addr", "del", "198.51.100.10/24", "dev", "eth0"])
        lab.hosts["registry"].run(
            ["sh", "-c", "ip addr show dev eth0 | grep -q 198.51.100.11 || ip addr add 198.51.100.11/24 dev eth0"]
        )
        lab.hosts["registry"].run(["ip", "route", "replace", "default", "via", "198.51.100.1"])
        say_where(lab, "198.51.100.11")
        began = time.monotonic()
        await_(
            lambda: (mesh.peers("alice")["registry"]["endpoint"] or "").startswith("198.51.100.11"),
            "alice to follow",
            60,
        )
        await_(lambda: mesh.status("alice")["settled"], "alice to be content", 60 - (time.monotonic() - began))


def test_an_operator_moves_the_registry_to_another_machine_and_members_follow_untouched():
    """By address: bob's machine is the new one, and public."""
    with read_lab("port-restricted", "public") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        old, new = lab.hosts["registry"], lab.hosts["bob"]
        endpoint = f"{lab.outside('bob')}:51820"
        assert "1 of 1 members know it" in mesh.verb("registry", "registry", "set", "endpoint", endpoint)
        state = ["cat", "/var/lib/wgdisco/mesh.json"]
        await_(lambda: endpoint in lab.hosts["alice"].run(state).stdout, "alice to keep it", 15)
        mesh.verb("registry", "registry", "backup", "/run/lab-backup")
        mesh.stop_registry()
        began = time.monotonic()
        new.run(["sh", "-c", "base64 -d >/run/lab-backup"], text=old.run(["base64", "/run/lab-backup"]).stdout)
        mesh.verb("bob", "registry", "restore", "/run/lab-backup")
        mesh.members["bob"] = Daemon(new, [*PROGRAM, "registry", "run"])
        mesh.members["bob"].wait_for("started")
        await_(lambda: mesh.peers("alice")["registry"]["endpoint"] == endpoint, "alice to follow", 60)
        await_(lambda: mesh.status("alice")["settled"], "alice to be content", 60 - (time.monotonic() - began))
        assert time.monotonic() - began < 60
        link = mesh.verb("bob", "registry", "invite", "carol").splitlines()[0]
        assert link.startswith(f"wgdisco://{endpoint}/")


def test_set_endpoint_says_what_it_cannot_use(mesh):
    assert "HOST[:PORT]" in mesh.verb("registry", "registry", "set", "endpoint", "https://vpn.test", code=2)
    assert "set: write" in mesh.verb("registry", "registry", "set", "endpoint", code=2)
    assert mesh.verb("registry", "registry", "set", "endpoint", "vpn.test:443,192.0.2.9") == (
        "0 of 0 members know it; links and files made before have the old endpoint\n"
    )
    assert mesh.registry("invite").startswith("wgdisco://vpn.test:443,192.0.2.9:51820/")
