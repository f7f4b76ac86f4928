"""docs/performance.md, made of performance.json: nothing in it is written by hand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import plot, registry_document

ECHO = "a process that does nothing else"  # what the machine alone takes to answer

INTRODUCTION = """# Performance

How fast the engine is beside others, and where its time goes. The programs of `bench/` measured it and wrote this;
`make bench` measures the engines anew, and the other parts name their commands. Figures of one machine say little about
another's; what says something is how engines compare that took turns on the same one. A target that is missed is shown
as missed.
"""

METHOD = """Two namespaces joined by a veth, the same engine on both ends, MTU {mtu}; the engines take turns, and all of
it is done {rounds} times. A figure is the median of the rounds, a ratio the median of the rounds' ratios. Both
engines, iperf3 and what it talks to share the machine's {cores} processors, and so does whatever else runs. A run takes
{seconds} s, after a second of warm-up for each engine. UDP of 1372 bytes: the highest rate received with less than 1 %
lost, found by doubling and halving; of 64 bytes: what is received when as much is sent as can be. Processor time is the
engine's own (user and system, all threads) during one stream of TCP, over the packets of 1420 bytes in it; the kernel's
work for a packet counts where it is done in the engine's calls. A round trip *added* is its median less the median
over the bare veth in the same round.
"""

RESPONSIVE = """A registry and a member asked 50 times a second each, first idle, then while iperf3 sends {gbit:.2g}
Gbit/s, both ways together, through their tunnel; milliseconds to the answer, as seen by processes that share the
processors with all of that; the last is what the machine alone makes of it. By `python -m bench.responsive`.
"""

DNS = """{peers} peers, each server on one processor and dnsperf on the other, in turns, {rounds} times
{seconds} s; of the questions 40 % are SRV, 30 % TXT, 20 % A, 5 % PTR of 15 instances and 5 % of names that are not
there, all with EDNS and a cookie. Then, beside {load:.0f} questions a second, one peer at a time moves, and is asked
for until the answer says so: from what the device sees to the answer, through the registry and the process that serves
the zone. By `python -m bench.dns`.
"""

BESIDE = """One stream of iperf3 from a member to its registry, {rounds} times {seconds} s each: alone, while dnsperf
asks the registry {load:,.0f} questions a second inside the tunnel, while it asks Knot as much, which has nothing to do
with the tunnel, and while it asks a mirror where the registry is: a program that says back what it hears, and costs
nothing but the kernel's work. What is kept beside that is what asking alone leaves, with dnsperf, iperf3 and both
engines on the same processors; of that the registry's own server leaves {of_mirrors:.2g}. The process that serves the
zone takes {server:.0f} % of one. By `python -m bench.beside`.
"""

SAMPLED = """The engine at work. Its processes are sampled by perf during one stream of TCP and during a flood of
datagrams of 64 bytes; a part's share of the samples times the processor time of a packet (`python -m bench.remains`):
"""

LOOKS = """A device that another engine runs is looked at: all its peers are read, whatever they did. Milliseconds for
a look at peers that did nothing (median of 20), and how much of a core that is; first the same over what `wg show dump`
takes in the same run, less what `wg` takes for nothing. Then the processor while nothing happens but the looks that
`join` makes (a twentieth of a core at most, by itself), and how old a handshake of one of the peers is when it is heard
of. wireguard-go ran here; the kernel's WireGuard on Debian's kernel in qemu, where the processor is emulated and shared
with whatever else ran: of that only the ratio says something. By `python -m bench.kernel`.
"""
LOOKS_COLUMNS = (
    ("look_ms", "look"),
    ("look_cpu_ms", "of a core"),
    ("idle_percent", "idle, %"),
    ("idle_percent_with_engine", "with the engine"),
    ("handshake_p50_ms", "handshake p50"),
    ("handshake_max_ms", "max"),
)

COLUMNS = (
    ("tcp_gbit", "TCP 1"),
    ("tcp_four_gbit", "TCP 4"),
    ("tcp_reverse_gbit", "reverse"),
    ("tcp_both_gbit", "both ways"),
    ("udp_gbit", "UDP 1372"),
    ("udp_small_kpps", "64 B, k/s"),
    ("cpu_sender_us", "µs sent"),
    ("cpu_receiver_us", "µs received"),
    ("ping_idle_p50_us", "ping p50"),
    ("ping_idle_p99_us", "p99"),
    ("ping_loaded_p50_us", "loaded p50"),
    ("ping_loaded_p99_us", "p99"),
    ("rss_mib", "RSS"),
)
PROGRAMS = {
    "throughput": "throughput",
    "responsive": "answers under load",
    "idle": "idle member",
    "dns": "the zone's server",
    "registry": "one registry",
    "beside": "a tunnel beside DNS",
    "looks": "engines that are not ours",
    "remains": "what remains",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, what it must reach and what it aims for; with `less`, less is better."""

    title: str
    values: Sequence[float]
    must: float
    aim: float
    unit: str = ""
    less: bool = False

    def row(self) -> list[str]:
        """Its row of the table."""
        shown = f"{self.must:g}{self.unit}", f"{self.aim:g}{self.unit}"
        if not self.values:
            return [self.title, *shown, "", "not measured"]
        found = median(self.values)
        text = f"{found:.3g}{self.unit}"
        if len(self.values) > 1:
            text += f" ({min(self.values):.3g} to {max(self.values):.3g})"
        sign = -1 if self.less else 1
        verdict = "aim reached" if sign * found >= sign * self.aim else "reached"
        return [self.title, *shown, text, verdict if sign * found >= sign * self.must else "**missed**"]


