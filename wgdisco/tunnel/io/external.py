"""Somebody else's engine (wireguard-go, …) on an interface that is up, by its UAPI socket."""

import errno
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.uapi_client import GET, StatusReader, check_answer, format_set_device, format_set_peer

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

    def apply(self, config: DeviceConfig) -> None:
        """Make it as `config` says; sessions of peers that stay are kept. LocalError as `set_peer`."""
        stay = {peer.public_key for peer in config.peers}
        self.change(config, [peer.key for peer in self.status().peers if peer.key not in stay])

    def change(self, config: DeviceConfig, gone: Iterable[PublicKey] = ()) -> None:
        """Make it as `config` says but for peers it does not name, of which those `gone` go; LocalError as below."""
        check_answer(self._ask(format_set_device(config, gone)))

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Endpoint (None: as it is) and keepalive in one step; LocalError when the engine does not."""
        check_answer(self._ask(format_set_peer(key, endpoint, keepalive)))

    def status(self) -> DeviceStatus:
        """The device now; LocalError when nobody answers."""
        offset = boot_time() - time.time()
        return self._reader.read(self._ask(GET), offset)

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
