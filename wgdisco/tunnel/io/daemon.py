"""`wgdisco-tunnel`: the engine alone behind its configuration socket, for `wg` and `wg-quick` to drive (rule U2)."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from wgdisco.errors import LocalError, WgdiscoError
from wgdisco.tunnel.events import DeviceGone
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.link_state import LinkState, RouteMtu
from wgdisco.tunnel.io.uapi import UapiServer
from wgdisco.tunnel.messages import DEFAULT_MTU

LOG = logging.getLogger(__name__)

PROGRAM = "wgdisco-tunnel"


def run(interface: str) -> int:
    """Serve `interface` until SIGINT, SIGTERM, or the end of the interface or of the socket's file; the exit code."""
    return _report(interface, lambda: None)


def run_in_background(interface: str) -> int:
    """The same in a process of its own; returns once interface and socket are there, or could not be made."""
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
    os.setsid()
    os._exit(_report(interface, lambda: _detach(writer)))


def _report(interface: str, ready: Callable[[], None]) -> int:
    try:
        asyncio.run(_serve(interface, ready))
    except WgdiscoError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _detach(writer: int) -> None:
    """Let go of the terminal and the directory, and tell the parent that all is there."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    os.write(writer, b"ready")
    os.close(writer)


async def _serve(interface: str, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with _device(interface) as (engine, server):
        ready()
        waits = [asyncio.ensure_future(wait) for wait in (stop.wait(), _gone(engine), server.wait_deleted())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


@asynccontextmanager
async def _device(interface: str) -> AsyncIterator[tuple[Engine, UapiServer]]:
    """The engine, its interface at the default MTU, and its socket; all gone at the end."""
    engine = await Engine.open(interface, DEFAULT_MTU)
    try:
        link = await Link.open(interface)
        try:
            await link.set_mtu(DEFAULT_MTU)
        finally:
            await link.remove()
        server = await UapiServer.open(interface, engine)
        following = asyncio.ensure_future(follow(engine))
        try:
            yield engine, server
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            server.close()
    finally:
        await engine.close()


async def follow(engine: Engine) -> None:
    """Let the engine know what whoever drives us makes of the interface: MTUs (rule M1), up or down (rule T12)."""
    try:
        async for state in engine.watch_link():
            if isinstance(state, LinkState):
                engine.set_mtu(state.mtu)
                try:
                    engine.set_up(state.up)
                except LocalError as error:
                    LOG.warning("%s", error)
            elif isinstance(state, RouteMtu):
                engine.set_route_mtu(state.network, state.mtu)
    except LocalError as error:
        LOG.warning("%s", error)


async def _gone(engine: Engine) -> None:
    async for event in engine.events():
        if isinstance(event, DeviceGone):
            return
