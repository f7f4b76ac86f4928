"""The engines that are measured, each on both ends of one veth, in a world of their own.

::

    a  10.9.0.1  ── tunnel ──  10.9.0.2  b
       192.0.2.1 ──  veth  ──  192.0.2.2

All have an interface with an MTU of 1420, so a full packet carries 1368 bytes of TCP.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from wgdisco.errors import LocalError
from wgdisco.keys import PrivateKey
from wgdisco.lab.world import Host, HostProcess, World

PEERS = Path(__file__).parents[1] / ".peers"
MTU = 1420
INTERFACE = "wgt0"
NUMBER = {"a": 1, "b": 2}
OTHER = {"a": "b", "b": "a"}
START_TIMEOUT = 120.0
_OURS = "from wgdisco.tunnel.cli import main; raise SystemExit(main())"
# What runs where the compiled part could not be built: its import fails
_REFERENCE = f'import sys; sys.modules["wgdisco.tunnel._native"] = None; {_OURS}'


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine under its name in the tables; `command` runs it, without one it is the kernel's."""

    name: str
    title: str
    command: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    is_wireguard: bool = True

    def missing(self) -> str | None:
        """Why it cannot be measured here; None if it can."""
        if not self.command:
            with World(["a"]) as world:
                words = ["ip", "link", "add", INTERFACE, "type", "wireguard"]
                made = world.hosts["a"].run(words, check=False)
            return None if made.returncode == 0 else "this kernel has no WireGuard"
        if shutil.which(self.command[0]) is None:
            where = PEERS.name in self.command[0]
            return f"scripts/peers {self.name} has not built it" if where else f"{self.command[0]} is not installed"
        return None

    def describe(self) -> str:
        """Its version, as it says or as it was built."""
        built = PEERS / f"{self.name}.version"
        if self.command[:1] == (str(PEERS / self.name),) and built.exists():
            return built.read_text().strip()
        if not self.version:
            return ""
        said = subprocess.run(self.version, capture_output=True, text=True, check=False)
        return (said.stdout.strip() or said.stderr.strip()).partition("\n")[0]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("compiled", "wgdisco", (sys.executable, "-c", _OURS, "-f", INTERFACE)),
        Engine("reference", "wgdisco, plain Python", (sys.executable, "-c", _REFERENCE, "-f", INTERFACE)),
        Engine(
            "debian",
            "wireguard-go, Debian",
            ("wireguard-go", "-f", INTERFACE),
            ("dpkg-query", "-Wf${Version}", "wireguard-go"),
        ),
        Engine("wireguard-go", "wireguard-go, current", (str(PEERS / "wireguard-go"), "-f", INTERFACE)),
        Engine(
            "boringtun",
            "boringtun",
            (str(PEERS / "boringtun"), "-f", INTERFACE, "--disable-drop-privileges", "--log", "/dev/null"),
        ),
        Engine("nebula", "Nebula, Debian", ("nebula",), ("dpkg-query", "-Wf${Version}", "nebula"), is_wireguard=False),
        Engine("kernel", "the kernel"),
    )
}


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An engine that runs on both ends; `pids` are its processes by host, none for the kernel and the bare veth."""

    hosts: dict[str, Host]
    network: str
    pids: dict[str, int]

    def address(self, host: str) -> str:
        """Where `host` is reached."""
        return f"{self.network}.{NUMBER[host]}"

    def cpu(self, host: str) -> float:
        """Seconds of processor time, user and system, all threads, that the engine has taken in `host`."""
        fields = Path(f"/proc/{self.pids[host]}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self, host: str) -> float:
        """Resident memory of the engine in `host`, MiB."""
        status = Path(f"/proc/{self.pids[host]}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


class Bed:
    """Both hosts and the veth between them; a context manager. Nothing outlives this process."""

    def __init__(self) -> None:
        self._world = World(["a", "b"])
        self.hosts = self._world.hosts
        self._scratch = tempfile.TemporaryDirectory()
        a, b = self.hosts["a"], self.hosts["b"]
        try:
            a.run(["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", str(b.inner_pid)])
            for name, number in NUMBER.items():
                lines = ("link set lo up", f"addr add 192.0.2.{number}/24 dev veth0", "link set veth0 up")
                self.hosts[name].run(["ip", "-batch", "-"], text="\n".join(lines) + "\n")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything in it."""
        self._world.close()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bare(self) -> Tunnel:
        """No tunnel: the veth itself."""
        return Tunnel(self.hosts, "192.0.2", {})

    @contextmanager
    def running(self, engine: Engine, others: int = 0) -> Iterator[Tunnel]:
        """The engine on both ends, once a ping has crossed; each has `others` more peers, of which nothing is heard."""
        started: list[HostProcess] = []
        try:
            if engine.is_wireguard:
                self._start_wireguard(engine, others, started)
            else:
                self._start_nebula(engine, started)
            tunnel = Tunnel(
                self.hosts, "10.9.0", {name: process_in(p) for name, p in zip(NUMBER, started, strict=False)}
            )
            ping = ["ping", "-q", "-c", "1", "-W", "1", tunnel.address("b")]
            await_(lambda: self.hosts["a"].run(ping, check=False).returncode == 0, f"a ping through {engine.title}")
            if engine.name == "compiled" and "/_native." not in Path(f"/proc/{tunnel.pids['a']}/maps").read_text():
                raise LocalError("the compiled part was not built")
            yield tunnel
        finally:
            for process in started:
                process.stop()
            if not started:
                for host in self.hosts.values():
                    host.run(["ip", "link", "del", INTERFACE], check=False)

    def _start_wireguard(self, engine: Engine, others: int, started: list[HostProcess]) -> None:
        keys = {name: _new_key() for name in NUMBER}
        strangers = "".join(
            f"[Peer]\nPublicKey = {_new_key().public_key().to_text()}\nAllowedIPs = 10.{128 + (n >> 16)}."
            f"{n >> 8 & 255}.{n & 255}/32\n"
            for n in range(others)
        )
        for name, number in NUMBER.items():
            host = self.hosts[name]
            if engine.command:
                started.append(_start(host, engine.command))
                await_(partial(_answers, host), engine.title)
            else:
                host.run(["ip", "link", "add", INTERFACE, "type", "wireguard"])
            other = OTHER[name]
            host.run(
                ["wg", "setconf", INTERFACE, "/dev/stdin"],
                text=f"[Interface]\nPrivateKey = {keys[name].to_text()}\nListenPort = 51820\n{strangers}"
                f"[Peer]\nPublicKey = {keys[other].public_key().to_text()}\nAllowedIPs = 10.9.0.{NUMBER[other]}/32\n"
                f"Endpoint = 192.0.2.{NUMBER[other]}:51820\n",
            )
            lines = f"addr add 10.9.0.{number}/24 dev {INTERFACE}\nlink set {INTERFACE} mtu {MTU} up\n"
            host.run(["ip", "-batch", "-"], text=lines)

    def _start_nebula(self, engine: Engine, started: list[HostProcess]) -> None:
        scratch = Path(self._scratch.name)

        def certify(verb: str, *words: str) -> None:
            subprocess.run(["nebula-cert", verb, *words], cwd=scratch, check=True, capture_output=True)

        if not (scratch / "ca.crt").exists():
            certify("ca", "-name", "bench")
            for name, number in NUMBER.items():
                certify("sign", "-name", name, "-ip", f"10.9.0.{number}/24")
        for name in NUMBER:
            other = NUMBER[OTHER[name]]
            config = {
                "pki": {"ca": "/run/ca.crt", "cert": "/run/host.crt", "key": "/run/host.key"},
                "static_host_map": {f"10.9.0.{other}": [f"192.0.2.{other}:4242"]},
                "lighthouse": {"am_lighthouse": name == "b", "hosts": [] if name == "b" else ["10.9.0.2"]},
                "listen": {"host": "0.0.0.0", "port": 4242},
                "tun": {"dev": INTERFACE, "mtu": MTU},
                "firewall": {
                    direction: [{"port": "any", "proto": "any", "host": "any"}] for direction in ("outbound", "inbound")
                },
            }
            host = self.hosts[name]
            files = {"ca.crt": "ca.crt", "host.crt": f"{name}.crt", "host.key": f"{name}.key"}
            for target, source in files.items():
                host.write_file(f"/run/{target}", (scratch / source).read_text())
            host.write_file("/run/nebula.yml", json.dumps(config))  # JSON is YAML
            started.append(_start(host, (*engine.command, "-config", "/run/nebula.yml")))


def _answers(host: Host) -> bool:
    return host.run(["wg", "show", INTERFACE], check=False).returncode == 0


def _new_key() -> PrivateKey:
    return PrivateKey(secrets.token_bytes(32))


def _start(host: Host, command: tuple[str, ...]) -> HostProcess:
    quiet = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "silent"}
    return host.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=quiet)


def process_in(process: HostProcess) -> int:
    """The process in the host; what we started is the nsenter around it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    await_(lambda: bool(children.read_text().split()), f"process {process.pid} to start")
    return int(children.read_text().split()[0])


def await_(condition: Callable[[], bool], what: str) -> None:
    """Poll until it is true; LocalError when that takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            if condition():
                return
        time.sleep(0.05)
    raise LocalError(f"waited in vain for {what}")
