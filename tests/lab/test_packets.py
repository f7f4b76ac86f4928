"""The lab's core reads and changes IP packets as a router does, and names what it sees."""

import random
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.lab.packets import ICMP, ICMP6, UDP, Crossing, aged, parse, time_exceeded

ONE, OTHER = IPv4Address("192.0.2.10"), IPv4Address("203.0.113.10")
ONE6, OTHER6 = IPv6Address("2001:db8:1::10"), IPv6Address("2001:db8:2::10")


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over data whose checksum is right."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(payload: bytes, ttl: int = 64, version: int = 4) -> bytes:
    udp = struct.pack("!HHHH", 4000, 51820, 8 + len(payload), 0) + payload
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(udp), UDP, ttl) + ONE6.packed + OTHER6.packed + udp
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 7, 0, ttl, UDP, 0) + ONE.packed + OTHER.packed)
    header[10:12] = checksum(bytes(header)).to_bytes(2)
    return bytes(header) + udp


def test_header() -> None:
    for version, source, destination in ((4, ONE, OTHER), (6, ONE6, OTHER6)):
        packet = datagram(b"payload", 9, version)
        header = parse(packet)
        assert header is not None
        assert (header.version, header.ttl, header.protocol) == (version, 9, UDP)
        assert (ip_address(header.source), header.source_port) == (source, 4000)
        assert (ip_address(header.destination), header.destination_port) == (destination, 51820)
        assert packet[header.payload :] == b"payload"


def test_a_fragment_has_no_ports() -> None:
    packet = bytearray(datagram(b"payload"))
    packet[6:8] = (185).to_bytes(2)
    header = parse(bytes(packet))
    assert header is not None
    assert (header.source_port, header.destination_port) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_no_packet_or_one_without_ports(seed: int) -> None:
    chance = random.Random(seed)
    for size in range(60):
        header = parse(chance.randbytes(size))
        if header is not None:
            assert header.version in (4, 6)
            Crossing.of(chance.randbytes(size), header, 1.0, "sent").kind()


@pytest.mark.parametrize("hops", [1, 4, 63])
def test_aged_keeps_the_checksum_right(hops: int) -> None:
    for identification in range(0, 65536, 257):
        packet = bytearray(datagram(b"x"))
        packet[4:6] = identification.to_bytes(2)
        packet[10:12] = bytes(2)
        packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2)
        later = aged(bytes(packet), hops)
        assert later[8] == 64 - hops
        assert checksum(later[:20]) == 0
        assert (later[:8], later[12:]) == (packet[:8], packet[12:])
    assert aged(datagram(b"x", 64, 6), hops)[7] == 64 - hops


def test_time_exceeded_quotes_what_it_is_about() -> None:
    router, router6 = IPv4Address("198.51.100.1"), IPv6Address("2001:db8:ffff::1")
    packet = datagram(b"payload", 1)
    reply = time_exceeded(packet, router)
    header = parse(reply)
    assert header is not None
    assert (header.protocol, ip_address(header.source), ip_address(header.destination)) == (ICMP, router, ONE)
    assert checksum(reply[:20]) == 0
    assert checksum(reply[20:]) == 0
    assert (reply[20], reply[28:]) == (11, packet[:28])
    packet = datagram(b"payload", 1, 6)
    reply = time_exceeded(packet, router6)
    header = parse(reply)
    assert header is not None
    assert (header.protocol, ip_address(header.source), ip_address(header.destination)) == (ICMP6, router6, ONE6)
    body = reply[40:]
    assert checksum(router6.packed + ONE6.packed + struct.pack("!II", len(body), ICMP6) + body) == 0
    assert (body[0], body[8:]) == (3, packet)


def crossing(payload: bytes, version: int = 4) -> Crossing:
    packet = datagram(payload, version=version)
    header = parse(packet)
    assert header is not None
    return Crossing.of(packet, header, 12.5, "sent")


@pytest.mark.parametrize("version", [4, 6])
def test_line_round_trip(version: int) -> None:
    for payload in (b"", b"\x01\x02", bytes(range(100))):
        one = crossing(payload, version)
        assert Crossing.from_text(one.to_text()) == one
        assert one.payload_size == len(payload)
        assert one.sender == Endpoint(ONE if version == 4 else ONE6, 4000)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (struct.pack("<I", 1) + bytes(144), "initiation"),
        (struct.pack("<I", 2) + bytes(88), "response"),
        (struct.pack("<I", 3) + bytes(60), "cookie reply"),
        (struct.pack("<I", 4) + bytes(28), "keepalive"),
        (struct.pack("<I", 4) + bytes(92), "data 96"),
        (struct.pack("<I", 1) + bytes(145), "datagram 149"),
        (bytes.fromhex("77676401") + b"\x01" + bytes(50), "check ping"),
        (bytes.fromhex("77676401") + b"\x02" + bytes(50), "check pong"),
        (bytes.fromhex("000100002112a442") + bytes(12), "STUN request"),
        (bytes.fromhex("010100002112a442") + bytes(12), "STUN success"),
        (b"hello", "datagram 5"),
    ],
)
def test_kinds(payload: bytes, kind: str) -> None:
    assert crossing(payload).kind() == kind


def test_what_is_no_datagram_has_no_endpoint() -> None:
    packet = datagram(b"")[:9] + bytes([ICMP]) + datagram(b"")[10:]
    header = parse(packet)
    assert header is not None
    one = Crossing.of(packet, header, 1.0, "sent")
    assert (one.sender, one.receiver, one.kind(), one.head) == (None, None, "ICMP", b"")
    assert socket.IPPROTO_UDP == UDP
