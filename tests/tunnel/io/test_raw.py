"""Raw sockets beside another's port: what is sent as the other side has it, what is seen by real packets."""

import os
import random
import select
import socket
import subprocess
import sys

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.io.raw import RawSender, Tap
from wgdisco.tunnel.raw import MAX_INDICES, handshake_filter, other_filter, relay_filter
from wgdisco.tunnel.segment import checksum, pseudo_header

OURS = {4: "192.0.2.1", 6: "2001:db8::1"}
THEIRS = {4: "192.0.2.2", 6: "2001:db8::2"}
PORT = 51820
INITIATION, RESPONSE = b"\1\0\0\0" + bytes(144), b"\2\0\0\0" + bytes(88)
CHECK, STUN = b"wgd\1" + bytes(20), b"\1\1\0\0\x21\x12\xa4\x42" + bytes(12)


def two_hosts() -> None:
    """A veth between this namespace and a child's: ours is `here`, the child's `there`."""
    ip("link", "add", "here", "type", "veth", "peer", "name", "there")
    ip("netns", "add", "other")
    ip("link", "set", "there", "netns", "other")
    for host, interface, addresses in (([], "here", OURS), (["-n", "other"], "there", THEIRS)):
        for version, address in addresses.items():
            ip(*host, "address", "add", f"{address}/{24 if version == 4 else 64}", "dev", interface, "nodad")
        ip(*host, "link", "set", interface, "up")


def in_other(body, *arguments):
    """Run a function of this module in the child's namespace; what it printed comes from its standard output."""
    command = [sys.executable, "-c", f"from tests.tunnel.io import test_raw; test_raw.{body}(*{arguments!r})"]
    return subprocess.Popen(["ip", "netns", "exec", "other", *command], stdout=subprocess.PIPE, text=True)


def hear(version):
    """Print the next IP packets to PORT as they come off the wire, then what a UDP socket there gets."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800 if version == 4 else 0x86DD)) as wire,
        socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as port,
    ):
        port.bind((THEIRS[version], PORT))
        print("ready", flush=True)
        heard = 0
        while heard < 3:
            packet = wire.recv(2000)
            if packet[9 if version == 4 else 6] == socket.IPPROTO_UDP:
                print(packet.hex(), flush=True)
                heard += 1
        for _ in range(3):
            data, source = port.recvfrom(100)
            print(data.hex(), *source[:2], flush=True)


def sent(version):
    two_hosts()
    other = in_other("hear", version)
    assert other.stdout.readline() == "ready\n"
    sender = RawSender.open()
    there = Endpoint.from_text(f"{THEIRS[version]}:{PORT}" if version == 4 else f"[{THEIRS[version]}]:{PORT}")
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as owner:
        owner.bind(("", 4500))  # whose port it is
        for data, ttl, mark in ((b"odd", 2, 0), (b"even", None, 7), (b"", 255, 7)):
            sender.send(data, 4500, there, ttl, mark)
        packets = [bytes.fromhex(other.stdout.readline()) for _ in range(3)]
        heard = [other.stdout.readline().split(" ") for _ in range(3)]
    assert not sender.dropped
    assert [packet[8 if version == 4 else 7] for packet in packets] == [2, 64, 255]
    for packet in packets:
        header = 20 if version == 4 else 40
        assert version == 6 or checksum(packet[:20]) == 0
        assert packet[header + 6 : header + 8] != b"\0\0"
        assert checksum(pseudo_header(packet, 17, len(packet) - header) + packet[header:]) == 0
    assert [bytes.fromhex(words[0]) for words in heard] == [b"odd", b"even", b""]
    assert {(words[1], words[2].strip()) for words in heard} == {(OURS[version], "4500")}
    sender.send(bytes(100), 4500, Endpoint.from_text("203.0.113.9:9"))
    sender.send(bytes(1473), 4500, there)  # with its headers, more than a packet of the link
    assert sender.dropped == {"ENETUNREACH": 1, "EMSGSIZE": 1}
    sender.close()
    sender.close()
    assert other.wait(5) == 0
    other.stdout.close()


@in_namespace
def test_what_is_sent_by_ipv4():
    sent(4)


@in_namespace
def test_what_is_sent_by_ipv6():
    sent(6)


def say(version, port):
    """Send what is to be seen, and what is not, to PORT and elsewhere."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    large = b"\1\0\0\0" + bytes(3000)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((THEIRS[version], port))
        for data in (
            bytes(148),
            INITIATION[:-1],
            large,
            b"",
            CHECK,
            RESPONSE,
            STUN,
            b"\4\0\0\0" + bytes(88),
            INITIATION,
        ):
            sock.sendto(data, (OURS[version], PORT))
            sock.sendto(data, (OURS[version], PORT + 1))


