"""Bursts, padding (rule D4) and the reference cipher, checked against the AEAD used by hand."""

import random
import struct
from contextlib import nullcontext
from dataclasses import replace

import nacl.bindings
import pytest

from tests.tunnel.by_hand import BurstCipher
from tests.tunnel.traffic import UDP, Packet
from wgdisco.tunnel import burst
from wgdisco.tunnel.burst import Burst, Frames, Opened, Room, padded_size
from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES
from wgdisco.tunnel.replay import ReplayWindow

KEY = bytes(range(32))


def _open_by_hand(datagram: bytes, key: bytes = KEY) -> tuple[int, int, int, bytes]:
    """Type, receiver, counter and plain text, by libsodium."""
    kind, receiver, counter = struct.unpack("<IIQ", datagram[:16])
    nonce = bytes(4) + struct.pack("<Q", counter)
    plain = nacl.bindings.crypto_aead_chacha20poly1305_ietf_decrypt(datagram[16:], b"", nonce, key)
    return kind, receiver, counter, plain


@pytest.mark.parametrize(
    ("size", "row", "expected"),
    [(0, 0, [0]), (10, 10, [10]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 10, [3]), (0, 10, [0])],
)
def test_rows(size, row, expected):
    data = bytes(range(size))
    burst = Burst(data, row)
    rows = [bytes(piece) for piece in burst.rows()]
    assert [len(piece) for piece in rows] == expected
    assert b"".join(rows) == data
    assert burst.count == len(expected)


def test_a_lone_packet_is_a_burst_of_one():
    burst = Burst.of(b"packet")
    assert burst.count == 1
    assert [bytes(row) for row in burst.rows()] == [b"packet"]
    assert Burst.of(b"").count == 1


@pytest.mark.rule("D4")
@pytest.mark.parametrize(
    ("size", "mtu", "expected"),
    [
        (0, 1420, 0),
        (1, 1420, 16),
        (16, 1420, 16),
        (17, 1420, 32),
        (1408, 1420, 1408),
        (1409, 1420, 1420),
        (1419, 1420, 1420),
        (1420, 1420, 1420),
        (1299, 1300, 1300),
        (1300, 1300, 1300),
        (1421, 1420, 1436),
        (2839, 1420, 2840),
        (5, 68, 16),
        (67, 68, 68),
        (65503, 65503, 65503),
    ],
)
def test_padding_is_to_16_bytes_and_never_past_the_mtu(size, mtu, expected):
    assert padded_size(size, mtu) == expected


@pytest.mark.rule("D4")
@pytest.mark.parametrize("mtu", [68, 1280, 1300, 1420, 34736])
def test_padding_for_every_size(mtu):
    for size in range(mtu + 1):
        padded = padded_size(size, mtu)
        assert size <= padded <= mtu
        assert padded - size < 16
        assert padded % 16 == 0 or padded == mtu


@pytest.mark.rule("D1", "D2")
def test_sealing_is_the_protocols():
    chance = random.Random(3)
    packets = chance.randbytes(40 * 3 + 7)
    sealed = BurstCipher(KEY).seal(Burst(packets, 40), receiver=0x01020304, counter=9, mtu=1420)
    rows = [bytes(row) for row in sealed.rows()]
    assert [len(row) for row in rows] == [16 + 48 + 16] * 3 + [16 + 16 + 16]
    opened = [_open_by_hand(row) for row in rows]
    assert [(kind, receiver, counter) for kind, receiver, counter, _ in opened] == [
        (4, 0x01020304, 9 + number) for number in range(4)
    ]
    for number, (_, _, _, plain) in enumerate(opened):
        packet = packets[40 * number : 40 * number + 40]
        assert plain == packet + bytes(len(plain) - len(packet))


@pytest.mark.rule("D3")
def test_a_keepalive_is_32_bytes():
    sealed = BurstCipher(KEY).seal(Burst(b"", 0), receiver=1, counter=0, mtu=1420)
    assert bytes(sealed.data)[:16] == struct.pack("<IIQ", 4, 1, 0)
    assert len(sealed.data) == 32
    assert _open_by_hand(bytes(sealed.data))[3] == b""


@pytest.mark.rule("D2")
@pytest.mark.parametrize("counter", [0, 1, 2**32 - 1, 2**32, 2**60 + 1, 2**64 - 2**13 - 2])
def test_counters_are_64_bit(counter):
    sealed = BurstCipher(KEY).seal(Burst.of(b"x" * 20), receiver=1, counter=counter, mtu=1420)
    assert _open_by_hand(bytes(sealed.data))[2] == counter
    assert BurstCipher(KEY).open(sealed) == [(counter, b"x" * 20 + bytes(12))]


