"""`wgdisco registry check`: what this machine needs so that the registry can do its work."""

import shutil
import time
from pathlib import Path

from wgdisco.errors import LocalError, NotRunningError
from wgdisco.machine import port_owner
from wgdisco.registry.facts import Network
from wgdisco.registry.finding import Finding
from wgdisco.registry.hub import firewall_need
from wgdisco.registry.io.setup import UNIT, unit_state
from wgdisco.tunnel.firewall import Mode
from wgdisco.tunnel.io.control import fetch_status
from wgdisco.tunnel.io.firewall import open_firewall

DISK_FREE_MIN = 64 << 20
# A clock before this is wrong: the program is younger than that.
_CLOCK_MIN = 1_760_000_000.0


async def check_machine(network: Network, store: Path, root: Path) -> list[Finding]:
    """All findings, ports, forwarding, zone, firewall, time, disk, unit."""
    try:
        status = await fetch_status(network.name)
    except NotRunningError:
        status = None
    findings = []
    if status is not None:
        findings.append(Finding("port", True, f"UDP {status.listen_port} is ours; open it in every firewall before us"))
        findings.append(Finding("zone", status.zone == network.zone, f"{status.zone} is served"))
    else:
        owner = port_owner(network.listen_port)
        said = f"UDP {network.listen_port} is {'free' if owner is None else f'in use by {owner}: stop that'}"
        findings.append(Finding("port", owner is None, said))
        findings.append(Finding("zone", False, f"{network.zone} is not served: the registry does not run"))
    findings[1:1] = [_forwarding(root, network.name)]
    findings.append(await _firewall(network))
    findings.append(_clock(time.time()))
    findings.append(_disk(store))
    findings.append(_unit(root, runs=status is not None))
    return findings


def _forwarding(root: Path, interface: str) -> Finding:
    try:
        on = (root / f"proc/sys/net/ipv4/conf/{interface}/forwarding").read_text().strip() == "1"
    except OSError:
        on = False
    said = "on" if on else "off: the registry switches it on while it runs; without, stock devices are not reached"
    return Finding("forwarding", on, said)


async def _firewall(network: Network) -> Finding:
    if network.firewall is Mode.NONE:
        return Finding("firewall", True, "not looked at, as `registry init --firewall none` has it")
    try:
        outcome = await open_firewall(firewall_need(network, full_tunnel=False), Mode.PRINT)
    except LocalError as error:
        return Finding("firewall", False, str(error))
    said = "\n".join(finding.to_text() for finding in outcome.closed)
    return Finding("firewall", not said, said or "this host's lets through what the network needs")


def _clock(now: float) -> Finding:
    ok = now >= _CLOCK_MIN
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return Finding("time", ok, text if ok else f"{text} cannot be: set the clock")


def _disk(store: Path) -> Finding:
    try:
        free = shutil.disk_usage(store.parent).free
    except OSError as error:
        raise LocalError(f"cannot look at {store.parent}: {error.strerror}") from error
    said = f"{free >> 20} MiB free"
    return Finding("disk", free >= DISK_FREE_MIN, said if free >= DISK_FREE_MIN else f"{said}: make room")


def _unit(root: Path, *, runs: bool) -> Finding:
    state = unit_state(root)
    if state is None:
        said = "no systemd here; the registry " + ("runs" if runs else "does not run: `wgdisco registry run`")
        return Finding("unit", runs, said)
    return Finding("unit", state == "active", state if state == "active" else f"{state}: systemctl enable --now {UNIT}")
