"""The registry that keeps its own members: its verbs and its API, from hosts behind NATs."""

import json
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.system.members import Daemon
from tests.system.network import PROGRAM, await_
from wgdisco.api import RotateRequest
from wgdisco.invitation import JoinLink
from wgdisco.keys import PrivateKey
from wgdisco.lab.topology import Lab
from wgdisco.proof import rotation_proof
from wgdisco.tunnel.noise import static_static

pytestmark = pytest.mark.usefixtures("needs_lab")
JOINER = str(Path(__file__).with_name("joiner.py"))

NAT_CHECK = str(Path(__file__).with_name("nat_check.py"))
STUN_PORTS = ("3478", "3479", "3480")
# Garbage, and a Binding request without a credential; prints what comes back
ASK_AS_A_STRANGER = """
import socket, sys
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(0.3)
for port in sys.argv[1:]:
    for address in ("198.51.100.10", "198.51.100.11"):
        asker.sendto(b"who is there?", (address, int(port)))
        asker.sendto(bytes.fromhex("000100002112a442") + bytes(12), (address, int(port)))
try:
    print(asker.recvfrom(2048))
except TimeoutError:
    pass
"""


class Joiner:
    """A member in a host: what it said, and the processes it is."""

    def __init__(self, host, link, *, key=None, only_enrol=False, record=None, name=None):
        self.key = key or PrivateKey(secrets.token_bytes(32))
        command = [sys.executable, JOINER, link, self.key.to_text(), "enrol" if only_enrol else "stay"]
        if record or name:
            command.append(name or json.dumps(record))
        self.process = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.said = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def wait(self, wanted, seconds=30):
        return await_(lambda: next((said for said in self.said if wanted(said)), None), "what the joiner says", seconds)

    def enrolled(self):
        return self.wait(lambda said: "enrolled" in said)["enrolled"]

    def event(self, name, wanted=lambda data: True, seconds=30):
        return self.wait(lambda said: said.get("event") == name and wanted(said["data"]), seconds)

    def ask(self, line):
        before = len([said for said in self.said if "status" in said])
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return await_(lambda: [said for said in self.said if "status" in said][before:], "an answer")[0]

    def stop(self):
        self.process.stop()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


class Mesh:
    def __init__(self, lab):
        self.lab = lab
        self.registry = lab.hosts["registry"]
        self.daemon = None
        self.joiners = []

    def joiner(self, host, link, **more):
        self.joiners.append(Joiner(self.lab.hosts[host], link, **more))
        return self.joiners[-1]

    def verb(self, *words, check=True):
        done = self.registry.run([*PROGRAM, "registry", *words], check=False)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def start(self, *words):
        self.daemon = self.registry.popen([*PROGRAM, "registry", "run", "--log", "json", *words], stderr=sys.stderr)
        await_(lambda: self.registry.run([*PROGRAM, "status", "mesh"], check=False).returncode == 0, "the registry", 40)

    def invite(self, *words):
        return self.verb("invite", *words).stdout.strip()


@pytest.fixture
def mesh():
    with Lab() as lab:
        mesh = Mesh(lab)
        done = mesh.verb("init")
        assert "UDP 51820" in done.stderr
        assert "invite" in done.stderr
        mesh.start()
        yield mesh
        for joiner in mesh.joiners:
            joiner.stop()


def test_from_init_to_revoke(mesh):
    assert "already" in mesh.verb("init").stderr
    link = mesh.invite("laptop1")
    assert link.startswith("wgdisco://198.51.100.10:51820/1/")
    alice = mesh.joiner("alice", link)
    record = alice.enrolled()
    assert record["member"]["name"] == "laptop1"
    snapshot = alice.event("snapshot")["data"]
    assert snapshot["members"] == []
    bob = mesh.joiner("bob", mesh.invite("laptop2"))
    seen = bob.event("snapshot")["data"]["members"]
    assert [member["name"] for member in seen] == ["laptop1"]
    assert seen[0]["live"]
    told = alice.event("member", lambda data: data["name"] == "laptop2")
    assert told["data"]["public_key"] == str(bob.key.public_key())
    assert alice.event("endpoint", lambda data: data["live"])["data"]["public_key"] == str(bob.key.public_key())
    assert alice.ask("get /v1/members")["body"]["members"][0]["name"] == "laptop2"
    assert alice.ask("post /v1/enrol {}")["status"] == 404
    listing = json.loads(mesh.verb("list", "-o", "json").stdout)
    assert [(m["name"], m["state"]) for m in listing["members"]] == [("laptop1", "live"), ("laptop2", "live")]
    assert listing["invitations"] == []
    dug = mesh.lab.hosts["alice"].run(
        ["dig", f"@{snapshot['network']['registry_addresses'][0]}", "+short", "PTR", "_wireguard._udp.wg.internal."]
    )
    assert bob.key.public_key().to_label() in dug.stdout
    began = time.monotonic()
    assert "1 of 1 members" in mesh.verb("revoke", "laptop2").stderr
    alice.event("removed", lambda data: data["name"] == "laptop2", 5)
    assert time.monotonic() - began < 5
    ping = ["ping", "-c1", "-W1", snapshot["network"]["registry_addresses"][0]]
    assert mesh.lab.hosts["alice"].run(ping, check=False).returncode == 0
    assert mesh.lab.hosts["bob"].run(ping, check=False).returncode != 0
    assert "`wgdisco accept laptop2`" in mesh.verb("invite", "laptop2").stderr, (
        "its name is pinned to the key that went"
    )
    mesh.verb("revoke", "laptop2")


