from ipaddress import ip_address

import pytest

from tests.tunnel.wire import joined
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.nesting import FEE, INITIAL_HOPS, outer_hops

pytestmark = pytest.mark.rule("N7")

ADDRESSES = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd00:9::1", "fd00:9::2")}
MESSAGE = b"\x04\0\0\0" + bytes(60)


def packet(version: int, hops: int, message: bytes = MESSAGE, *, protocol: int = 17, fragment: int | None = None):
    """An IP packet with a UDP datagram, or a part of one: `fragment` is its offset in units of 8 bytes."""
    source, destination = (ip_address(address).packed for address in ADDRESSES[version])
    body = bytes(8) + message
    if version == 4:
        flags = 0 if fragment is None else fragment | 0x2000
        head = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + bytes(2) + flags.to_bytes(2, "big")
        return head + bytes([hops, protocol, 0, 0]) + source + destination + body
    if fragment is not None:
        body = bytes([protocol, 0]) + (fragment << 3 | 1).to_bytes(2, "big") + bytes(4) + body
        protocol = 44
    return b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([protocol, hops]) + source + destination + body


@pytest.mark.parametrize("version", [4, 6])
def test_a_message_in_a_tunnel_has_what_is_left_less_a_fee(version):
    for fragment in (None, 0):
        for kind in (1, 2, 3, 4):
            message = bytes([kind]) + MESSAGE[1:]
            assert outer_hops(packet(version, 64, message, fragment=fragment)) == 64 - FEE
        assert outer_hops(packet(version, FEE + 1, fragment=fragment)) == 1
        assert outer_hops(packet(version, FEE, fragment=fragment)) is None
        assert outer_hops(packet(version, 255, fragment=fragment)) == INITIAL_HOPS - FEE


@pytest.mark.parametrize("version", [4, 6])
def test_the_rest_of_a_datagram_in_fragments_may_be_a_message_s(version):
    assert outer_hops(packet(version, 40, bytes(64), fragment=100)) == 40 - FEE
    assert outer_hops(packet(version, 1, bytes(64), fragment=100)) is None
    assert outer_hops(packet(version, 40, bytes(64), fragment=100, protocol=6)) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_everything_else_has_the_system_s(version):
    for message in (b"", b"\x04", b"\x04\0\0", b"\x05\0\0\0", b"\0\0\0\0", b"\x04\0\0\x01", b"\x04\x01\0\0"):
        for fragment in (None, 0):
            assert outer_hops(packet(version, 1, message, fragment=fragment)) == 0
    assert outer_hops(packet(version, 1, protocol=6)) == 0
    whole = packet(version, 64)
    for size in range(32 if version == 4 else 52):
        assert outer_hops(whole[:size]) == 0
    assert outer_hops(b"\xff" * 60) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_device_gives_and_takes_it(version):
    wire, alice, bob = joined()
    alice.ping(bob)
    before = len(wire.log)
    for hops in (64, 20, 8):
        alice.send(packet(version, hops))
    alice.send(packet(version, 8, b"no WireGuard"))
    assert [sent.hops for sent in wire.log[before:]] == [56, 12, 0]
    assert alice.drops(Drop.NESTED_TOO_DEEP) == 1
    assert len(bob.delivered) == 4


def test_what_waited_for_the_handshake_is_no_exception():
    wire, alice, bob = joined()
    alice.send(packet(4, 20))
    alice.send(packet(4, 8))
    assert [sent.hops for sent in wire.log if sent.kind == 4] == [12]
    assert len(bob.delivered) == 1
