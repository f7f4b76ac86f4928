"""The main job, end to end, in a lab: the real daemons find each other through the registry and talk directly.

What is called direct is judged by what the core saw, and not by the daemons' word: the pings of both hosts went between
their NATs' public addresses, and next to nothing to or from the registry.
"""

import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.errors import LocalError
from wgdisco.keys import PrivateKey
from wgdisco.lab.capture import Packet, count
from wgdisco.lab.timeline import Said, Timeline, now
from wgdisco.lab.topology import Lab
from wgdisco.tunnel.engines import EngineKind

PROGRAM = (sys.executable, "-m", "wgdisco")
ZONE = "example.com."
PORT = 51820
PING_COUNT = 200
PING_SIZE = 1111
MOST_REGISTRY_PACKETS = 20
TUNNEL_ADDRESSES = {"registry": "10.0.0.254", "alice": "10.0.0.1", "bob": "10.0.0.2"}
_OTHER = {"alice": "bob", "bob": "alice"}
_CONF_DIRECTORY = "/run/wgdisco-lab"
_START_TIMEOUT = 60.0  # on an emulated processor


@dataclass(frozen=True, slots=True)
class Pings:
    """One host's pings to the other."""

    sent: int
    received: int


@dataclass(slots=True)
class Report:
    """What came of a run; `reason` is None when it is direct. Times are milliseconds, None for what did not happen.

    `direct_packets` are those of a ping's size that the core passed from each host's public address to the other's
    during the pings; `registry_packets` all to or from the registry in that time.
    """

    nat: dict[str, str]
    direct: bool = False
    reason: str | None = None
    time_to_direct_ms: float | None = None
    first_ping_ms: float | None = None
    registry_saw_payload: bool = False
    endpoints: dict[str, str | None] = field(default_factory=dict)
    pings: dict[str, Pings] = field(default_factory=dict)
    direct_packets: dict[str, int] = field(default_factory=dict)
    registry_packets: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "direct": self.direct,
            "reason": self.reason,
            "time_to_direct_ms": self.time_to_direct_ms,
            "first_ping_ms": self.first_ping_ms,
            "registry_saw_payload": self.registry_saw_payload,
            "nat": self.nat,
            "endpoints": self.endpoints,
            "pings": {host: {"sent": ping.sent, "received": ping.received} for host, ping in self.pings.items()},
            "direct_packets": self.direct_packets,
            "registry_packets": self.registry_packets,
        }

    def to_text(self) -> str:
        """A few lines for people."""
        lines = [
            ("path", "direct" if self.direct else f"not direct: {self.reason}"),
            ("time to direct", _milliseconds(self.time_to_direct_ms)),
            ("first ping", _milliseconds(self.first_ping_ms)),
        ]
        for host, nat in self.nat.items():
            lines.append((host, f"{self.endpoints.get(host) or 'never seen'}  behind {nat}"))
        for host, pings in self.pings.items():
            lines.append((f"{host}'s pings", f"{pings.received} of {pings.sent} answered"))
        for host, packets in self.direct_packets.items():
            lines.append((f"core, from {host}", f"{packets} packets of that size straight to {_OTHER[host]}'s NAT"))
        if self.registry_packets is not None:
            payload = "payload among them" if self.registry_saw_payload else "no payload"
            lines.append(("core, registry", f"{self.registry_packets} packets to or from it, {payload}"))
        return "\n".join(f"{name:<18} {value}" for name, value in lines)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


