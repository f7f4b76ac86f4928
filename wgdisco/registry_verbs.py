"""`wgdisco registry init|invite|list|…`: the verbs that make a network and keep its members.

They go through the daemon's control socket while it runs, and straight to its store while it does not.
"""

import argparse
import asyncio
import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from wgdisco import adopt_verb
from wgdisco.arguments import registry_endpoint
from wgdisco.dnssd.names import ZoneNames
from wgdisco.durations import SECONDS, duration_text
from wgdisco.errors import ConfigError, LocalError, NotRunningError
from wgdisco.invite_verb import invite
from wgdisco.machine import port_owner
from wgdisco.names import check_member_name, check_network_name
from wgdisco.offers import parse_offers, parse_subnet, to_texts
from wgdisco.registry.adopt import DEFAULT_PORT
from wgdisco.registry.facts import Network, Put
from wgdisco.registry.hub import firewall_need
from wgdisco.registry.io import setup, store
from wgdisco.registry.io.checks import check_machine
from wgdisco.registry.io.commands import Commands
from wgdisco.registry.io.ledger import NO_NETWORK, Ledger
from wgdisco.registry.membership import Membership
from wgdisco.registry.stock import DeviceFacts, DeviceRequest
from wgdisco.tunnel.firewall import Mode
from wgdisco.tunnel.io import control, firewall
from wgdisco.tunnel.io.leftovers import take_back

START_TIMEOUT = 15.0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _network(path: Path) -> Network:
    network = store.peek(path)
    if network is None:
        raise ConfigError(NO_NETWORK)
    return network


