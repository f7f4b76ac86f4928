"""Cutting and merging by the rules S1 to S3, S9 and S10, on packets built by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tunnel import traffic
from tests.tunnel.traffic import (
    ACK,
    CWR,
    DATA,
    FIN,
    PSH,
    TCP,
    UDP,
    Packet,
    is_intact,
    plain_frame,
    rfc1071,
    run_of,
    word_sum,
)
from wgdisco.tunnel.segment import Offload, checksum, merge, ones_sum, pseudo_header, split

FAMILIES = [(version, protocol) for version in (4, 6) for protocol in (TCP, UDP)]


def packed(packets: list[Packet]) -> list[bytes]:
    return [packet.pack() for packet in packets]


def merged(packets: list[Packet], **how: bool) -> list[int]:
    """How many segments each frame stands for, all frames looked at: cut again they are what was merged."""
    frames = merge(packed(packets), **how)
    pieces = [split(frame) for frame in frames]
    assert all(piece is not None for piece in pieces)
    again = [piece for frame, cut in zip(frames, pieces, strict=True) for piece in cut]
    # A kernel counts the identification up from the first
    expected = packed(packets)
    assert [len(one) for one in again] == [len(one) for one in expected]
    return [len(piece) for piece in pieces]


@given(st.binary(max_size=300))
def test_checksums_are_those_of_rfc_1071(data):
    assert ones_sum(data) == word_sum(data)
    assert checksum(data) == rfc1071(data)


def test_a_checksum_from_the_rfc():
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2  # RFC 1071, section 3


@given(st.tuples(*[st.integers(0, 255)] * 2, *[st.integers(0, 65535)] * 4))
def test_a_virtio_header_is_ten_bytes(fields):
    offload = Offload(*fields)
    assert len(offload.pack()) == 10
    assert Offload.parse(offload.pack() + b"more") == offload


# Cutting


@pytest.mark.rule("S3")
@pytest.mark.parametrize(("version", "protocol"), FAMILIES)
@pytest.mark.parametrize("size", [1, 99, 100, 1000, 5000])
def test_cut(version, protocol, size):
    large = Packet(DATA[:1000], version, protocol, sequence=2**32 - 300, identification=0xFFFE, options=bytes(12))
    pieces = split(large.large(size))
    assert pieces == packed(
        [
            replace(
                large,
                payload=DATA[at : min(at + size, 1000)],
                sequence=large.sequence + at,
                identification=large.identification + at // size,
            )
            for at in range(0, 1000, size)
        ]
    )
    assert all(is_intact(piece) for piece in pieces)


@pytest.mark.rule("S3")
def test_fin_and_push_are_the_last_segments_and_cwr_the_firsts():
    pieces = split(Packet(DATA[:300], flags=ACK | FIN | PSH | CWR).large(100, ecn=True))
    assert [piece[33] for piece in pieces] == [ACK | CWR, ACK, ACK | FIN | PSH]


def test_headers_alone_are_one_segment():
    assert split(Packet().large(100)) == [Packet().pack()]


@pytest.mark.rule("S2")
def test_ip_options_and_extension_headers_are_every_segments():
    options = split(Packet(DATA[:200], ip_options=bytes(8)).large(100))
    assert options == packed(
        [
            Packet(DATA[:100], ip_options=bytes(8)),
            Packet(DATA[100:200], ip_options=bytes(8), sequence=100, identification=1),
        ]
    )
    extension = bytes([0, 1, 4, 0, 0, 0, 0])
    pieces = split(Packet(DATA[:200], version=6, extension=extension).large(100))
    assert pieces == packed([Packet(DATA[n : n + 100], 6, extension=extension, sequence=n) for n in (0, 100)])


@pytest.mark.rule("S1")
@pytest.mark.parametrize(("version", "protocol"), FAMILIES)
def test_a_checksum_is_finished_from_what_is_there(version, protocol):
    packet = Packet(b"odd", version, protocol)
    assert split(packet.unfinished()) == [packet.pack()]
    assert split(plain_frame(packet.pack())) == [packet.pack()]


@pytest.mark.rule("S1", "S3")
@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_checksum_of_zero_is_sent_as_ones(version):
    packet = Packet(b"\0\0", version, UDP)
    found = rfc1071(packet.pseudo(10) + packet.l4(0))
    packet = replace(packet, payload=found.to_bytes(2, "big"))
    assert rfc1071(packet.pseudo(10) + packet.l4(0)) == 0
    for frame in (packet.unfinished(), packet.large(2)):
        assert split(frame) == [packet.pack()]
        assert packet.pack().count(b"\xff\xff") == 1


@pytest.mark.rule("S2")
def test_what_cannot_be_meant_is_refused():
    assert split(Packet(DATA[:300]).large(100)) is not None
    assert [frame for frame in traffic.impossible_frames() if split(frame) is not None] == []
    assert split(Offload(1, 0, 0, 0, 10, 90).pack() + bytes(102)) is not None


@pytest.mark.rule("S2")
def test_the_size_of_the_headers_is_not_believed():
    frame = Packet(DATA[:300]).large(100)
    assert split(replace(Offload.parse(frame), header_size=9999).pack() + frame[10:]) == split(frame)


# Merging


@pytest.mark.rule("S10")
@pytest.mark.parametrize(("version", "protocol"), FAMILIES)
def test_a_run_becomes_one_and_is_cut_to_what_it_was(version, protocol):
    packets = run_of(5, version=version, protocol=protocol, identification=7, fragment=0, sequence=2**32 - 250)
    packets[-1] = replace(packets[-1], payload=packets[-1].payload[:1])
    (frame,) = merge(packed(packets))
    assert split(frame) == packed(packets)
    offload = Offload.parse(frame)
    ip = 20 if version == 4 else 40
    kind = 5 if protocol == UDP else {4: 1, 6: 4}[version]
    header = ip + (20 if protocol == TCP else 8)
    assert offload == Offload(1, kind, header, 100, ip, 16 if protocol == TCP else 6)
    packet = frame[10:]
    assert len(packet) == header + 401
    size = packet[2:4] if version == 4 else packet[4:6]
    assert int.from_bytes(size, "big") == len(packet) - (0 if version == 4 else 40)
    at = ip + offload.csum_offset
    assert int.from_bytes(packet[at : at + 2], "big") == ones_sum(pseudo_header(packet, protocol, len(packet) - ip))


@pytest.mark.rule("S9")
def test_push_is_kept_and_ends_a_run():
    packets = run_of(4)
    packets[1] = replace(packets[1], flags=ACK | PSH)
    assert merged(packets) == [2, 2]
    frame = merge(packed(packets))[0]
    assert frame[10 + 33] == ACK | PSH
    assert split(frame) == packed(packets[:2])
    assert merged([replace(packets[0], flags=ACK | PSH), *packets[2:]]) == [1, 2]


@pytest.mark.rule("S9")
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_shorter_one_ends_a_run_and_a_longer_one_begins_another(protocol):
    packets = run_of(4, protocol=protocol)
    short = replace(packets[1], payload=packets[1].payload[:99])
    follows = [replace(packet, sequence=packet.sequence - 1) for packet in packets[2:]]
    assert merged([packets[0], short, *follows]) == [2, 2]
    long = replace(packets[1], payload=packets[1].payload + b"x")
    assert merged([packets[0], long]) == [1, 1]


@pytest.mark.rule("S9", "X17")
@pytest.mark.parametrize(
    "change",
    traffic.CHANGES,
    ids=str,
)
def test_what_differs_is_not_merged(change):
    first, second = run_of(2)
    assert merged([first, second]) == [2]
    assert merged([first, replace(second, **change)]) == [1, 1]
    if "sequence" not in change:
        assert merged([replace(first, **change), second]) == [1, 1]


@pytest.mark.rule("S9", "X18")
@pytest.mark.parametrize(
    "both",
    traffic.NEVER_MERGED,
    ids=str,
)
def test_what_is_never_merged(both):
    assert merged(run_of(2, **both)) == [1, 1]


@pytest.mark.rule("S9")
def test_identification_counts_only_where_fragments_may_be():
    first, second = run_of(2, fragment=0)
    assert merged([first, second]) == [2]
    assert merged([first, replace(second, identification=0)]) == [1, 1]
    first, second = run_of(2)
    assert merged([first, replace(second, identification=0)]) == [2]
    assert merged(run_of(3, fragment=0, identification=0xFFFE)) == [3]


@pytest.mark.rule("S9")
def test_a_wrong_first_one_is_found_out():
    packets = run_of(4)
    assert merged([replace(packets[0], wrong_sum=True), *packets[1:]]) == [1, 3]
    assert merged([*packets[:2], replace(packets[2], wrong_sum=True), packets[3]]) == [2, 1, 1]


@pytest.mark.rule("S12")
def test_what_is_not_wanted_is_not_merged():
    packets = [*run_of(2), *run_of(2, protocol=UDP)]
    assert merged(packets) == [2, 2]
    assert merged(packets, tcp=False) == [1, 1, 2]
    assert merged(packets, udp=False) == [2, 1, 1]


@pytest.mark.rule("S9")
def test_no_packet_is_larger_than_ip_allows():
    payload = bytes(1400)
    packets = [Packet(payload, sequence=1400 * n) for n in range(60)]
    frames = merge(packed(packets))
    assert [len(frame) - 10 for frame in frames] == [40 + 46 * 1400, 40 + 14 * 1400]
    assert [piece for frame in frames for piece in split(frame)] == packed(
        [replace(packet, identification=n % 46) for n, packet in enumerate(packets)]
    )


def test_what_stands_alone_is_left_alone():
    packet = Packet(b"x", wrong_sum=True).pack()
    assert merge([packet]) == [plain_frame(packet)]
    assert merge([]) == []
