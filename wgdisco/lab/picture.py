"""The demo as a picture: the network with the paths that were taken, and beside the hosts' names what they said."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from wgdisco.endpoint import IPAddress
from wgdisco.lab.scenario import Report
from wgdisco.lab.timeline import Shown

_WIDTH, _DRAWN = 900, 250
_LINE, _LETTER = 18, 7.3  # of the terminal, at its font's size
_LINES_MAX = 24
_INK, _GREY, _GREEN, _RED = "#24292f", "#6e7781", "#1a7f37", "#cf222e"
_LEFT, _RIGHT, _LEVEL = 90, 810, 190  # centres of the two hosts, and their height
_NAT_LEFT, _NAT_RIGHT = 260, 640
_MIDDLE, _TOP = 450, 42  # the registry's


def to_svg(report: Report, outside: Mapping[str, IPAddress], shown: Sequence[Shown]) -> str:
    """`outside` are the public addresses of registry, alice and bob."""
    lines = shown[-_LINES_MAX:]
    height = _DRAWN + 24 + (len(lines) + 1) * _LINE
    parts = [
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *_network(report, outside),
        f'<rect x="10" y="{_DRAWN}" width="{_WIDTH - 20}" height="{height - _DRAWN - 10}" rx="8" fill="#0d1117"/>',
    ]
    for number, line in enumerate(lines):
        parts += _said(_DRAWN + 26 + number * _LINE, line)
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    title = "Two hosts behind NATs find each other by the registry and talk directly"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">\n'
        f"<title>{title}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _network(report: Report, outside: Mapping[str, IPAddress]) -> list[str]:
    parts = [
        f'<ellipse cx="{_MIDDLE}" cy="{_LEVEL - 50}" rx="240" ry="85" fill="#f6f8fa" stroke="#d0d7de"/>',
        _text(_MIDDLE, _LEVEL - 62, "Internet", colour="#8c959f"),
    ]
    for nat, near in ((_NAT_LEFT, _LEFT), (_NAT_RIGHT, _RIGHT)):
        toward = nat + (24 if nat < _MIDDLE else -24)
        parts.append(_line(toward, _LEVEL - 22, _MIDDLE, _TOP + 24, _GREY, dashed=True))
        parts.append(_line(near, _LEVEL, nat, _LEVEL, _GREEN if report.direct else _GREY, width=3))
        side = "end" if nat < _MIDDLE else "start"
        parts.append(_text(toward + (54 if nat < _MIDDLE else -54), _LEVEL - 78, "handshake", side, _GREY, size=11))
    colour = _GREEN if report.direct else _RED
    parts.append(_line(_NAT_LEFT, _LEVEL, _NAT_RIGHT, _LEVEL, colour, width=3, dashed=not report.direct))
    word = "direct tunnel" if report.direct else "no direct tunnel"
    parts.append(_text(_MIDDLE, _LEVEL - 10, word, colour=colour, bold=True))
    if report.time_to_direct_ms is not None:
        time = f"{report.time_to_direct_ms:.0f} ms after bob's start"
        parts.append(_text(_MIDDLE, _LEVEL + 19, time, colour=colour, size=12))
    parts += _box(_MIDDLE, _TOP, 230, "registry", f"{outside['registry']}: saw both, and tells")
    for host, near, nat in (("alice", _LEFT, _NAT_LEFT), ("bob", _RIGHT, _NAT_RIGHT)):
        parts += _box(near, _LEVEL, 90, host, "")
        parts += _box(nat, _LEVEL, 130, "NAT", report.nat[host])
        parts.append(_text(nat, _LEVEL + 42, report.endpoints.get(host) or str(outside[host]), colour=_GREY, size=12))
    return parts


def _said(y: float, line: Shown) -> list[str]:
    colours = {"alice": "#79c0ff", "bob": "#d2a8ff", "registry": "#ffa657"}
    columns = (
        (26, f"{line.at:7.3f} s", "#8b949e"),
        (26 + 11 * _LETTER, line.host, colours.get(line.host, "#8b949e")),
        (26 + 21 * _LETTER, line.text, "#7ee787" if line.is_milestone else "#c9d1d9"),
    )
    return [
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-family="monospace" font-size="12" xml:space="preserve">'
        f"{escape(text)}</text>"
        for x, text, colour in columns
    ]


def _box(x: float, y: float, width: float, title: str, below: str) -> list[str]:
    shape = f'x="{x - width / 2:g}" y="{y - 22:g}" width="{width:g}" height="44" rx="6"'
    parts = [f'<rect {shape} fill="#ffffff" stroke="{_INK}"/>']
    parts.append(_text(x, y - 3 if below else y + 5, title, bold=True))
    if below:
        parts.append(_text(x, y + 14, below, colour=_GREY, size=11))
    return parts


def _text(
    x: float, y: float, text: str, anchor: str = "middle", colour: str = _INK, *, bold: bool = False, size: int = 13
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1.5, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"{dashes}/>'