async def _command(path: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Have the daemon do it or, when it is not running, do it on its store."""
    network = _network(path)
    try:
        return await control.send_command(network.name, name, arguments)
    except NotRunningError:
        ledger = Ledger.open(path)
    try:
        return await Commands(ledger).named(name)(arguments)
    finally:
        await ledger.close()


def _run(args: argparse.Namespace, command: str, /, **arguments: Any) -> dict[str, Any]:
    return asyncio.run(_command(args.store, command, arguments))


# init and uninstall


def init(args: argparse.Namespace) -> int:
    """`wgdisco registry init`."""
    network, plan = store.peek(args.store), None
    if network is None:
        network, plan = _make_network(args)
        _say(f"made the network {network.name} ({network.prefix4}, {network.prefix6})")
    else:
        _say(f"the network {network.name} is here already ({network.prefix4}, {network.prefix6}); nothing was changed")
    mode = network.firewall if args.firewall is None else Mode(args.firewall)
    if mode is not network.firewall:
        _run(args, "set_firewall", mode=mode.value)
    asyncio.run(_open_firewall(network, mode, full_tunnel=plan is not None and plan.full_tunnel))
    beside = setup.server_beside(network)
    runs = setup.start_unit(args.root, beside=beside is not None)
    if runs:
        _wait_for_daemon(network)
        _say(f"{setup.UNIT} runs, and starts with the machine")
        if beside is not None:
            adopt_verb.take_over(args, network, beside)
    else:
        _say("there is no systemd here: run it yourself, as root:\n\n    wgdisco registry run\n")
        if beside is not None:
            down = " ".join(adopt_verb.down(args, beside))
            _say(f"it runs beside {beside}, and says when it can take its place; then:\n\n    {down}\n")
    _say(f"open ONE port, here and at your provider: UDP {network.listen_port} (members reach {network.endpoints[0]})")
    _say_further_ports(network)
    _say(f"{'next' if runs else 'then'}:\n\n    sudo wgdisco registry invite NAME\n")
    return 0


def _wait_for_daemon(network: Network) -> None:
    """What is typed next finds it there."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            asyncio.run(control.fetch_status(network.name))
        except NotRunningError:
            if time.monotonic() > deadline:
                raise NotRunningError(f"the registry did not start: `journalctl -u {setup.UNIT}`") from None
            time.sleep(0.1)
        else:
            return


async def _open_firewall(network: Network, mode: Mode, *, full_tunnel: bool = False) -> None:
    """What cannot be done is said, and the network is made all the same."""
    try:
        outcome = await firewall.open_firewall(firewall_need(network, full_tunnel=full_tunnel), mode)
    except LocalError as error:
        _say(f"this host's firewall was not looked at: {error}")
        return
    for finding in outcome.opened:
        _say(f"let the network through this host's firewall ({finding.tool.value}, {finding.where})")
    for finding in outcome.closed:
        _say(finding.to_text())


async def _close_firewall(network: Network) -> None:
    try:
        await firewall.close_firewall(firewall_need(network, full_tunnel=True), permanent=True)
    except LocalError as error:
        _say(f"this host's firewall was left as it is: {error}")


def _make_network(args: argparse.Namespace) -> tuple[Network, adopt_verb.Plan | None]:
    """The network, stored; and the server it was adopted from."""
    try:
        zone = ZoneNames.from_text(args.zone).to_text()
    except ValueError as error:
        raise ConfigError(f"--zone: {error}") from error
    plan = adopt_verb.plan(args, zone) if args.adopt else None
    network = _draw_network(args, zone) if plan is None else plan.network
    also_ports, tls_port = _ports("--also-port", args.also_port), _port("--tls-port", args.tls_port)
    _check_ports(network, also_ports, tls_port)
    rules = Membership([network])
    rules.apply(rules.set_ports(also_ports, tls_port or None))
    rules.apply(rules.set_firewall(Mode(args.firewall or "auto")))
    network = rules.network
    adopted = None if plan is None else plan.adopted
    with closing(store.Store.open(args.store)) as facts:
        asyncio.run(facts.commit([Put(network), *(map(Put, adopted.devices) if adopted else ())]))
        for key, (endpoint, at) in (adopted.endpoints if adopted else {}).items():
            facts.observe(key, endpoint, at)  # where the registry greets them first
    return network, plan


def _draw_network(args: argparse.Namespace, zone: str) -> Network:
    name, port = args.network or adopt_verb.DEFAULT_NETWORK, DEFAULT_PORT if args.port is None else args.port
    check_network_name(name)
    if name in (other for _, other in socket.if_nameindex()):
        raise LocalError(f"there is an interface {name} here already: give another name with --network NAME")
    if not 0 < port < 65536:
        raise ConfigError("--port: a number from 1 to 65535")
    endpoint = registry_endpoint(args.endpoint or setup.default_address(), port)
    return setup.new_network(name, zone, endpoint, port, asyncio.run(setup.local_networks()))


def uninstall(args: argparse.Namespace) -> int:
    """`wgdisco registry uninstall`."""
    network = store.peek(args.store)
    if network is None and not store.is_there(args.store):
        _say("there is no network here")
        return 0
    name = "the damaged network" if network is None else f"the network {network.name}"
    if not args.yes:
        if not sys.stdin.isatty():
            raise LocalError(f"this ends {name} for all its members: say so with --yes")
        if input(f"End {name} for all its members, and delete its keys? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    setup.stop_unit(args.root)
    if network is not None:
        asyncio.run(_close_firewall(network))
        asyncio.run(take_back(network.name, network.private_key.public_key()))
    store.delete(args.store)
    _say(f"{name} is gone; members forget it with `wgdisco leave`")
    return 0


# Members


def add_device(args: argparse.Namespace, request: DeviceRequest) -> DeviceFacts:
    """Of `wgdisco registry add`: the device is stored when this returns."""
    facts = DeviceFacts.from_json(_run(args, "add_device", **request.to_json()))
    network = store.peek(args.store)
    if facts.full_tunnel and network is not None:
        asyncio.run(_open_firewall(network, network.firewall, full_tunnel=True))
    return facts


def list_members(args: argparse.Namespace) -> int:
    """`wgdisco registry list`."""
    answer = _run(args, "list")
    if args.output == "json":
        print(json.dumps({"schema": 1, **answer}, indent=2))
    elif args.output == "jsonl":
        for kind in ("members", "invitations"):
            for item in answer[kind]:
                print(json.dumps({"schema": 1, "what": kind.removesuffix("s"), **item}))
    else:
        print(_table(answer))
    return 0


def _table(answer: dict[str, Any]) -> str:
    rows = [("NAME", "ADDRESS", "GROUPS", "KIND", "STATE", "ENDPOINT", "LAST SEEN", "BEHIND IT")]
    for member in answer["members"]:
        kind = "admin" if member["role"] == "admin" else "ephemeral" if member["ephemeral"] else member["kind"]
        where = member["fixed_endpoint"] or member["endpoint"] or "-"
        seen = "now" if member["state"] == "live" else _ago(member["last_seen"])
        groups = ",".join(member["groups"])
        row = (member["name"], member["addresses"][0], groups, kind, member["state"], where, seen)
        rows.append((*row, _behind(member)))
    for invitation in answer["invitations"]:
        name = invitation["name"] or invitation["enrol_key"]
        left = f"invited, {invitation['uses']} left" if invitation["uses"] else "invitation used"
        kind = "ephemeral" if invitation["ephemeral"] else "-"
        rows.append((name, "-", ",".join(invitation["groups"]), kind, left, "-", "-", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _behind(member: dict[str, Any]) -> str:
    """What is approved, then what is only offered."""
    approved, offers = (list(map(parse_subnet, member[name])) for name in ("approved", "offers"))
    offered = [network for network in offers if network not in approved]
    waiting = f"{','.join(to_texts(offered))} (offered)" if offered else ""
    return " ".join(filter(None, [",".join(to_texts(approved)), waiting]))


def _ago(at: float | None) -> str:
    if at is None:
        return "never"
    seconds = max(0, int(time.time() - at))
    unit, size = next((unit, size) for unit, size in reversed(SECONDS.items()) if seconds >= size or unit == "s")
    return f"{seconds // size} {unit} ago"


def show(args: argparse.Namespace) -> int:
    """`wgdisco registry show`."""
    answer = _run(args, "show", name=args.name)
    if args.output == "json":
        print(json.dumps({"schema": 1, **answer}, indent=2))
        return 0
    for name, value in answer.items():
        if name != "schema" and value is not None and value != []:
            text = ", ".join(value) if isinstance(value, list) else _ago(value) if name == "last_seen" else value
            if name == "ephemeral":
                text = f"gone when not heard for {duration_text(value)}"
            if name == "created_at":
                text = time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
            print(f"{name.replace('_', ' ')}: {text}")
    return 0


def rename(args: argparse.Namespace) -> int:
    """`wgdisco registry rename`."""
    check_member_name(args.new_name)
    _run(args, "rename", name=args.name, new_name=args.new_name)
    return 0


def revoke(args: argparse.Namespace) -> int:
    """`wgdisco registry revoke`."""
    answer = _run(args, "revoke", name=args.name)
    if not answer["keys"]:
        _say(f"{args.name} was revoked before; nothing was changed")
        return 0
    if not answer["was_member"]:
        _say(f"the invitation {args.name} is void")
        return 0
    told, unseen = answer["told"], answer["unseen"]
    count = f"{len(told)} of {len(told) + len(unseen)} members"
    _say(f"{args.name} is off the registry and out of the zone, and gone from {count}")
    if unseen:
        _say(f"not seen since: {', '.join(unseen)}; they drop it when they reach the registry next")
    return 0


def approve(args: argparse.Namespace) -> int:
    """`wgdisco registry approve`."""
    try:
        networks = [str(network) for network in parse_offers(args.networks)]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    answer = _run(args, "approve", name=args.name, networks=networks, is_taken_back=args.is_taken_back)
    told, unseen = answer["told"], answer["unseen"]
    count = f"{len(told)} of {len(told) + len(unseen)} members know it"
    _say(f"{args.networks} is {'no longer ' if args.is_taken_back else ''}routed to {args.name}: {count}")
    if unseen:
        _say(f"not seen since: {', '.join(unseen)}; they hear of it when they reach the registry next")
    return 0


def set_value(args: argparse.Namespace) -> int:
    """`wgdisco registry set`."""
    match args.words:
        case ["also-port", value]:
            _set_ports(args, also_ports=_ports("also-port", value))
        case ["endpoint", value]:
            _set_registries(args, value)
        case ["forward-dns", ("on" | "off") as value]:
            _run(args, "set_forward_dns", is_on=value == "on")
        case ["tls-port", value]:
            _set_ports(args, tls_port=_port("tls-port", value))
        case [name, "role", ("admin" | "member") as value]:
            _run(args, "set_role", name=name, role=value)
        case [name, "endpoint", value]:
            _run(args, "set_endpoint", name=name, endpoint=None if value == "none" else value)
        case _:
            raise ConfigError(
                "set: write endpoint HOST:PORT[,HOST:PORT…] of the registry, also-port PORT[,PORT…], tls-port PORT,"
                " forward-dns on|off, NAME role admin|member, or NAME endpoint ADDRESS:PORT; `none` takes all but the"
                " first away"
            )
    return 0


def _set_registries(args: argparse.Namespace, value: str) -> None:
    network = _network(args.store)
    endpoints = [registry_endpoint(text, network.listen_port, "endpoint") for text in value.split(",")]
    answer = _run(args, "set_registries", endpoints=endpoints)
    told, unseen = answer["told"], answer["unseen"]
    _say(f"{len(told)} of {len(told) + len(unseen)} members know it; links and files made before have the old endpoint")
    if unseen:
        both = ",".join(dict.fromkeys([*endpoints, *network.endpoints]))
        _say(f"not seen yet: {', '.join(unseen)}; let the old endpoint be one of them until they are: {both}")


def _set_ports(args: argparse.Namespace, **ports: Any) -> None:
    before = store.peek(args.store)
    if before is not None:
        _check_ports(before, ports.get("also_ports", ()), ports.get("tls_port", 0))
    _run(args, "set_ports", **ports)
    network = store.peek(args.store)
    if network is not None:
        asyncio.run(_open_firewall(network, network.firewall))
        _say_further_ports(network)


def _ports(what: str, text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    if not re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", text):
        raise ConfigError(f"{what}: {text!r} is not PORT[,PORT…] or none")
    return tuple(int(port) for port in text.split(","))


def _port(what: str, text: str) -> int:
    """0 for none."""
    ports = _ports(what, text) or (0,)
    if len(ports) > 1:
        raise ConfigError(f"{what}: {text!r} is not one PORT or none")
    return ports[0]


def _check_ports(network: Network, also_ports: Iterable[int], tls_port: int) -> None:
    """Who has them already on this host. LocalError for a TCP port: that cannot be shared."""
    for port in also_ports:
        if port not in network.also_ports and (owner := port_owner(port)) is not None:
            _say(f"UDP {port} is in use here by {owner}: what comes for it from elsewhere goes to the registry now")
    owner = port_owner(tls_port, "tcp") if tls_port and tls_port != network.tls_port else None
    if owner is not None:
        raise LocalError(f"TCP port {tls_port} is in use by {owner}: stop that, or choose another tls-port")


def _say_further_ports(network: Network) -> None:
    ports = [f"UDP {port}" for port in network.also_ports]
    if network.tls_port is not None:
        ports.append(f"TCP {network.tls_port}")
    if ports:
        _say(f"and at your provider, for members whose network lets nothing else out: {', '.join(ports)}")


# The store


def backup(args: argparse.Namespace) -> int:
    """`wgdisco registry backup`. The daemon can write beside its store and nowhere else: we carry it from there."""
    if args.file == "-" and sys.stdout.isatty():
        raise LocalError("a backup is binary, and secret: send it to a file or a pipe")
    _network(args.store)  # else it is not even known whether we may look there
    copy = args.store.with_name(f".backup-{secrets.token_hex(8)}")
    try:
        _run(args, "backup", file=str(copy.absolute()))
        if args.file == "-":
            sys.stdout.buffer.write(copy.read_bytes())
        else:
            setup.write_secret(Path(args.file), copy.read_bytes())
    finally:
        copy.unlink(missing_ok=True)
    return 0


def restore(args: argparse.Namespace) -> int:
    """`wgdisco registry restore`."""
    epoch = store.restore(args.file, args.store)
    _say(f"restored, epoch {epoch}; what was there is beside it. Invitations that were out are void: invite again")
    return 0


def check(args: argparse.Namespace) -> int:
    """`wgdisco registry check`."""
    network = _network(args.store)
    findings = asyncio.run(check_machine(network, args.store, args.root))
    for finding in findings:
        print(finding.to_text())
    return 0 if all(finding.ok for finding in findings) else 4


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "init": init,
    "invite": lambda args: invite(args, _run),
    "list": list_members,
    "show": show,
    "rename": rename,
    "revoke": revoke,
    "approve": approve,
    "set": set_value,
    "backup": backup,
    "restore": restore,
    "check": check,
    "uninstall": uninstall,
}
