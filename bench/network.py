"""A network of real daemons for measurements: a registry and members of it, each in a namespace, around one router.

::

    registry 198.18.0.2 ── router ── 198.18.1.2 m1
                              └───── 198.18.2.2 m2 …
"""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from bench.engines import START_TIMEOUT, await_, process_in
from wgdisco.lab.world import Host, HostProcess, World

PROGRAM = [sys.executable, "-m", "wgdisco"]
REGISTRY = "registry"
INTERFACE = "mesh"


class Network:
    """The registry runs from the start, members from `join` on; a context manager. Nothing outlives this process."""

    def __init__(self, members: int) -> None:
        self.members = [f"m{number}" for number in range(1, members + 1)]
        self._world = World(["router", REGISTRY, *self.members])
        self.hosts = self._world.hosts
        self.pids: dict[str, int] = {}
        self._said: dict[str, list[str]] = {}
        self._readers: list[threading.Thread] = []
        try:
            self._lay()
            self._run(REGISTRY, "registry", "init", "--firewall", "none", "--endpoint", "198.18.0.2")
            self._start(REGISTRY, "registry", "run")
            self.wait_for(REGISTRY, "started")
        except BaseException:
            self.close()
            raise

    def _lay(self) -> None:
        lines = ["link set lo up"]
        for number, name in enumerate([REGISTRY, *self.members]):
            host = self.hosts[name]
            lines += [
                f"link add {name} type veth peer name eth0 netns {host.inner_pid}",
                f"addr add 198.18.{number}.1/30 dev {name}",
                f"link set {name} up",
            ]
        router = self.hosts["router"]
        router.run(
            ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; exec ip -batch -"], text="\n".join(lines) + "\n"
        )
        for number, name in enumerate([REGISTRY, *self.members]):
            own = f"addr add 198.18.{number}.2/30 dev eth0\nlink set eth0 up\nroute add default via 198.18.{number}.1\n"
            self.hosts[name].run(["ip", "-batch", "-"], text="link set lo up\n" + own)

    def _run(self, name: str, *words: str) -> str:
        return self.hosts[name].run([*PROGRAM, *words], timeout=START_TIMEOUT).stdout.strip()

    def _start(self, name: str, *words: str) -> None:
        process = self.hosts[name].popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._said[name] = []
        reader = threading.Thread(target=self._read, args=(process, self._said[name]))
        reader.start()
        self._readers.append(reader)
        self.pids[name] = process_in(process)

    @staticmethod
    def _read(process: HostProcess, lines: list[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            lines.extend(iter(process.stdout.readline, ""))

    def join(self, name: str) -> None:
        """Invite that member and start it."""
        link = self._run(REGISTRY, "registry", "invite", name)
        self._start(name, "join", link, "--foreground", "--firewall", "none")
        self.wait_for(name, "PEER ")

    def wait_for(self, name: str, text: str) -> None:
        """Until a daemon has said that."""
        await_(lambda: text in "".join(self._said[name]), f"{name} to say {text!r}")

    def address(self, name: str) -> str:
        """Its IPv4 address in the network."""
        said = self.hosts[name].run(["ip", "-4", "-o", "addr", "show", "dev", INTERFACE]).stdout
        return next(line for line in said.splitlines() if " 10." in line).split()[3].partition("/")[0]

    def control_socket(self, name: str) -> Path:
        """The control socket of a daemon, as seen from here."""
        return Path(f"/proc/{self.hosts[name].pid}/root/run/wgdisco/{INTERFACE}.sock")

    def host(self, name: str) -> Host:
        """A host of it."""
        return self.hosts[name]

    def close(self) -> None:
        """End everything in it."""
        self._world.close()
        for reader in self._readers:
            reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