def test_behind_a_nat_init_is_refused_with_the_remedy(mesh):
    alice = mesh.lab.hosts["alice"]
    done = alice.run([*PROGRAM, "registry", "init"], check=False)
    assert done.returncode == 1
    assert "is a private address" in done.stderr
    assert "--endpoint HOST[:PORT]" in done.stderr
    assert alice.run(["ls", "-A", "/var/lib/wgdisco"]).stdout == ""


def test_groups_are_kept_apart_in_the_api_and_in_the_zone(mesh):
    alice = mesh.joiner("alice", mesh.invite("laptop1", "--group", "dev"))
    address = alice.event("snapshot")["data"]["network"]["registry_addresses"][0]
    bob = mesh.joiner("bob", mesh.invite("laptop2", "--group", "sales"))
    assert bob.event("snapshot")["data"]["members"] == []
    assert alice.ask("get /v1/members")["body"]["members"] == []
    question = ["PTR", "_wireguard._udp.wg.internal."]
    for transport in ("+notcp", "+tcp"):
        dug = mesh.lab.hosts["alice"].run(["dig", f"@{address}", "+short", transport, *question]).stdout
        assert dug.startswith(alice.key.public_key().to_label())
        assert bob.key.public_key().to_label() not in dug

    def dig(*words):
        return mesh.lab.hosts["alice"].run(["dig", f"@{address}", *words]).stdout

    own = alice.enrolled()["member"]["addresses"]
    assert dig("+short", "laptop1.wg.internal.", "A").split() == own[:1]
    assert dig("+short", "laptop1.wg.internal.", "AAAA").split() == own[1:]
    assert dig("+short", "registry.wg.internal.", "A").split() == [address]
    assert dig("+short", "_dev._sub._wireguard._udp.wg.internal.", "PTR") == dug
    for name, status in [("laptop2", "NXDOMAIN"), ("_sales._sub._wireguard._udp", "NXDOMAIN"), ("_udp", "NOERROR")]:
        assert f"status: {status}" in dig(f"{name}.wg.internal.", "A")


def test_strangers_are_told_of_whom_is_published_and_of_nobody_else(mesh):
    public = "198.51.100.10"
    mesh.daemon.terminate()
    mesh.daemon.wait()
    mesh.start("--dns", f"{public}:53", "--publish", "laptop1")
    keys = {}
    for host, name in (("alice", "laptop1"), ("bob", "laptop2")):
        joiner = mesh.joiner(host, mesh.invite(name))
        inside = joiner.event("snapshot")["data"]["network"]["registry_addresses"][0]
        keys[name] = joiner.key.public_key()

    def dig(server, *words):
        return mesh.lab.hosts["alice"].run(["dig", f"@{server}", *words]).stdout

    shown, hidden = (f"{keys[name].to_label()}._wireguard._udp.wg.internal." for name in ("laptop1", "laptop2"))
    await_(lambda: "status: NOERROR" in dig(public, shown, "SRV"), "laptop1 in the public zone", 10)
    assert "allowed=10" not in dig(public, shown, "TXT")
    assert "status: NXDOMAIN" in dig(public, hidden, "SRV")
    assert "status: NXDOMAIN" in dig(public, "laptop1.wg.internal.", "A")
    assert "ANSWER: 0" in dig(public, "_wireguard._udp.wg.internal.", "PTR")
    assert "ANSWER: 2" in dig(inside, "_wireguard._udp.wg.internal.", "PTR")
    assert "allowed=10" in dig(inside, shown, "TXT")


