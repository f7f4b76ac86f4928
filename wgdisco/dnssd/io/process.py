"""The registry's side of the process that serves its zone: starts it, feeds it, starts it again when it dies.

The sockets are bound here, and stay open here: what is asked while there is no process waits in them.
"""

import asyncio
import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import wgdisco
from wgdisco.dnssd.feed import Audience, Delta, Listener, Setup, between, pack_delta, pack_setup, whole
from wgdisco.dnssd.io.bind import bind_pair, overflows
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.tally import Kind, Tally, from_json, joined, numbers
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey

LOG = logging.getLogger(__name__)

START_TIMEOUT = 30.0
# between two starts of a process that dies at once
RESTART_INTERVAL = 1.0

# it speaks every second; so many ticks without a word are too many, and so many before the first
TICK = 1.0
SILENT_MAX = 8
START_MAX = 60

# lines on its standard error that are heard, of one that was started
COMPLAINTS_MAX = 100
COMPLAINT_MAX_SIZE = 500

# nice(2): an answer is short and waited for, and a tunnel that is full would let it wait for its turn
NICE = -5

_REPLY_MAX_SIZE = 1 << 16


class ZoneProcess:
    """Serves `zone`, and then each that `follow` is given.

    `transferred` is the serial that secondaries are to have and strangers see, where that is another, and `given` that
    which each address has, as it was a second ago. `restarts` are how often it had to be started again.
    """

    def __init__(self, zone: Zone, setup: Setup) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self.pid: int | None = None
        self.transferred: int | None = None
        self.given: dict[str, int] = {}
        self._zone = zone
        self._setup = setup
        self._sockets: list[tuple[socket.socket, socket.socket]] = []
        self._touched: dict[PublicKey, None] = {}
        self._is_new = asyncio.Event()
        self._ready = asyncio.Event()
        self.restarts = 0
        self._past = joined()
        self._present = joined()
        # seconds without a word from it
        self._silent = 0

    def tally(self) -> Tally:
        """What it counted until a second ago, over all processes there were: every kind is there, and only grows."""
        drops = {"queue full": sum(overflows(one) for pair in self._sockets for one in pair)}
        return joined(self._past, self._present, {Kind.DROPS: Counter(drops)})

    def bind(self, address: IPAddress, port: int, audience: Audience, interface: str | None = None) -> None:
        """Answer there too, once it runs (port 0: any free one). LocalError when that cannot be.

        With `interface`, nobody is heard who does not come in by it.
        """
        udp, tcp = bind_pair(address, port, interface)
        self._sockets.append((udp, tcp))
        listener = Listener(udp.fileno(), tcp.fileno(), address, audience)
        self._setup = replace(self._setup, listeners=(*self._setup.listeners, listener))
        self.endpoints += (Endpoint(address, udp.getsockname()[1]),)

    def follow(self, zone: Zone, touched: Iterable[PublicKey]) -> None:
        """The next snapshot, in which instances of `touched` keys alone differ from the last."""
        self._touched.update(dict.fromkeys(touched))
        self._zone = zone
        self._is_new.set()

    async def started(self) -> None:
        """Wait until it answers. LocalError when it does not."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._ready.wait()
        except TimeoutError:
            raise LocalError(f"the zone's server did not start within {START_TIMEOUT:.0f} s") from None

    async def run(self) -> None:
        """Keep one running until cancelled."""
        while True:
            try:
                why = await self._run_once()
                self.restarts += 1
                LOG.warning("the zone's server %s; it is started again", why)
            except OSError as error:
                LOG.error("the zone's server cannot be started: %s", error.strerror)
            await asyncio.sleep(RESTART_INTERVAL)

    def close(self) -> None:
        """Release the sockets. May be called twice."""
        for udp, tcp in self._sockets:
            udp.close()
            tcp.close()
        self._sockets, self.endpoints = [], ()

    async def _run_once(self) -> str:
        """Until it ends, or has to be ended: what it did."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno(), *(one.fileno() for pair in self._sockets for one in pair)]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "wgdisco.dnssd.io.zone_server", str(theirs.fileno()), str(self._nice())),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                pass_fds=descriptors,
            )
        self.pid = process.pid
        complaints = asyncio.create_task(_hear(process.stderr))
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_REPLY_MAX_SIZE)
        silence = asyncio.create_task(self._watch_silence())
        tasks = [asyncio.create_task(self._feed(writer)), asyncio.create_task(self._listen(reader)), silence]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return f"said nothing for {self._silent * TICK:.0f} s" if silence in done else "ended"
        finally:
            self._ready.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # the end of the feed is its end; what does not hear of it is ended
            writer.transport.abort()
            self._past, self._present = joined(self._past, self._present), joined()
            try:
                async with asyncio.timeout(1.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            self.pid = None
            await asyncio.wait([complaints], timeout=1.0)
            complaints.cancel()

    def _nice(self) -> int:
        """Where strangers ask, a flood of theirs is not to go before what the host does."""
        strangers = (Audience.STRANGERS, Audience.ALL_STRANGERS)
        return 0 if any(one.audience in strangers for one in self._setup.listeners) else NICE

    async def _feed(self, writer: asyncio.StreamWriter) -> None:
        """Tell it all there is, and then what changes: as much at once as changed since it last had room."""
        with suppress(ConnectionError):
            writer.write(pack_setup(self._setup))
            self._touched.clear()
            told = self._zone
            await _tell(writer, whole(told))
            while True:
                await self._is_new.wait()
                self._is_new.clear()
                if self._zone is told:
                    continue
                touched, self._touched = self._touched, {}
                last, told = told, self._zone
                # wgsd lists in the device's order, which a delta does not tell
                is_exact = self._setup.profile is Profile.WGSD_EXACT
                await _tell(writer, whole(told) if is_exact else between(last, told, touched))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """What it says, until it ends or says what it cannot: strangers talk to it, and not to us."""
        with suppress(ConnectionError):
            try:
                while line := await reader.readline():
                    self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
                LOG.error("the zone's server said what it cannot (%s)", type(error).__name__)

    def _take(self, said: dict[str, Any]) -> None:
        self._silent = 0
        if "ready" in said:
            self._ready.set()
            return
        serial = said.get("serial")
        self._present = from_json(said["counts"])
        self.transferred, self.given = None if serial is None else int(serial), dict(numbers(said.get("given", {})))

    async def _watch_silence(self) -> None:
        """Until it was silent for too long. Our own turns are counted: when we are held up, it is not silent."""
        self._silent = 0
        while self._silent < (SILENT_MAX if self._ready.is_set() else START_MAX):
            await asyncio.sleep(TICK)
            self._silent += 1


async def _hear(stderr: asyncio.StreamReader | None) -> None:
    """Have what it complains of in our log, a line each; not more than so much, for strangers talk to it."""
    left = COMPLAINTS_MAX
    while stderr is not None:
        try:
            line = await stderr.readline()
        except ValueError:
            line = b"(a line that is too long)\n"
        if not line:
            return
        if left > 0:
            LOG.error("the zone's server: %s", line[:COMPLAINT_MAX_SIZE].decode(errors="replace").rstrip())
        left -= 1


async def _tell(writer: asyncio.StreamWriter, delta: Delta) -> None:
    for line in pack_delta(delta):
        writer.write(line)
        await writer.drain()


def _environment() -> dict[str, str]:
    """Nothing of ours but where Python finds the same program."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    # and what it is made with: a package brings its libraries, and tells of them when it is started
    places = dict.fromkeys([str(Path(wgdisco.__file__).parents[1]), *filter(None, sys.path)])
    return kept | {"PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}