def to_markdown(record: dict[str, Any]) -> str:
    """The document; of what was not measured, it says that."""
    parts = [INTRODUCTION, "## Targets\n", _table(("", "must reach", "aim", "measured", ""), _targets(record))]
    if "throughput" in record:
        parts += _throughput(record["throughput"])
    if "responsive" in record:
        parts += _responsive(record["responsive"])
    if "idle" in record:
        idle = record["idle"]
        parts.append(
            f"## An idle member\n\n`wgdisco join` that knows {idle['peers']} others, nobody sending anything, over "
            f"{idle['seconds']} s: {idle['cpu_percent']:.2g} % of a processor (median of all members; "
            f"{idle['cpu_percent_max']:.2g} % at most), {idle['rss_mib']:.0f} MiB resident "
            f"({idle['rss_mib_max']:.0f} at most). By `python -m bench.idle`.\n"
        )
    if "dns" in record:
        parts += _dns(record["dns"])
    if "registry" in record:
        parts += registry_document.parts(record["registry"])
    if "beside" in record:
        parts += _beside(record["beside"])
    if "looks" in record:
        parts += _looks(record["looks"])
    if "remains" in record:
        parts += _remains(record["remains"])
    return "\n".join([*parts, *_machines(record)])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    rule = ["---"] + ["---:" if numbers else "---"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]) + "\n"


def _ratios(throughput: dict[str, Any], figure: str, one: str, other: str) -> list[float]:
    """Of each round that has both; round trips less those over the bare veth."""
    found = []
    for rounds in throughput.get("rounds", []):
        a, b = (rounds.get(name, {}).get(figure) for name in (one, other))
        if a is None or b is None:
            continue
        if figure == "ping_idle_p50_us":
            bare = rounds["bare"][figure]
            a, b = a - bare, b - bare
        found.append(a / b)
    return found


