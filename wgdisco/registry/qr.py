"""QR codes: for a terminal, two rows of modules in a line of text, as half blocks; for a page as SVG."""

import io
from itertools import zip_longest

_BORDER = 4  # modules of quiet zone (ISO/IEC 18004)
_BLOCKS = {(True, True): " ", (True, False): "▄", (False, True): "▀", (False, False): "█"}
_BLACK_AND_WHITE = "\x1b[40;97m"
_RESET = "\x1b[0m"


def qr_text(text: str, colour: bool) -> str:
    """The code of `text`: light modules are blocks, dark ones blanks, as a dark terminal shows them.

    With `colour` it looks the same on a light one too. ValueError when `text` is longer than a code holds, 2,953 bytes.
    """
    import segno  # noqa: PLC0415  only for this

    code = segno.make_qr(text.encode(), error="l", boost_error=False)
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=_BORDER)]
    lines = [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=[False] * len(rows[0]))
    ]
    if colour:
        lines = [f"{_BLACK_AND_WHITE}{line}{_RESET}" for line in lines]
    return "\n".join(lines)


def qr_svg(text: str) -> str:
    """The code of `text` as an SVG document that fits where it is put, dark on white. ValueError as `qr_text`."""
    import segno  # noqa: PLC0415  only for this

    code, out = segno.make_qr(text.encode(), error="l", boost_error=False), io.BytesIO()
    code.save(out, kind="svg", border=_BORDER, light="#fff", xmldecl=False, nl=False, omitsize=True)
    return out.getvalue().decode()
