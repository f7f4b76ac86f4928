"""`wgdisco registry add`: a stock WireGuard device, and the file or QR code it is set up with."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from wgdisco.endpoint import parse_address
from wgdisco.errors import ConfigError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.names import check_member_name
from wgdisco.registry.facts import DEFAULT_GROUP
from wgdisco.registry.qr import qr_text
from wgdisco.registry.stock import DeviceFacts, DeviceRequest, device_conf, registry_dns

# Adds the device to the registry that the arguments name and stores it; returns once that is on disk.
Commit = Callable[[argparse.Namespace, DeviceRequest], DeviceFacts]

_REGISTRY_DNS = ""


def add_verb(registry_verbs: "argparse._SubParsersAction[Any]", commit: Commit) -> argparse.ArgumentParser:
    """Add `add` to the registry's verbs; `commit` is the way to the registry. Returns it, for more flags."""
    parser: argparse.ArgumentParser = registry_verbs.add_parser(
        "add", help="add a stock WireGuard device (phone, Mac, Windows, router) and print its file or QR code"
    )
    parser.add_argument("name", metavar="NAME", help="the device's name in the network")
    parser.add_argument("--public-key", metavar="KEY", help="the device made its own key: only this half leaves it")
    parser.add_argument(
        "--group", action="append", metavar="GROUP", help=f"whom it may reach (default: {DEFAULT_GROUP}); repeatable"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--conf", action="store_true", help="print the wg-quick file (the default)")
    shown.add_argument("--qr", action="store_true", help="print it as a QR code, for the app to scan")
    parser.add_argument(
        "--dns",
        nargs="?",
        const=_REGISTRY_DNS,
        metavar="ADDRESS",
        help="write a DNS line: this resolver, or the registry itself, which answers for the network's zone, and for"
        " others with `registry set forward-dns on`",
    )
    parser.add_argument("--full-tunnel", action="store_true", help="all of the device's traffic goes by the registry")
    parser.add_argument(
        "--direct-to",
        action="append",
        metavar="NAME",
        help="a member with a fixed public endpoint, which the device then reaches itself; repeatable",
    )
    parser.set_defaults(run=lambda args: run(args, commit))
    return parser


def run(args: argparse.Namespace, commit: Commit) -> int:
    """Add the device and print its file to standard output; what the operator must know goes to standard error."""
    for word in (args.name, *(args.group or ())):
        check_member_name(word)
    if args.qr and args.public_key:
        raise ConfigError("--qr needs the private key in the code: leave --public-key out, or use --conf")
    private_key = None if args.public_key else PrivateKey(os.urandom(32))
    dns = None if args.dns in {None, _REGISTRY_DNS} else _resolvers(args.dns)
    request = DeviceRequest(
        args.name,
        _public_key(args.public_key) if private_key is None else private_key.public_key(),
        PresharedKey(os.urandom(32)),
        tuple(args.group or (DEFAULT_GROUP,)),
        tuple(args.direct_to or ()),
        args.full_tunnel,
    )
    facts = commit(args, request)
    if args.dns == _REGISTRY_DNS:
        dns = registry_dns(facts)
    text = device_conf(facts, request.preshared_key, private_key, dns or ())
    print(_qr(text) if args.qr else text.rstrip())
    print("\n".join(notes(facts, private_key is None)), file=sys.stderr)
    if args.dns == _REGISTRY_DNS and not facts.forward_dns:
        zone = facts.zone.rstrip(".")
        print(f"It can look up names in {zone} only, until `wgdisco registry set forward-dns on`.", file=sys.stderr)
    return 0


def notes(facts: DeviceFacts, own_key: bool) -> list[str]:
    """What `add` says beside the file, a line each."""
    addresses = ", ".join(map(str, facts.addresses))
    lines = [f"Added {facts.name}: {addresses}. Its private key is printed this once and stored nowhere."]
    if own_key:
        lines = [
            f"Added {facts.name}: {addresses}. Put its own private key into the file; the preshared key is shown once."
        ]
    what = "all its traffic, to the Internet too," if facts.full_tunnel else "its traffic to members"
    direct = ", ".join(peer.name for peer in facts.direct)
    lines.append(
        f"The registry decrypts {what} and passes it on{f', but for {direct}, reached directly' if direct else ''}:"
        " where that must not be, run `wgdisco join` on the device."
    )
    return lines


def _resolvers(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(parse_address(part.strip())) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--dns: {error}: give addresses of resolvers, with commas between") from error


def _public_key(text: str) -> PublicKey:
    try:
        return PublicKey.from_text(text)
    except ValueError as error:
        raise ConfigError(f"--public-key: {error}") from error


def _qr(text: str) -> str:
    try:
        return qr_text(text, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    except ValueError:  # the device is added by now: its file must not be lost
        print("This is too long for a QR code; here is the file.", file=sys.stderr)
        return text.rstrip()