def test_opening_says_which_rows_do_not_authenticate():
    cipher = BurstCipher(KEY)
    sealed = bytearray(cipher.seal(Burst(bytes(48), 16), receiver=1, counter=5, mtu=1420).data)
    sealed[48 + 20] ^= 1  # in the second row
    assert cipher.open(Burst(bytes(sealed), 48)) == [(5, bytes(16)), (6, None), (7, bytes(16))]


def test_opening_needs_the_key_and_the_counter():
    sealed = BurstCipher(KEY).seal(Burst.of(bytes(16)), receiver=1, counter=5, mtu=1420)
    assert BurstCipher(bytes(32)).open(sealed) == [(5, None)]
    moved = bytearray(sealed.data)
    moved[8] = 6
    assert BurstCipher(KEY).open(Burst.of(bytes(moved))) == [(6, None)]


@pytest.mark.parametrize("seed", range(5))
def test_any_burst_comes_back(seed):
    chance = random.Random(seed)
    row = chance.randint(1, 1420)
    packets = chance.randbytes(chance.randint(1, 20 * row))
    counter = chance.getrandbits(62)
    sealed = BurstCipher(KEY).seal(Burst(packets, row), 7, counter, 1420)
    opened = BurstCipher(KEY).open(sealed)
    expected = [packets[start : start + row] for start in range(0, len(packets), row)]
    assert [number for number, _ in opened] == list(range(counter, counter + len(expected)))
    for (_, plain), packet in zip(opened, expected, strict=True):
        assert plain == packet + bytes(padded_size(len(packet), 1420) - len(packet))


# Replays, with either implementation


def said(opened: Opened) -> list[bytes]:
    return [bytes(packet) for run in opened.frames for packet in run.packets()]


@pytest.fixture(params=["reference", "compiled"])
def chosen(request):
    if request.param == "compiled" and burst.compiled is None:
        pytest.skip("the compiled burst was not built (make test builds it)")
    before = burst.implementation()
    burst.use(request.param)
    yield request.param
    burst.use(before)


def six_datagrams() -> list[bytes]:
    """Six segments of one flow, sealed with the counters 10 to 15."""
    sealed = burst.create_sealer(KEY).seal(
        Frames.behind_one_another([Packet(bytes(600)).large(100)]), 7, 10, 1420, Room()
    )
    (datagrams,) = sealed.bursts
    return [bytes(row) for row in datagrams.rows()]


def test_the_built_one_runs_unless_told_otherwise():
    assert burst.implementation() == ("reference" if burst.compiled is None else "compiled")
    with pytest.raises(ValueError, match="was not built") if burst.compiled is None else nullcontext():
        burst.use("compiled")


@pytest.mark.usefixtures("chosen")
def test_new_ones_are_opened_and_merged_once():
    rows, room, opener, window = six_datagrams(), Room(), burst.create_opener(KEY), ReplayWindow()
    opened, replayed = burst.open_new(opener, window, Burst(b"".join(rows), len(rows[0])), room)
    assert replayed == 0
    assert opened.counters == range(10, 16)
    assert [len(packet) for packet in said(opened)] == [640]
    assert opened.frames[0].source == bytes([10, 0, 0, 1])
    assert opened.frames[0].destination == bytes([10, 0, 0, 2])
    opened, replayed = burst.open_new(opener, window, Burst(b"".join(rows), len(rows[0])), room)
    assert (opened.frames, replayed) == ([], 6)


@pytest.mark.rule("S11")
@pytest.mark.usefixtures("chosen")
def test_nothing_waits_for_the_next_burst():
    rows, room, opener = six_datagrams(), Room(), burst.create_opener(KEY)
    sizes = []
    for part in (rows[:2], rows[2:]):
        opened = opener.open(Burst(b"".join(part), len(rows[0])), room)
        sizes.append([len(packet) for packet in said(opened)])
    assert sizes == [[240], [440]]


@pytest.mark.rule("R2")
@pytest.mark.usefixtures("chosen")
def test_replays_and_forgeries_are_not_in_what_is_merged():
    rows, opener, window = six_datagrams(), burst.create_opener(KEY), ReplayWindow()
    assert window.accept(11)
    forged = bytearray(rows[4])
    forged[40] ^= 1
    burst_of_them = Burst(b"".join([rows[0], rows[1], rows[2], rows[3], bytes(forged), rows[5], rows[5]]), len(rows[0]))
    opened, replayed = burst.open_new(opener, window, burst_of_them, Room())
    assert replayed == 2
    assert opened.forged == 1
    assert opened.counters == [10, None, 12, 13, None, 15, None]
    # The first, two that follow each other, and the last
    assert [len(packet) for packet in said(opened)] == [140, 240, 140]
    assert [window.accept(counter) for counter in range(10, 17)] == [False, False, False, False, True, False, True]


