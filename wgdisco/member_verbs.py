"""What the member's verbs do: memberships on disk, daemons that run, and `peer.io` that does the work."""

import argparse
import asyncio
import getpass
import logging
import os
import sys
import time
from dataclasses import replace

from wgdisco import config, logs, systemd
from wgdisco.api import StatusReport
from wgdisco.durations import parse_duration
from wgdisco.enrol_verb import become_member, enrol_again
from wgdisco.errors import ConfigError, LocalError, NotRunningError, WgdiscoError
from wgdisco.invitation import JoinLink, link_id
from wgdisco.member_options import mdns_policy, with_ways
from wgdisco.peer.io import service
from wgdisco.peer.io.enrol import no_answer
from wgdisco.peer.io.member import run
from wgdisco.peer.io.member_names import tell_names
from wgdisco.peer.io.state import MemberState, StateStore
from wgdisco.peer.roster import Accept
from wgdisco.process import hold_signals, program_version, run_daemon
from wgdisco.status import render_table
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.firewall import Mode, Need
from wgdisco.tunnel.io import control, firewall
from wgdisco.tunnel.io.host_dns import HostDns
from wgdisco.tunnel.io.lane_loop import LaneSelector
from wgdisco.tunnel.io.leftovers import is_left, take_back
from wgdisco.tunnel.io.port import free_port

LOG = logging.getLogger(__name__)

SETTLE_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
START_TIMEOUT = 5.0
DEGRADED = 4


# join


def join(args: argparse.Namespace) -> int:
    """Become a member unless this host is one, and connect."""
    logs.configure(args.log, args.verbose)
    store = StateStore()
    trust = None if args.offline_trust is None else parse_duration("--offline-trust", args.offline_trust)
    state, link = _membership(args, store)
    wanted = replace(
        state,
        accept=state.accept if args.accept_peers is None else Accept(args.accept_peers),
        block_incoming=state.block_incoming if args.block_incoming is None else args.block_incoming,
        offline_trust=state.offline_trust if trust is None else trust,
        mdns=mdns_policy(state.mdns, everywhere=args.mdns, none_on=args.no_mdns),
        offloads=state.offloads if args.offload is None else config.load_offloads({"offload": args.offload}, {}),
        engine=config.load_engine({"engine": args.engine}, os.environ) or state.engine,
        host_dns=config.load_host_dns({"host_dns": args.host_dns}, os.environ) or state.host_dns,
        metrics=config.load_metrics({"metrics": args.metrics}, os.environ, state.metrics),
    )
    wanted = with_ways(wanted, args.offer, args.exit)
    _keep_options(state, wanted, store)
    return _connect(wanted, store, args.foreground, None if args.firewall is None else Mode(args.firewall), link)


def _keep_options(state: MemberState, wanted: MemberState, store: StateStore) -> None:
    if wanted == state:
        return
    if _is_running(state.name):
        raise LocalError(f"{state.name} is up: `wgdisco down {state.name}` first, then again with these options")
    store.save(wanted)


