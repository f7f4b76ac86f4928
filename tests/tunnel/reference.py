"""What the reference parser understands of a file: `wg setconf` told to configure an interface that is this socket.

`wg` prints nothing of what it read, but it says it: the lines of its `set` are the meaning of the file.
"""

import os
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.notation import parse_prefix

NAME = "ref0"
SOCKETS = Path("/var/run/wireguard")
ZEROS = "0" * 64

# What names mean, so that no test depends on the machine's own tables or on a resolver.
SERVICES = {"domain": 53, "isakmp": 500, "ipsec-nat-t": 4500, "alias-of-isakmp": 500, "6to4": 64, "-5": 5}
SERVICES_FILE = """\
domain 53/tcp
domain 53/udp
isakmp 500/udp alias-of-isakmp
ipsec-nat-t 4500/udp
tcponly 99/tcp
6to4 64/udp
-5 5/udp
"""
HOSTS_FILE = """\
127.0.0.1 localhost
192.0.2.7 a.example under_score
2001:db8::7 six.example
198.51.100.1 b.example
"""


@dataclass(slots=True)
class PeerMeaning:
    """A peer as the file has it; None where it says nothing. `allowed_ips` after all changes, in order."""

    preshared_key: str = ZEROS
    endpoint: str | None = None
    keepalive: int = 0
    allowed_ips: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Meaning:
    """A whole file. Keys are hexadecimal; peers in the order they are first named."""

    private_key: str = ZEROS
    listen_port: int = 0
    fwmark: int = 0
    peers: dict[str, PeerMeaning] = field(default_factory=dict)


def meaning_of_set(lines: list[str]) -> Meaning:
    """What the lines of a `set` make of an empty device. It trusts them: they are `wg`'s."""
    whole = Meaning()
    peer = PeerMeaning()
    for line in lines:
        key, _, value = line.partition("=")
        match key:
            case "private_key":
                # `wg` leaves clamping to the engine, and zeros are no key.
                whole.private_key = value if value == ZEROS else PrivateKey(bytes.fromhex(value)).raw.hex()
            case "listen_port":
                whole.listen_port = int(value)
            case "fwmark":
                whole.fwmark = int(value)
            case "public_key":
                peer = whole.peers.setdefault(value, PeerMeaning())
            case "preshared_key":
                peer.preshared_key = value
            case "endpoint":
                # Nothing can be sent to port 0: for us it is no endpoint.
                peer.endpoint = None if value.endswith(":0") else str(Endpoint.from_text(value))
            case "persistent_keepalive_interval":
                peer.keepalive = int(value)
            case "replace_allowed_ips":
                peer.allowed_ips.clear()
            case "allowed_ip":
                network = str(parse_prefix(value))
                if network not in peer.allowed_ips:
                    peer.allowed_ips.append(network)
            case _:
                assert key in {"replace_peers", "protocol_version"}, line
    return whole


def meaning_of_conf(conf: TunnelConf) -> Meaning:
    """What our parser understood, in the same terms. Names have to be looked up before."""
    device = conf.device
    return Meaning(
        ZEROS if device.private_key is None else device.private_key.raw.hex(),
        device.listen_port,
        device.fwmark,
        {
            peer.public_key.raw.hex(): PeerMeaning(
                ZEROS if peer.preshared_key is None else peer.preshared_key.raw.hex(),
                None if peer.endpoint is None else str(peer.endpoint),
                peer.persistent_keepalive,
                list(map(str, peer.allowed_ips)),
            )
            for peer in device.peers
        },
    )


class Reference:
    """The fake interface, and `wg` to set it. Needs a mount namespace of its own with /run empty."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "reference.conf"
        self._requests: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        for name, text in (
            ("services", SERVICES_FILE),
            ("hosts", HOSTS_FILE),
            ("nsswitch.conf", "hosts: files\nservices: files\n"),
        ):
            (directory / name).write_text(text)
            subprocess.run(["mount", "--bind", directory / name, f"/etc/{name}"], check=True)

    def __enter__(self) -> Self:
        SOCKETS.mkdir(parents=True)
        self._listener.bind(str(SOCKETS / f"{NAME}.sock"))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            request = b""
            with connection:
                while not request.endswith(b"\n\n"):
                    received = connection.recv(1 << 16)
                    if not received:
                        break
                    request += received
                # `wg` first connects once without a word, to see whether the socket is alive.
                if request:
                    self._requests.append(request)
                    connection.sendall(b"errno=0\n\n")

    def read(self, text: bytes) -> tuple[Meaning | None, str]:
        """What `wg` understands of the file, None when it refuses it; and what it printed."""
        self._file.write_bytes(text)
        self._requests.clear()
        done = subprocess.run(
            ["wg", "setconf", NAME, self._file],
            capture_output=True,
            check=False,
            env={**os.environ, "WG_ENDPOINT_RESOLUTION_RETRIES": "0", "LC_ALL": "C"},
        )
        printed = done.stderr.decode("utf-8", "backslashreplace")
        if done.returncode:
            assert not self._requests, (text, printed)
            return None, printed
        (request,) = self._requests
        first, *lines = request.decode("ascii").splitlines()
        assert (first, lines.pop()) == ("set=1", "")
        return meaning_of_set(lines), printed