def test_a_restart_calls_members_back(mesh):
    alice = mesh.joiner("alice", mesh.invite("laptop1"))
    alice.event("snapshot")

    def stored():
        return json.loads(mesh.verb("show", "laptop1", "-o", "json").stdout)["last_seen"]

    await_(stored, "what was seen in the store")
    mesh.daemon.kill()
    mesh.daemon.wait()
    assert mesh.verb("check", check=False).returncode == 4
    restarted = Daemon(mesh.registry, [*PROGRAM, "registry", "run", "--log", "json"])
    mesh.daemon = restarted.process

    def said_at(event):
        """By its own clock: how long a process takes to start here says nothing of it."""
        return next((line["at"] for line in map(json.loads, restarted.err) if line["event"] == event), None)

    await_(lambda: said_at("published"), "alice", 40)
    # by herself she would come after 15 s (white paper, section 6.2)
    assert said_at("published") - said_at("started") < 5


def test_a_next_key_takes_over_with_its_first_handshake(mesh):
    link = mesh.invite("laptop1")
    alice = mesh.joiner("alice", link)
    alice.event("snapshot")
    bob = mesh.joiner("bob", mesh.invite("laptop2"))
    bob.event("snapshot")
    new = PrivateKey(secrets.token_bytes(32))
    shared = static_static(alice.key, JoinLink.from_text(link).registry_key)
    asked = RotateRequest(str(new.public_key()), rotation_proof(shared, new.public_key()))
    answer = alice.ask(f"post /v1/self/rotate {json.dumps(asdict(asked))}")
    assert answer["body"]["member"]["next_key"] == str(new.public_key())
    bob.event("member", lambda data: data["next_key"] == str(new.public_key()))
    alice.stop()
    mesh.joiner("alice", link, key=new, record=alice.enrolled())
    bob.event("member", lambda data: data["public_key"] == str(new.public_key()), 20)
    bob.event("removed", lambda data: data["public_key"] == str(alice.key.public_key()))


def test_the_same_key_may_enrol_again_and_no_other(mesh):
    """The reply is lost: the joiner asks again, before it has shown its own key."""
    link = mesh.invite("laptop1")
    key = PrivateKey(secrets.token_bytes(32))
    first = mesh.joiner("alice", link, key=key, only_enrol=True).enrolled()
    assert mesh.joiner("alice", link, key=key, only_enrol=True).enrolled() == first
    refused = mesh.joiner("bob", link, only_enrol=True).wait(lambda said: "refused" in said)
    assert "used up" in refused["refused"]["error"]
    assert mesh.verb("list").stdout.count("laptop1") == 2  # the member, and its invitation until it is proven


def test_a_scan_from_outside_finds_nothing_that_answers(mesh):
    listening = mesh.registry.run(["ss", "-Hltun"]).stdout.splitlines()
    outside = [line.split()[4] for line in listening if "%mesh" not in line and "%lo" not in line]
    assert {address.rpartition(":")[2] for address in outside} == {"51820", *STUN_PORTS}
    heard = mesh.lab.hosts["bob"].run([sys.executable, "-c", ASK_AS_A_STRANGER, *STUN_PORTS]).stdout
    assert heard == ""
    dropped = json.loads(mesh.registry.run([*PROGRAM, "status", "-o", "json"]).stdout)["interfaces"][0]["drops"]
    assert dropped["stun: not stun"] == dropped["stun: no valid credential"] == 4  # two ports of two addresses
    assert dropped["stun: third port"] == 4


def test_a_member_finds_its_nat_out(mesh):
    alice = mesh.joiner("alice", mesh.invite("laptop1"))
    alice.event("snapshot")
    record = alice.ask("get /v1/stun")["body"]
    assert len(record["endpoints"]) == 4
    found = json.loads(mesh.lab.hosts["alice"].run([sys.executable, NAT_CHECK, "check", json.dumps(record)]).stdout)
    assert found["profile"] == "eim/apdf/-"  # alice's side of the lab is of the type eim-other-port


def test_uninstall_and_again(mesh):
    mesh.daemon.kill()
    mesh.daemon.wait()
    assert mesh.verb("uninstall", check=False).returncode == 1
    mesh.verb("uninstall", "--yes")
    assert mesh.lab.hosts["registry"].run(["nft", "list", "tables"]).stdout == "", "what a killed daemon left"
    assert mesh.lab.hosts["registry"].run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout == "0\n"
    assert mesh.lab.hosts["registry"].run(["ls", "-A", "/run/wgdisco"]).stdout in {"", "mesh.sock\n"}
    mesh.verb("uninstall", "--yes")
    assert "init" in mesh.verb("list", check=False).stderr
    mesh.verb("init")
    mesh.start()
    assert mesh.invite("laptop1").startswith("wgdisco://")
