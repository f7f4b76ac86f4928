"""Netlink's messages and attributes as bytes."""

from wgdisco.tunnel.io.netlink import NESTED, NLM_F_DUMP_INTR, attribute, attributes, message, messages, was_interrupted


def test_what_is_packed_comes_back():
    row = attribute(1, b"odd") + attribute(2 | NESTED, attribute(3, b"")) + attribute(4, b"even")
    assert list(attributes(row)) == [(1, b"odd"), (2, attribute(3, b"")), (4, b"even")]
    assert list(messages(message(7, b"four") + message(8, b""))) == [(7, b"four"), (8, b"")]


def test_a_length_that_cannot_be_ends_it():
    for data in (bytes(64), b"\x03\x00\x01\x00" * 9, attribute(1, b"x") + bytes(20)):
        assert len(list(attributes(data))) <= 1
        assert len(list(messages(data))) <= 1


def test_an_interruption_shows_in_any_message():
    whole, cut = message(7, b"four"), message(7, b"four", NLM_F_DUMP_INTR)
    assert [was_interrupted(data) for data in (b"", whole * 3, cut, whole * 2 + cut, whole + b"x")] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert not was_interrupted(bytes(16))
