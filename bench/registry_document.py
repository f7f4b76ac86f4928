"""The part of docs/performance.md about one registry and its limit, and its plot."""

from collections.abc import Sequence
from typing import Any

from bench.lines import Line, Panel, to_svg

METHOD = """A real `registry run` in one namespace, and in another one process that plays all members: each with its own
key, session, outer and inner address, and (where they listen) its own stream of events by TCP inside the tunnel. What
is measured ends where the playing process has read it, so its own time is in it: it had {crowd:.0f} % of a processor
while {members:,} members did nothing. Processor time is the registry's own process, without the zone's server beside
it. By `python -m bench.registry`.
"""

LIMIT = """The limit of one machine is one processor: engine, API and streams of events are one process that uses one,
and the zone's server has another. Of handshakes there may be {handshakes:.0f} a second, {times:.0f} times what
{members:,} members need at one each two minutes. A change costs {listener:.0f} µs for each member that listens and may
know of it: where all {mesh:,} see each other {changes:.0f} changes a second fill the processor, in groups of 100
{group_changes:.0f}. Every change of facts (an invitation, a member that joins, a name) looks at all members once: at
1,000 that is {invitation:.0f} ms of processor for an invitation and {joining:.0f} ms for a member that joins, and it
grows with their number. Snapshots of a network of {mesh:,} are {snapshot:.0f} kB each: they are given to 32 members at
a time, and all had theirs after {snapshots:.0f} s.
"""


def parts(data: dict[str, Any]) -> list[str]:
    """The section, of what was measured."""
    found = ["## One registry\n"]
    if {"handshakes", "mesh", "steady", "join"} <= data.keys():
        found += [_method(data), "![how soon all know, and how soon they are back](registry.svg)\n"]
    found.append(_figures(data))
    if {"handshakes", "mesh", "steady", "join"} <= data.keys():
        found.append(_limit(data))
    for name, title in (
        ("handshakes", "handshakes"),
        ("mesh", "telling all that one has moved"),
        ("steady", "keeping many"),
    ):
        if name in data:
            rows = [f"| `{function}` | {100 * share:.0f} % |" for function, share in data[name]["functions"].items()]
            found.append("\n".join([f"| where its time goes: {title} | share |", "| --- | ---: |", *rows]) + "\n")
    return found


def targets(data: dict[str, Any]) -> list[tuple[str, list[float], float, float, str]]:
    """What must be reached and what is aimed for; less is better."""

    def of(part: str, figure: str) -> list[float]:
        return [data[part][figure]] if part in data else []

    back = [data["steady"]["restart"]["all_s"]] if "steady" in data else []
    return [
        ("one of 1,000 has moved → all others are told, p99", of("mesh", "p99_ms"), 250, 150, " ms"),
        ("processor of a registry with 10,000 members", of("steady", "processor_percent"), 100, 50, " %"),
        ("10,000 members known again after a kill", back, 90, 60, " s"),
        ("memory a member that listens", _memory(data), 64, 48, " KiB"),
    ]


def plot(data: dict[str, Any]) -> str | None:
    """Both curves, as SVG; None without either."""
    panels = []
    if "mesh" in data:
        points = [(late, 100.0 * at / 20) for at, late in enumerate(data["mesh"]["each_ms"])]
        title = f"one of {data['mesh']['members']:,} has moved: told after ms, % of the others"
        panels.append(Panel(title, (Line("", points),)))
    if "steady" in data:
        restart = data["steady"]["restart"]
        points = [(at, known) for at, known in restart["curve"]]
        panels.append(Panel("registry killed: members known again, after s", (Line("", points),)))
    return to_svg(panels) if panels else None


def _memory(data: dict[str, Any]) -> list[float]:
    if "steady" not in data:
        return []
    one = data["steady"]
    empty, known, listening = one["rss_mib"]
    return [1024 * ((known - empty) / one["members"] + (listening - known) / one["listening"])]


def _method(data: dict[str, Any]) -> str:
    return METHOD.format(crowd=data["steady"]["crowd_percent"], members=data["steady"]["members"])


def _limit(data: dict[str, Any]) -> str:
    handshakes, mesh, steady, join = (data[name] for name in ("handshakes", "mesh", "steady", "join"))
    a_listener = mesh["processor_ms"] / mesh["members"]
    return LIMIT.format(
        handshakes=handshakes["a_core"],
        times=handshakes["a_core"] / (steady["members"] / 120),
        members=steady["members"],
        listener=1000 * a_listener,
        mesh=mesh["members"],
        changes=1000 / mesh["processor_ms"],
        group_changes=1000 / (100 * a_listener),
        invitation=join["invitation_processor_ms"],
        joining=join["processor_ms"],
        snapshot=1024 * mesh["snapshots_mib"] / mesh["members"],
        snapshots=mesh["snapshots_s"],
    )


def _figures(data: dict[str, Any]) -> str:
    rows: list[tuple[str, str]] = []
    if "handshakes" in data:
        one = data["handshakes"]
        rows.append(("handshakes answered a second of processor", f"{one['a_core']:,.0f}"))
        rows.append(("… a second, the members' side on the other processor", f"{one['a_second']:,.0f}"))
    if "mesh" in data:
        one = data["mesh"]
        rows += [
            (f"{one['members']:,} that all listen: told that one has moved, p50, p99", _two(one, "p50_ms", "p99_ms")),
            ("… the last of them, median, worst", _two(one, "last_p50_ms", "last_max_ms")),
            ("… processor a change", f"{one['processor_ms']:.0f} ms"),
            ("… events that did not arrive in 10 s", f"{one['missed']}"),
            ("… all have a snapshot after, and processor for that", _seconds(one)),
        ]
    if "steady" in data:
        rows += _steady(data["steady"])
    if "join" in data:
        one = data["join"]
        rows += [
            ("joins by link a second, into 1,000 members, 8 at a time", f"{one['a_second']:.1f}"),
            ("… each, p50, p99", _two(one, "p50_ms", "p99_ms")),
        ]
    return "\n".join(["|  |  |", "| --- | ---: |", *(f"| {what} | {value} |" for what, value in rows)]) + "\n"


def _steady(one: dict[str, Any]) -> Sequence[tuple[str, str]]:
    empty, known, listening = one["rss_mib"]
    members, restart = one["members"], one["restart"]
    each = f"{_kib(known - empty, members)}, {_kib(listening - known, one['listening'])}"
    return [
        (
            f"{members:,} in groups of 100, {one['listening']:,} listening: processor",
            f"{one['processor_percent']:.0f} %",
        ),
        ("… handshakes a second", f"{one['handshakes_s']:.0f}"),
        ("… in a group, told that one has moved, p50, p99", _two(one, "group_p50_ms", "group_p99_ms")),
        ("… memory: before any came, with sessions, with streams", f"{empty:.0f}, {known:.0f}, {listening:.0f} MiB"),
        ("… a member's session, a member's stream", each),
        ("killed: answers again, knows all again after", f"{restart['up_s']:.1f}, {restart['all_s']:.0f} s"),
    ]


def _kib(mib: float, members: int) -> str:
    return f"{1024 * mib / members:.0f} KiB"


def _two(one: dict[str, Any], first: str, second: str) -> str:
    return f"{one[first]:.0f}, {one[second]:.0f} ms"


def _seconds(one: dict[str, Any]) -> str:
    return f"{one['snapshots_s']:.0f}, {one['snapshots_processor_s']:.0f} s"
