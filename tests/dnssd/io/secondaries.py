"""Knot and BIND as secondaries of a primary on the loopback."""

import asyncio
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.zone
from dns.rdatatype import SOA

from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.io.transfer import Transfers
from wgdisco.dnssd.responder import Responder
from wgdisco.dnssd.secondaries import Secondaries, TsigKey
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint, parse_address

ADDRESS = "127.0.0.1"
SERVERS = (parse_address("198.51.100.10"), parse_address("198.51.100.11"))
KEY_NAME = "secondaries"
SECRET = "c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ=="
KEY_TEXT = f'key "{KEY_NAME}" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'


def free_port() -> int:
    """One that neither UDP nor TCP uses now."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind((ADDRESS, 0))
        port: int = tcp.getsockname()[1]
        udp.bind((ADDRESS, port))
        return port


@dataclass
class Secondary(ABC):
    """A server that is started, stopped and started again with what it has on disk."""

    directory: Path
    zone: str
    primary: int
    signed: bool = True
    port: int = field(default_factory=free_port)
    program: ClassVar[str]
    _process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def path(cls) -> str | None:
        return shutil.which(cls.program, path="/usr/sbin:/usr/bin:/sbin:/bin")

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration, and say how it is run in the foreground."""

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def ask(self, name: str, rdtype: str) -> dns.message.Message | None:
        """What it answers now; None when it does not, or not with NOERROR."""
        try:
            reply = dns.query.udp(dns.message.make_query(name, rdtype), ADDRESS, port=self.port, timeout=1)
        except (dns.exception.DNSException, OSError):
            return None
        return reply if reply.rcode() == dns.rcode.NOERROR else None

    def serial(self) -> int | None:
        reply = self.ask(self.zone, "SOA")
        return reply.answer[0][0].serial if reply is not None and reply.answer else None

    def has(self, serial: int) -> bool:
        return self.serial() == serial

    def records(self) -> set[str]:
        """All that it has but the SOA, a line each, from its own AXFR."""
        zone = dns.zone.from_xfr(dns.query.xfr(ADDRESS, self.zone, port=self.port, relativize=False), relativize=False)
        return {f"{name} {ttl} {data}" for name, ttl, data in zone.iterate_rdatas() if data.rdtype != SOA}


@dataclass
class Knot(Secondary):
    program: ClassVar[str] = "knotd"

    def command(self) -> list[str]:
        key = f"key:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n" if self.signed else ""
        uses = f"\n    key: {KEY_NAME}" if self.signed else ""
        conf = self.directory / "knot.conf"
        conf.write_text(
            f"server:\n  rundir: {self.directory}\n  listen: {ADDRESS}@{self.port}\n"
            "  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
            f"log:\n  - target: stderr\n    any: info\ndatabase:\n  storage: {self.directory}\n"
            "  journal-db-mode: asynchronous\n"
            f"{key}remote:\n  - id: primary\n    address: {ADDRESS}@{self.primary}{uses}\n"
            f"acl:\n  - id: primary\n    address: {ADDRESS}\n    action: notify{uses}\n"
            f"  - id: all\n    address: {ADDRESS}\n    action: transfer\n"
            f"template:\n  - id: default\n    storage: {self.directory}\n"
            "    zonefile-sync: -1\n    zonefile-load: none\n    journal-content: all\n"
            f"zone:\n  - domain: {self.zone}\n    master: primary\n    acl: [primary, all]\n"
        )
        path = self.path()
        assert path is not None
        return [path, "-c", str(conf)]


@dataclass
class Bind(Secondary):
    program: ClassVar[str] = "named"

    def command(self) -> list[str]:
        conf = self.directory / "named.conf"
        uses = f" key {KEY_NAME}" if self.signed else ""
        conf.write_text(
            f'{KEY_TEXT}options {{ directory "{self.directory}"; pid-file none; session-keyfile none;\n'
            f" listen-on port {self.port} {{ {ADDRESS}; }}; listen-on-v6 {{ none; }};\n"
            f" recursion no; dnssec-validation no; allow-transfer {{ {ADDRESS}; }}; notify no; }};\n"
            f"controls {{ }};\n"
            f'zone "{self.zone}" {{ type secondary; file "zone.db";\n'
            f" primaries {{ {ADDRESS} port {self.primary}{uses}; }}; }};\n"
        )
        path = self.path()
        assert path is not None
        return [path, "-f", "-g", "-n", "1", "-c", str(conf)]


def await_(condition: Any, what: str, interval: float = 0.005, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(interval)


class Serving:
    """A primary in a thread of its own, at one port of the loopback."""

    def __init__(self, zone: Zone, secondary: Secondary) -> None:
        self.zone = zone
        key = TsigKey.from_text(KEY_TEXT) if secondary.signed else None
        endpoint = Endpoint(parse_address(ADDRESS), secondary.port)
        self.transfers = Transfers(Secondaries((endpoint,), key, SERVERS))
        self._server = DnsServer(self.transfers)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._call(self._start(secondary.primary))

    async def _start(self, port: int) -> None:
        await self._server.start(Responder(self.zone), [(parse_address(ADDRESS), port)])
        self.transfers.publish(self.zone)
        self.transfers.start()

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def publish(self, zone: Zone) -> None:
        async def publish() -> None:
            self.transfers.publish(zone)

        self.zone = zone
        self._call(publish())

    def close(self) -> None:
        async def close() -> None:
            self.transfers.close()
            await self._server.close()

        self._call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
