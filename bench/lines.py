"""Curves as SVG: panels beside each other, each with its own axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 420, 240, 56, 36, 30
COLOURS = ("#4a7fb5", "#c08a3e", "#6a9a5b")
TICKS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """Points in the order they are joined."""

    title: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the same axes, which both begin at 0."""

    title: str
    lines: Sequence[Line]


def to_svg(panels: Sequence[Panel]) -> str:
    """All of them, in a row."""
    inner = "\n".join(part for number, panel in enumerate(panels) for part in _panel(panel, number * WIDTH))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{len(panels) * WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{inner}\n</svg>\n'
    )


def _panel(panel: Panel, left: float) -> list[str]:
    points = [point for line in panel.lines for point in line.points]
    across, up = (_round_up(max((point[axis] for point in points), default=1.0)) for axis in (0, 1))
    wide, high = WIDTH - LEFT - 16, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> str:
        return f"{left + LEFT + x / across * wide:.1f},{TOP + high - y / up * high:.1f}"

    parts = [_text(left + 12, 20, panel.title, "start", ' font-weight="bold"')]
    for tick in range(TICKS + 1):
        x, y = across * tick / TICKS, up * tick / TICKS
        parts.append(f'<polyline points="{at(0, y)} {at(across, y)}" stroke="#ddd" fill="none"/>')
        parts.append(_text(left + LEFT - 6, TOP + high - y / up * high + 4, f"{y:,.6g}", "end"))
        parts.append(_text(left + LEFT + x / across * wide, HEIGHT - 12, f"{x:,.6g}", "middle"))
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        joined = " ".join(at(*point) for point in line.points)
        parts.append(f'<polyline points="{joined}" stroke="{colour}" stroke-width="2" fill="none"/>')
    return parts


def _round_up(value: float) -> float:
    """To 1, 2, 4 or 8 times a power of ten."""
    unit = 1.0
    while unit * 10 <= value:
        unit *= 10
    while unit > value > 0:
        unit /= 10
    return next(unit * step for step in (1, 2, 4, 8, 10) if unit * step >= value)


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
