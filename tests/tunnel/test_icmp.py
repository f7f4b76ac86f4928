"""What the sender of a packet is told that can go nowhere, read back by an independent parser of the RFCs' layouts."""

import struct
from ipaddress import ip_address

import pytest

from tests.tunnel.wire import Wire, ip_packet, joined
from wgdisco.tunnel.icmp import Unreachables, about, checksum, message_of, unreachable, with_source

pytestmark = pytest.mark.rule("D10")

V4 = ip_packet("10.9.0.1", "10.9.0.77", b"x" * 1000)
V6 = ip_packet("fd09::1", "fd09::77", b"x" * 2000)


def sums_to_zero(data: bytes) -> bool:
    """The receiver's check of RFC 1071, by words."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_host_unreachable():
    error = unreachable(V4)
    assert len(error) == 576
    assert error[0] == 0x45
    assert int.from_bytes(error[2:4], "big") == len(error)
    assert error[9] == 1
    assert (error[12:16], error[16:20]) == (ip_address("10.9.0.77").packed, ip_address("10.9.0.1").packed)
    assert sums_to_zero(error[:20])
    assert sums_to_zero(error[20:])
    assert error[20:22] == b"\x03\x01"
    assert error[28:] == V4[: len(error) - 28]


def test_address_unreachable():
    error = unreachable(V6)
    assert len(error) == 1280
    assert error[0] >> 4 == 6
    assert int.from_bytes(error[4:6], "big") == len(error) - 40
    assert error[6] == 58
    assert (error[8:24], error[24:40]) == (ip_address("fd09::77").packed, ip_address("fd09::1").packed)
    assert sums_to_zero(error[8:40] + struct.pack("!II", len(error) - 40, 58) + error[40:])
    assert error[40:42] == b"\x01\x03"
    assert error[48:] == V6[: len(error) - 48]


ICMP_ERROR = bytearray(ip_packet("10.9.0.1", "10.9.0.77", b"\x03\x01" + bytes(30)))
ICMP_ERROR[9] = 1
ICMPV6_ERROR = bytearray(ip_packet("fd09::1", "fd09::77", b"\x01\x00" + bytes(60)))
ICMPV6_ERROR[6] = 58
FRAGMENT = bytearray(V4)
FRAGMENT[7] = 1


@pytest.mark.parametrize(
    "packet",
    [
        bytes(ICMP_ERROR),
        bytes(ICMPV6_ERROR),
        bytes(FRAGMENT),
        ip_packet("10.9.0.1", "224.0.0.251"),
        ip_packet("10.9.0.1", "255.255.255.255"),
        ip_packet("0.0.0.0", "10.9.0.77"),
        ip_packet("fd09::1", "ff02::fb"),
        ip_packet("::", "fd09::77"),
        b"",
        b"\x45",
        b"\x60" + bytes(30),
        bytes(100),
    ],
)
def test_nothing_is_said_about_errors_fragments_multicast_and_rubbish(packet):
    assert unreachable(packet) is None


def test_an_echo_request_is_answered():
    for packet, offset, protocol, kind in ((V4, 9, 1, 8), (V6, 6, 58, 128)):
        request = bytearray(packet)
        request[offset] = protocol
        request[20 if protocol == 1 else 40] = kind
        assert unreachable(bytes(request)) is not None


def test_errors_have_a_measure():
    errors = Unreachables()
    assert sum(errors.about(V4, 1.0) is not None for _ in range(200)) == 50
    assert errors.about(V4, 1.0) is None
    assert sum(errors.about(V4, 1.02) is not None for _ in range(200)) == 20


def test_checksum_of_what_sums_to_nothing():
    assert checksum(bytes(4)) == 0xFFFF
    assert checksum(b"\xff\xff") == 0
    assert checksum(b"\x12\x34\x56") == 0xFFFF - 0x1234 - 0x5600


def test_a_device_says_so_to_whoever_sends_nowhere():
    wire = Wire()
    alone = wire.node("192.0.2.1:51820", "10.9.0.1")
    alone.apply()
    alone.send(V4)
    assert alone.delivered == [unreachable(V4)]
    alone.send(bytes(100))
    assert len(alone.delivered) == 1


@pytest.mark.parametrize("managed", [False, True])
def test_of_a_peer_without_an_endpoint_only_a_managed_one_may_yet_be_reached(managed):
    wire, alice, bob = joined(managed=managed, endpoint=None)
    packet = alice.ping(bob)
    assert alice.delivered == ([] if managed else [unreachable(packet)])
    assert not wire.log


@pytest.mark.parametrize("packet", [V4, V6], ids=["IPv4", "IPv6"])
def test_the_packet_in_an_error_can_be_given_the_source_it_had(packet):
    """Of a packet that a NAT has translated: all else stays, and an IPv4 header is whole again."""
    other = ip_address("203.0.113.7" if packet is V4 else "2001:db8::7").packed
    error = unreachable(packet)
    said = about(error)
    assert said == packet[: len(said)]
    assert message_of(error)[8:] == said
    changed = with_source(said, other)
    place = slice(12, 16) if packet is V4 else slice(8, 24)
    assert changed[place] == other
    assert len(changed) == len(said)
    if packet is V4:
        assert sums_to_zero(changed[:20])
        changed, said = changed[:10] + changed[12:], said[:10] + said[12:]
        place = slice(10, 14)
    assert changed[: place.start] + changed[place.stop :] == said[: place.start] + said[place.stop :]