class Demo:
    """One run in a lab of its own, which goes with `close()`."""

    def __init__(
        self,
        lab: Lab,
        output: TextIO,
        timeout: float,
        engines: Mapping[str, EngineKind] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Write the hosts' configuration. The timeline goes to `output`; `timeout` is for the way to direct, seconds.

        `program` is what runs as `wgdisco` in the hosts; a host's engine is ours unless `engines` has another (EXTERNAL
        is `wireguard-go`).
        """
        self._lab = lab
        self._engines = dict(engines or {})
        self._program = program
        self._timeout = timeout
        private_keys = {host: PrivateKey(secrets.token_bytes(32)) for host in TUNNEL_ADDRESSES}
        self._keys = {host: key.public_key().to_text() for host, key in private_keys.items()}
        self.timeline = Timeline({key: host for host, key in self._keys.items()}, output)
        for host, private_key in private_keys.items():
            lab.hosts[host].write_file(f"{_CONF_DIRECTORY}/{host}.conf", self._conf(host, private_key))

    def _conf(self, host: str, private_key: PrivateKey) -> str:
        """A wg-quick file. Members know the registry's endpoint and no other."""
        address = TUNNEL_ADDRESSES[host]
        lines = [
            "[Interface]",
            f"Address = {address}/24",
            f"ListenPort = {PORT}",
            f"PrivateKey = {private_key.to_text()}",
        ]
        for peer, peer_address in TUNNEL_ADDRESSES.items():
            if peer == host:
                continue
            lines += ["", "[Peer]", f"PublicKey = {self._keys[peer]}", f"AllowedIPs = {peer_address}/32"]
            if peer == "registry":
                lines.append(f"Endpoint = {self._lab.outside('registry')}:{PORT}")
            if host != "registry":
                lines.append("PersistentKeepalive = 25")
        return "\n".join(lines) + "\n"

    def run(self) -> Report:
        """Start the daemons, wait for direct, measure. LocalError when a daemon ends or does not start."""
        report = Report(nat={host: side.nat_type.name for host, side in self._lab.sides.items()})
        with self._lab.capture() as capture:
            report.reason = self._connect(report)
            report.endpoints = {host: self._endpoint(host) for host in _OTHER}
            if report.reason is not None:
                return report
            report.first_ping_ms = self._first_ping()
            since = now()
            report.pings = self._ping()
            until = now()
        outside = {host: self._lab.outside(host) for host in _OTHER}
        during = [packet for packet in capture.packets if since <= packet.at <= until]
        judge(during, outside, self._lab.outside("registry"), report)
        verdict = "direct" if report.direct else f"not direct: {report.reason}"
        self.timeline.note("core", verdict, is_milestone=report.direct)
        if capture.lost:
            raise LocalError(f"the capture lost {capture.lost} packets: this machine is too busy, run it again")
        return report

    def _daemon(self, host: str, *verb: str) -> float:
        options = ["--conf", f"{_CONF_DIRECTORY}/{host}.conf", "--zone", ZONE, "--log", "json"]
        dns = Endpoint(self._lab.outside("registry"), 53).to_text()
        engine = self._engines.get(host, EngineKind.USERSPACE)
        if engine is EngineKind.EXTERNAL:
            self._lab.hosts[host].run(["wireguard-go", host])
        command = [*self._program, *verb, *options, "--dns", dns, "--engine", engine.value]
        return self.timeline.start(self._lab.hosts[host], command)

    def _connect(self, report: Report) -> str | None:
        """Start the three daemons in turn and wait for both members' direct paths; the reason if there is none."""
        self._daemon("registry", "registry", "run")
        if not self.timeline.wait(lambda: self.timeline.first("registry", "started") is not None, _START_TIMEOUT):
            return f"the registry has not started in {_START_TIMEOUT:.0f} s"
        self._daemon("alice", "join")
        if not self.timeline.wait(self._alice_is_known, _START_TIMEOUT):
            return f"alice has not reached the registry in {_START_TIMEOUT:.0f} s"
        started_at = self._daemon("bob", "join")
        self.timeline.wait(lambda: all(self._direct(host) for host in _OTHER), self._timeout)
        heard = self._direct("bob")
        if heard is not None:
            report.time_to_direct_ms = round((heard.at - started_at) * 1000, 1)
        silent = [host for host in _OTHER if self._direct(host) is None]
        return f"no direct path from {' and '.join(silent)} in {self._timeout:g} s" if silent else None

    def _alice_is_known(self) -> bool:
        return self.timeline.first("registry", "handshake", self._keys["alice"]) is not None

    def _direct(self, host: str) -> Said | None:
        """When data from the other, from its public address, first authenticated at `host`.

        Engines that are not ours say nothing of data, but when a path stands.
        """
        other = _OTHER[host]
        is_ours = self._engines.get(host, EngineKind.USERSPACE) is EngineKind.USERSPACE
        said = self.timeline.first(host, "data" if is_ours else "direct", self._keys[other])
        if said is None or not str(said.fields.get("endpoint")).startswith(f"{self._lab.outside(other)}:"):
            return None
        return said

    def _endpoint(self, host: str) -> str | None:
        """Where the registry saw `host` last."""
        said = self.timeline.last("registry", "handshake", self._keys[host])
        return None if said is None else str(said.fields.get("endpoint"))

    def _first_ping(self) -> float | None:
        result = self._lab.hosts["bob"].run(["ping", "-c1", "-W5", TUNNEL_ADDRESSES["alice"]], check=False)
        found = re.search(r"time=([\d.]+) ms", result.stdout)
        if found is None:
            return None
        self.timeline.note("bob", f"first ping to alice: {found[1]} ms", is_milestone=True)
        return float(found[1])

    def _ping(self) -> dict[str, Pings]:
        """Both hosts ping each other at the same time."""
        command = ["ping", "-q", f"-c{PING_COUNT}", "-i0.004", "-W2", f"-s{PING_SIZE}"]
        running = {
            host: self._lab.hosts[host].popen([*command, TUNNEL_ADDRESSES[other]], stdout=subprocess.PIPE)
            for host, other in _OTHER.items()
        }
        pings = {}
        for host, process in running.items():
            output, _ = process.communicate()
            found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
            pings[host] = Pings(*map(int, found.groups())) if found else Pings(0, 0)
            self.timeline.note(host, f"{pings[host].received} of {pings[host].sent} pings answered by {_OTHER[host]}")
        return pings


def judge(packets: Sequence[Packet], outside: Mapping[str, IPAddress], registry: IPAddress, report: Report) -> None:
    """Fill in what the core saw during the pings, and whether that is direct. `outside` are the public addresses."""
    for host, other in _OTHER.items():
        way = (packet for packet in packets if (packet.source, packet.destination) == (outside[host], outside[other]))
        report.direct_packets[host] = count(packet for packet in way if packet.is_udp and packet.length > PING_SIZE)
    at_registry = [packet for packet in packets if packet.touches(registry)]
    report.registry_packets = count(at_registry)
    report.registry_saw_payload = any(packet.length > PING_SIZE and not _is_dns(packet) for packet in at_registry)
    report.reason = _shortfall(report)
    report.direct = report.reason is None


def _is_dns(packet: Packet) -> bool:
    return 53 in {packet.source_port, packet.destination_port}


def _shortfall(report: Report) -> str | None:
    """What keeps the run from counting as direct."""
    for host, packets in report.direct_packets.items():
        if packets < PING_COUNT:
            return f"the core passed only {packets} packets of the pings from {host} straight to {_OTHER[host]}"
    if report.registry_saw_payload:
        return "the registry saw payload"
    if report.registry_packets is not None and report.registry_packets >= MOST_REGISTRY_PACKETS:
        return f"the core passed {report.registry_packets} packets to or from the registry during the pings"
    return None
