"""`wgdisco registry init --adopt`: reads a server of wg-quick, file and interface, and changes neither."""

import argparse
import asyncio
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from wgdisco.config import registry_endpoint
from wgdisco.errors import ConfigError, LocalError
from wgdisco.names import check_network_name
from wgdisco.registry.adopt import Adopted, Server, adopt, listen_port, read_server
from wgdisco.registry.facts import Network
from wgdisco.registry.io import setup
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io.external import SOCKETS, ExternalWireGuard
from wgdisco.tunnel.io.kernel import KernelWireGuard
from wgdisco.tunnel.io.resolver import service_port

WG_QUICK = Path("etc/wireguard")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a server; `is_up` says whether its interface is still there."""

    network: Network
    adopted: Adopted
    interface: str
    is_up: bool

    @property
    def full_tunnel(self) -> bool:
        """Whether its devices reach the Internet through it."""
        return any(device.full_tunnel for device in self.adopted.devices)

    def hand_over(self, *, systemd: bool) -> str:
        """The commands that make the registry take the server's place."""
        if systemd:
            down = f"systemctl disable --now wg-quick@{self.interface}"
            return f"sudo {down} && sudo wgdisco registry init"
        return f"wg-quick down {self.interface} && wgdisco registry run"


def plan(args: argparse.Namespace, zone: str) -> Plan:
    """Read the server that `--adopt` names: an interface, or a file by its path.

    What cannot be taken over is said, a line each, before the LocalError.
    """
    if args.port is not None:
        raise ConfigError("--port: a server that is adopted keeps its own")
    path = Path(args.adopt)
    if path.name == args.adopt and path.suffix != ".conf":
        path = args.root / WG_QUICK / f"{args.adopt}.conf"
    interface = path.stem
    name = args.network or interface
    check_network_name(name)
    there = [one for _, one in socket.if_nameindex()]
    if name != interface and name in there:
        raise LocalError(f"there is an interface {name} here already: give another name with --network NAME")
    server = _read(path)
    running = _running(interface) if interface in there else None
    endpoint = args.endpoint or server.endpoint_host or setup.default_address()
    found = adopt(
        server,
        running,
        name=name,
        zone=zone,
        endpoint=registry_endpoint(endpoint, listen_port(server, running)),
        spare_prefix6=setup.draw_prefixes(asyncio.run(setup.local_networks()))[1],
        now=time.time(),
    )
    for refusal in found.refusals:
        print(f"wgdisco: {refusal}", file=sys.stderr)
    if found.network is None:
        raise LocalError(f"{path} cannot be adopted as it is, for what is said above; nothing was changed")
    _tell(server, found)
    return Plan(found.network, found, interface, running is not None)


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
    if server.translates:
        print("its peers reach the Internet through it, and will (--full-tunnel)", file=sys.stderr)
