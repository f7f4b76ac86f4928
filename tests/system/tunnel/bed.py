"""A bed to lay tunnels on: hosts in namespaces, `wgdisco-tunnel` by its command line, all else by `wg` and `ip`.

::

    with Bed("n0", "n1", "n2") as bed:
        bed.veth("n1", "veth1", "n2", "veth2")
        wg0 = bed.tunnel("wg0", "n1")                  the engine and its interface in n1
        wg1 = bed.tunnel("wg1", "n0", moved_to="n2")   its sockets in n0, its interface in n2

Every host has a /run of its own, so interfaces of different hosts may have one name. Nothing outlives the process that
made the bed, however it ends (wgdisco/lab/world.py). Leaving the `with` block ends every engine that still runs and
asserts that it ended well and had nothing to say.
"""

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.system.network import await_
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.lab.world import Host, HostProcess, World

# What the installed command does: the tests' environment has the package in its path, not installed.
TUNNEL = [sys.executable, "-c", "from wgdisco.tunnel.cli import main; raise SystemExit(main())"]
ENGINE_START = 20.0

Word = str | int | PrivateKey | PresharedKey | PublicKey


def new_key() -> PrivateKey:
    """A random private key."""
    return PrivateKey(secrets.token_bytes(32))


def new_psk() -> PresharedKey:
    """A random preshared key."""
    return PresharedKey(secrets.token_bytes(32))


@dataclass(eq=False)
class Tunnel:
    """An interface and its engine. `home` is where the engine started, with its UDP sockets; `host` has the interface.

    `key` is for the caller to set with `private-key`; `set` knows nothing of it.
    """

    bed: "Bed"
    name: str
    home: Host
    host: Host
    process: HostProcess
    said: IO[str]
    key: PrivateKey = field(default_factory=new_key)

    @property
    def public(self) -> PublicKey:
        """The public key of `key`."""
        return self.key.public_key()

    def set(self, *words: Word) -> None:
        """`wg set NAME …`; keys that wg reads from files may stand as they are."""
        self.home.run(["wg", "set", self.name, *(self._word(word) for word in words)])

    def setconf(self, text: str) -> None:
        """`wg setconf NAME` with the file's text."""
        self.home.run(["wg", "setconf", self.name, "/dev/stdin"], text=text)

    def show(self, what: str) -> list[list[str]]:
        """`wg show NAME WHAT`: its lines, cut at tabs."""
        output = self.home.run(["wg", "show", self.name, what]).stdout
        return [line.split("\t") for line in output.splitlines()]

    def endpoint(self, peer: PublicKey) -> str:
        """Where `wg show` says that peer is."""
        return dict(self.show("endpoints"))[str(peer)]

    def transfer(self, peer: PublicKey) -> tuple[int, int]:
        """Bytes received from that peer and sent to it, as `wg show` has them."""
        received, sent = next((row[1], row[2]) for row in self.show("transfer") if row[0] == str(peer))
        return int(received), int(sent)

    def handshake(self, peer: PublicKey) -> int:
        """Unix time of the latest handshake with that peer, 0 for none."""
        return int(dict(self.show("latest-handshakes"))[str(peer)])

    def addresses(self, *addresses: str) -> None:
        """Give the interface addresses, usable at once."""
        for address in addresses:
            self.bed.ip(self.host, "addr", "add", address, "dev", self.name, *_nodad(address))

    def up(self, mtu: int | None = None) -> None:
        """Bring the interface up, with another MTU if one is given."""
        self.bed.ip(self.host, "link", "set", self.name, *([] if mtu is None else ["mtu", str(mtu)]), "up")

    def move(self, host: str) -> None:
        """Move the interface to another host; it arrives down and without addresses. The engine stays."""
        target = self.bed[host]
        self.bed.ip(self.host, "link", "set", self.name, "netns", str(target.inner_pid))
        self.host = target

    def delete(self) -> None:
        """`ip link del`, which ends the engine; asserts that it ends well."""
        self.bed.ip(self.host, "link", "del", self.name)
        self.end()

    def stop(self) -> None:
        """SIGTERM; asserts that the engine ends well."""
        self.process.terminate()
        self.end()

    def end(self) -> None:
        """Wait for the engine to end; asserts that it ended well and said nothing."""
        self.bed.tunnels.remove(self)
        try:
            code = self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        assert (code, self.words()) == (0, ""), f"{self.name}'s engine"

    def words(self) -> str:
        """What the engine has said on standard error."""
        self.said.seek(0)
        return self.said.read()

    def _word(self, word: Word) -> str:
        return self.bed.key_file(self.home, word) if isinstance(word, PrivateKey | PresharedKey) else str(word)


