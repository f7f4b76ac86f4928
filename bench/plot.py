"""The engines side by side, as SVG: one panel a figure, one bar an engine."""

from typing import Any
from xml.sax.saxutils import escape

# Figure, what stands above the panel
PANELS = (
    ("tcp_gbit", "TCP, one stream, Gbit/s"),
    ("tcp_four_gbit", "TCP, four streams, Gbit/s"),
    ("tcp_reverse_gbit", "TCP, reverse, Gbit/s"),
    ("tcp_both_gbit", "TCP, both ways at once, sum, Gbit/s"),
    ("udp_gbit", "UDP of 1372 bytes, less than 1 % lost, Gbit/s"),
    ("udp_small_kpps", "UDP of 64 bytes, received, thousand/s"),
    ("cpu_sender_us", "sender, µs of processor a packet (less is better)"),
    ("cpu_receiver_us", "receiver, µs of processor a packet (less is better)"),
    ("ping_added_us", "round trip added, idle, median µs (less is better)"),
    ("rss_mib", "resident memory under load, MiB (less is better)"),
)
COLUMNS = 2
LABEL = 150
BAR = 210
LINE = 18
GAP = 44
PANEL = LABEL + BAR + 70
OURS, OTHERS = "#4a7fb5", "#c3ccd6"


def values(throughput: dict[str, Any], figure: str) -> dict[str, tuple[float, float, float]]:
    """Median, smallest and largest by engine; what a round trip takes more than on the bare veth is `ping_added_us`."""
    bare = 0.0
    if figure == "ping_added_us":
        figure = "ping_idle_p50_us"
        bare = throughput["medians"].get("bare", {}).get(figure, [0.0])[0]
    found = {}
    for name in throughput["engines"]:
        numbers = throughput["medians"].get(name, {}).get(figure)
        if numbers is not None:
            median, low, high = numbers
            found[name] = (median - bare, low - bare, high - bare)
    return found


def to_svg(throughput: dict[str, Any]) -> str:
    """All panels; a thin line in each bar goes from the smallest to the largest round."""
    names = list(throughput["engines"])
    height = GAP + len(names) * LINE
    parts = []
    rows = 0
    for number, (figure, title) in enumerate(PANELS):
        rows = number // COLUMNS + 1
        parts += _panel(throughput, figure, title, (number % COLUMNS) * PANEL, (rows - 1) * height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * PANEL}" height="{rows * height + 10}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(throughput: dict[str, Any], figure: str, title: str, left: float, top: float) -> list[str]:
    found = values(throughput, figure)
    largest = max((high for _, _, high in found.values()), default=0.0) or 1.0
    parts = [_text(left + 12, top + 22, title, "start", ' font-weight="bold"')]
    for line, (name, engine) in enumerate(throughput["engines"].items()):
        y = top + 30 + line * LINE
        parts.append(_text(left + LABEL - 6, y + 12, engine["title"], "end"))
        if name not in found:
            parts.append(_text(left + LABEL + 4, y + 12, "not measured", "start", ' fill="#888"'))
            continue
        median, low, high = (max(0.0, value) * BAR / largest for value in found[name])
        colour = OURS if name in ("compiled", "reference") else OTHERS
        parts.append(f'<rect x="{left + LABEL}" y="{y}" width="{median:.1f}" height="{LINE - 4}" fill="{colour}"/>')
        middle = y + (LINE - 4) / 2
        parts.append(
            f'<line x1="{left + LABEL + low:.1f}" x2="{left + LABEL + high:.1f}" y1="{middle}" y2="{middle}" '
            f'stroke="#333"/>'
        )
        parts.append(_text(left + LABEL + max(median, high) + 4, y + 12, f"{found[name][0]:.3g}", "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
