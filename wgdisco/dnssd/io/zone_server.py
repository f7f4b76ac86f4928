"""The process that serves the zone: `python -m wgdisco.dnssd.io.zone_server FD NICE`.

It has no keys, no privileges and opens nothing: its sockets come bound from the registry, the zone comes by the feed at
descriptor FD. It ends when the feed does. What it counts goes back the same way, a line of JSON a second. Its priority
is NICE more than the registry's, where the host allows that.
"""

import asyncio
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import dns.rdata
from dns.rdataclass import IN
from dns.rdatatype import AAAA, OPT, PTR, SOA, SRV, TXT, A

from wgdisco.dnssd.feed import LINE_MAX_SIZE, Audience, DeltaReader, Setup, parse_setup
from wgdisco.dnssd.io.forwarder import Forwarder, Resolvers
from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.io.transfer import Transfers
from wgdisco.dnssd.service import Service
from wgdisco.dnssd.siphash import KEY_SIZE
from wgdisco.dnssd.tally import Kind, joined, to_json
from wgdisco.endpoint import IPAddress

READY = b'{"ready":true}\n'
COUNTS_INTERVAL = 1.0
COOKIES_INTERVAL = 600.0

# what is applied in one turn of the loop is no more than this
_READ_SIZE = 1 << 14
_NOBODY = 65534
# sys/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    """Serve until the feed ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # the registry is told, and ends the feed
        signal.signal(number, signal.SIG_IGN)
    exec_without_ambient()
    with suppress(PermissionError):
        os.nice(int(sys.argv[2]))
    give_up_privileges()
    feed = socket.socket(fileno=int(sys.argv[1]))
    with suppress(ConnectionError, EOFError):
        asyncio.run(_serve(feed))


def exec_without_ambient() -> None:
    """Begin anew without the capabilities that a unit gives its programs: its filter may not let us drop them."""
    status = Path("/proc/self/status").read_text()
    ambient = next(line for line in status.splitlines() if line.startswith("CapAmb:"))
    if int(ambient.split()[1], 16):
        ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  ourselves


def give_up_privileges() -> None:
    """Become nobody where we are root, and keep no capability, as far as the sandbox lets us."""
    # dnspython loads what it reads records with when it first does, and nobody may not be let there
    for rdtype in (A, AAAA, OPT, PTR, SOA, SRV, TXT):
        dns.rdata.get_rdata_class(IN, rdtype)  # type: ignore[no-untyped-call]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), min(hard, 4096)))
    if os.geteuid() == 0:
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc = ctypes.CDLL(None)
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


async def _serve(feed: socket.socket) -> None:
    lines = _Lines(feed)
    setup = parse_setup(lines.next())
    transfers = None if setup.secondaries is None else Transfers(setup.secondaries)
    service, server = Service(setup, os.urandom(KEY_SIZE), time.time, time.monotonic), DnsServer(transfers)
    forwarder = Forwarder(Resolvers(one.address for one in setup.listeners).now, service.forwards_for, setup.zone)
    follower = _Follower(lines, service, transfers)
    while not follower.take(lines.next()):
        pass
    # the zone is there: what it is made of need not be looked at again by the garbage collector
    gc.collect()
    gc.freeze()
    feed.setblocking(False)
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(feed, follower.read, ended)
    try:
        await _listen(setup, service, server, forwarder)
        if transfers is not None:
            transfers.start(_notify_source(setup))
        reporting = asyncio.create_task(_report(service, server, forwarder, transfers, feed))
        await asyncio.wait((ended, reporting), return_when=asyncio.FIRST_COMPLETED)
        reporting.cancel()
    finally:
        asyncio.get_running_loop().remove_reader(feed)
        if transfers is not None:
            transfers.close()
        await server.close()
        await forwarder.close()
        feed.close()


class _Lines:
    """The lines of the feed, as they come."""

    def __init__(self, feed: socket.socket) -> None:
        self._feed = feed
        self._whole: deque[bytes] = deque()
        self._rest = b""

    def next(self) -> bytes:
        """Wait for one. EOFError at the end, as of `receive`."""
        while not self._whole:
            self.receive()
        return self._whole.popleft()

    def receive(self) -> deque[bytes]:
        """Those that are here whole after one more read, to be taken from the left."""
        data = self._feed.recv(_READ_SIZE)
        if not data or len(self._rest) > LINE_MAX_SIZE:
            raise EOFError
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._whole += whole
        return self._whole


class _Follower:
    """Has the service follow the feed. Not a stream of asyncio's: that has as much work with a line as the zone."""

    def __init__(self, lines: _Lines, service: Service, transfers: Transfers | None) -> None:
        self._lines = lines
        self._service = service
        self._transfers = transfers
        self._deltas = DeltaReader()

    def read(self, ended: asyncio.Future[None]) -> None:
        """What there is. At the end of the feed, and at what it cannot say, `ended` is done."""
        goes_on = False
        try:
            lines = self._lines.receive()
            while lines:
                self.take(lines.popleft())
            goes_on = True
        except BlockingIOError:
            goes_on = True
        except (EOFError, ConnectionError):
            pass
        finally:
            # by an error of ours too, of which the loop tells
            if not goes_on and not ended.done():
                ended.set_result(None)

    def take(self, line: bytes) -> bool:
        """Whether with that line the zone is another."""
        delta = self._deltas.feed(line)
        if delta is None:
            return False
        self._service.apply(delta)
        if self._transfers is not None:
            self._transfers.publish(self._service.transferred(), delta.touched())
        return True


async def _listen(setup: Setup, service: Service, server: DnsServer, forwarder: Forwarder) -> None:
    for one in setup.listeners:
        udp, tcp = socket.socket(fileno=one.udp), socket.socket(fileno=one.tcp)
        passing = forwarder if one.audience is Audience.MEMBERS else None
        await server.serve(service.answerer(one.audience), one.address, udp, tcp, passing)


def _notify_source(setup: Setup) -> IPAddress | None:
    """Secondaries are told from where they ask: from the address that is not only for members, where there is one."""
    addresses = [one.address for one in setup.listeners if one.audience is not Audience.MEMBERS]
    return addresses[0] if addresses else None


async def _report(
    service: Service,
    server: DnsServer,
    forwarder: Forwarder,
    transfers: Transfers | None,
    feed: socket.socket,
) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(feed, READY)
    renewed_at = time.monotonic()
    while True:
        await asyncio.sleep(COUNTS_INTERVAL)
        if time.monotonic() - renewed_at >= COOKIES_INTERVAL:
            renewed_at = time.monotonic()
            service.forget_cookies()
        tally = joined(service.tally(), server.tally())
        tally[Kind.PASSED].update({what.value: count for what, count in forwarder.counts.items()})
        report: dict[str, object] = {"serial": service.public_serial()}
        if transfers is not None:
            tally[Kind.TRANSFERS].update({what.value: count for what, count in transfers.primary.counts.items()})
            report = {"serial": transfers.serial, "given": dict(transfers.given)}
        # said even when nothing is new: it tells that we are alive
        await loop.sock_sendall(feed, json.dumps(report | {"counts": to_json(tally)}).encode() + b"\n")


if __name__ == "__main__":
    main()
