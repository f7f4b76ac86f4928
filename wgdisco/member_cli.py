"""The member's verbs on the command line: join, up, down, leave, accept, rotate-key."""

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from wgdisco.errors import ConfigError
from wgdisco.process import heed_signals

Verb = Callable[[argparse.Namespace], int]

# What the help says in one line, said at length
_ABOUT = {
    "join": "Become a member of a network by a join link, and keep direct tunnels to its members. The link is asked for"
    " when it is not given, and read from standard input (-) or a file (@FILE) too. Where systemd runs the machine"
    " the unit wgdisco-join@NETWORK is installed and started; else, and with --foreground, it stays. The members are"
    " printed once they are reached. Again it is harmless; options given then are kept. With --conf instead it brings"
    " up the interface of a wg-quick file: keys come from the file, endpoints from the zone. With --interface alone"
    " it takes one that is up, of the kernel's WireGuard or another engine's, and changes nothing but its peers'"
    " endpoints and keepalives.",
    "up": "Connect to a network this host is a member of. Options are kept.",
    "down": "Disconnect from a network, and stay a member. After a daemon was killed this takes back what it had"
    " changed on this host; given an interface, also for a daemon of a .conf.",
    "leave": "Give the membership up, and delete its keys. Coming back takes a new join link.",
    "rotate-key": "Change this member's key, over the tunnel that stands.",
    "accept": "Talk to a member that is new (with `join --accept-peers ask` or `pinned`), or whose key has changed."
    " Ask its owner for the key first.",
    "host-dns": "Have this host look the names of the network's zone up at its registry, as `join --host-dns` said. The"
    " unit that join writes does this, since the daemon is not root.",
}


def add_verbs(
    verbs: "argparse._SubParsersAction[Any]",
    add_pinned_flags: Callable[[argparse.ArgumentParser], None],
    join_pinned: Verb,
) -> None:
    """Mount the verbs; `join_pinned` is what `join --conf …` does."""
    join = verbs.add_parser("join", help="become a member of a network by its join link, and keep tunnels to its peers")
    join.description = _ABOUT["join"]
    _add_join_flags(join)
    add_pinned_flags(join)
    join.set_defaults(run=partial(_join, join_pinned), holds_signals=True)

    for name, text in (
        ("up", "connect to a network this host is a member of"),
        ("down", "disconnect from it, and stay a member"),
        ("leave", "give the membership up"),
        ("rotate-key", "change this member's key, over the tunnel that stands"),
    ):
        parser = verbs.add_parser(name, help=text, description=_ABOUT[name])
        parser.add_argument("network", nargs="?", metavar="NETWORK", help="may be left out where there is only one")
        parser.set_defaults(run=partial(_carry_out, name.replace("-", "_")))
        if name == "leave":
            parser.add_argument("--yes", action="store_true", help="do not ask")
        if name == "up":
            _add_ways(parser)
            add_metrics_flag(parser)
            _add_log_flags(parser)
    accept = verbs.add_parser("accept", help="talk to a member that is new, or whose key has changed")
    accept.description = _ABOUT["accept"]
    accept.add_argument("name", metavar="NAME")
    accept.add_argument("--network", metavar="NETWORK", help="may be left out where there is only one")
    accept.set_defaults(run=partial(_carry_out, "accept"))
    host_dns = verbs.add_parser("host-dns", help="have this host look a network's names up, as its unit does, or not")
    host_dns.description = _ABOUT["host-dns"]
    host_dns.add_argument("network", metavar="NETWORK")
    host_dns.add_argument("--undo", action="store_true", help="no longer")
    host_dns.set_defaults(run=partial(_carry_out, "host_dns"))


def _add_join_flags(join: argparse.ArgumentParser) -> None:
    join.add_argument("link", nargs="?", metavar="LINK|-|@FILE", help="the join link (asked for when left out)")
    join.add_argument("--name", metavar="NAME", help="this member's name (default: the host's)")
    join.add_argument("--network", metavar="NAME", help="what to call the network here (default: its own name)")
    join.add_argument("--foreground", action="store_true", help="stay, even where systemd could run it")
    join.add_argument(
        "--accept-peers",
        choices=("all", "ask", "pinned"),
        help="members never seen before: accept all (default), those you `wgdisco accept`, or only those there now",
    )
    join.add_argument(
        "--offline-trust",
        metavar="TIME",
        help="how long members are trusted without word from a registry: for example 12h, 7d (7d)",
    )
    join.add_argument(
        "--block-incoming",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let nothing in that this host did not ask for",
    )
    join.add_argument(
        "--mdns",
        action="store_true",
        help="find members on the LAN by mDNS on every private network (default: where a member was met before)",
    )
    join.add_argument(
        "--no-mdns",
        nargs="?",
        const="",
        action="append",
        metavar="IF",
        help="no mDNS, or (--no-mdns=IF, may be repeated) none on that interface",
    )
    join.add_argument(
        "--firewall",
        choices=("auto", "print", "none"),
        help="a firewall here that drops what we need: have its own tool let it in (default), say how, or nothing",
    )
    _add_ways(join)
    join.add_argument(
        "--engine",
        choices=("auto", "userspace", "kernel", "external"),
        help="whose WireGuard runs the interface: ours (userspace, the default); the kernel's; the kernel's where it"
        " has one, else ours (auto); another program's, which has made it (external). With neither a .conf nor a link"
        " the interface is taken as it is found",
    )


def _add_ways(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--offer",
        metavar="CIDR[,CIDR…]|exit|none",
        help="subnets behind this host that members may reach, exit for the Internet, once the registry approves of it",
    )
    parser.add_argument(
        "--exit", metavar="NAME|none", help="send everything but what is on the LAN through that member, always"
    )


def add_metrics_flag(parser: argparse.ArgumentParser) -> None:
    """Of every daemon."""
    parser.add_argument(
        "--metrics",
        metavar="[ADDRESS:]PORT|none",
        help="let Prometheus ask there, by HTTP: a port of the loopback, or an address whoever reaches it may ask at",
    )


def _add_log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", choices=("text", "json"), default="text", help="one line an event")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is usually not worth a line")


def _join(join_pinned: Verb, args: argparse.Namespace) -> int:
    if not _is_managed(args):
        return join_pinned(args)
    heed_signals()  # it may ask for the link, and whoever is asked may say Ctrl-C
    return _carry_out("join", args)


def _is_managed(args: argparse.Namespace) -> bool:
    pinned = [args.conf, args.zone, args.dns, args.interface, os.environ.get("WGDISCO_CONF")]
    managed = [args.link, args.network, args.name, args.accept_peers, args.offline_trust, args.mdns, args.no_mdns]
    managed += [args.offer, args.exit]
    if any(pinned) and any(managed):
        raise ConfigError("--conf, --zone, --dns and --interface are for a .conf; a join link needs none of them")
    return not any(pinned)


def _carry_out(name: str, args: argparse.Namespace) -> int:
    from wgdisco import member_verbs  # noqa: PLC0415  costs nothing to those who do not use it

    verb: Verb = getattr(member_verbs, name)
    return verb(args)
