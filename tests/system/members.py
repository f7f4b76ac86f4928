"""Members by join link, in the lab with a real registry: what a person types."""

import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager

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
    """A lab with a registry, and its members by host."""

    def __init__(self, lab, *init):
        self.lab = lab
        self.members = {}
        self.registry("init", *init)
        self.start_registry()

    def registry(self, *words):
        return self.lab.hosts["registry"].run([*PROGRAM, "registry", *words]).stdout.strip()

    def start_registry(self):
        self.daemon = Daemon(self.lab.hosts["registry"], [*PROGRAM, "registry", "run"])
        self.daemon.wait_for("started")

    def stop_registry(self, how="terminate"):
        getattr(self.daemon.process, how)()
        self.daemon.process.wait()

    def join(self, host, *words, link=None):
        """Join, or come back, and wait for the table."""
        link = link or self.registry("invite", host)
        self.stay(host, "join", link, *words)
        self.members[host].wait_for("PEER ")

    def stay(self, host, *words):
        self.members[host] = Daemon(self.lab.hosts[host], [*PROGRAM, *words])

    def verb(self, host, *words, code=0):
        done = self.lab.hosts[host].run([*PROGRAM, *words], check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def address(self, host):
        return json.loads(self.registry("show", host, "-o", "json"))["addresses"][0]

    def status(self, host):
        (interface,) = json.loads(self.verb(host, "status", "-o", "json"))["interfaces"]
        return interface

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
