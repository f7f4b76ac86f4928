"""Congestion marks across the tunnel: RFC 6040 figure 4, but for what the kernel's WireGuard does otherwise."""

from dataclasses import replace

import pytest

from tests.tunnel.wire import INITIATION, RESPONSE, ip_packet, joined
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.ecn import CE, ECT_0, ECT_1, NOT_ECT, decapsulated, field_of, outer_for
from wgdisco.tunnel.icmp import checksum

pytestmark = pytest.mark.rule("D11")

ADDRESSES = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}


def packet(version: int, ecn: int, dscp: int = 0x2E) -> bytes:
    data = bytearray(ip_packet(*ADDRESSES[version]))
    tos = dscp << 2 | ecn
    if version == 4:
        data[1] = tos
        data[10:12] = checksum(bytes(data[:20])).to_bytes(2, "big")
    else:
        data[0] |= tos >> 4
        data[1] = (tos & 15) << 4
    return bytes(data)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("inner", "outer"), [(NOT_ECT, NOT_ECT), (ECT_0, ECT_0), (ECT_1, ECT_1), (CE, ECT_0)])
def test_the_outer_header_has_the_inner_field_and_no_dscp(version, inner, outer):
    assert field_of(packet(version, inner)) == inner
    assert outer_for(packet(version, inner)) == outer


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", [NOT_ECT, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("inner", [NOT_ECT, ECT_0, ECT_1, CE])
def test_marks_of_the_way_reach_a_capable_inner_packet(version, inner, outer):
    if inner == NOT_ECT:
        after = NOT_ECT
    elif outer == CE:
        after = CE
    else:
        after = ECT_1 if (inner, outer) == (ECT_0, ECT_1) else inner
    before = packet(version, inner)
    marked = decapsulated(before, 0xB8 | outer)
    assert marked == packet(version, after), "nothing but the field has changed, and the checksum with it"


def test_garbage_has_no_field():
    for data in (b"", b"\x45", bytes(40)):
        assert field_of(data) == NOT_ECT
        assert decapsulated(data, CE) == data


def marks(wire, kinds: set[int]) -> set[int]:
    return {sent.tos for sent in wire.log if sent.kind in kinds}


@pytest.mark.rule("H18")
def test_a_handshake_is_marked_af41_and_its_data_as_what_it_carries():
    wire, alice, _bob = joined()
    alice.send(packet(4, ECT_1))
    assert marks(wire, {INITIATION, RESPONSE}) == {0x88}
    assert [sent.tos for sent in wire.log if sent.kind == 4] == [ECT_1]


def test_a_mark_made_on_the_way_comes_out_of_the_tunnel():
    wire, alice, bob = joined()
    wire.mark = lambda sent: replace(sent, tos=sent.tos | CE)
    alice.send(packet(4, ECT_0))
    assert bob.delivered == [packet(4, CE)]
    alice.send(packet(4, NOT_ECT))
    assert bob.delivered[1:] == [packet(4, NOT_ECT)]
    bob.device.receive(Burst(b"\x04", 1, CE), alice.endpoint, wire.now)