def _membership(args: argparse.Namespace, store: StateStore) -> tuple[MemberState, JoinLink | None]:
    """The membership that is meant: one there is, or a new one by a join link; and the link."""
    text = config.read_link(args.link, os.environ)
    if text is None and args.network is not None:
        state = store.load(args.network)
        if state is not None:
            return state, None
    if text is None:
        text = _ask_for_link(store)
    try:
        link = JoinLink.from_text(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    state = store.by_link(link_id(link.secret))
    if state is not None and state.memory.snapshot.member.ephemeral and not _is_running(state.name):
        return enrol_again(link, state, store), link
    if state is not None:
        return state, link
    is_external = config.load_engine({"engine": args.engine}, os.environ) is EngineKind.EXTERNAL
    return become_member(link, args.name, args.network, store, is_external=is_external), link


def _ask_for_link(store: StateStore) -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Join link: ")
    names = store.names()
    known = f", or --network {names[0]}" if names else ""
    raise ConfigError(f"which network? give the join link (`-` reads it from standard input){known}")


def _connect(
    state: MemberState, store: StateStore, foreground: bool, mode: Mode | None = None, link: JoinLink | None = None
) -> int:
    """Bring the network up, and wait for it; stay where nothing else keeps it up."""
    if not state.listen_port:
        # the port stays from now on: a firewall can be told of it
        state = replace(state, listen_port=free_port())
        store.save(state)
    if _is_running(state.name):
        return _wait_until_settled(state)
    if mode is not None and mode is not state.firewall:
        state = replace(state, firewall=mode)
        store.save(state)
    by_systemd = systemd.is_running() and not foreground
    if not by_systemd:
        hold_signals()  # what is opened is closed by the daemon
    if os.geteuid() == 0:  # the daemon by itself does what it can without
        asyncio.run(_open_firewall(state))
    if by_systemd:
        service.start(state.name, state.engine)
        return _wait_until_settled(state)
    sleeps = LaneSelector()
    return run_daemon(lambda: run(state, store, program_version(), sleeps, _print_report, link), sleeps)


async def _open_firewall(state: MemberState) -> None:
    """What cannot be done is said: most paths come about all the same, since we speak first."""
    try:
        need = Need(state.name, state.listen_port, full_tunnel=bool(state.offers))
        outcome = await firewall.open_firewall(need, state.firewall)
    except LocalError as error:
        logs.say(f"this host's firewall was not looked at: {error}", logging.WARNING)
        return
    for finding in outcome.opened:
        said = f"let WireGuard through this host's firewall ({finding.tool.value}, {finding.where})"
        logs.say(said)
    for finding in outcome.closed:
        logs.say(finding.to_text(), logging.WARNING)


async def _close_firewall(state: MemberState) -> None:
    try:
        await firewall.close_firewall(Need(state.name, state.listen_port, full_tunnel=True), permanent=True)
    except LocalError as error:
        logs.say(f"this host's firewall was left as it is: {error}", logging.WARNING)


def _is_running(network: str) -> bool:
    if network not in control.running_interfaces():
        return False
    try:
        asyncio.run(control.fetch_status(network))
    except NotRunningError:
        return False
    return True


def _print_report(report: StatusReport) -> None:
    if not logs.is_for_machines():
        print(render_table(report), flush=True)
        return
    paths = [
        {"peer": peer.public_key, "name": peer.name, "path": peer.path, "reason": peer.reason} for peer in report.peers
    ]
    LOG.info("connected", extra={"fields": {"paths": paths, "notes": report.notes}})


def _wait_until_settled(state: MemberState) -> int:
    """Wait for the registry and the members that are online; print what came of it."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    report: StatusReport | None = None
    while time.monotonic() < deadline:
        try:
            report = asyncio.run(control.fetch_status(state.name))
        except NotRunningError:
            report = None
        if report is not None and report.settled:
            _print_report(report)
            return 0
        time.sleep(0.2)
    if report is None:
        raise NotRunningError(
            f"the daemon of {state.name} did not start: `journalctl -u {service.unit_name(state.name)}`"
        )
    _print_report(report)
    if any(peer.name == "registry" and peer.path == "punching" for peer in report.peers):
        logs.say(str(no_answer(state.registries)), logging.WARNING)
    return DEGRADED


# The others


def _known(network: str | None, store: StateStore) -> str:
    """The network that is meant; ConfigError when there are several, LocalError when there is none."""
    names = store.names()
    if network is not None:
        if network not in names:
            raise LocalError(f"this host is no member of {network!r}: `wgdisco join` makes it one")
        return network
    if not names:
        raise LocalError("this host is a member of no network: `wgdisco join` makes it one")
    if len(names) > 1:
        raise ConfigError(f"which network? this host is a member of {', '.join(names)}")
    return names[0]


def up(args: argparse.Namespace) -> int:
    """Connect to a network this host is a member of."""
    logs.configure(args.log, args.verbose)
    store = StateStore()
    state = store.load(_known(args.network, store))
    assert state is not None, "its file was listed"
    wanted = with_ways(state, args.offer, args.exit)
    wanted = replace(wanted, metrics=config.load_metrics({"metrics": args.metrics}, os.environ, state.metrics))
    _keep_options(state, wanted, store)
    return _connect(wanted, store, foreground=False)


def down(args: argparse.Namespace) -> int:
    """Disconnect, and stay a member. Of an interface that is no network's, take back what was left of it."""
    store = StateStore()
    if args.network is not None and args.network not in store.names() and is_left(args.network):
        _take_back_unknown(args.network)
        return 0
    network = _known(args.network, store)
    _stop(network)
    _take_back(network, store.load(network))
    return 0


def _take_back(network: str, state: MemberState | None) -> None:
    key = None if state is None else state.private_key.public_key()
    need = None if state is None else Need(network, state.listen_port)
    asyncio.run(take_back(network, key, need))


def _take_back_unknown(interface: str) -> None:
    """Of a pinned member that was killed."""
    if _is_running(interface):
        raise LocalError(f"{interface} is up: end its daemon (Ctrl-C, or `systemctl stop` of its unit)")
    asyncio.run(take_back(interface))
    logs.say(f"nothing is left of {interface}")


def _stop(network: str) -> None:
    """End what keeps the network up, if anything does; returns when it is down."""
    if systemd.is_running():
        service.stop(network)
    try:
        asyncio.run(control.send_command(network, "stop", {}))
    except NotRunningError:
        return
    deadline = time.monotonic() + STOP_TIMEOUT
    while _is_running(network):
        if time.monotonic() > deadline:
            raise LocalError(f"the daemon of {network} does not stop: end it by hand")
        time.sleep(0.05)


def leave(args: argparse.Namespace) -> int:
    """Give the membership up."""
    store = StateStore()
    if not store.names() or (args.network is not None and args.network not in store.names()):
        if args.network is not None and is_left(args.network):
            _take_back_unknown(args.network)
        print(f"this host is no member of {args.network or 'any network'}")
        return 0
    network = _known(args.network, store)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"leaving {network} cannot be undone: give --yes")
        answer = input(f"Leave {network}? Coming back takes a new join link. [y/N] ")
        if answer.strip().lower() not in {"y", "yes"}:
            return 1
    state = store.load(network)
    has_told = _tell_leave(network)
    _stop(network)
    if systemd.is_running():
        service.remove(network)
    if state is not None:
        asyncio.run(_close_firewall(state))
    _take_back(network, state)
    store.forget(network)
    print(f"left {network}" + ("" if has_told else "; whoever runs its registry may now revoke this member"))
    return 0


