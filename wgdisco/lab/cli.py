"""`wgdisco lab demo` and `wgdisco lab exec`: their options, and what becomes of signals."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from wgdisco.errors import ConfigError, NotRunningError
from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.tunnel.engines import EngineKind


def add_parser(subparsers: Any) -> None:
    """Add `lab` to the subparsers of `wgdisco`; the parsed arguments go to `run`."""
    parser = subparsers.add_parser("lab", help="two hosts behind NATs, in network namespaces of this machine")
    verbs = parser.add_subparsers(dest="lab_verb", required=True, metavar="VERB")

    demo = verbs.add_parser("demo", help="show the main job: two NATed hosts find each other and talk directly")
    demo.description = (
        "Two hosts behind NATs and a registry, the real daemons in network namespaces of this machine: they find each"
        " other and talk directly, as a capture in the network between them shows."
    )
    for side, host, default in (("a", "alice", "eim-other-port"), ("b", "bob", "port-restricted")):
        demo.add_argument(
            f"--nat-{side}", choices=NAT_TYPES, default=default, metavar="TYPE", help=f"{host}'s NAT: {default}"
        )
    demo.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="HOST=NAME",
        help="a host's engine (of registry, alice, bob): userspace (all), kernel, or external, which is wireguard-go",
    )
    demo.add_argument("--block-direct", action="store_true", help="drop UDP between the NATs: the control run")
    demo.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to wait for direct: 30")
    demo.add_argument("--keep", action="store_true", help="leave the lab up until Ctrl-C, for `wgdisco lab exec`")
    demo.add_argument("--svg", type=Path, metavar="FILE", help="draw it too: the network, and what was said")
    demo.add_argument("-o", "--output", choices=["table", "json"], default="table", help="form of the summary")
    demo.epilog = f"NAT types: {', '.join(NAT_TYPES)}"

    _add_matrix(verbs)

    inside = verbs.add_parser("exec", help="run a command in a host of the running lab")
    inside.description = "Run a command in a host of the lab that runs (`lab demo --keep`), as its root."
    inside.add_argument("host", metavar="HOST", help="alice, bob, registry, nat-a, nat-b or core")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="what to run there: a shell")
    parser.set_defaults(run=run)


def _add_matrix(verbs: Any) -> None:
    matrix = verbs.add_parser("matrix", help="every pair of NAT types with the real daemons, against what theory says")
    matrix.description = (
        "Every pair of NAT types against what theory says of it: lan, direct or relay. The path counts that the core"
        " of the lab saw the pings take. Exit code 1 when a pair is not as it should be."
    )
    matrix.add_argument("--types", default=",".join(NAT_TYPES), metavar="T,…", help="NAT types: all ten")
    matrix.add_argument("--topologies", default="T1", metavar="T,…", help="networks, T1 to T10 or all: T1")
    matrix.add_argument("--seeds", type=int, default=1, metavar="N", help="how often each pair is tried: 1")
    matrix.add_argument("--rtt", type=float, default=40.0, metavar="MS", help="round trip to registry and peers: 40")
    matrix.add_argument("--loss", type=float, default=0.0, metavar="P", help="share of packets lost, in %%: 0")
    matrix.add_argument(
        "--engines",
        default="userspace,userspace",
        metavar="A,B",
        help="the two sides' engines: userspace (both), kernel or external, which is wireguard-go",
    )
    matrix.add_argument("-o", "--output", choices=["table", "json"], default="table", help="form of the result")
    matrix.add_argument("--svg", type=Path, metavar="FILE", help="write the matrix as a picture too")
    matrix.add_argument(
        "--failures", type=Path, default=Path("matrix-failures"), metavar="DIR", help="what failed, packet by packet"
    )


def run(args: argparse.Namespace) -> int:
    """Run `lab demo`, `lab matrix` or `lab exec`; returns the exit code. LocalError and its kin go to the caller."""
    if args.lab_verb == "exec":
        _enter(args.host, args.command or ["sh"])
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _matrix(args) if args.lab_verb == "matrix" else _demo(args)
    except KeyboardInterrupt:
        return _interrupted(signal.SIGINT)
    except _TerminatedError:
        return _interrupted(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)


class _TerminatedError(BaseException):
    """SIGTERM came; like KeyboardInterrupt it is nobody's to catch but `run`."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def _interrupted(number: signal.Signals) -> int:
    print("interrupted: the lab is gone", file=sys.stderr)
    return 128 + number


