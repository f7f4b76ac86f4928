"""The verbs that look at a running member, on the command line: ping, wait, netcheck."""

import argparse
import math
from functools import partial
from typing import Any

TIMEOUT = 30.0


def add_verbs(verbs: "argparse._SubParsersAction[Any]") -> None:
    """Mount the verbs."""
    ping = verbs.add_parser("ping", help="ask a peer for an answer, and say by what path it came")
    ping.description = (
        "An echo through the tunnel, and by what path the answer came: direct, lan, or relay with the reason. Exit"
        " code 5 when there is none in time."
    )
    ping.add_argument("peer", metavar="PEER", help="a member's name, or its address in the tunnel")
    ping.add_argument("-c", "--count", type=_count, metavar="N", help="as many answers (default: 1)")
    ping.add_argument("--until-direct", action="store_true", help="go on until the path is direct, or on the LAN")
    _add_timeout(ping)
    ping.add_argument("-o", "--output", choices=("text", "json"), default="text")
    ping.set_defaults(run=partial(_carry_out, "ping"))

    wait = verbs.add_parser("wait", help="wait until the members are reached")
    wait.description = "Wait; after the time-out say what is missing, and why, with exit code 5."
    what = wait.add_mutually_exclusive_group()
    what.add_argument("--online", action="store_true", help="the registry, and every member that is online (default)")
    what.add_argument("--direct", action="store_true", help="every member that is online, or PEER, by a direct path")
    wait.add_argument("peer", nargs="?", metavar="PEER", help="a member's name, or its address in the tunnel")
    _add_timeout(wait)
    wait.set_defaults(run=partial(_carry_out, "wait"))

    netcheck = verbs.add_parser("netcheck", help="how this host's network treats UDP, and which paths to expect")
    netcheck.description = (
        "How the network here treats UDP: addresses as seen from outside, mapping and filtering (RFC 4787),"
        " hairpinning, how long a mapping lasts, who is near, the way to the relay; and which path to expect to each"
        " member."
    )
    netcheck.add_argument("network", nargs="?", metavar="NETWORK", help="may be left out where there is only one")
    netcheck.add_argument("-o", "--output", choices=("table", "json"), default="table")
    netcheck.set_defaults(run=partial(_carry_out, "netcheck"))


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=_seconds, default=TIMEOUT, metavar="S", help=f"give up after S seconds ({TIMEOUT:g})"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _carry_out(name: str, args: argparse.Namespace) -> int:
    from wgdisco import seeing_verbs  # noqa: PLC0415  costs nothing to those who do not use it

    verb = getattr(seeing_verbs, name)
    return int(verb(args))