def _targets(record: dict[str, Any]) -> list[list[str]]:
    throughput, idle, loaded = (record.get(name, {}) for name in ("throughput", "idle", "responsive"))

    def to_current(figure: str) -> list[float]:
        return _ratios(throughput, figure, "compiled", "wireguard-go")

    def of_idle(figure: str) -> list[float]:
        return [idle[figure]] if figure in idle else []

    crowded = [
        _ratios(throughput, f"cpu_{end}_us", "compiled, 10000 peers", "compiled, 10 peers")
        for end in ("sender", "receiver")
    ]
    answers = [found["p99_ms"] for what, found in loaded.get("loaded", {}).items() if what != ECHO]
    dns = record.get("dns", {})

    def of_dns(figure: str) -> list[float]:
        return [dns[figure]] if figure in dns else []

    beside = record.get("beside", {})
    beside_p99 = [beside["answer_p99_ms"]] if beside else []
    current = "÷ current wireguard-go"
    targets = (
        Target(f"TCP one stream {current}", to_current("tcp_gbit"), 1.2, 1.6),
        Target(f"TCP four streams {current}", to_current("tcp_four_gbit"), 1.1, 1.5),
        Target(f"TCP both ways {current}", to_current("tcp_both_gbit"), 1.1, 1.5),
        Target(f"µs of processor a packet, sender, {current}", to_current("cpu_sender_us"), 0.7, 0.5, less=True),
        Target(f"µs of processor a packet, receiver, {current}", to_current("cpu_receiver_us"), 0.7, 0.5, less=True),
        Target(f"UDP 1372 bytes received {current}", to_current("udp_gbit"), 1.5, 2),
        Target(f"64-byte packets/s {current}", to_current("udp_small_kpps"), 1.0, 2),
        Target(f"round trip added, idle, median, {current}", to_current("ping_idle_p50_us"), 1.0, 0.6, less=True),
        Target(
            "plain Python, TCP one stream ÷ Debian's wireguard-go",
            _ratios(throughput, "tcp_gbit", "reference", "debian"),
            0.5,
            1.0,
        ),
        Target("µs a packet at 10,000 peers ÷ at 10, sender", crowded[0], 1.5, 1.5, less=True),
        Target("µs a packet at 10,000 peers ÷ at 10, receiver", crowded[1], 1.5, 1.5, less=True),
        Target(
            "an answer while the tunnel is full, p99 of the slowest",
            answers and [max(answers)],
            20,
            20,
            " ms",
            less=True,
        ),
        Target("DNS answers a second ÷ Knot's, one processor each", dns.get("ratio", []), 0.5, 0.65),
        Target("… while 100 peers move a second ÷ while none does", dns.get("moving", []), 0.95, 0.95),
        Target("a peer has moved → an answer says so, p99", of_dns("shown_p99_ms"), 20, 20, " ms", less=True),
        Target("an answer beside 20,000 questions a second, p99", of_dns("answer_p99_ms"), 5, 5, " ms", less=True),
        Target("a full tunnel beside 20,000 questions a second ÷ alone", _over(beside, "ours", "alone"), 0.9, 0.9),
        Target("… ÷ beside as many to Knot", _over(beside, "ours", "knot"), 0.9, 0.9),
        Target("… ÷ beside as many to a mirror", _over(beside, "ours", "mirror"), 0.9, 0.9),
        Target("… an answer then, p99", beside_p99, 5, 5, " ms", less=True),
        Target("memory of the zone's server, 10,000 peers", of_dns("rss_mib"), 150, 150, " MiB", less=True),
        Target("RSS of an idle `join`", of_idle("rss_mib"), 70, 50, " MiB", less=True),
        Target("processor of an idle `join` with 20 peers", of_idle("cpu_percent"), 0.5, 0.1, " %", less=True),
    )
    of_registry = registry_document.targets(record.get("registry", {}))
    return [target.row() for target in (*targets, *(Target(*one, less=True) for one in of_registry))]


