"""The socket through which `wg` and `wg-quick` drive a userspace engine: `/var/run/wireguard/IFACE.sock`."""

import asyncio
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from wgdisco.errors import LocalError
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.uapi import GET, SET, RefusedError, SetOperation, Sockets, format_get

LOG = logging.getLogger(__name__)

DIRECTORY = Path("/var/run/wireguard")

MAX_LINE = 4096  # bytes; the longest line there is has under 100
SILENCE = 30.0  # seconds that the other side may take to say or hear something
SLICE = 0.002  # seconds of work before the tunnel gets its turn
_CHUNK = 1 << 16  # bytes read or written at once
_WATCH_INTERVAL = 1.0


class UapiDevice(Sockets, Protocol):
    """What the server needs of a device."""

    @property
    def device(self) -> Device:
        """Its core."""

    def now(self) -> float:
        """The time for what the core is told."""

    def settle(self) -> None:
        """Carry out what the core has to send."""


class UapiServer:
    """Answers on the socket until closed. Make it with `open`, inside a running loop."""

    def __init__(self, path: Path, device: UapiDevice, owner: str | None) -> None:
        self.path = path
        self._device = device
        self._owner = owner
        self._inode = path.stat().st_ino
        # One operation at a time: sets do not mix, and a get sees none half done (rule U15).
        self._lock = asyncio.Lock()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(
        cls,
        interface: str,
        device: UapiDevice,
        directory: Path = DIRECTORY,
        *,
        owner: str | None = None,
        fd: int | None = None,
    ) -> "UapiServer":
        """Make the socket, for root alone, and serve `device` on it; or take over a listening one, `fd`.

        A socket that nobody answers on any more is replaced; LocalError when somebody does (rule U1), or when the
        socket cannot be made. With an `owner`, `wg` may only look: a set is refused, and the line `owner` logged.
        """
        path = directory / f"{interface}.sock"
        try:
            listener = _listen(path) if fd is None else _adopt(fd)
            try:
                server = cls(path, device, owner)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            raise LocalError(f"cannot make the socket {path}: {error.strerror}") from error
        server._server = await asyncio.start_unix_server(server._serve, sock=listener, start_serving=False)
        try:
            await server._server.start_serving()
        except BaseException:
            server.close()  # told to stop at this very moment
            raise
        return server

    async def wait_deleted(self) -> None:
        """Return once the socket's file is gone or another's: whoever deletes it wants the engine to end (rule U2)."""
        while self._ours():  # noqa: ASYNC110  nothing in the standard library waits for a file to go
            await asyncio.sleep(_WATCH_INTERVAL)

    def close(self) -> None:
        """Stop answering and take the socket's file away. Again does nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._ours():
            self.path.unlink(missing_ok=True)
        server.close()
        for task in self._connections:
            task.cancel()

    def _ours(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: operations one after the other until it ends, is silent too long, or cannot be understood."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        conversation = _Conversation(reader, writer)
        try:
            while (kind := await conversation.line()) is not None:
                if kind == GET:
                    await self._get(conversation)
                elif kind == SET:
                    await self._set(conversation)
                else:
                    LOG.error("something that is no operation on the configuration socket")
                    return
        except (TimeoutError, ConnectionError):
            pass
        except asyncio.LimitOverrunError:
            LOG.error("a line longer than %d bytes on the configuration socket", MAX_LINE)
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    # Operations. `wg` wants a set's errno negative and a get's positive (rule U5).

    async def _get(self, conversation: "_Conversation") -> None:
        if (following := await conversation.byte()) != b"\n":
            if following:
                await conversation.say([f"errno={errno.EINVAL}\n\n"])
            return
        turns = _Turns()
        parts = []
        async with self._lock:
            for part in format_get(self._device.device):
                parts.append(part)
                await turns.pause()
        await conversation.say([*parts, "errno=0\n\n"])

    async def _set(self, conversation: "_Conversation") -> None:
        if self._owner is not None:
            LOG.warning(self._owner)
            await self._answer_set(conversation, errno.EPERM, more=True)
            return
        operation = SetOperation(self._device.device, self._device, self._device.now)
        number = 0
        turns = _Turns(self._device.settle)
        async with self._lock:
            try:
                # The end of the connection is the end of the operation as well.
                while line := await conversation.line():
                    for _ in operation.take(line):
                        await turns.pause()
                    await turns.pause()
            except RefusedError as refused:
                LOG.error("a setting was refused: %s", refused)
                number = refused.errno
            except asyncio.LimitOverrunError:
                await conversation.say([f"errno={-errno.EIO}\n\n"])
                raise
            finally:
                operation.finish()
                self._device.settle()
        await self._answer_set(conversation, number, more=number != 0)

    async def _answer_set(self, conversation: "_Conversation", number: int, *, more: bool) -> None:
        await conversation.say([f"errno={-number}\n\n"])
        while more and await conversation.line():
            pass  # what the other side goes on to say


class _Turns:
    """Lets the loop have its turn whenever the work since the last one took long; `before` is called then."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before = before
        self._until = time.monotonic() + SLICE

    async def pause(self) -> None:
        if time.monotonic() >= self._until:
            self._before()
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE


class _Conversation:
    """The two directions of a connection. TimeoutError when the other side is silent, or deaf, for too long."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = b""
        self._at = 0

    async def line(self) -> str | None:
        """A line without its end; None at the end of the stream. LimitOverrunError for one that is too long."""
        while (end := self._heard.find(b"\n", self._at)) < 0:
            if len(self._heard) - self._at > MAX_LINE:
                break
            if not await self._hear():
                return None
        if end < 0 or end - self._at > MAX_LINE:
            raise asyncio.LimitOverrunError("too long", MAX_LINE)
        line = self._heard[self._at : end]
        self._at = end + 1
        return line.decode(errors="replace")

    async def byte(self) -> bytes:
        """The next byte; none at the end of the stream."""
        if self._at == len(self._heard):
            await self._hear()
        byte = self._heard[self._at : self._at + 1]
        self._at += len(byte)
        return byte

    async def say(self, parts: list[str]) -> None:
        """Say all, no faster than it is heard."""
        waiting = bytearray()
        for part in parts:
            waiting += part.encode()
            if len(waiting) >= _CHUNK or part is parts[-1]:
                self._writer.write(waiting)
                waiting = bytearray()
                async with asyncio.timeout(SILENCE):
                    await self._writer.drain()
                await asyncio.sleep(0)

    async def _hear(self) -> bool:
        async with asyncio.timeout(SILENCE):
            more = await self._reader.read(_CHUNK)
        self._heard, self._at = self._heard[self._at :] + more, 0
        return bool(more)


def _adopt(fd: int) -> socket.socket:
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    listener.listen()
    return listener


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    previous = os.umask(0o077)
    try:
        with _alone(path.parent):
            try:
                listener.bind(str(path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if _answers(path):
                    raise LocalError(f"another engine serves {path}: the interface is up already") from error
                path.unlink()
                listener.bind(str(path))
            listener.listen()
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One engine at a time makes its socket: between bind and listen it would look stale to another."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # it has more callers than it can take
    return True
