"""Datagrams as IP packets; what is none says nothing. The filters are judged by the kernel, in io/test_raw.py."""

import random
from ipaddress import ip_address

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.raw import pack_datagram, parse_datagram, together
from wgdisco.tunnel.segment import checksum, pseudo_header

THERE = {4: Endpoint.from_text("192.0.2.1:7"), 6: Endpoint.from_text("[2001:db8::1]:7")}
HERE = {4: ip_address("198.51.100.1"), 6: ip_address("2001:db8::2")}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 100])
def test_what_is_packed_comes_back(version, size):
    data = bytes(range(size))
    packet = pack_datagram(HERE[version], 4500, THERE[version], 3, data)
    assert parse_datagram(packet, "eth0") == (Endpoint(HERE[version], 4500), data)
    assert parse_datagram(packet + bytes(9), "eth0") == (Endpoint(HERE[version], 4500), data)  # padded to a frame
    header = 20 if version == 4 else 40
    assert checksum(pseudo_header(packet, 17, len(packet) - header) + packet[header:]) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_of_zero_is_sent_as_ones(version):
    """RFC 768: zero is none."""
    at = 26 if version == 4 else 46
    plain = pack_datagram(HERE[version], 4500, THERE[version], 3, bytes(2))[at : at + 2]
    packet = pack_datagram(HERE[version], 4500, THERE[version], 3, plain)
    assert packet[at : at + 2] == b"\xff\xff"


def test_a_link_local_source_has_its_zone():
    packet = pack_datagram(ip_address("fe80::2"), 4500, THERE[6], 3, b"x")
    assert parse_datagram(packet, "eth0") == (Endpoint.from_text("[fe80::2%eth0]:4500"), b"x")


def test_what_is_no_datagram_says_nothing():
    chance = random.Random(1)
    for version in (4, 6):
        packet = pack_datagram(HERE[version], 4500, THERE[version], 3, b"data")
        assert all(parse_datagram(packet[:size], "eth0") is None for size in range(len(packet)))
        for _ in range(2000):
            damaged = bytearray(packet)
            for _ in range(3):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            parse_datagram(bytes(damaged), "eth0")
        port = packet[:-12] + bytes(2) + packet[-10:]
        assert parse_datagram(port, "eth0") is None
    fragment = bytearray(pack_datagram(HERE[4], 4500, THERE[4], 3, b"data"))
    fragment[6] = 0x20
    assert parse_datagram(bytes(fragment), "eth0") is None


@pytest.mark.parametrize("sizes", [[32], [1452], [96, 96], [1452, 1452, 1452, 32], [32, 32]])
def test_messages_that_the_kernel_put_together_are_told_apart(sizes):
    head = b"\4\0\0\0" + b"\x07\0\0\0"
    data = b"".join(head + number.to_bytes(8, "little") + bytes(size - 16) for number, size in enumerate(sizes))
    assert together(data) == sizes[0]


def test_what_is_no_data_is_one_message():
    for data in (b"", b"\4\0\0", b"\1\0\0\0" + bytes(144), (b"\2\0\0\0" + bytes(88)) * 2):
        assert together(data) == len(data)
