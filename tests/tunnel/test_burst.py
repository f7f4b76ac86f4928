"""Bursts, padding (rule D4) and the reference cipher, checked against the AEAD used by hand."""

import random
import struct

import nacl.bindings
import pytest

from wgdisco.tunnel.burst import Burst, BurstCipher, padded_size

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
