"""`wgdisco-tunnel`: the engine alone behind its configuration socket, for `wg` and `wg-quick` to drive (rule U2)."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from wgdisco.errors import LocalError, WgdiscoError
from wgdisco.keys import PublicKey
from wgdisco.machine import allow_files, guard_memory
from wgdisco.tunnel.events import DeviceGone, HandshakeStep
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.lane_loop import LaneLoop
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.link_state import LinkEvent, LinkState, RouteMtu
from wgdisco.tunnel.io.uapi import UapiServer
from wgdisco.tunnel.messages import DEFAULT_MTU
from wgdisco.tunnel.offloads import ALL, Offloads
from wgdisco.tunnel.tai64n import EARLIEST

LOG = logging.getLogger(__name__)

PROGRAM = "wgdisco-tunnel"


@dataclass(frozen=True, slots=True)
class Start:
    """What to serve. `tun_fd` and `uapi_fd` are open already and used instead; `keeps_log` is for the background."""

    interface: str
    tun_fd: int | None = None
    uapi_fd: int | None = None
    keeps_log: bool = False
    offloads: Offloads = ALL


def run(start: Start) -> int:
    """Serve it until SIGINT, SIGTERM, or the end of the interface or of the socket's file; the exit code."""
    return _report(start, lambda: None)


def run_in_background(start: Start) -> int:
    """The same in a process of its own; returns once interface and socket are there, or could not be made."""
    _hold_standard_descriptors()
    reader, writer = os.pipe()
    # Before any loop, thread or descriptor of the engine's exists, so that nothing has to survive the fork.
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            if pipe.read():
                return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(reader)
    _close_inherited({start.tun_fd, start.uapi_fd})
    os.setsid()
    os._exit(_report(start, lambda: _detach(writer, keeps_log=start.keeps_log)))


def _report(start: Start, ready: Callable[[], None]) -> int:
    guard_memory()
    try:
        allow_files()
        with asyncio.Runner(loop_factory=LaneLoop) as runner:
            runner.run(_serve(start, ready))
    except WgdiscoError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _hold_standard_descriptors() -> None:
    """Those of 0 to 2 that are closed become /dev/null, or what is opened next would be in their place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _close_inherited(but: set[int | None]) -> None:
    """A lock or a pipe of whoever started us is not to be kept for as long as we run.

    What we open ourselves is not inheritable.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the one that lists them
            if fd > 2 and fd not in but and os.get_inheritable(fd):
                os.close(fd)


def _detach(writer: int, *, keeps_log: bool) -> None:
    """Let go of the terminal and the directory, and tell the parent that all is there."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1) if keeps_log else (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    os.write(writer, b"ready")
    os.close(writer)


async def _serve(start: Start, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with _device(start) as (engine, server):
        if time.time() < EARLIEST:
            LOG.error("this host's clock says %s: peers that heard from it later refuse it until it is set", _today())
        ready()
        LOG.debug("%s is up", engine.interface)
        waits = [asyncio.ensure_future(wait) for wait in (stop.wait(), _follow(engine), server.wait_deleted())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    LOG.debug("%s is down", engine.interface)


@asynccontextmanager
async def _device(start: Start) -> AsyncIterator[tuple[Engine, UapiServer]]:
    """The engine, its interface at the default MTU, and its socket; all gone at the end."""
    traces = LOG.isEnabledFor(logging.DEBUG)
    engine = await Engine.open(
        start.interface, DEFAULT_MTU, traces=traces, tun_fd=start.tun_fd, offloads=start.offloads
    )
    try:
        await _set_mtu(engine.interface, is_given=start.tun_fd is not None)
        server = await UapiServer.open(engine.interface, engine, fd=start.uapi_fd)
        following = asyncio.ensure_future(follow(engine))
        try:
            yield engine, server
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            server.close()
    finally:
        await engine.close()


async def _set_mtu(interface: str, *, is_given: bool) -> None:
    """Give it the default MTU; one that is given may not be ours to see or to set."""
    try:
        link = await Link.open(interface)
        try:
            await link.set_mtu(DEFAULT_MTU)
        finally:
            await link.remove()
    except LocalError:
        if not is_given:
            raise


async def follow(engine: Engine) -> None:
    """Let the engine know what whoever drives us makes of the interface: MTUs (rule M1), up or down (rule T12)."""

    def told(event: LinkEvent) -> None:
        match event:
            case LinkState(_, mtu, up):
                engine.set_mtu(mtu)
                try:
                    engine.set_up(up)
                except LocalError as error:
                    LOG.warning("%s", error)
            case RouteMtu(network, mtu):
                engine.set_route_mtu(network, mtu)

    try:
        await engine.watch_link(told)
    except LocalError as error:
        LOG.warning("%s", error)


async def _follow(engine: Engine) -> None:
    """Log what handshakes come to; return when the interface is gone."""
    async for event in engine.events():
        match event:
            case HandshakeStep(key, what):
                LOG.debug("%s: peer %s: %s", engine.interface, _short(key), what)
            case DeviceGone(reason):
                LOG.info("%s", reason)
                return


def _short(key: PublicKey) -> str:
    text = key.to_text()
    return f"{text[:4]}…{text[39:43]}"


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
