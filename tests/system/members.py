"""Members by join link, in the lab with a real registry: what a person types."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

from tests.system.network import PROGRAM, await_
from wgdisco.lab.topology import Lab

LISTEN = "import socket; s = socket.create_server(('', 7000)); print('listening', flush=True); s.accept()"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 2)"
READERS: list[threading.Thread] = []  # end with their lab


@contextmanager
def read_lab(*nat_types):
    """A lab after which nobody reads any longer."""
    before = len(READERS)
    with Lab(*nat_types) as lab:
        yield lab
    while len(READERS) > before:
        READERS.pop().join()


class _Control(http.client.HTTPConnection):
    """HTTP to a socket in the file system."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        # by its directory: a path through /proc may be longer than an address takes
        directory = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def _ask(path):
    with closing(_Control(path)) as control:
        try:
            control.request("GET", "/v1/status")
            return json.loads(control.getresponse().read())
        except OSError:
            return None


class Daemon:
    """A process that stays, and what it said."""

    def __init__(self, host, command):
        self.process = host.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out: list[str] = []
        self.err: list[str] = []
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            reader = threading.Thread(target=self._read, args=(stream, lines))
            reader.start()
            READERS.append(reader)

    @staticmethod
    def _read(stream, lines):
        with stream:
            lines.extend(iter(stream.readline, ""))

    def wait_for(self, text, seconds=20.0):
        await_(lambda: text in "".join(self.out + self.err), f"{text!r} in {self.out} {self.err}", seconds)


class Mesh:
    """A lab with a registry, and its members by host. On a slow machine have `patience`, a factor."""

    def __init__(self, lab, *init, patience=1):
        self.lab = lab
        self.patience = patience
        self.members = {}
        self._addresses = {}
        self.registry("init", *init)
        self.start_registry()

    def registry(self, *words):
        command = [*PROGRAM, "registry", *words]
        return self.lab.hosts["registry"].run(command, timeout=30.0 * self.patience).stdout.strip()

    def start_registry(self):
        self.daemon = Daemon(self.lab.hosts["registry"], [*PROGRAM, "registry", "run"])
        self.daemon.wait_for("started", 20.0 * self.patience)

    def stop_registry(self, how="terminate"):
        getattr(self.daemon.process, how)()
        self.daemon.process.wait()

    def join(self, host, *words, link=None):
        """Join, or come back, and wait for the table."""
        link = link or self.registry("invite", host)
        self._addresses.pop(host, None)
        self.stay(host, "join", link, *words)
        self.members[host].wait_for("PEER ", 20.0 * self.patience)

    def stay(self, host, *words):
        self.members[host] = Daemon(self.lab.hosts[host], [*PROGRAM, *words])

    def verb(self, host, *words, code=0):
        done = self.lab.hosts[host].run([*PROGRAM, *words], check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def address(self, host):
        if host not in self._addresses:
            self._addresses[host] = json.loads(self.registry("show", host, "-o", "json"))["addresses"][0]
        return self._addresses[host]

    def status(self, host):
        """What the one daemon there tells `wgdisco status`; asked for without a process, for it is asked often."""
        told = self.status_if_up(host)
        assert told is not None, f"no daemon of {host} answers"
        return told

    def status_if_up(self, host):
        """The same, None where no daemon can be asked (yet)."""
        sockets = list(Path(f"/proc/{self.lab.hosts[host].pid}/root/run/wgdisco").glob("*.sock"))
        told = [interface for path in sockets if (interface := _ask(path)) is not None]
        assert len(told) <= 1
        return told[0] if told else None

    def peers(self, host):
        return {peer["name"]: peer for peer in self.status(host)["peers"]}

    def ping(self, host, to, count=3):
        """How many of `count` pings to a member, or an address, were answered."""
        to = to if "." in to else self.address(to)
        command = ["ping", "-q", "-c", str(count), "-i", "0.1", "-W", "1", to]
        found = re.search(r"(\d+) received", self.lab.hosts[host].run(command, check=False).stdout)
        return int(found[1]) if found else 0

    def connects(self, host, to):
        """Whether a TCP connection to a member is made, where something listens."""
        with self.lab.hosts[to].popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE) as listener:
            assert listener.stdout.readline() == "listening\n"
            command = [sys.executable, "-c", CONNECT, self.address(to)]
            done = self.lab.hosts[host].run(command, check=False)
            listener.kill()
        return done.returncode == 0

    def pinging(self, host, to, count):
        """Pings that run meanwhile; call the result for how many were answered."""
        command = ["ping", "-q", "-c", str(count), "-i", "0.1", "-W", "1", self.address(to)]
        process = self.lab.hosts[host].popen(command, stdout=subprocess.PIPE)
        return lambda: int(re.search(r"(\d+) received", process.communicate(timeout=60)[0])[1])