class Bed:
    """The hosts, each with `lo` up, and the tunnels on them; a context manager."""

    def __init__(self, *names: str) -> None:
        self.world = World(names)
        self.tunnels: list[Tunnel] = []
        self._key_files: dict[tuple[str, str], str] = {}
        self._files = ExitStack()
        try:
            for host in self.world.hosts.values():
                self.ip(host, "link", "set", "lo", "up")
        except BaseException:
            self.world.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self.world.hosts[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for tunnel in self.tunnels:
                    tunnel.process.terminate()
                for tunnel in list(self.tunnels):
                    tunnel.end()
        finally:
            for tunnel in self.tunnels:
                print(f"{tunnel.home.name} {tunnel.name}: {tunnel.words()}")
            self.world.close()
            self._files.close()

    # Hosts and what is between them

    def run(self, host: Host | str, *command: str, check: bool = True, timeout: float = 30.0) -> str:
        """Run a command in a host: its standard output."""
        return self._host(host).run(list(command), check=check, timeout=timeout).stdout

    def ip(self, host: Host | str, *arguments: str) -> str:
        """`ip …` in a host."""
        return self.run(host, "ip", *arguments)

    def sysctl(self, host: Host | str, path: str, value: int) -> None:
        """Write a file below /proc/sys of that host, as `net/ipv4/ip_forward`."""
        self.run(host, "sh", "-c", f"echo {value} >/proc/sys/{path}")

    def veth(self, host: str, name: str, other: str, other_name: str) -> None:
        """Lay a cable between two hosts; both ends are up, without addresses, and ask nobody about new ones (DAD)."""
        peer = ["peer", "name", other_name, "netns", str(self[other].inner_pid)]
        self.ip(host, "link", "add", name, "type", "veth", *peer)
        for one, end in ((host, name), (other, other_name)):
            self.sysctl(one, f"net/ipv6/conf/{end}/accept_dad", 0)
            self.ip(one, "link", "set", end, "up")
        for one, end in ((host, name), (other, other_name)):
            await_(lambda one=one, end=end: "state UP" in self.ip(one, "link", "show", end), f"{end} to be up")

    def address(self, host: str, device: str, *addresses: str) -> None:
        """Give a device addresses, usable at once."""
        for address in addresses:
            self.ip(host, "addr", "add", address, "dev", device, *_nodad(address))

    # Tunnels

    def tunnel(
        self,
        name: str,
        host: str,
        *,
        moved_to: str | None = None,
        env: dict[str, str] | None = None,
        program: Sequence[str] = TUNNEL,
    ) -> Tunnel:
        """Start an engine in `host`, and move its interface if asked to; the interface is down and has no address."""
        said = self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        home = self[host]
        process = home.popen([*program, "-f", name], stderr=said, env={"LOG_LEVEL": "error", **(env or {})})
        tunnel = Tunnel(self, name, home, home, process, said)
        self.tunnels.append(tunnel)
        socket = Path(f"/proc/{home.pid}/root/run/wireguard/{name}.sock")

        def stands() -> bool:
            assert process.poll() is None, f"{name}'s engine ended: {tunnel.words()}"
            return socket.exists()

        await_(stands, f"{name}'s engine", ENGINE_START)
        if moved_to is not None:
            tunnel.move(moved_to)
        return tunnel

    def key_file(self, host: Host, key: PrivateKey | PresharedKey) -> str:
        """The path of a file in `host` that holds `key`, for wg to read."""
        text = key.to_text()
        path = self._key_files.get((host.name, text))
        if path is None:
            path = self._key_files[host.name, text] = f"/run/keys/{len(self._key_files)}"
            host.write_file(path, text + "\n")
        return path

    # Traffic

    def ping(self, host: str, address: str, *options: str, count: int = 1, wait: float = 4.0) -> int:
        """`ping`: how many answers came; each is waited for `wait` seconds."""
        output = self.ping_output(host, address, *options, count=count, wait=wait)
        return int(next(line for line in output.splitlines() if " received" in line).split(" received")[0].split()[-1])

    def ping_output(self, host: str, address: str, *options: str, count: int = 1, wait: float = 4.0) -> str:
        """What `ping` prints, whatever comes of it."""
        return self.run(host, "ping", "-n", "-c", str(count), "-W", str(wait), *options, address, check=False)

    def iperf(self, client: str, server: str, address: str, *options: str, size: str = "16M") -> dict[str, Any]:
        """Send `size` bytes from `client` to `address` of `server` with iperf3: the `end` of its JSON report."""
        command = ["iperf3", "-s", "-1", "--forceflush", "-B", address]
        with self[server].popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as listener:
            try:
                heard = ""
                while "Server listening" not in heard:
                    line = listener.stdout.readline()
                    assert line, f"iperf3 ended: {heard}"
                    heard += line
                send = ["iperf3", "-J", "-Z", "-n", size, *options, "-c", address]
                report = json.loads(self.run(client, *send, check=False, timeout=60.0))
                assert "error" not in report, report["error"]
                return report["end"]
            finally:
                listener.kill()

    def _host(self, host: Host | str) -> Host:
        return self[host] if isinstance(host, str) else host


def introduce(one: Tunnel, other: Tunnel) -> PresharedKey:
    """Make each the other's peer, with a preshared key, addresses and the interface up, but no endpoint yet.

    `one` listens on 1 and is 192.168.241.1 and fd00::1; `other` on 2, 192.168.241.2 and fd00::2.
    """
    psk = new_psk()
    for number, tunnel, peer in ((1, one, other), (2, other, one)):
        tunnel.addresses(f"192.168.241.{number}/24", f"fd00::{number}/64")
        allowed = f"192.168.241.{3 - number}/32,fd00::{3 - number}/128"
        tunnel.set("private-key", tunnel.key, "listen-port", number)
        tunnel.set("peer", peer.public, "preshared-key", psk, "allowed-ips", allowed)
        tunnel.up()
    return psk


@contextmanager
def across_a_nat(inside: str, outside: str) -> Iterator[tuple[Bed, Tunnel, Tunnel]]:
    """Two tunnels of these names with a session, the first one's host behind n0, which is a NAT.

    ::

        n1 inside 192.168.1.100 ── 192.168.1.1 n0, SNAT to 10.0.0.1 ── 10.0.0.100 outside n2
    """
    with Bed("n0", "n1", "n2") as bed:
        bed.veth("n0", "vethrc", "n1", "vethc")
        bed.veth("n0", "vethrs", "n2", "veths")
        bed.address("n0", "vethrc", "192.168.1.1/24")
        bed.address("n0", "vethrs", "10.0.0.1/24")
        bed.address("n1", "vethc", "192.168.1.100/24")
        bed.address("n2", "veths", "10.0.0.100/24")
        bed.ip("n1", "route", "add", "default", "via", "192.168.1.1")
        bed.sysctl("n0", "net/ipv4/ip_forward", 1)
        snat = ["-s", "192.168.1.0/24", "-d", "10.0.0.0/24", "-j", "SNAT", "--to", "10.0.0.1"]
        bed.run("n0", "iptables", "-t", "nat", "-A", "POSTROUTING", *snat)
        one, two = bed.tunnel(inside, "n1"), bed.tunnel(outside, "n2")
        introduce(one, two)
        one.set("peer", two.public, "endpoint", "10.0.0.100:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "10.0.0.1:1"
        yield bed, one, two


def loopback_pair(bed: "Bed") -> tuple[Tunnel, Tunnel]:
    """Two tunnels that meet on n0's loopback; neither knows yet where the other is.

    ::

        n1                        n0                           n2
        wg1 192.168.241.1 ── 127.0.0.1:1   127.0.0.1:2 ── 192.168.241.2 wg2
            fd00::1              [::1]:1       [::1]:2          fd00::2
    """
    wg1 = bed.tunnel("wg1", "n0", moved_to="n1")
    wg2 = bed.tunnel("wg2", "n0", moved_to="n2")
    introduce(wg1, wg2)
    return wg1, wg2


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []
