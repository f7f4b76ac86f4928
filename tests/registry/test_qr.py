import pytest
import segno

from wgdisco.registry.qr import qr_text

UPPER = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}


@pytest.mark.parametrize("length", [1, 300, 700, 2953])
def test_every_module_of_the_code_is_in_its_place(length):
    text = "x" * length
    lines = qr_text(text, colour=False).split("\n")
    rows = [[UPPER[char][half] for char in line] for line in lines for half in (0, 1)]
    expected = [list(row) for row in segno.make_qr(text.encode(), error="l", boost_error=False).matrix_iter(border=4)]
    assert rows[: len(expected)] == expected
    assert not any(map(any, rows[len(expected) :]))


def test_colours_do_not_change_the_blocks():
    plain, coloured = qr_text("abc", colour=False), qr_text("abc", colour=True)
    assert coloured.replace("\x1b[40;97m", "").replace("\x1b[0m", "") == plain


def test_too_long_a_text_is_a_value_error():
    with pytest.raises(ValueError, match=r"fit|large|Data"):
        qr_text("x" * 2954, colour=False)