@pytest.mark.usefixtures("chosen")
def test_reordered_ones_are_all_there_in_the_order_they_came():
    rows, opener, window = six_datagrams(), burst.create_opener(KEY), ReplayWindow()
    order = [1, 0, 2, 3, 5, 4]
    opened, replayed = burst.open_new(opener, window, Burst(b"".join(rows[n] for n in order), len(rows[0])), Room())
    assert replayed == 0
    assert [counter - 10 for counter in opened.counters] == order
    assert [packet[24:28] for packet in said(opened)] == [struct.pack(">I", n * 100) for n in (1, 0, 2, 5, 4)]


@pytest.mark.usefixtures("chosen")
def test_a_keepalive_is_an_empty_packet():
    sealed = burst.create_sealer(KEY).seal(Frames.of(b""), 7, 3, 1420, Room())
    assert [len(row) for one in sealed.bursts for row in one.rows()] == [32]
    opened, _ = burst.open_new(burst.create_opener(KEY), ReplayWindow(), sealed.bursts[0], Room())
    assert (opened.frames, opened.counters, opened.keepalives) == ([], range(3, 4), 1)


@pytest.mark.usefixtures("chosen")
def test_sources_are_told_apart():
    packets = [
        Packet(bytes(20), protocol=UDP, source=n, version=v).pack() for v, n in [(4, 1), (4, 1), (4, 2), (6, 2), (4, 1)]
    ]
    packets.append(b"\0no packet")
    packets = [packet + bytes(80 - len(packet)) for packet in packets]
    sealed = burst.create_sealer(KEY).seal(Frames.of(*packets), 7, 0, 1420, Room())
    opened = burst.create_opener(KEY).open(sealed.bursts[0], Room())
    assert [len(run) for run in opened.frames] == [1, 1, 1, 1]
    assert [run.source[-1] for run in opened.frames] == [1, 2, 2, 1]
    assert opened.bad == 1


@pytest.mark.rule("D11")
@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize(
    ("version", "outer", "inner", "expected"),
    [
        # RFC 6040, figure 4, but that nothing is dropped; 0 not capable, 1 ECT(1), 2 ECT(0), 3 marked
        *(
            (version, outer, inner, expected)
            for version in (4, 6)
            for outer, row in enumerate(
                [
                    (0, 1, 2, 3),
                    (0, 1, 1, 3),
                    (0, 1, 2, 3),
                    (0, 3, 3, 3),  # where RFC 6040 would drop, the kernel's WireGuard does not
                ]
            )
            for inner, expected in enumerate(row)
        ),
    ],
)
def test_ecn_on_the_way(version, outer, inner, expected):
    packet = Packet(b"data", version, tos=0xB8 | inner)
    sealed = burst.create_sealer(KEY).seal(Frames.of(packet.pack()), 7, 0, 1420, Room())
    assert sealed.bursts[0].tos == (2 if inner == 3 else inner)
    opened = burst.create_opener(KEY).open(Burst(sealed.bursts[0].data, sealed.bursts[0].row, outer), Room())
    assert said(opened) == [replace(packet, tos=0xB8 | expected).pack()]


@pytest.mark.rule("L3")
@pytest.mark.usefixtures("chosen")
def test_counters_end():
    sealed = burst.create_sealer(KEY).seal(Frames.of(b"a", b"b", b"c"), 7, REJECT_AFTER_MESSAGES - 2, 1420, Room())
    assert (sealed.counters, sealed.bad) == (2, 1)


@pytest.mark.usefixtures("chosen")
def test_any_room_will_do():
    """What does not fit is had from new memory, and what came before stays."""
    rows, room = six_datagrams(), Room(1, 1)
    sealer, opener = burst.create_sealer(KEY), burst.create_opener(KEY)
    first = opener.open(Burst(b"".join(rows), len(rows[0])), room)
    expected = said(first)
    for counter in range(30):
        sealer.seal(Frames.of(bytes(5000)), 7, counter, 1420, room)
        opener.open(Burst(b"".join(rows), len(rows[0])), room)
    assert said(first) == expected