def _throughput(data: dict[str, Any]) -> list[str]:
    cores = data["machine"]["cores"]
    method = METHOD.format(mtu=data["mtu"], rounds=len(data["rounds"]), seconds=data["seconds"], cores=cores)
    rows = []
    for name, title in [("bare", "bare veth"), *((name, one["title"]) for name, one in data["engines"].items())]:
        found = data["medians"].get(name, {})
        if found:
            rows.append([title, *(f"{found[key][0]:.3g}" if key in found else "" for key, _ in COLUMNS)])
    added = plot.values(data, "ping_added_us")
    lines = [
        "Round trip added to the bare veth's, idle, median, µs: "
        + ", ".join(f"{data['engines'][name]['title']} {value[0]:.0f}" for name, value in added.items())
        + ".\n"
    ]
    crowds = [(name, found) for name, found in data["medians"].items() if name.endswith(" peers")]
    parts = [
        "## Beside other engines\n",
        method,
        "![the engines side by side](performance.svg)\n",
        "Gbit/s unless it says otherwise; pings and processor time in µs, memory in MiB:\n",
        _table(("", *(title for _, title in COLUMNS)), rows, numbers=True),
        *(lines if added else []),
        "Versions: "
        + ", ".join(f"{one['title']} {one['version']}" for one in data["engines"].values() if one["version"]),
        "",
        *(f"Not measured: {title}, for {reason}.\n" for title, reason in data["skipped"].items()),
        *(f"Failed: {what}\n" for what in data["failed"]),
    ]
    if crowds:
        keys = (("tcp_gbit", "TCP 1, Gbit/s"), ("cpu_sender_us", "µs sent"), ("cpu_receiver_us", "µs received"))
        parts += [
            "### Many peers\n",
            "One peer busy with one stream of TCP, the others configured on both ends and never heard of:\n",
            _table(
                ("", *(title for _, title in keys)),
                [
                    [name, *(f"{found[key][0]:.3g}" if key in found else "" for key, _ in keys)]
                    for name, found in crowds
                ],
                numbers=True,
            ),
        ]
    return parts


def _responsive(data: dict[str, Any]) -> list[str]:
    rows = [
        [
            what,
            *(f"{data[when][what][key]:.3g}" for when in ("idle", "loaded") for key in ("p50_ms", "p99_ms", "max_ms")),
        ]
        for what in data["loaded"]
    ]
    return [
        "## Answers while the tunnel is full\n",
        RESPONSIVE.format(**data),
        _table(("", "idle p50", "p99", "max", "full p50", "p99", "max"), rows, numbers=True),
    ]


def _dns(data: dict[str, Any]) -> list[str]:
    titles = {"knot": "Knot DNS", "wgdisco": "ours", "moving": "ours, 100 peers moving a second"}
    rows = [
        [
            title,
            f"{data['medians'][what]:,.0f}",
            f"{data['processor'][what]:,.0f}",
            " ".join(f"{rate:,.0f}" for rate in data["rounds"][what]),
        ]
        for what, title in titles.items()
    ]
    times = [
        [title, *(f"{data[f'{figure}_{share}_ms']:.3g}" for share in ("p50", "p99"))]
        for figure, title in (("shown", "a peer has moved → an answer says so"), ("answer", "one answer"))
    ]
    return [
        "## The zone's server\n",
        DNS.format(**data | {"rounds": len(data["ratio"])}),
        _table(("", "answers/s, median", "a processor second", "answers/s, each round"), rows, numbers=True),
        _table(("ms", "p50", "p99"), times, numbers=True),
        f"It takes {data['rss_mib']:.0f} MiB.\n",
    ]


def _over(beside: dict[str, Any], what: str, other: str) -> list[float]:
    """The tunnel's rate while one of both is done, by that while the other is, of each round."""
    rates = beside.get("gbit", {})
    return [one / than for one, than in zip(rates.get(what, ()), rates.get(other, ()), strict=True)]


def _beside(data: dict[str, Any]) -> list[str]:
    titles = {
        "alone": "alone",
        "ours": "while the registry is asked",
        "knot": "while Knot is asked",
        "mirror": "while a mirror is asked",
    }
    rows = [
        [
            title,
            f"{median(data['gbit'][what]):.3g}",
            "" if what == "alone" else f"{median(_over(data, what, 'alone')):.2g}",
            " ".join(f"{rate:.3g}" for rate in data["gbit"][what]),
        ]
        for what, title in titles.items()
    ]
    about = {"rounds": len(data["gbit"]["alone"]), "server": 100 * data["server_processor"]}
    about["of_mirrors"] = median(_over(data, "ours", "mirror"))
    return [
        "## A tunnel beside DNS\n",
        BESIDE.format(**data | about),
        _table(("", "Gbit/s, median", "÷ alone", "Gbit/s, each round"), rows, numbers=True),
        f"An answer then: {data['answer_p50_ms']:.3g} ms (p50), {data['answer_p99_ms']:.3g} ms (p99).\n",
    ]


