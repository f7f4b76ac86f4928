"""`wgdisco registry init --adopt`: reads a server of wg-quick, file and interface; and has it stop, in the end."""

import argparse
import asyncio
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgdisco import systemd
from wgdisco.arguments import registry_endpoint
from wgdisco.errors import ConfigError, LocalError
from wgdisco.machine import interface_exists
from wgdisco.names import check_network_name
from wgdisco.registry.adopt import Adopted, Server, adopt, listen_port, read_server
from wgdisco.registry.facts import Network
from wgdisco.registry.io import setup
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io import control
from wgdisco.tunnel.io.external import SOCKETS, ExternalWireGuard
from wgdisco.tunnel.io.kernel import KernelWireGuard
from wgdisco.tunnel.io.link import mtu_of
from wgdisco.tunnel.io.resolver import service_port
from wgdisco.tunnel.messages import DEFAULT_MTU

DEFAULT_NETWORK = "mesh"
TIMEOUT = 20.0  # twice what the daemon waits for peers
WG_QUICK = Path("etc/wireguard")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a server."""

    network: Network
    adopted: Adopted

    @property
    def full_tunnel(self) -> bool:
        """Whether its devices reach the Internet through it."""
        return any(device.full_tunnel for device in self.adopted.devices)


def plan(args: argparse.Namespace, zone: str) -> Plan:
    """Read the server that `--adopt` names: an interface, or a file by its path.

    What cannot be taken over is said, a line each, before the LocalError.
    """
    if args.port is not None:
        raise ConfigError("--port: a server that is adopted keeps its own")
    path = _path(args)
    interface = path.stem
    name = args.network or DEFAULT_NETWORK
    check_network_name(name)
    if interface_exists(name):
        why = ", the server's, which goes on until the registry has its place" if name == interface else " already"
        raise LocalError(f"there is an interface {name} here{why}: give another name with --network NAME")
    server = _read(path)
    running = _running(interface) if interface_exists(interface) else None
    endpoint = args.endpoint or server.endpoint_host or setup.default_address()
    found = adopt(
        server,
        running,
        interface=interface,
        mtu=server.conf.mtu or DEFAULT_MTU if running is None else asyncio.run(mtu_of(interface)),
        name=name,
        zone=zone,
        endpoint=registry_endpoint(endpoint, listen_port(server, running)),
        full_tunnel=args.full_tunnel,
        spare_prefix6=setup.draw_prefixes(asyncio.run(setup.local_networks()))[1],
        now=time.time(),
    )
    for refusal in found.refusals:
        print(f"wgdisco: {refusal}", file=sys.stderr)
    if found.network is None:
        raise LocalError(f"{path} cannot be adopted as it is, for what is said above; nothing was changed")
    _tell(server, found)
    return Plan(found.network, found)


def down(args: argparse.Namespace, interface: str) -> list[str]:
    """The command that stops the server."""
    return ["wg-quick", "down", str(_path(args)) if args.adopt else interface]


def take_over(args: argparse.Namespace, network: Network, server: str) -> None:
    """Have the daemon take the place of the server, an interface, and that stop; what came of it is said."""
    missing = _until(network, "ready")["missing"]
    if missing:
        print(f"did not answer, and have to come back by themselves: {', '.join(missing)}", file=sys.stderr)
    _stop(args, server)
    moved = _until(network, "done")["moved"]
    setup.end_beside(args.root)
    told = f"{server} is stopped for good; the registry has its place, and {len(moved)} connected devices"
    print(told, file=sys.stderr)


def _until(network: Network, what: str) -> dict[str, Any]:
    """What the daemon says of taking a server's place, once it is so far."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        told = asyncio.run(control.send_command(network.name, "takeover", {}))
        if told[what]:
            return told
        if time.monotonic() > deadline:
            raise LocalError(f"the registry has not taken the server's place yet: `journalctl -u {setup.UNIT}`")
        time.sleep(0.1)


def _stop(args: argparse.Namespace, interface: str) -> None:
    """Stop the server, for good; LocalError when it does not."""
    unit, command = f"wg-quick@{interface}", down(args, interface)
    if systemd.is_active(unit):
        systemd.systemctl("disable", "--now", unit)
    elif shutil.which(command[0]) is None:
        raise LocalError(f"there is no {command[0]} here: take {interface} down, and the registry has its place")
    else:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise LocalError(f"{' '.join(command)}: {said}; take {interface} down, and the registry has its place")


def _path(args: argparse.Namespace) -> Path:
    """A name is an interface's, anything else a file."""
    path = Path(args.adopt)
    is_file = path.name != args.adopt or path.suffix == ".conf"
    return path if is_file else args.root / WG_QUICK / f"{args.adopt}.conf"


def _read(path: Path) -> Server:
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", str(path)) from error
    return read_server(text, str(path), service_port)


def _running(interface: str) -> DeviceStatus:
    if (SOCKETS / f"{interface}.sock").exists():
        return ExternalWireGuard(interface).status()
    device = KernelWireGuard.attach(interface)
    try:
        return device.status()
    finally:
        device.close()


def _tell(server: Server, found: Adopted) -> None:
    for device in found.devices:
        print(f"{device.name}: {device.public_key}", file=sys.stderr)
    if server.ignored:
        print(f"not taken over: {', '.join(server.ignored)}", file=sys.stderr)
    if any(device.full_tunnel for device in found.devices):
        print("its peers reach the Internet through it, and will", file=sys.stderr)
    else:
        print("its peers reach each other and this host; the Internet too with --full-tunnel", file=sys.stderr)
