"""`wgdisco registry invite`."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from wgdisco.durations import duration_text, parse_duration
from wgdisco.errors import ConfigError
from wgdisco.names import check_member_name
from wgdisco.registry.ephemeral import PERIOD, check_period
from wgdisco.registry.facts import DEFAULT_GROUP


def say(text: str) -> None:
    """To the person, beside what a program reads."""
    print(text, file=sys.stderr)


def invite(args: argparse.Namespace, run: Callable[..., dict[str, Any]]) -> int:
    """`wgdisco registry invite`; `run` has the daemon or its store carry out a command."""
    lifetime, (name, ephemeral) = parse_duration("--expires", args.expires), _named(args.name, args.ephemeral)
    if args.uses < 1:
        raise ConfigError("--uses: at least 1")
    for word in (name, *(args.group or ())):
        if word is not None:
            check_member_name(word)
    groups = args.group or [DEFAULT_GROUP]
    asked = {"name": name, "uses": args.uses, "groups": groups, "admin": args.admin, "lifetime": lifetime}
    answer = run(args, "invite", **asked, ephemeral=ephemeral)
    whom = name if name and args.uses == 1 else f"{args.uses} member{'' if args.uses == 1 else 's'}"
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(answer["expires_at"]))
    say(f"for {whom}, until {until}: type `sudo wgdisco join` there, and give it this link")
    if ephemeral is not None:
        say(f"whoever joins with it is a member until it ends, or is not heard for {duration_text(ephemeral)}")
    if answer["was_revoked"]:
        say(
            f"{name} was revoked: members who knew it refuse another key under that name, until each types"
            f" `wgdisco accept {name}`; invite it under another name to spare them that"
        )
    print(answer["link"])
    return 0


def _named(name: str | None, ephemeral: str | None) -> tuple[str | None, float | None]:
    """The member's name, and for how long one that is ephemeral (`--ephemeral[=TIME]`, "" for the usual) is kept.

    `--ephemeral NAME` means the name: a time is never one, unless there is another.
    """
    if ephemeral is None:
        return name, None
    try:
        period = parse_duration("--ephemeral", ephemeral) if ephemeral else PERIOD
    except ConfigError:
        if name is not None:
            raise
        name, period = ephemeral, PERIOD
    check_period("--ephemeral", period)
    return name, period
