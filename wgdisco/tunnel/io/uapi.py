"""The socket through which `wg` and `wg-quick` drive a userspace engine: `/var/run/wireguard/IFACE.sock`."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from wgdisco.errors import LocalError
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.uapi import GET, SET, apply_set, format_get, parse_set

LOG = logging.getLogger(__name__)

DIRECTORY = Path("/var/run/wireguard")

MAX_LINE = 4096  # bytes; the longest line there is has under 100
MAX_LINES = 1 << 20  # a peer has been seen with 130,560 allowed IPs (rule U13)
OPERATION_TIMEOUT = 30.0  # seconds, from one operation's end to the next one's
_WATCH_INTERVAL = 1.0


class UapiDevice(Protocol):
    """What the server needs of a device."""

    def get_config(self) -> DeviceConfig:
        """The configuration as it stands, keys included."""

    def status(self) -> DeviceStatus:
        """The device now."""

    def apply(self, config: DeviceConfig) -> None:
        """Make the device as `config` says; LocalError, caused by an OSError, when the machine does not let us."""


class UapiServer:
    """Answers on the socket until closed. Make it with `open`, inside a running loop."""

    def __init__(self, path: Path, inode: int, server: asyncio.Server) -> None:
        self.path = path
        self._inode = inode
        self._server = server

    @classmethod
    async def open(cls, interface: str, device: UapiDevice, directory: Path = DIRECTORY) -> "UapiServer":
        """Make the socket, for root alone, and serve `device` on it.

        A socket that nobody answers on any more is replaced; LocalError when somebody does (rule U1), or when the
        socket cannot be made.
        """
        path = directory / f"{interface}.sock"
        try:
            listener = _listen(path)
        except OSError as error:
            raise LocalError(f"cannot make the socket {path}: {error.strerror}") from error

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _serve(device, reader, writer)

        server = await asyncio.start_unix_server(serve, sock=listener, limit=MAX_LINE)
        return cls(path, path.stat().st_ino, server)

    async def wait_deleted(self) -> None:
        """Return once the socket's file is gone or another's: whoever deletes it wants the engine to end (rule U2)."""
        while self._ours():  # noqa: ASYNC110  nothing in the standard library waits for a file to go
            await asyncio.sleep(_WATCH_INTERVAL)

    def close(self) -> None:
        """Stop listening and take the socket's file away. Again does nothing."""
        self._server.close()
        if self._ours():
            self.path.unlink(missing_ok=True)

    def _ours(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    previous = os.umask(0o077)
    try:
        try:
            listener.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if _answers(path):
                raise LocalError(f"another engine serves {path}: the interface is up already") from error
            path.unlink()
            listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # it has more callers than it can take
    return True


async def _serve(device: UapiDevice, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: operations one after the other until it ends, is silent too long, or says what nobody knows."""
    try:
        while True:
            async with asyncio.timeout(OPERATION_TIMEOUT):
                answer = await _operation(device, reader)
                if answer is None:
                    return
                writer.write(answer.encode())
                await writer.drain()
    except (TimeoutError, ConnectionError):
        pass
    except ValueError:
        LOG.debug("a line longer than %d bytes on the configuration socket", MAX_LINE)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _operation(device: UapiDevice, reader: asyncio.StreamReader) -> str | None:
    """Read one operation and carry it out: the answer, or None at the end of what can be understood."""
    kind = await _line(reader)
    if kind == GET:
        if await _line(reader) != "":
            return f"errno={errno.EINVAL}\n\n"
        return format_get(device.get_config(), device.status()) + "errno=0\n\n"
    if kind == SET:
        lines = [line async for line in _lines(reader)]
        # `wg` wants a set's errno negative and a get's positive (rule U5).
        return f"errno={-_set(device, lines)}\n\n"
    return None


def _set(device: UapiDevice, lines: list[str]) -> int:
    """Carry out a `set`; its errno, positive, or 0."""
    operation = parse_set(lines)
    try:
        device.apply(apply_set(operation, device.get_config()))
    except LocalError as error:
        LOG.warning("%s", error)
        cause = error.__cause__
        return cause.errno or errno.EIO if isinstance(cause, OSError) else errno.EIO
    return operation.errno


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines up to the blank one; ConnectionError when the other side is gone before it, ValueError for too many."""
    for _ in range(MAX_LINES):
        line = await _line(reader)
        if line is None:
            raise ConnectionResetError
        if not line:
            return
        yield line
    raise ValueError("too many lines")


async def _line(reader: asyncio.StreamReader) -> str | None:
    """A line without its end; None at the end of the stream. ValueError for one that is too long."""
    line = await reader.readline()
    return line[:-1].decode(errors="replace") if line.endswith(b"\n") else None
