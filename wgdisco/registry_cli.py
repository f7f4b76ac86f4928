"""The command line of `wgdisco registry init|invite|list|…`; `registry_verbs` does what they say."""

import argparse
from pathlib import Path
from typing import Any

# What the help says in one line, said at length
_ABOUT = {
    "init": "Make a network with this machine as its registry: keys, a private /24 and /64 that overlap nothing here,"
    " a DNS zone. It starts where systemd runs the machine, and says which UDP port to open, and what to type next."
    " With --adopt a server of wg-quick becomes it: its key, port and addresses stay, its peers are devices under the"
    " names in its comments, and who is connected is not interrupted.",
    "invite": "Print a join link, and nothing else, on standard output: for one use and 24 hours unless told"
    " otherwise.",
    "revoke": "Take a member, or an invitation, away for good. Members that are online drop its key within 5 s; it"
    " never comes back.",
    "approve": "Have subnets that a member offers (`join --offer`) routed to it by all who share a group with it, or"
    " let it be an exit for those of them who ask (`join --exit`). Before, an offer has no effect.",
    "set": "Change how the registry is reached: `endpoint`, where members find it from now on, told to those online"
    " at once; `also-port`, further UDP ports (443, 53) that lead to its own, for networks that let nothing else out;"
    " `tls-port`, a TCP port (443) for networks without UDP. `forward-dns` is whether its DNS server looks up other"
    " names for members, by this host's resolvers: a device whose file has DNS = the registry needs it. NAME"
    " `endpoint` fixes a member's; NAME `role` is whether it may see the whole network, invite, rename and revoke from"
    " inside the tunnel, at http://registry.ZONE/.",
    "backup": "Write all facts, secrets included, to a file, for its owner alone, or (-) to standard output.",
    "restore": "Put a backup in place. What was there is kept beside it; the membership epoch rises, and invitations"
    " are void. The registry must not run.",
    "check": "Look at ports, forwarding, zone, firewall, time, disk and unit; exit code 4 when one of them is not"
    " well.",
    "uninstall": "End the network: stop the registry, undo what it changed on this host, and delete its keys and"
    " facts.",
}


def add_verbs(verbs: Any) -> None:
    """Add them to the subparsers of `wgdisco registry`."""
    init = _verb(verbs, "init", "make a network, with this machine as its registry")
    init.add_argument(
        "--adopt",
        metavar="IF|FILE",
        help="take over a wg-quick server: its key, port and addresses, its peers as devices",
    )
    init.add_argument("--network", metavar="NAME", help="the network's and its interface's (mesh)")
    init.add_argument(
        "--full-tunnel", action="store_true", help="with --adopt: its peers reach the Internet through it"
    )
    init.add_argument("--zone", default="wg.internal.", help="DNS zone of the network (wg.internal.)")
    init.add_argument("--endpoint", metavar="HOST[:PORT]", help="where members reach this machine")
    init.add_argument("--port", type=int, help="UDP port to listen on (51820)")
    init.add_argument("--also-port", default="none", metavar="PORT[,PORT…]", help="UDP ports that lead to it as well")
    init.add_argument(
        "--tls-port", default="none", metavar="PORT", help="TCP port for members whose network has no UDP"
    )
    init.add_argument(
        "--firewall",
        choices=("auto", "print", "none"),
        help="a firewall here that drops what we need: have its own tool let it in (default), say how, or nothing",
    )
    _add_invite(verbs)
    from wgdisco import stock_cli  # noqa: PLC0415  only who administers a registry needs it

    _add_flags(stock_cli.add_verb(verbs, _add_device))
    listing = _verb(verbs, "list", "members and invitations")
    listing.add_argument("-o", "--output", choices=("table", "json", "jsonl"), default="table")
    show = _verb(verbs, "show", "one member")
    show.add_argument("name", metavar="NAME")
    show.add_argument("-o", "--output", choices=("table", "json"), default="table")
    rename = _verb(verbs, "rename", "give a member another name")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new_name", metavar="NEW")
    revoke = _verb(verbs, "revoke", "take a member, or an invitation, away for good")
    revoke.add_argument("name", metavar="NAME")
    approve = _verb(verbs, "approve", "route subnets that a member offers to it, or let it be an exit")
    approve.add_argument("name", metavar="NAME")
    approve.add_argument("networks", metavar="CIDR[,CIDR…]|exit", help="what it offers, as `registry show NAME` has it")
    approve.add_argument("--not", dest="is_taken_back", action="store_true", help="take the approval back")
    change = _verb(
        verbs, "set", "where the registry is reached, by which further ports; a member's role or fixed endpoint"
    )
    change.add_argument(
        "words",
        nargs="+",
        metavar="endpoint HOST:PORT[,HOST:PORT…] | also-port PORT[,PORT…]|none | tls-port PORT|none | forward-dns"
        " on|off | NAME role admin|member | NAME endpoint ADDRESS:PORT|none",
    )
    backup = _verb(verbs, "backup", "write all facts, secrets included, to a file or (-) standard output")
    backup.add_argument("file", metavar="FILE|-")
    restore = _verb(verbs, "restore", "put a backup in place; the registry must not run")
    restore.add_argument("file", type=Path, metavar="FILE")
    _verb(verbs, "check", "ports, forwarding, zone, time, disk, unit")
    _add_dns(verbs)
    uninstall = _verb(verbs, "uninstall", "end the network: stop the registry and delete its facts")
    uninstall.add_argument("--yes", action="store_true", help="do not ask")


