"""`wgdisco lab demo` and `wgdisco lab exec`: their options, and what becomes of signals."""

import argparse
import json
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from wgdisco.errors import NotRunningError
from wgdisco.lab.nat_types import NAT_TYPES


def add_parser(subparsers: Any) -> None:
    """Add `lab` to the subparsers of `wgdisco`; the parsed arguments go to `run`."""
    parser = subparsers.add_parser("lab", help="two hosts behind NATs, in network namespaces of this machine")
    verbs = parser.add_subparsers(dest="lab_verb", required=True, metavar="VERB")

    demo = verbs.add_parser("demo", help="show the main job: two NATed hosts find each other and talk directly")
    for side, host, default in (("a", "alice", "eim-other-port"), ("b", "bob", "port-restricted")):
        demo.add_argument(
            f"--nat-{side}", choices=NAT_TYPES, default=default, metavar="TYPE", help=f"{host}'s NAT: {default}"
        )
    demo.add_argument("--block-direct", action="store_true", help="drop UDP between the NATs: the control run")
    demo.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to wait for direct: 30")
    demo.add_argument("--keep", action="store_true", help="leave the lab up until Ctrl-C, for `wgdisco lab exec`")
    demo.add_argument("-o", "--output", choices=["table", "json"], default="table", help="form of the summary")
    demo.epilog = f"NAT types: {', '.join(NAT_TYPES)}"

    inside = verbs.add_parser("exec", help="run a command in a host of the running lab")
    inside.add_argument("host", metavar="HOST", help="alice, bob, registry, nat-a, nat-b or core")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="what to run there: a shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run `lab demo` or `lab exec`; returns the exit code. LocalError and its kin go to the caller."""
    if args.lab_verb == "exec":
        _enter(args.host, args.command or ["sh"])
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _demo(args)
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

    with Lab(args.nat_a, args.nat_b) as lab:
        if args.block_direct:
            lab.block_direct()
        demo = Demo(lab, sys.stderr, args.timeout)
        report = demo.run()
        print(json.dumps(report.to_json()) if args.output == "json" else f"\n{report.to_text()}", flush=True)
        if args.keep:
            with suppress(KeyboardInterrupt):
                print(
                    "the lab stays up until Ctrl-C; look inside with: wgdisco lab exec alice ip addr", file=sys.stderr
                )
                demo.timeline.wait(lambda: False, None)
    return 0 if report.direct else 1


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
