"""The compiled burst and the reference do the same, byte for byte, on whatever they are given."""

import random
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.tunnel import traffic
from tests.tunnel.traffic import UDP, Packet
from wgdisco.tunnel import reference
from wgdisco.tunnel.burst import Burst, Frames, Opened, Room, Sealed
from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES
from wgdisco.tunnel.reference import ReferenceOpener, ReferenceSealer

compiled = pytest.importorskip(
    "wgdisco.tunnel.compiled", reason="the compiled burst was not built (make test builds it)"
)

KEY = bytes(range(32))
ROOMY = 500_000
generated = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
mtus = st.sampled_from([0, 1, 15, 100, 576, 1420, 1280, 65503])
counters = st.one_of(st.integers(0, 1000), st.integers(REJECT_AFTER_MESSAGES - 4, REJECT_AFTER_MESSAGES))


def told(sealed: Sealed) -> tuple:
    """All of it, as values."""
    return [(bytes(b.data), b.row, b.tos) for b in sealed.bursts], sealed.counters, sealed.bad


def said(opened: Opened) -> tuple:
    """All of it, as values."""
    frames = [[bytes(frame) for frame in run] for run in opened.frames]
    is_range = isinstance(opened.counters, range)
    return frames, is_range, list(opened.counters), opened.forged, opened.keepalives, opened.bad


def dirty(room: Room) -> Room:
    """As it is when it has been used before."""
    size = min(len(room.data), 1 << 16)
    room.data[:size] = b"\xa5" * size
    return room


def zero_sum(version: int) -> Packet:
    """A UDP packet whose checksum comes out as zero."""
    packet = Packet(b"\0\0", version, UDP)
    found = traffic.rfc1071(packet.pseudo(10) + packet.l4(0))
    return replace(packet, payload=found.to_bytes(2, "big"))


def seal_both(frames: Frames, receiver: int, counter: int, mtu: int, room: Room) -> Sealed:
    expected = ReferenceSealer(KEY).seal(frames, receiver, counter, mtu, room)
    found = compiled.CompiledSealer(KEY).seal(frames, receiver, counter, mtu, dirty(room))
    if room.data_used + ROOMY <= len(room.data):
        assert told(found) == told(expected)
    else:  # where one room ends and the next begins, a burst is cut in two
        datagrams = [[(bytes(row), b.tos) for b in sealed.bursts for row in b.rows()] for sealed in (found, expected)]
        assert datagrams[0] == datagrams[1]
        assert told(found)[1:] == told(expected)[1:]
    return expected


def open_both(datagrams: Burst, room: Room, refused: bytes | None, **merging: bool) -> Opened:
    before = bytes(datagrams.data)
    expected = ReferenceOpener(KEY).open(datagrams, room, refused, **merging)
    found = compiled.CompiledOpener(KEY).open(datagrams, dirty(room), refused, **merging)
    assert said(found) == said(expected)
    assert bytes(datagrams.data) == before
    return expected


def datagrams_of(packets: list[bytes], row: int, ecn: int, counter: int = 0, mtu: int = 1420) -> Burst:
    """Seal each packet, and make all datagrams `row` bytes long by padding inside; the last stays as it is."""
    sealer = ReferenceSealer(KEY)
    rows = []
    for number, packet in enumerate(packets):
        if number + 1 < len(packets):
            packet += bytes(row - 32 - len(packet))
        burst = sealer.seal(Frames.of(packet), 7, counter + number, 0, Room(64, 1)).bursts[0]
        rows.append(bytes(burst.data))
    return Burst(b"".join(rows), row, ecn)


@pytest.mark.rule("S1", "S2", "S3", "S6")
@generated
@given(
    st.lists(traffic.frames, max_size=6),
    st.integers(0, 2**32 - 1),
    counters,
    mtus,
    st.sampled_from([1 << 20, 80_000, 1]),
)
def test_sealing(frames, receiver, counter, mtu, size):
    sealed = seal_both(Frames.behind_one_another(frames), receiver, counter, mtu, Room(size, 1))
    for burst in sealed.bursts:
        rows = [len(row) for row in burst.rows()]
        assert set(rows[:-1]) <= {burst.row}
        assert 0 < rows[-1] <= burst.row


@pytest.mark.rule("S9", "S10")
@generated
@given(traffic.streams, st.integers(0, 3), st.booleans(), st.booleans(), st.data())
def test_opening(packets, ecn, tcp, udp, data):
    """In order or not, mangled or not, whole rows or cut ones, with rows to be left out."""
    row = 32 + max([len(packet) for packet in packets] or [0])
    burst = datagrams_of(packets, row, ecn)
    rows = [bytes(one) for one in burst.rows()]
    if data.draw(st.integers(0, 3)) == 0 and len(rows) > 2:
        body = rows[:-1]
        random.Random(data.draw(st.integers(0, 9))).shuffle(body)
        rows[:-1] = body
    if data.draw(st.integers(0, 3)) == 0:
        at = data.draw(st.integers(0, len(rows) - 1))
        if rows[at]:
            where = data.draw(st.integers(0, len(rows[at]) - 1))
            rows[at] = rows[at][:where] + bytes([rows[at][where] ^ 1]) + rows[at][where + 1 :]
    refused = None
    if data.draw(st.integers(0, 3)) == 0:
        refused = data.draw(st.binary(min_size=len(rows), max_size=len(rows)))
    mangled = Burst(b"".join(rows), row, ecn)
    if data.draw(st.integers(0, 5)) == 0:
        mangled = Burst(mangled.data[: data.draw(st.integers(0, len(mangled.data)))], row, ecn)
    open_both(mangled, Room(1 << 18, 256), refused, tcp=tcp, udp=udp)


