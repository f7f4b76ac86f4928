"""Somebody else's engine (wireguard-go, boringtun, …) on an interface that is up, by its UAPI socket."""

import errno
import socket
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.observed import has_session
from wgdisco.tunnel.uapi_client import (
    GET,
    StatusReader,
    check_answer,
    format_remove_peer,
    format_renew_peer,
    format_set_device,
    format_set_peer,
)

SOCKETS = Path("/var/run/wireguard")
_TIMEOUT = 5.0
_CHUNK = 1 << 16
_LONGEST = 1 << 26  # 65,536 peers with a few prefixes each


class ExternalWireGuard:
    """The device behind a socket, asked anew each time. Calls wait: not for the event loop's thread."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._path = SOCKETS / f"{interface}.sock"
        self._reader = StatusReader()
        self._seen: dict[PublicKey, float | None] = {}  # handshakes that whoever asks for the status knows of

    @property
    def renews(self) -> bool:
        """See `EngineClient`; known from the first status on."""
        return self._reader.renews

    def apply(self, config: DeviceConfig) -> None:
        """Make it as `config` says; sessions of peers that stay are kept. LocalError as `set_peer`."""
        stay = {peer.public_key for peer in config.peers}
        self.change(config, [peer.key for peer in self.status().peers if peer.key not in stay])

    def change(self, config: DeviceConfig, gone: Iterable[PublicKey] = ()) -> None:
        """Make it as `config` says but for peers it does not name, of which those `gone` go; LocalError as below."""
        if not self.renews:
            check_answer(self._ask(format_set_device(config, gone)))
            return
        for text in (format_set_device(replace(config, peers=())), *map(format_remove_peer, gone)):
            check_answer(self._ask(text))
        seen = {peer.key: peer for peer in self._read().peers}
        for peer in config.peers:
            there, shared = seen.get(peer.public_key), self._reader.shared.get(peer.public_key)
            if there is None:
                check_answer(self._ask(format_renew_peer(peer)))
            elif peer.preshared_key != shared or set(peer.allowed_ips) != set(there.allowed_ips):
                check_answer(self._ask(format_renew_peer(replace(peer, endpoint=peer.endpoint or there.endpoint))))
            else:
                self.set_peer(peer.public_key, peer.endpoint, peer.persistent_keepalive)

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Endpoint (None: as it is) and keepalive in one step; LocalError when the engine does not."""
        text = self._renewal(key, endpoint, keepalive) if self.renews else format_set_peer(key, endpoint, keepalive)
        if text is not None:
            check_answer(self._ask(text))

    def _renewal(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> str | None:
        """What to say to one that renews; None where a session is worth more.

        That is more than another keepalive, and than what was decided before anybody had seen that there is one.
        """
        peer = next((peer for peer in self._read().peers if peer.key == key), None)
        if peer is None:
            raise LocalError(f"{self.interface} has no peer {key} any more")
        is_there = endpoint is None or endpoint == peer.endpoint
        stands = has_session(peer, boot_time())
        is_news = stands and peer.handshake_unix != self._seen.get(key)
        if is_news or (is_there and (keepalive == peer.persistent_keepalive or stands)):
            return None
        shared = self._reader.shared.get(key)
        return format_renew_peer(PeerConfig(key, shared, endpoint or peer.endpoint, peer.allowed_ips, keepalive))

    def status(self) -> DeviceStatus:
        """The device now; LocalError when nobody answers."""
        status = self._read()
        if self.renews:
            self._seen = {peer.key: peer.handshake_unix for peer in status.peers}
        return status

    def _read(self) -> DeviceStatus:
        offset = boot_time() - time.time()
        return self._reader.read(self._ask(GET), offset, time.time())

    def close(self) -> None:
        """Nothing is held open."""

    def _ask(self, text: str) -> str:
        """What it answers: all up to the empty line."""
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(_TIMEOUT)
                sock.connect(str(self._path))
                sock.sendall(text.encode())
                while not answer.endswith(b"\n\n") and len(answer) < _LONGEST:
                    data = sock.recv(_CHUNK)
                    if not data:
                        raise ConnectionResetError(errno.ECONNRESET, "it ended")
                    answer += data
        except PermissionError as error:
            raise LocalError(f"no permission to use {self._path}: run as root") from error
        except OSError as error:
            raise LocalError(
                f"no engine answers for {self.interface} at {self._path} ({error.strerror or error}):"
                f" bring it up first, for example with `wireguard-go {self.interface}`"
            ) from error
        return answer.decode("ascii", "replace")
