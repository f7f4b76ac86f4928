import pytest

from wgdisco.tunnel import messages
from wgdisco.tunnel.messages import CookieReply, Initiation, Response, message_type


@pytest.mark.rule("R1", "R3", "T2", "C2", "L3")
def test_the_limits_are_the_kernels():
    assert messages.REKEY_AFTER_MESSAGES == 1 << 60
    assert messages.REJECT_AFTER_MESSAGES == 2**64 - 1 - 8128 - 1
    assert messages.REPLAY_WINDOW == 8128
    assert messages.MAX_HANDSHAKE_ATTEMPTS == 18
    assert messages.ZERO_KEY_TIME == 540
    assert messages.UNDER_LOAD_QUEUE == 512


def test_initiation_fields_are_where_the_white_paper_puts_them():
    ephemeral, static, timestamp = bytes([1]) * 32, bytes([2]) * 48, bytes([3]) * 28
    packed = Initiation(0x04030201, ephemeral, static, timestamp).pack()
    assert packed == b"\x01\0\0\0" + b"\x01\x02\x03\x04" + ephemeral + static + timestamp
    assert len(packed) + 32 == 148
    assert Initiation.parse(packed + bytes(32)) == Initiation(0x04030201, ephemeral, static, timestamp)


def test_response_fields_are_where_the_white_paper_puts_them():
    packed = Response(1, 0xFFFFFFFF, bytes([5]) * 32, bytes([6]) * 16).pack()
    assert packed == b"\x02\0\0\0" + b"\x01\0\0\0" + b"\xff\xff\xff\xff" + bytes([5]) * 32 + bytes([6]) * 16
    assert len(packed) + 32 == 92
    assert Response.parse(packed + bytes(32)) == Response(1, 0xFFFFFFFF, bytes([5]) * 32, bytes([6]) * 16)


def test_cookie_reply_fields_are_where_the_white_paper_puts_them():
    packed = CookieReply(7, bytes([8]) * 24, bytes([9]) * 32).pack()
    assert packed == b"\x03\0\0\0" + b"\x07\0\0\0" + bytes([8]) * 24 + bytes([9]) * 32
    assert len(packed) == 64
    assert CookieReply.parse(packed) == CookieReply(7, bytes([8]) * 24, bytes([9]) * 32)


@pytest.mark.rule("H2")
@pytest.mark.parametrize(("kind", "size"), [(1, 148), (2, 92), (3, 64)])
def test_handshake_messages_have_one_size_each(kind, size):
    for length in range(200):
        data = bytes([kind, 0, 0, 0]) + bytes(length)
        expected = kind if len(data) == size else None
        assert message_type(data) == expected, len(data)


@pytest.mark.rule("H2")
def test_transport_data_is_32_bytes_or_more():
    assert message_type(b"\x04" + bytes(30)) is None
    assert message_type(b"\x04" + bytes(31)) == 4
    assert message_type(b"\x04" + bytes(65506)) == 4


@pytest.mark.rule("H2")
@pytest.mark.parametrize(("kind", "size"), [(1, 148), (2, 92), (3, 64), (4, 32)])
@pytest.mark.parametrize("reserved", [1, 2, 3])
def test_reserved_bytes_must_be_zero(kind, size, reserved):
    data = bytearray(size)
    data[0] = kind
    assert message_type(bytes(data)) == kind
    data[reserved] = 1
    assert message_type(bytes(data)) is None


@pytest.mark.rule("H2")
@pytest.mark.parametrize("kind", [0, 5, 77, 255])
def test_other_types_are_none(kind):
    assert all(message_type(bytes([kind]) + bytes(size - 1)) is None for size in (32, 64, 92, 148))


def test_types_are_read_from_a_view_too():
    assert message_type(memoryview(b"\x03\0\0\0" + bytes(60))) == 3