@pytest.mark.rule("S9")
@pytest.mark.parametrize("protocol", [traffic.TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_what_differs_is_not_merged(version, protocol):
    """Each thing that may differ, in the first, second or last of a run, or in all."""
    for fields in [{}, {"fragment": 0}, *traffic.NEVER_MERGED]:
        if fields.get("protocol", protocol) != protocol or fields.get("version", version) != version:
            continue
        run = traffic.run_of(4, **({"version": version, "protocol": protocol} | fields))
        for change in [{}, {"identification": 77}, {"options": b"\1\1\1\1"}, *traffic.CHANGES]:
            for at in (0, 1, 3):
                packets = [*run[:at], replace(run[at], **change), *run[at + 1 :]]
                open_both(datagrams_of([packet.pack() for packet in packets], 250, 0), Room(4096, 16), None)


def test_no_merged_packet_is_larger_than_ip_allows():
    for size in (1400, 1365):
        packets = [Packet(bytes(size), sequence=size * n).pack() for n in range(50)]
        open_both(datagrams_of(packets, 32 + 40 + size, 0), Room(), None)


@generated
@given(st.binary(max_size=400), st.integers(1, 120), st.integers(0, 255))
def test_opening_garbage(data, row, ecn):
    open_both(Burst(data, row, ecn & 3), Room(1 << 10, 4), None)


@settings(generated, max_examples=100)
@given(
    st.lists(traffic.packets.filter(lambda p: p.protocol in (traffic.TCP, UDP)), min_size=1, max_size=3),
    st.sampled_from([5, 50, 536, 1368]),
    mtus,
)
@example([Packet(bytes(60_000))], 1368, 1420)
@example([Packet(bytes(65_000), version=6)], 1348, 1420)
@example([Packet(bytes(range(256)) * 200, protocol=UDP)], 1372, 1420)
@example([Packet(bytes(3000), version=6, protocol=UDP)], 1, 1420)
def test_through_a_tunnel(packets, size, mtu):
    """Large packets are cut, sealed, opened and merged again; what comes out stands for the same packets."""
    room = Room(1 << 21, 1 << 15)
    sealed = seal_both(Frames.behind_one_another([packet.large(size) for packet in packets]), 7, 0, mtu, room)
    for burst in sealed.bursts:
        open_both(burst, room, None)


heads = st.sampled_from(
    [b"\4\0\0\0\7\0\0\0", b"\4\0\0\0\7\0\0\0", b"\4\0\0\0\7\0\0\1", b"\4\0\1\0\7\0\0\0", b"\1\0\0\0\7\0\0\0"]
)


@generated
@given(st.lists(heads, max_size=6), st.sampled_from([9, 31, 32, 40]), st.integers(0, 40))
def test_leading_runs(rows, row, last):
    data = b"".join(head.ljust(row, b"x") for head in rows)
    burst = Burst(data[: len(data) - min(last, row)], row)
    expected = reference.leading_run(burst)
    assert compiled.leading_run(burst) == expected
    assert all(bytes(one[:8]) == data[:8] for one in list(burst.rows())[:expected])


@pytest.mark.rule("S2")
def test_what_cannot_be_meant_is_refused():
    frames = list(traffic.impossible_frames())
    sealed = seal_both(Frames.behind_one_another(frames), 7, 0, 1420, Room())
    assert (sealed.bursts, sealed.bad) == ([], len(frames))


def test_a_checksum_of_zero():
    frames = [frame for v in (4, 6) for frame in (zero_sum(v).unfinished(), zero_sum(v).large(2), zero_sum(v).large(1))]
    seal_both(Frames.behind_one_another(frames), 7, 0, 1420, Room())


@pytest.mark.rule("S4")
def test_a_full_room_is_followed_by_another():
    """More segments than fit: nothing is lost (rule S4), and what was returned before stays as it was."""
    frames = Frames.behind_one_another([Packet(bytes(30_000)).large(10)])
    sealed = seal_both(frames, 7, 0, 1420, Room(70_000, 1))
    assert sealed.counters == 3000
    assert sum(burst.count for burst in sealed.bursts) == 3000


@pytest.mark.rule("S2")
def test_spans_outside_the_data_are_refused():
    sealer = compiled.CompiledSealer(KEY)
    for start, size in [(0, 200), (99, 10), (101, 0), (2**32 - 1, 2**32 - 1), (0, 9), (100, 10)]:
        spans = memoryview(bytearray(8)).cast("I")
        spans[0], spans[1] = start, size
        assert told(sealer.seal(Frames(bytes(100), spans, 0, 1), 1, 0, 1420, Room())) == ([], 0, 1)


@pytest.mark.parametrize("kind", ["Sealer", "Opener"])
def test_a_closed_key_is_of_no_use(kind):
    for made in (getattr(compiled, f"Compiled{kind}")(KEY), globals()[f"Reference{kind}"](KEY)):
        made.close()
        made.close()
        use = partial(made.seal, Frames.of(b"x"), 1, 0, 1420) if kind == "Sealer" else partial(made.open, Burst.of(KEY))
        with pytest.raises(ValueError, match="closed"):
            use(Room())


def test_a_key_has_32_bytes():
    with pytest.raises(ValueError, match="32 bytes"):
        compiled.CompiledSealer(bytes(31))