def _looks(data: dict[str, Any]) -> list[str]:
    def ratio(found: dict[str, float]) -> str:
        """A dump of few peers takes no time that could be told from what the program itself takes."""
        dump = found["wg_show_dump_ms"] - found["wg_version_ms"]
        return f"{found['look_ms'] / dump:.2g}" if found["peers"] >= 1000 else ""

    rows = [
        [f"{name}, {found['peers']} peers", ratio(found), *(f"{found[key]:.3g}" for key, _ in LOOKS_COLUMNS)]
        for name, engine in (("wireguard-go", "external"), ("the kernel's, emulated", "kernel"))
        for found in data.get(engine, ())
    ]
    head = ("", "look over wg's", *(title for _, title in LOOKS_COLUMNS))
    return ["## Engines that are not ours\n", LOOKS, _table(head, rows, numbers=True)]


def _remains(data: dict[str, Any]) -> list[str]:
    rows = []
    for name, work in data["burst"].items():
        rows += [[what, name, f"{sealing:.2f}", f"{opening:.2f}"] for what, (sealing, opening) in work.items()]
    parts = [
        "## What remains, µs by µs\n",
        "The burst by itself, best of several, µs of processor time a packet (`python -m bench.burst`):\n",
        _table(("", "", "seal", "open"), rows, numbers=True),
        "With the core around it (peers, sessions, replays, timers), µs for a call (`python -m bench.core`):\n",
        _table(
            ("", "send", "receive"),
            [[what, *(f"{one:.1f}" for one in way)] for what, way in data["core"].items()],
            numbers=True,
        ),
        SAMPLED,
        *([f"Skipped: {data['skipped']}.\n"] if "skipped" in data else []),
    ]
    for traffic, ends in data["parts"].items():
        names = list(dict.fromkeys(what for end in ends.values() for what in end["parts"]))
        rows = [[what, *(f"{end['parts'].get(what, 0.0):.2f}" for end in ends.values())] for what in names]
        rows.append(["in all", *(f"{end['us']:.2f}" for end in ends.values())])
        calls = dict.fromkeys(call for end in ends.values() for call in end["packets_a_call"])
        for call in calls:
            counts = (end["packets_a_call"].get(call) for end in ends.values())
            rows.append([f"packets for one `{call}`", *("" if one is None else f"{one:.3g}" for one in counts)])
        parts.append(_table((f"{traffic}, µs a packet", *ends), rows, numbers=True))
    parts.append(
        "The same by function of ours, with what it calls in C counted as its own, from a note every 2 ms of processor "
        "time:\n"
    )
    for traffic, ends in data["functions"].items():
        for end, shares in ends.items():
            rows = [[f"`{function}`", f"{100 * share:.0f} %"] for function, share in shares.items() if share >= 0.01]
            parts.append(_table((f"{traffic}, {end}", "share"), rows, numbers=True))
    return parts


def _machines(record: dict[str, Any]) -> list[str]:
    """Where and when each part was measured; once, where they agree."""
    rows = []
    for section, title in PROGRAMS.items():
        if section in record:
            about = record[section]["machine"]
            rows.append([title, about["date"], f"`{about['commit']}`", f"{about['load_before']:g}"])
    about = next((record[section]["machine"] for section in PROGRAMS if section in record), None)
    if about is None:
        return []
    return [
        "## The machine\n",
        "{cpu}, {cores} processors, Linux {kernel}, Python {python}, {libcrypto}.\n".format(**about),
        "A + after a commit: with changes that are not in it. The load is the machine's over the minute before.\n",
        _table(("", "measured", "commit", "load before"), rows),
    ]
