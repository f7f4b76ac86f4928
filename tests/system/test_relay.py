"""The relay on a real device, between stock members (wireguard-go) behind NATs that no punching gets through."""

import json
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.network import await_
from wgdisco.keys import PrivateKey
from wgdisco.lab.topology import Lab
from wgdisco.tunnel.cookie import CookieJar

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed"),
    pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick is not installed"),
]

PROCESS = str(Path(__file__).with_name("relay_process.py"))
REGISTRY = "198.51.100.10:51820"
MEMBERS = {"alice": "10.9.0.1", "bob": "10.9.0.2", "carol": "10.9.0.3"}
PATTERN = "776764697363206f"
# Counts packets of any interface: UDP ones of the WireGuard port, and of all, those with the pattern in them.
SNIFF = f"""
import select, socket, sys
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); tap.setblocking(False)
print("sniffing", flush=True)
udp = plain = 0
while sys.stdin not in select.select([tap, sys.stdin], [], [])[0]:
    packet = tap.recv(65535)
    udp += packet[9] == 17
    plain += bytes.fromhex("{PATTERN}" * 2) in packet
print(udp, plain)
"""
# Sends datagrams from any source: SOURCE PORT DESTINATION PORT HEX…
SPOOF = """
import socket, struct, sys
source, sport, destination, dport, *payloads = sys.argv[1:]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for payload in map(bytes.fromhex, payloads):
    udp = struct.pack("!HHHH", int(sport), int(dport), 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                     socket.inet_aton(source), socket.inet_aton(destination))
    raw.sendto(ip + udp, (destination, 0))
"""


class Relayed:
    """The registry's process, and members that have each other at the registry's endpoint."""

    def __init__(self, lab: Lab) -> None:
        self.hosts = lab.hosts
        private = {name: PrivateKey(secrets.token_bytes(32)) for name in ("registry", *MEMBERS)}
        self.keys = {name: key.public_key() for name, key in private.items()}
        arguments = [private["registry"].to_text(), *(f"{name}={self.keys[name]}" for name in MEMBERS)]
        self.process = lab.hosts["registry"].popen(
            [sys.executable, PROCESS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout.readline() == "up\n"
        for name, address in MEMBERS.items():
            peers = {"registry": "10.9.0.254"} | {n: a for n, a in MEMBERS.items() if n != name}
            conf = f"[Interface]\nPrivateKey = {private[name].to_text()}\nAddress = {address}/24\nMTU = 1280\n"
            for peer, inner in peers.items():
                conf += f"[Peer]\nPublicKey = {self.keys[peer]}\nEndpoint = {REGISTRY}\nAllowedIPs = {inner}/32\n"
                conf += "PersistentKeepalive = 25\n" if peer == "registry" else ""
            lab.hosts[name].write_file("/run/lab/wg.conf", conf)
            lab.hosts[name].run(["wg-quick", "up", "/run/lab/wg.conf"])
            await_(lambda name=name: self.ping(name, "10.9.0.254", 1), f"{name} to reach the registry")

    def tell(self, *words: str):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def ping(self, host: str, to: str, count: int = 3) -> int:
        """How many of `count` pings, with the pattern in them, were answered."""
        command = ["ping", "-q", "-c", str(count), "-i", "0.1", "-W", "1", "-s", "600", "-p", PATTERN * 2]
        output = self.hosts[host].run([*command, MEMBERS.get(to, to)], check=False).stdout
        return int(re.search(r"(\d+) received", output)[1])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def network():
    with Lab("symmetric-random", "symmetric-random", "port-restricted") as lab:
        it = Relayed(lab)
        yield it
        it.close()


def test_without_an_order_nothing_passes(network):
    assert network.ping("alice", "bob", 1) == 0
    assert sum(network.tell("report")["drops"].values()) >= 1
    assert network.tell("report")["relayed_tx"]["alice"] == 0


def test_with_one_two_members_talk_and_the_registry_sees_no_plaintext(network):
    assert network.tell("admit", "alice", "bob") is True
    await_(lambda: network.ping("alice", "bob", 1), "alice to reach bob")
    before = network.tell("report")
    with network.hosts["registry"].popen(
        [sys.executable, "-c", SNIFF], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sniffer:
        assert sniffer.stdout.readline() == "sniffing\n"
        assert network.ping("alice", "bob", 10) == 10
        assert network.ping("bob", "alice", 10) == 10
        sniffer.stdin.write("\n")
        sniffer.stdin.flush()
        udp, plain = map(int, sniffer.stdout.readline().split())
    after = network.tell("report")
    assert udp >= 80  # 20 pings and their answers, in and out
    assert plain == 0
    for member in ("alice", "bob"):
        assert after["relayed_tx"][member] - before["relayed_tx"][member] >= 20 * 640
        # of what passed, its device took nothing: only keepalives may have come for itself
        assert after["device_rx"][member] - before["device_rx"][member] < 640
    assert network.ping("carol", "bob", 1) == 0


def test_that_sniffer_would_have_seen_it(network):
    with network.hosts["registry"].popen(
        [sys.executable, "-c", SNIFF], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sniffer:
        assert sniffer.stdout.readline() == "sniffing\n"
        assert network.ping("alice", "10.9.0.254", 3) == 3
        sniffer.stdin.write("\n")
        sniffer.stdin.flush()
        assert int(sniffer.stdout.readline().split()[1]) >= 3


def test_strangers_and_forged_sources_get_nothing_through(network):
    """From the middle of the network: a stranger with a good mac1, and alice's own endpoint without an index."""
    network.tell("admit", "alice", "bob")
    initiation = CookieJar(network.keys["bob"]).add_macs(b"\x01\0\0\0" + bytes(112), 0.0).hex()
    data = (b"\x04\0\0\0" + b"\x07\0\0\0" + bytes(56)).hex()
    address, _, port = network.tell("report")["endpoints"]["alice"].rpartition(":")
    before = network.tell("report")
    for source, payloads in ((("192.0.2.77", "7777"), [initiation, data]), ((address, port), [data])):
        network.hosts["core"].run([sys.executable, "-c", SPOOF, *source, "198.51.100.10", "51820", *payloads])

    def dropped(why: str) -> int:
        return network.tell("report")["drops"].get(why, 0) - before["drops"].get(why, 0)

    await_(lambda: dropped("relay: unknown source") == 2, "a stranger's two to be dropped")
    await_(lambda: dropped("relay: unknown receiver index") == 1, "the forged one to be dropped")
    after = network.tell("report")
    assert after["relayed_tx"] == before["relayed_tx"]
    assert after["endpoints"] == before["endpoints"]


def test_a_revoked_member_is_cut_off_at_once(network):
    network.tell("admit", "alice", "bob")
    await_(lambda: network.ping("alice", "bob", 1), "alice to reach bob")
    network.tell("revoke", "bob")
    assert network.ping("alice", "bob", 3) == 0
    assert network.ping("bob", "alice", 3) == 0
