"""The host's firewall, asked and told through its own tools. ufw, firewalld and iptables want root."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from wgdisco.errors import LocalError
from wgdisco.tunnel.firewall import Command, Facts, Finding, Mode, Need, findings, removals
from wgdisco.tunnel.io.nft import list_ruleset
from wgdisco.tunnel.io.programs import execute, which

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was opened, and what still drops: `Finding.to_text` of that says what to do."""

    opened: tuple[Finding, ...] = ()
    closed: tuple[Finding, ...] = ()


async def open_firewall(need: Need, mode: Mode) -> Outcome:
    """Have the host's firewall let through what we need, as `mode` says. Harmless when repeated.

    LocalError when the firewall cannot be read, or a tool refuses.
    """
    if mode is Mode.NONE:
        return Outcome()
    found = findings(need, await read_facts())
    if mode is Mode.PRINT or not found:
        return Outcome(closed=found)
    for finding in found:
        for command in finding.commands:
            await _run(command)
    left = findings(need, await read_facts())
    return Outcome(tuple(finding for finding in found if finding not in left), left)


async def close_firewall(need: Need, permanent: bool) -> tuple[Command, ...]:
    """Take away what `open_firewall` added; the commands that did. `permanent`: what outlasts a reboot, too."""
    commands = removals(need, await read_facts(), permanent)
    for command in commands:
        await _run(command)
    return commands


@asynccontextmanager
async def kept_open(need: Need, mode: Mode) -> AsyncIterator[None]:
    """While a daemon runs: what its verb opened in AUTO, where a reboot forgets it (nft, iptables).

    CAP_NET_ADMIN is enough. What fails is logged: most of what comes in was asked for, and comes in anyway.
    """
    async with closed_in_the_end(need, mode):
        await open_again(need, mode)
        yield


@asynccontextmanager
async def closed_in_the_end(need: Need, mode: Mode) -> AsyncIterator[None]:
    """The second half of `kept_open`, whoever opened."""
    try:
        yield
    finally:
        try:
            if mode is Mode.AUTO:
                await close_firewall(need, permanent=False)
        except LocalError as error:
            LOG.warning("this host's firewall is as it was: %s", error)


async def open_again(need: Need, mode: Mode) -> None:
    """The first half of `kept_open`."""
    if mode is not Mode.AUTO:
        return
    try:
        for finding in findings(need, await read_facts()):
            for command in () if finding.permanent else finding.commands:
                await _run(command)
    except LocalError as error:
        LOG.warning("this host's firewall is as it was: %s", error)


async def read_facts() -> Facts:
    """What the host says of its firewall; tools that are not installed say nothing."""
    ufw = None
    if _installed("ufw") and "Status: active" in (await _ask("ufw", "status") or ""):
        lines = (await _ask("ufw", "show", "added") or "").splitlines()
        ufw = tuple(line for line in lines if line.startswith("ufw "))
    iptables = {}
    for command in ("iptables", "ip6tables"):
        if _installed(command) and (printed := await _ask(command, "-S")) is not None:
            iptables[command] = tuple(printed.splitlines())
    zone, ports, zones = None, "", ""
    if _installed("firewall-cmd") and await _ask("firewall-cmd", "--state") is not None:
        zone = (await _ask("firewall-cmd", "--get-default-zone") or "public").strip()
        ports = await _ask("firewall-cmd", f"--zone={zone}", "--list-ports") or ""
        zones = await _ask("firewall-cmd", "--permanent", "--get-zones") or ""
    return Facts(await list_ruleset(), ufw, iptables, zone, tuple(ports.split()), tuple(zones.split()))


def _installed(command: str) -> bool:
    return which(command) is not None


async def _ask(*command: str) -> str | None:
    """What it prints; None when it fails."""
    code, output, _ = await execute(command)
    return None if code else output


async def _run(command: Command) -> None:
    code, output, complaint = await execute(command)
    if code:
        said = (complaint.strip() or output.strip() or "no reason given").splitlines()[0]
        raise LocalError(f"{' '.join(command)}: {said}: do it by hand, or use --firewall none")
