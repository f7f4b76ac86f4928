"""What `ping`, `wait` and `netcheck` do: they ask the daemons that run here, and send echoes through the tunnel."""

import argparse
import asyncio
import contextlib
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from wgdisco.api import SCHEMA, PathWord, PeerReport, Reason, StatusReport
from wgdisco.endpoint import IPAddress
from wgdisco.errors import ConfigError, LocalError, NotRunningError, TimedOutError
from wgdisco.peer.io.echo import Echo
from wgdisco.peer.report import REGISTRY_NAME
from wgdisco.status import render_netcheck
from wgdisco.tunnel.io import control

# Between one pong and the next ping; until a path is direct it is looked at more often
PING_INTERVAL = 1.0
LOOK_INTERVAL = 0.2
ANSWER_TIMEOUT = 2.0
# Peers that are not reached directly are sent to that often, so that they are wanted
WANT_INTERVAL = 1.0
NETCHECK_TIMEOUT = 30.0
_DIRECT = frozenset({PathWord.DIRECT.value, PathWord.LAN.value})


@dataclass(frozen=True, slots=True)
class Target:
    """A peer, the interface that leads to it, and its address in the tunnel."""

    interface: str
    key: str
    name: str
    address: IPAddress


# ping


def ping(args: argparse.Namespace) -> int:
    """Send echoes to a peer, and say by what path they go."""
    if args.count is not None and args.until_direct:
        raise ConfigError("-c and --until-direct: one of them")
    return asyncio.run(_ping(args))


async def _ping(args: argparse.Namespace) -> int:
    target = find_peer(await _reports(), args.peer)
    deadline = time.monotonic() + args.timeout
    pongs: list[dict[str, object]] = []
    peer: PeerReport | None = None
    reached = False
    with Echo(target.address, target.interface) as echo:
        while not reached and (left := deadline - time.monotonic()) > 0:
            rtt = await echo.ask(min(left, ANSWER_TIMEOUT))
            peer = _peer(await control.fetch_status(target.interface), target)
            if rtt is not None:
                pongs.append(_pong(peer, rtt))
                if args.output == "text":
                    print(pong_line(target, peer, rtt), flush=True)
                reached = peer.path in _DIRECT if args.until_direct else len(pongs) == (args.count or 1)
            if not reached:
                await asyncio.sleep(LOOK_INTERVAL if args.until_direct else PING_INTERVAL if rtt is not None else 0)
    if args.output == "json":
        found = {"schema": SCHEMA, "peer": target.name, "address": str(target.address), "pongs": pongs}
        print(json.dumps(found | {"timed_out": not reached}, indent=2))
    if not reached:
        what = "no direct path to" if pongs and args.until_direct else "no answer from"
        how = "it was not looked at" if peer is None else _how(peer)
        raise TimedOutError(f"{what} {target.name} ({target.address}) within {args.timeout:g} s: {how}")
    return 0


def find_peer(reports: list[StatusReport], wanted: str) -> Target:
    """The peer of that name, or that has that address in the tunnel. LocalError when there is none."""
    with contextlib.suppress(ValueError):
        address = ip_address(wanted)
        for report in reports:
            for peer in report.peers:
                if any(address in ip_network(allowed) for allowed in peer.allowed_ips):
                    return _target(report, peer, address)
    for report in reports:
        for peer in report.peers:
            if peer.name == wanted and peer.allowed_ips:
                return _target(report, peer)
    raise LocalError(f"there is no peer {wanted!r} here: `wgdisco status` shows names and addresses")


def _target(report: StatusReport, peer: PeerReport, address: IPAddress | None = None) -> Target:
    addresses = [ip_network(allowed).network_address for allowed in peer.allowed_ips]
    told = addresses[0] if address is None else address
    # its own come first; others are of those it stands before
    own = next((one for one in addresses if one.version == told.version), None)
    name = peer.name if told == own else None
    return Target(report.interface, peer.public_key, name or str(told), told)


def _peer(report: StatusReport, target: Target) -> PeerReport:
    for peer in report.peers:
        if peer.public_key == target.key or (peer.name is not None and peer.name == target.name):
            return peer
    raise LocalError(f"{target.name} has just ceased to be a peer here")


def pong_line(target: Target, peer: PeerReport, rtt: float) -> str:
    """What a person is told of an answer; `rtt` in seconds."""
    via = peer.endpoint or "nowhere"
    name = target.name if target.name == str(target.address) else f"{target.name} ({target.address})"
    return f"pong from {name} via {via} {_path(peer)} in {_milliseconds(rtt)} ms"