def _demo(args: argparse.Namespace) -> int:
    from wgdisco.lab.scenario import Demo  # noqa: PLC0415  the daemons parse this command line too, and start in haste
    from wgdisco.lab.topology import Lab  # noqa: PLC0415  likewise

    engines = dict(_host_engine(text) for text in args.engine)
    with Lab(args.nat_a, args.nat_b) as lab:
        if args.block_direct:
            lab.block_direct()
        demo = Demo(lab, sys.stderr, args.timeout, engines)
        report = demo.run()
        if args.svg is not None:
            from wgdisco.lab import picture  # noqa: PLC0415  as above

            outside = {host: lab.outside(host) for host in ("registry", "alice", "bob")}
            args.svg.write_text(picture.to_svg(report, outside, demo.timeline.shown), encoding="utf-8")
        print(json.dumps(report.to_json()) if args.output == "json" else f"\n{report.to_text()}", flush=True)
        if args.keep:
            with suppress(KeyboardInterrupt):
                print(
                    "the lab stays up until Ctrl-C; look inside with: wgdisco lab exec alice ip addr", file=sys.stderr
                )
                demo.timeline.wait(lambda: False, None)
    return 0 if report.direct else 1


def _matrix(args: argparse.Namespace) -> int:
    from wgdisco.lab import drawing, matrix  # noqa: PLC0415  as above
    from wgdisco.lab.topologies import TOPOLOGIES  # noqa: PLC0415  as above

    settings = matrix.Settings(
        types=_chosen("type", args.types, NAT_TYPES),
        topologies=tuple(TOPOLOGIES) if args.topologies == "all" else _chosen("topology", args.topologies, TOPOLOGIES),
        seeds=args.seeds,
        rtt=args.rtt / 1000,
        loss=args.loss / 100,
        engines=_engines(args.engines),
    )
    if settings.seeds < 1 or settings.rtt < 0 or not 0 <= settings.loss < 1:
        raise ConfigError("--seeds is at least 1, --rtt not negative, --loss from 0 to 99")

    def progress(cell: matrix.Cell) -> None:
        trial = cell.trials[-1]
        if trial.verdict.faults:
            args.failures.mkdir(parents=True, exist_ok=True)
            name = f"{cell.topology}-{cell.pair.type_a}-{cell.pair.type_b}-{len(cell.trials)}.txt"
            (args.failures / name).write_text(drawing.sequence(trial), encoding="utf-8")
        print(drawing.progress(cell), file=sys.stderr, flush=True)

    report = matrix.run(settings, progress)
    if args.svg is not None:
        args.svg.write_text(drawing.to_svg(report), encoding="utf-8")
    print(json.dumps(report.to_json()) if args.output == "json" else drawing.to_text(report), flush=True)
    return 1 if report.failed else 0


_ENGINES = {kind.value: kind for kind in EngineKind if kind is not EngineKind.AUTO}


def _engines(text: str) -> tuple[EngineKind, EngineKind]:
    names = _chosen("engine", text, _ENGINES)
    if len(names) != 2:
        raise ConfigError("--engines: two of them, for example external,userspace")
    return _ENGINES[names[0]], _ENGINES[names[1]]


def _host_engine(text: str) -> tuple[str, EngineKind]:
    host, _, name = text.partition("=")
    if host not in ("registry", "alice", "bob"):
        raise ConfigError(f"--engine {text}: write HOST=NAME, with registry, alice or bob for HOST")
    return host, _ENGINES[_chosen("engine", name, _ENGINES)[0]]


def _chosen(what: str, text: str, known: Collection[str]) -> tuple[str, ...]:
    """The names in a list with commas; ConfigError on an unknown one."""
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"there is no {what} {unknown[0] if unknown else ''!r}: choose from {', '.join(known)}")
    return names


def _enter(host: str, command: list[str]) -> NoReturn:
    """Become `command` in `host` of the lab made last. NotRunningError if there is none we may enter."""
    from wgdisco.lab.world import enter_command, environment, find_holders  # noqa: PLC0415  as above

    holders = find_holders()
    if not holders:
        raise NotRunningError(
            "no lab of yours is running: start one with `wgdisco lab demo --keep` (and the same user)"
        )
    inside = {holder.host: holder for holder in holders if holder.lab == holders[-1].lab}
    if host not in inside:
        raise NotRunningError(f"the lab has no host {host!r}: it has {', '.join(sorted(inside))}")
    entry = [*enter_command(inside[host].pid), "--", *command]
    os.execvpe(entry[0], entry, environment())  # noqa: S606 - no shell is wanted
