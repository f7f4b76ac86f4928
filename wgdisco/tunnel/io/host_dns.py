"""Name servers inside a tunnel, told to the host's resolver, and taken back.

As with routing (`policy.py`), what is to be undone is written to /run before it is done.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from wgdisco.errors import LocalError
from wgdisco.tunnel.host_dns import DnsMode, NameServers, ResolverFacts, Step, Tool, choose, record_name, steps, undo
from wgdisco.tunnel.io.control import refuse_second_daemon
from wgdisco.tunnel.io.kept import kept_path, read_kept, write_kept
from wgdisco.tunnel.io.programs import execute, which

LOG = logging.getLogger(__name__)

_SUFFIX = "dns"
_FACT_MAX_SIZE = 65536


class HostDns:
    """Of one interface, which is up. Whoever made it calls `close` in the end, at any time and again."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._kept = kept_path(interface, _SUFFIX)

    async def open(self, names: NameServers, mode: DnsMode) -> Tool | None:
        """Have the host ask the name servers; what was told of them, or None. LocalError where that cannot be."""
        if not names.servers:
            return None
        facts = _facts()
        try:
            tool = choose(mode, facts, names)
        except ValueError as error:
            raise LocalError(
                f"cannot use the name servers of {self.interface}: {error}, or give --host-dns none"
            ) from None
        if tool is None:
            return None
        name = record_name(tool, self.interface, facts, names)
        write_kept(self._kept, {"tool": tool.value, "name": name, "index": socket.if_nametoindex(self.interface)})
        for step in steps(tool, name, names):
            await _run(step, self.interface)
        return tool

    async def close(self) -> None:
        """Undo what `open` did, here or in a process that was killed.

        LocalError when the resolver does not take it back; another call tries again.
        """
        kept = read_kept(self._kept)
        if kept is None:
            return
        name, index = kept.get("name"), kept.get("index")
        try:
            tool = Tool(kept.get("tool"))
        except ValueError:
            tool = None
        # systemd-resolved forgets an interface that goes, and another may have its name by now
        is_gone = tool is Tool.RESOLVED and (not isinstance(name, str) or _index(name) != index)
        if tool is not None and isinstance(name, str) and self._is_ours(name) and not is_gone:
            await _run(undo(tool, name), self.interface)
        with suppress(OSError):
            self._kept.unlink()

    def _is_ours(self, name: str) -> bool:
        """Whoever may write the file is not to have others' servers taken away."""
        return not name.startswith("-") and (name == self.interface or name.endswith(f".{self.interface}"))


@asynccontextmanager
async def asked_by_host(interface: str, names: NameServers, mode: DnsMode) -> AsyncIterator[None]:
    """While a daemon runs, the host asks the name servers of the interface.

    LocalError where that cannot be, unless they are for a zone only: a tunnel is of use without.
    """
    dns = HostDns(interface)
    try:
        await _close(dns)  # what one that was killed left
        try:
            tool = await dns.open(names, mode)
        except LocalError as error:
            if names.zone is None:
                raise
            LOG.warning("%s", error)
            tool = None
        if tool is not None:
            fields = {"interface": interface, "servers": " ".join(names.items()), "by": tool.value}
            LOG.info("name servers", extra={"fields": fields})
        yield
    finally:
        await asyncio.shield(_close(dns))


async def take_back_left(interface: str) -> None:
    """Undo what a daemon that was killed left, if none runs; a resolver that refuses is told of."""
    if kept_path(interface, _SUFFIX).exists():
        try:
            await refuse_second_daemon(interface)
        except LocalError:
            return
        await _close(HostDns(interface))


async def _close(dns: HostDns) -> None:
    try:
        await dns.close()
    except LocalError as error:
        LOG.warning("%s", error)


def _facts() -> ResolverFacts:
    resolvectl, resolvconf = which("resolvectl"), which("resolvconf")
    path = Path("/etc/resolv.conf")
    return ResolverFacts(
        _text(path),
        str(path.resolve()),
        _text(Path("/etc/nsswitch.conf")),
        resolvectl is not None,
        resolvconf is not None,
        resolvconf is not None and Path(resolvconf).name == "resolvectl",
        _text(Path("/etc/resolvconf/interface-order")),
    )


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(_FACT_MAX_SIZE)
    except OSError:
        return ""


def _index(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


async def _run(step: Step, interface: str) -> None:
    try:
        code, output, complaint = await execute(step.command, step.text)
    except OSError as error:
        code, output, complaint = 1, "", error.strerror or str(error)
    if not code:
        return
    said = (complaint.strip() or output.strip() or "no reason given").splitlines()[0]
    if step.optional:
        LOG.debug("%s: %s", " ".join(step.command), said)
        return
    raise LocalError(
        f"cannot set the name servers of {interface}: {' '.join(step.command)}: {said}; --host-dns none does without"
    )