def _pong(peer: PeerReport, rtt: float) -> dict[str, object]:
    rtt_ms = round(rtt * 1000, 3)
    return {"rtt_ms": rtt_ms, "path": peer.path, "reason": peer.reason, "endpoint": peer.endpoint}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 0.01 else f"{seconds * 1000:.1f}"


def _path(peer: PeerReport) -> str:
    return peer.path if peer.reason is None else f"{peer.path} ({peer.reason})"


def _how(peer: PeerReport) -> str:
    return f"it is {_path(peer)}"


# wait


def wait(args: argparse.Namespace) -> int:
    """Wait until members are reached, or reached directly."""
    if args.peer is not None and not args.direct:
        raise ConfigError("wait --online is for the whole network: to wait for one peer, `wait --direct PEER`")
    return asyncio.run(_wait(args))


async def _wait(args: argparse.Namespace) -> int:
    deadline = time.monotonic() + args.timeout
    wanted_at = 0.0
    while True:
        reports = await _reports()
        only = None if args.peer is None else find_peer(reports, args.peer)
        missing = [one for report in reports for one in missing_online(report) if only is None]
        if args.direct:
            not_direct = [(report, peer) for report in reports for peer in indirect(report, only)]
            missing += [phrase for _, peer in not_direct if (phrase := _missing(peer)) not in missing]
            if time.monotonic() - wanted_at >= WANT_INTERVAL:
                wanted_at = time.monotonic()
                _want([_target(report, peer) for report, peer in not_direct])
        if not missing:
            return 0
        if time.monotonic() >= deadline:
            raise TimedOutError(f"timed out after {args.timeout:g} s: {'; '.join(missing)}")
        await asyncio.sleep(LOOK_INTERVAL)


def missing_online(report: StatusReport) -> list[str]:
    """What keeps the network from being settled: the registry, or members that are online and not reached."""
    found = [
        _missing(peer)
        for peer in report.peers
        if peer.path == PathWord.PUNCHING.value
        and (peer.reason != Reason.PEER_OFFLINE.value or peer.name == REGISTRY_NAME)
    ]
    if not found and not report.settled:
        found.append(f"the registry of {report.interface} does not answer inside the tunnel")
    return found


def indirect(report: StatusReport, only: Target | None) -> list[PeerReport]:
    """The peers, or this one, that are not reached directly; who is offline does not count unless asked for."""
    return [
        peer
        for peer in report.peers
        if peer.allowed_ips
        and peer.path not in _DIRECT
        and (
            only.key == peer.public_key
            if only is not None
            else peer.name != REGISTRY_NAME and peer.reason != Reason.PEER_OFFLINE.value
        )
    ]


def _missing(peer: PeerReport) -> str:
    return f"{peer.name or peer.public_key} is {_path(peer)}"


def _want(targets: list[Target]) -> None:
    """Send to each, and wait for nothing: the daemon then wants them."""
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(Echo(target.address, target.interface)).send()


# netcheck


def netcheck(args: argparse.Namespace) -> int:
    """Have the daemon look at its network, and show what it found."""
    return asyncio.run(_netcheck(args))


async def _netcheck(args: argparse.Namespace) -> int:
    interface = _only(await _reports(), args.network)
    found = await control.send_command(interface, "netcheck", {}, NETCHECK_TIMEOUT)
    print(json.dumps(found, indent=2) if args.output == "json" else render_netcheck(found))
    return 0


def _only(reports: list[StatusReport], wanted: str | None) -> str:
    if wanted is not None and wanted not in {report.interface for report in reports}:
        raise NotRunningError(f"no member of {wanted!r} runs here: start `wgdisco up {wanted}`")
    if wanted is not None:
        return wanted
    if len(reports) > 1:
        raise ConfigError(f"which network? {', '.join(report.interface for report in reports)} are up here")
    return reports[0].interface


# What all begin with


async def _reports() -> list[StatusReport]:
    """Of the members that run here; NotRunningError when there is none."""
    found = []
    for interface in control.running_interfaces():
        with contextlib.suppress(NotRunningError):  # the socket of a daemon that was killed
            found.append(await control.fetch_status(interface))
    reports = [report for report in found if report.role == "member"]
    if not reports:
        raise NotRunningError("no member runs here: start `wgdisco join` or `wgdisco up`")
    return reports