def _add_invite(verbs: Any) -> None:
    invite = _verb(verbs, "invite", "print a join link")
    invite.add_argument("name", nargs="?", metavar="NAME", help="the member's name; left out, the joiner chooses")
    invite.add_argument("--uses", type=int, default=1, metavar="N", help="how many may join with it (1)")
    invite.add_argument("--group", action="append", metavar="G", help="a group to be in (all); may be repeated")
    invite.add_argument("--admin", action="store_true", help="the member may administer the network")
    invite.add_argument(
        "--ephemeral",
        nargs="?",
        const="",
        metavar="TIME",
        help="who joins is forgotten when it ends, or is not heard for TIME (10m); a NAME that is taken gets a number",
    )
    invite.add_argument("--expires", default="24h", metavar="TIME", help="for example 30m, 24h, 7d (24h)")


def _add_dns(verbs: Any) -> None:
    zone = verbs.add_parser("dns", help="the zone in the public tree: what its parent needs, and what is missing there")
    zone.description = (
        "Print the NS, glue and DS lines that the zone's parent needs, and look from the root down at what is there and"
        " what is missing (then the exit code is 4); or write the zone as a file."
    )
    _add_flags(zone)
    zone.add_argument("--interface", metavar="NAME", help="of a registry that has its peers in a .conf")
    zone.add_argument("--export", metavar="FILE|-", help="write the zone as a file for other servers instead")
    zone.add_argument(
        "--root-server", action="append", metavar="ADDRESS[:PORT]", help="start at this one instead of the Internet's"
    )
    zone.set_defaults(run=_dns)


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=_ABOUT.get(name, text))
    _add_flags(parser)
    parser.set_defaults(run=_run)
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("/var/lib/wgdisco/registry.db"),
        metavar="FILE",
        help="where the facts are (/var/lib/wgdisco/registry.db)",
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def _add_device(args: argparse.Namespace, request: Any) -> Any:
    from wgdisco import registry_verbs  # noqa: PLC0415  costs nothing to those who do not use it

    return registry_verbs.add_device(args, request)


def _run(args: argparse.Namespace) -> int:
    from wgdisco import registry_verbs  # noqa: PLC0415  costs nothing to those who do not use it

    return registry_verbs.VERBS[args.registry_verb](args)


def _dns(args: argparse.Namespace) -> int:
    from wgdisco import registry_dns  # noqa: PLC0415  costs nothing to those who do not use it

    return registry_dns.run(args)
