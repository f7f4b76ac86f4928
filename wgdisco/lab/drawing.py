"""A matrix for people: as text, as SVG, and one trial packet by packet."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

from wgdisco.endpoint import IPAddress
from wgdisco.lab.matrix import Cell, Report, percentiles
from wgdisco.lab.packets import Crossing
from wgdisco.lab.topologies import REGISTRY
from wgdisco.lab.trial import Trial
from wgdisco.lab.verdict import is_payload

_SHORT = {
    "public": "pub",
    "firewall": "fw",
    "full-cone": "fc",
    "address-restricted": "ar",
    "port-restricted": "pr",
    "eim-other-port": "ep",
    "open-input": "oi",
    "symmetric-sequential": "ss",
    "symmetric-block": "sb",
    "symmetric-random": "sr",
}
_SIGNS = {"published": "=", "peer-reflexive": "~", "hairpin": "^", "lan": "L", "relay": "R", None: "x"}
_LEGEND = "= at the published endpoints  ~ peer-reflexive  ^ hairpin  L lan  R relay  x nothing  ! not as theory says"
_MARGIN = 150
_WIDTH, _HEIGHT = 78, 34
_COLOURS = {"direct": "#cfe8cf", "lan": "#cfe0f5", "relay": "#f5ecc4", None: "#f3c6c6"}
_MOST_LINES = 400


def to_text(report: Report) -> str:
    """Each topology's matrix, and the figures over all."""
    parts = [_matrix(report, name) for name in dict.fromkeys(cell.topology for cell in report.cells)]
    return "\n\n".join([*parts, _LEGEND, _summary(report)])


def _matrix(report: Report, topology: str) -> str:
    cells = {(cell.pair.type_a, cell.pair.type_b): cell for cell in report.cells if cell.topology == topology}
    rows = list(dict.fromkeys(a for a, _ in cells))
    columns = list(dict.fromkeys(b for _, b in cells))
    measured = report.measured[topology]
    title = f"{topology}: registry {measured.registry_ms:g} ms, peers {measured.peer_ms:g} ms away; times in ms"
    head = f"{'':<21}" + "".join(f"{_SHORT.get(column, column):>9}" for column in columns)
    lines = [
        f"{row:<21}" + "".join(f"{_cell(cells.get((row, column))):>9}" for column in columns).rstrip() for row in rows
    ]
    return "\n".join([title, head, *lines])


def _cell(cell: Cell | None) -> str:
    """Technique, time (of the first reply where it is relayed) and, where it counts, how many were as expected."""
    if cell is None or not cell.trials:
        return ""
    times = percentiles(cell.gaps() or cell.times() or cell.first_replies())
    sign = _SIGNS.get(cell.trials[-1].verdict.technique, "?")
    text = sign if times is None else f"{sign} {times['p50']:.0f}"
    if cell.passed == len(cell.trials):
        return text
    return f"!{text}" if len(cell.trials) == 1 else f"!{cell.passed}/{len(cell.trials)}"


def _summary(report: Report) -> str:
    data = report.to_json()
    lines = [("as theory says", f"{data['passed']} of {data['trials']}")]
    for title, name in (
        ("time to direct", "time_to_direct_ms"),
        ("EIM x EIM", "time_to_direct_eim_ms"),
        ("time to relay", "time_to_relay_ms"),
        ("first reply", "first_reply_ms"),
        ("of those relayed", "first_relayed_reply_ms"),
    ):
        figures = data[name]
        if figures is not None:
            lines.append((title, f"p50 {figures['p50']:g}  p90 {figures['p90']:g}  p99 {figures['p99']:g} ms"))
    if data["packets_a_side"] is not None:
        lines.append(("packets to punch", f"at most {data['packets_a_side']['max']} a side"))
    for cell in report.failed:
        faults = dict.fromkeys(fault for trial in cell.trials for fault in trial.verdict.faults)
        lines.append((f"{cell.topology} {cell.pair.type_a} x {cell.pair.type_b}", "; ".join(faults)))
    return "\n".join(f"{name:<16} {value}" for name, value in lines)


