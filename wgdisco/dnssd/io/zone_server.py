"""The process that serves the zone: `python -m wgdisco.dnssd.io.zone_server FD`.

It has no keys, no privileges and opens nothing: its sockets come bound from the registry, the zone comes by the feed at
descriptor FD. It ends when the feed does. What it counts goes back the same way, a line of JSON a second.
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
    give_up_privileges()
    feed = socket.socket(fileno=int(sys.argv[1]))
    with suppress(ConnectionError, asyncio.IncompleteReadError):
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
    feed.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=feed, limit=LINE_MAX_SIZE)
    setup = parse_setup(await _line(reader))
    transfers = None if setup.secondaries is None else Transfers(setup.secondaries)
    service, server = Service(setup, os.urandom(KEY_SIZE), time.time, time.monotonic), DnsServer(transfers)
    forwarder = Forwarder(Resolvers(one.address for one in setup.listeners).now, service.forwards_for, setup.zone)
    deltas = DeltaReader()
    counting: asyncio.Task[None] | None = None
    try:
        while True:
            delta = deltas.feed(await _line(reader))
            if delta is None:
                continue
            service.apply(delta)
            if transfers is not None:
                transfers.publish(service.transferred(), delta.touched())
            if counting is None:
                # the zone is there: what it is made of need not be looked at again by the garbage collector
                gc.collect()
                gc.freeze()
                await _listen(setup, service, server, forwarder)
                if transfers is not None:
                    transfers.start(_notify_source(setup))
                writer.write(READY)
                counting = asyncio.create_task(_report(service, server, forwarder, transfers, writer))
    finally:
        if counting is not None:
            counting.cancel()
        if transfers is not None:
            transfers.close()
        await server.close()
        await forwarder.close()
        writer.close()


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    return line


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
    writer: asyncio.StreamWriter,
) -> None:
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
        writer.write(json.dumps(report | {"counts": to_json(tally)}).encode() + b"\n")
        await writer.drain()


if __name__ == "__main__":
    main()
