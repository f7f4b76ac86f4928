"""How fast the engine is beside others: each in turn on the same two namespaces, round after round.

usage, as root; `make bench` sets up what it needs:

    python -m bench.throughput [--rounds N] [--seconds N] [--engines E,…] [--figures F,…] [--to DIRECTORY]

What is not counted: a second of warm-up before each engine's figures. The results go to performance.json, .md and .svg
of the directory, docs/ unless another is given; what other programs of bench/ have put there stays.
"""

import argparse
import statistics
import sys
from pathlib import Path

from bench import record
from bench.engines import ENGINES, MTU, Bed, Engine
from bench.figures import FIGURES, Figures, measure
from wgdisco.errors import LocalError

# How much peers that only stand there cost: none, some, and very many
CROWDS = {"10 peers": 9, "101 peers": 100, "10000 peers": 9_999}
CROWDED = ("compiled", "wireguard-go")
Rounds = list[dict[str, Figures]]


def _round(bed: Bed, engines: list[Engine], names: list[str], seconds: int, failed: list[str]) -> dict[str, Figures]:
    """Every figure of every engine, once."""
    found: dict[str, Figures] = {}
    if "ping_idle" in names:
        found["bare"], _ = measure(bed.bare, ["ping_idle"], seconds)
    for engine in engines:
        runs = [(engine.name, 0, names)]
        if engine.name in CROWDED and "crowds" in names:
            runs += [(f"{engine.name}, {crowd}", others, ["tcp"]) for crowd, others in CROWDS.items()]
        for name, others, wanted in runs:
            try:
                with bed.running(engine, others) as tunnel:
                    found[name], missed = measure(tunnel, [one for one in wanted if one != "crowds"], seconds)
            except LocalError as error:
                found[name], missed = {}, [str(error)]
            failed += [f"{name}: {what}" for what in missed]
            words = " ".join(f"{figure} {value:.3g}" for figure, value in found[name].items())
            print(f"{name}: {words}", *missed, file=sys.stderr)
    return found


def medians(rounds: Rounds) -> dict[str, dict[str, list[float]]]:
    """By engine and figure: median, smallest, largest of the rounds."""
    result: dict[str, dict[str, list[float]]] = {}
    for name in dict.fromkeys(name for one in rounds for name in one):
        figures = dict.fromkeys(figure for one in rounds for figure in one.get(name, {}))
        for figure in figures:
            values = [one[name][figure] for one in rounds if figure in one.get(name, {})]
            result.setdefault(name, {})[figure] = [statistics.median(values), min(values), max(values)]
    return result


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--figures", default=",".join([*FIGURES, "crowds"]))
    parser.add_argument("--to", type=Path, default=record.DOCS)
    args = parser.parse_args()
    wanted, names = args.engines.split(","), args.figures.split(",")
    if unknown := [*(set(wanted) - set(ENGINES)), *(set(names) - set(FIGURES) - {"crowds"})]:
        parser.error(f"unknown: {', '.join(unknown)}")
    record.check_tools("iperf3", "wg", "ping")
    failed: list[str] = []
    rounds: Rounds = []
    about = record.machine()  # before there is any load of ours
    skipped = {name: reason for name in wanted if (reason := ENGINES[name].missing())}
    engines = [ENGINES[name] for name in wanted if name not in skipped]
    for name, reason in skipped.items():
        print(f"{name} skipped: {reason}", file=sys.stderr)
    results = {
        "mtu": MTU,
        "seconds": args.seconds,
        "engines": {engine.name: {"title": engine.title, "version": engine.describe()} for engine in engines},
        "skipped": {ENGINES[name].title: reason for name, reason in skipped.items()},
        "failed": failed,
        "rounds": rounds,
    }
    with Bed() as bed:
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            rounds.append(_round(bed, engines, names, args.seconds, failed))
            # after each, for who has no patience for more
            record.update(args.to, "throughput", {**results, "medians": medians(rounds)}, about)
    return 0


if __name__ == "__main__":
    record.run(main)
