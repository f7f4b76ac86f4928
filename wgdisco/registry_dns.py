"""`wgdisco registry dns`: a zone of one's own in the public tree, and the zone as a file."""

import argparse
import asyncio
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.name

from wgdisco.config import parse_endpoint
from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.errors import ConfigError, LocalError
from wgdisco.registry.delegation import Served, findings, is_private, parent_lines
from wgdisco.registry.finding import Finding
from wgdisco.registry.io import store
from wgdisco.registry.io.delegation import ROOTS, Walker, ask_servers
from wgdisco.registry.io.ledger import NO_NETWORK
from wgdisco.tunnel.io import control

# a zone of ten thousand members is some megabytes to write
TELL_TIMEOUT = 60.0
# a secondary may take a second to follow, and the zone's server tells what it gave once a second
FOLLOWED_WITHIN = 3


def run(args: argparse.Namespace) -> int:
    """Print the lines for the parent and what is found there, or write the zone file."""
    roots = [parse_endpoint("--root-server", text, 53) for text in args.root_server or ()]
    interface = _interface(args)
    told = asyncio.run(_told(interface))
    if args.export is not None:
        _export(args.export, told)
        return 0
    names = ZoneNames.from_text(told["zone"])
    if is_private(names.origin):
        print(f"{names.to_text()} is a private zone: no parent can have it, and members need none", file=sys.stderr)
        return 0
    addresses = [parse_address(text) for text in told["servers"]]
    if not addresses:
        raise LocalError(
            "the zone has no server that others can ask: run the registry with --secondary ADDRESS, or with --dns and a"
            " public address"
        )
    servers = {names.server(number): (address,) for number, address in enumerate(addresses, 1)}
    served = Served(names.origin, told["serial"], servers, _given(told))
    lines, found = asyncio.run(_look(served, roots or ROOTS, interface))
    print(f"for whoever holds {_parent_text(names.origin)}:\n", file=sys.stderr)
    print("\n".join(lines))
    print(file=sys.stderr)
    for finding in found:
        print(finding.to_text())
    return 0 if all(finding.ok for finding in found) else 4


async def _told(interface: str) -> dict[str, Any]:
    return await control.send_command(interface, "zone", {}, TELL_TIMEOUT)


def _given(told: dict[str, Any]) -> dict[IPAddress, int]:
    return {parse_address(text): serial for text, serial in told["given"].items()}


async def _look(served: Served, roots: Iterable[Any], interface: str) -> tuple[list[str], list[Finding]]:
    for _ in range(FOLLOWED_WITHIN):
        if not served.is_followed():
            await asyncio.sleep(1.0)
            served = replace(served, given=_given(await _told(interface)))
    delegation, servers = await asyncio.gather(Walker(roots).delegation(served.zone), ask_servers(served))
    ds = frozenset[str]().union(*(server.ds for server in servers))
    return parent_lines(served, ds), findings(served, delegation, servers)


def _parent_text(zone: dns.name.Name) -> str:
    parent = zone.parent()
    return "the root" if parent == dns.name.root else str(parent)


def _interface(args: argparse.Namespace) -> str:
    if args.interface is not None:
        return str(args.interface)
    network = store.peek(args.store)
    if network is None:
        raise ConfigError(f"{NO_NETWORK}; a registry of a .conf is named by --interface")
    return network.name


def _export(path: str, told: dict[str, Any]) -> None:
    if path == "-":
        sys.stdout.write(told["file"])
        return
    try:
        Path(path).write_text(told["file"])
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
