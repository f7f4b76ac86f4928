"""Making a registry on this machine: what `wgdisco registry init` and `uninstall` find out and set up.

Every path is below `root`, "/" but in tests and packaging.
"""

import errno
import os
import socket
import subprocess
from collections.abc import Iterable
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco import systemd
from wgdisco.endpoint import Endpoint, IPNetwork, parse_address
from wgdisco.errors import LocalError
from wgdisco.keys import PrivateKey
from wgdisco.machine import interface_exists, port_in_use
from wgdisco.registry.facts import Network

UNIT = "wgdisco-registry.service"
_WRITTEN = "# Written by `wgdisco registry init`; `wgdisco registry uninstall` removes it."
_DROP_IN = Path("run/systemd/system") / f"{UNIT}.d" / "adopt.conf"
_BESIDE = """\
# While the registry takes the place of a running server: raw sockets.
[Service]
AmbientCapabilities=CAP_NET_RAW
CapabilityBoundingSet=CAP_NET_RAW
RestrictAddressFamilies=AF_PACKET
"""
_UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_RT_TABLE_MAIN = 254
_DRAWS = 256
# Any address of the documentation ranges will do: nothing is sent by connecting a UDP socket.
_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def default_address() -> str:
    """The public address of this machine, by its default route; LocalError with the remedy when there is none."""
    found: list[str] = []
    for family, target in _PROBES:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))
            except OSError:
                continue
            found.append(str(probe.getsockname()[0]))
    for text in found:
        if Endpoint(parse_address(text), 1).is_global:
            return text
    if not found:
        raise LocalError("this machine has no default route: say where it is reached with --endpoint HOST[:PORT]")
    raise LocalError(
        f"{found[0]} is a private address, which members elsewhere cannot reach: run this on a machine with a public"
        " address, or forward the port to it and give --endpoint HOST[:PORT]"
    )


async def local_networks() -> list[IPNetwork]:
    """Where this machine's routes in the main table lead, default routes left out."""
    networks = []
    async with AsyncIPRoute() as netlink:
        for family, whole in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            try:
                routes = [route async for route in await netlink.route("dump", family=family, table=_RT_TABLE_MAIN)]
            except NetlinkError as error:
                if error.code in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    continue
                raise LocalError(f"cannot list the routes: {error}") from error
            networks += [ip_network((route.get_attr("RTA_DST") or whole, route["dst_len"])) for route in routes]
    return [network for network in networks if network.prefixlen]


def draw_prefixes(taken: Iterable[IPNetwork]) -> tuple[IPv4Network, IPv6Network]:
    """A random 10.x.y.0/24 and ULA /64 (RFC 4193) that overlap nothing that is `taken`."""
    used = list(taken)

    def is_free(prefix: IPNetwork) -> bool:
        return not any(prefix.overlaps(other) for other in used if other.version == prefix.version)

    start = int.from_bytes(os.urandom(2), "big")
    numbers = ((start + step) % 0x10000 for step in range(0x10000))
    prefix4 = next(filter(is_free, (IPv4Network(((10 << 24) + (number << 8), 24)) for number in numbers)), None)
    if prefix4 is None:
        raise LocalError("all of 10.0.0.0/8 is routed here already: take a route away, and try again")
    draws = (IPv6Network((b"\xfd" + os.urandom(7) + bytes(8), 64)) for _ in range(_DRAWS))
    prefix6 = next(filter(is_free, draws), None)
    if prefix6 is None:
        raise LocalError("all of fd00::/8 is routed here already: take a route away, and try again")
    return prefix4, prefix6


def new_network(name: str, zone: str, endpoint: str, port: int, taken: Iterable[IPNetwork]) -> Network:
    """A network with a fresh key, reached at `endpoint` (HOST:PORT)."""
    prefix4, prefix6 = draw_prefixes(taken)
    return Network(name, zone, PrivateKey(os.urandom(32)), port, (endpoint,), prefix4, prefix6)


def server_beside(network: Network) -> str | None:
    """The interface of the server that the network was adopted from, while that serves its peers still."""
    before = network.predecessor
    return before if before and interface_exists(before) and port_in_use(network.listen_port) else None


def write_secret(path: Path, data: bytes) -> None:
    """A file for its owner alone, whole or not at all; LocalError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error


def start_unit(root: Path, *, beside: bool = False) -> bool:
    """Have systemd run the registry, now and with the machine; False where there is none. LocalError when it refuses.

    Where no unit was installed (`make install` does), there is one from then on. `beside` a server whose place it takes
    it may do more, until it is started the next time.
    """
    if not systemd.is_running(root):
        return False
    if beside:
        drop_in = root / _DROP_IN
        drop_in.parent.mkdir(exist_ok=True)
        systemd.write_unit(drop_in, _BESIDE)
    if not _is_installed(root):
        text = files("wgdisco").joinpath("units", UNIT).read_text()
        told = text.replace("/usr/local/bin/wgdisco ", f"{systemd.program()} ")
        systemd.write_unit(root / systemd.UNITS / UNIT, f"{_WRITTEN}\n{told}")
    systemd.systemctl("enable", "--now", UNIT)
    return True


def end_beside(root: Path) -> None:
    """The place is taken: what was permitted for that goes."""
    systemd.remove_unit(root / _DROP_IN)


def stop_unit(root: Path) -> None:
    """Stop and disable the unit where systemd has it, and take away the one we wrote."""
    if not systemd.is_running(root) or not _is_installed(root):
        return
    systemd.systemctl("disable", "--now", UNIT)
    ours = root / systemd.UNITS / UNIT
    if ours.exists() and ours.read_text().startswith(_WRITTEN):
        systemd.remove_unit(ours)


def unit_state(root: Path) -> str | None:
    """What `systemctl is-active` says, or None where there is no systemd."""
    if not systemd.is_running(root):
        return None
    done = subprocess.run(["systemctl", "is-active", UNIT], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _is_installed(root: Path) -> bool:
    return any((root / directory / UNIT).exists() for directory in _UNIT_DIRECTORIES)