def to_svg(report: Report) -> str:
    """All matrices, one below the other."""
    parts: list[str] = []
    top = 20
    for name in dict.fromkeys(cell.topology for cell in report.cells):
        cells = {(cell.pair.type_a, cell.pair.type_b): cell for cell in report.cells if cell.topology == name}
        rows = list(dict.fromkeys(a for a, _ in cells))
        columns = list(dict.fromkeys(b for _, b in cells))
        parts.append(_svg_text(8, top, name, "start", bold=True))
        for number, column in enumerate(columns):
            parts.append(_svg_text(_MARGIN + (number + 0.5) * _WIDTH, top, _SHORT.get(column, column), "middle"))
        for line, row in enumerate(rows):
            y = top + 8 + line * _HEIGHT
            parts.append(_svg_text(_MARGIN - 8, y + 21, row, "end"))
            for number, column in enumerate(columns):
                cell = cells.get((row, column))
                if cell is not None and cell.trials:
                    parts += _svg_cell(_MARGIN + number * _WIDTH, y, cell)
        top += 8 + len(rows) * _HEIGHT + 40
    width = _MARGIN + 10 * _WIDTH + 10
    parts.append(_svg_text(8, top, _LEGEND, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + 12}" '
        f'font-family="sans-serif" font-size="12">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _svg_cell(x: float, y: float, cell: Cell) -> list[str]:
    outcome = cell.trials[-1].verdict.outcome
    colour = _COLOURS[None if cell.passed < len(cell.trials) or outcome is None else outcome.value]
    box = f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" fill="{colour}" stroke="#888"/>'
    return [box, _svg_text(x + _WIDTH / 2, y + 21, _cell(cell), "middle")]


def _svg_text(x: float, y: float, text: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def progress(cell: Cell) -> str:
    """One line for the trial just made."""
    trial = cell.trials[-1]
    verdict = trial.verdict
    words = [f"{cell.topology} {cell.pair.type_a} x {cell.pair.type_b}:", verdict.technique or "nothing"]
    if verdict.time_to_direct_ms is not None:
        words.append(f"after {verdict.time_to_direct_ms:g} ms")
    elif verdict.time_to_relay_ms is not None:
        words.append(f"after {verdict.time_to_relay_ms:g} ms")
    if verdict.first_reply_ms is not None:
        words.append(f"(first reply {verdict.first_reply_ms:g} ms)")
    if verdict.gap_ms is not None:
        words.append(f"silent for {verdict.gap_ms:g} ms")
    return " ".join([*words, *(f"FAULT: {fault}" for fault in verdict.faults)])


def sequence(trial: Trial) -> str:
    """What came to the core, line by line, in milliseconds from when a path was asked for.

    Without the pings, and without what is said inside the tunnels to the registry.
    """
    called = trial.names
    start = trial.verdict.asked_at or (trial.crossings[0].at if trial.crossings else 0.0)
    width = max((len(name) for name in called.values()), default=0) + 7
    lines = [f"{'ms':>9}  {'from':<{width}}    {'to':<{width}}  what"]
    left_out = 0
    ports = {one.sender for one in trial.crossings}  # others are of pairs before
    for crossing in trial.crossings:
        if crossing.source not in called or crossing.receiver not in ports or not crossing.is_udp:
            continue
        if REGISTRY in (called[crossing.source], called.get(crossing.destination)) and _is_chatter(crossing):
            continue
        if is_payload(crossing):
            left_out += 1
        elif len(lines) <= _MOST_LINES:
            lines.append(_line(crossing, 1000 * (crossing.at - start), called, width))
    if left_out:
        lines.append(f"           and {left_out} packets of pings")
    return "\n".join([*(f"fault: {fault}" for fault in trial.verdict.faults), *lines, "", trial.log])


def _is_chatter(crossing: Crossing) -> bool:
    """What members and registry say to each other inside their tunnel."""
    return crossing.kind().startswith(("data", "keepalive")) and not is_payload(crossing)


def _line(crossing: Crossing, milliseconds: float, called: Mapping[IPAddress, str], width: int) -> str:
    source = _end(crossing.source, crossing.source_port, called)
    destination = _end(crossing.destination, crossing.destination_port, called)
    arrow = "-->" if crossing.fate == "sent" else "--x"
    fate = "" if crossing.fate == "sent" else f"  {crossing.fate}"
    return (
        f"{milliseconds:9.1f}  {source:<{width}} {arrow} {destination:<{width}}  {crossing.kind()}"
        f"  ttl {crossing.ttl}{fate}"
    )


def _end(address: IPAddress, port: int, called: Mapping[IPAddress, str]) -> str:
    return f"{called.get(address, str(address))}:{port}"
