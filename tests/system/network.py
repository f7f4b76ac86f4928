"""Real daemons in a lab: one registry, alice and bob behind their NATs, their logs read as they come."""

import io
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from wgdisco.keys import PrivateKey
from wgdisco.lab.timeline import Said, Timeline
from wgdisco.lab.topology import Lab

PROGRAM = [sys.executable, "-m", "wgdisco"]
ZONE = "example.com."
DNS = "198.51.100.10:53"
TUNNEL = {"registry": "10.0.0.254", "alice": "10.0.0.1", "bob": "10.0.0.2"}


def await_(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """Poll until `condition()` is true, and return what it said."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)
    return result


def complaint(stderr: str) -> str:
    """The last line as a person is told it, though the daemon's log is for machines."""
    line = stderr.splitlines()[-1]
    return f"wgdisco: {json.loads(line)['event']}" if line.startswith("{") else line


# Whose WireGuard all hosts are to run, where it is not ours: test_kernel.py says so
ENGINE = os.environ.get("LAB_ENGINE")


class Network:
    """A lab and its daemons. Daemons are started by name, and all end with the lab."""

    def __init__(self, lab: Lab, keepalive: int = 25) -> None:
        self.lab = lab
        private = {host: PrivateKey(secrets.token_bytes(32)) for host in TUNNEL}
        self.keys = {host: key.public_key() for host, key in private.items()}
        self.timeline = Timeline({str(key): host for host, key in self.keys.items()}, io.StringIO())
        self.processes: dict[str, Any] = {}
        for host, key in private.items():
            lab.hosts[host].write_file(f"/run/lab/{host}.conf", self._conf(host, key, keepalive))

    def _conf(self, host: str, private: PrivateKey, keepalive: int) -> str:
        text = f"[Interface]\nAddress = {TUNNEL[host]}/24\nListenPort = 51820\nPrivateKey = {private.to_text()}\n"
        for peer, address in TUNNEL.items():
            if peer == host:
                continue
            text += f"[Peer]\nPublicKey = {self.keys[peer]}\nAllowedIPs = {address}/32\n"
            if peer == "registry":
                text += "Endpoint = 198.51.100.10:51820\n"
            if host != "registry":
                text += f"PersistentKeepalive = {25 if peer == 'registry' else keepalive}\n"
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.timeline.close()

    def command(self, host: str, *more: str) -> list[str]:
        verb = ["registry", "run"] if host == "registry" else ["join"]
        return [
            *PROGRAM,
            *verb,
            "--conf",
            f"/run/lab/{host}.conf",
            "--zone",
            ZONE,
            "--dns",
            DNS,
            "--log",
            "json",
            *(["--engine", ENGINE] if ENGINE else []),
            *more,
        ]

    def start(self, host: str, *more: str) -> None:
        self.timeline.start(self.lab.hosts[host], self.command(host, *more))

    def stop(self, host: str) -> int:
        return self.timeline.stop(host)

    def wait(self, host: str, event: str, about: str | None = None, seconds: float = 15.0, after: float = 0.0) -> Said:
        """The first `event` of `host`'s daemon later than `after` (boot time) that concerns host `about`."""

        def found() -> Said | None:
            key = None if about is None else str(self.keys[about])
            for said in self.timeline.said:
                if said.host == host and said.event == event and said.at > after and (key is None or said.about(key)):
                    return said
            return None

        assert self.timeline.wait(lambda: found() is not None, seconds), f"{host} said no {event!r} in {seconds} s"
        said = found()
        assert said is not None
        return said

    def connect(self) -> None:
        """Start all three and wait until both members reach each other."""
        self.start("registry")
        self.wait("registry", "started")
        self.start("alice")
        self.wait("registry", "handshake", "alice")
        self.start("bob")
        self.wait("alice", "direct", "bob")
        self.wait("bob", "direct", "alice")

    def ping(self, host: str, to: str, count: int = 3) -> int:
        """How many of `count` pings were answered."""
        command = ["ping", "-q", "-c", str(count), "-i", "0.1", "-W", "1", TUNNEL[to]]
        output = self.lab.hosts[host].run(command, check=False).stdout
        found = re.search(r"(\d+) received", output)
        return int(found[1]) if found else 0

    def status(self, host: str) -> dict[str, Any]:
        """What `wgdisco status -o json` says of the host's one interface, once its daemon can be asked."""
        socket = ["test", "-S", f"/run/wgdisco/{host}.sock"]
        await_(lambda: self.lab.hosts[host].run(socket, check=False).returncode == 0, "the control socket")
        said = json.loads(self.lab.hosts[host].run([*PROGRAM, "status", "-o", "json"]).stdout)
        assert said["schema"] == 1
        (interface,) = said["interfaces"]
        return interface

    def dig(self, host: str, *question: str) -> str:
        """dig's output at the registry's server."""
        server = ["@198.51.100.10", "+norecurse", "+time=2", "+tries=2"]
        return self.lab.hosts[host].run(["dig", *server, *question]).stdout