def let_say(version, port):
    with in_other("say", version, port) as other:
        assert other.wait(20) == 0


def seen(version):
    """Both taps see what is theirs, past a firewall that drops all of it."""
    two_hosts()
    rules = "type filter hook input priority 0; policy drop; meta l4proto ipv6-icmp accept;"
    subprocess.run(["nft", f"add table inet f; add chain inet f i {{ {rules} }}"], check=True)
    handshakes = Tap.open(version, handshake_filter(PORT, version), 1 << 16)
    others = Tap.open(version, other_filter(PORT, version), 1 << 16)
    let_say(version, 4500)
    source = Endpoint.from_text(f"{THEIRS[version]}:4500" if version == 4 else f"[{THEIRS[version]}]:4500")
    for tap, expected in ((handshakes, [RESPONSE, INITIATION]), (others, [CHECK, STUN])):
        assert select.select([tap], [], [], 5)[0]
        assert tap.receive(9) == [(source, data) for data in expected]
        assert tap.receive(9) == []
    handshakes.set_filter(handshake_filter(PORT + 1, version))
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(INITIATION, (THEIRS[version], PORT + 1))
    assert handshakes.receive(9) == []  # what goes out is not seen
    let_say(version, 4501)
    assert select.select([handshakes], [], [], 5)[0]
    assert [data for _, data in handshakes.receive(1)] == [RESPONSE]
    handshakes.close()
    others.close()


@in_namespace
def test_what_is_seen_by_ipv4():
    seen(4)


@in_namespace
def test_what_is_seen_by_ipv6():
    seen(6)


def relayed(version, count):
    """Initiations, and other messages to one of so many receivers, that come to two of three ports."""
    chance = random.Random(count)
    indices = {chance.getrandbits(32) | 1 for _ in range(count)}
    tap = Tap.open(version, relay_filter([PORT, PORT + 2], version, indices), 1 << 20)
    other = (2).to_bytes(4, "little")
    say = [INITIATION, *_to(other)]
    expected = [INITIATION, *(_to(other) if count > MAX_INDICES else ())]
    for index in (min(indices), max(indices), sorted(indices)[count // 2]) if indices else ():
        say += _to(index.to_bytes(4, "little"))
        expected += _to(index.to_bytes(4, "little"))
    loopback = "127.0.0.1" if version == 4 else "::1"
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        for port in (PORT, PORT + 1, PORT + 2):
            for data in (*say, b"\5\0\0\0" + bytes(60), b"\4\0\0\0", b""):
                sock.sendto(data, (loopback, port))
    assert [data for _, data in tap.receive(99)] == expected * 2
    tap.close()


def _to(index):
    """A response, a cookie reply and data."""
    return [b"\2\0\0\0own." + index + bytes(80), b"\3\0\0\0" + index + bytes(56), b"\4\0\0\0" + index + bytes(24)]


@in_namespace
def test_what_a_relay_sees():
    for count in (0, 1, 2, 128, 129, 300, MAX_INDICES, MAX_INDICES + 1):
        relayed(4, count)
        relayed(6, count)


@in_namespace
def test_a_flood_is_held_to_the_buffer():
    tap = Tap.open(4, handshake_filter(PORT, 4), 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(100):
            sock.sendto(INITIATION, ("127.0.0.1", PORT))
    assert 0 < len(tap.receive(100)) < 10
    tap.close()


@in_namespace
def test_without_the_capability_there_is_none():
    os.setegid(65534)
    os.seteuid(65534)
    assert RawSender.open() is None
    assert Tap.open(4, handshake_filter(PORT, 4), 1) is None