def _tell_leave(network: str) -> bool:
    """Have the daemon say goodbye; whether the registry has heard it."""
    try:
        asyncio.run(control.send_command(network, "leave", {}))
    except WgdiscoError:
        return False
    return True


def host_dns(args: argparse.Namespace) -> int:
    """Tell the host's resolver of the registry, or (`--undo`) take that back: what the daemon itself may not do."""
    state = StateStore().load(args.network)
    if args.undo or state is None:
        asyncio.run(HostDns(args.network).close())
        return 0
    deadline = time.monotonic() + START_TIMEOUT
    while not _is_running(state.name):
        if time.monotonic() > deadline:
            raise NotRunningError(f"the daemon of {state.name} does not answer")
        time.sleep(0.05)
    asyncio.run(tell_names(state))
    return 0


def rotate_key(args: argparse.Namespace) -> int:
    """Change the member's key over the tunnel that stands."""
    network = _known(args.network, StateStore())
    answer = asyncio.run(control.send_command(network, "rotate-key", {}))
    print(f"the key of this member of {network} is now {answer.get('key')}")
    return 0


def accept(args: argparse.Namespace) -> int:
    """Talk to a member that is new, or whose key has changed."""
    network = _known(args.network, StateStore())
    answer = asyncio.run(control.send_command(network, "accept", {"name": args.name}))
    print(f"{args.name} is accepted with the key {answer.get('key')}")
    return 0
