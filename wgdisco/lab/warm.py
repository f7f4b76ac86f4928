"""wgdisco without its start-up time: one interpreter that has imported all of it forks a child for each that is wanted.

::

    this process ──connection──► warm process (in the core) ──fork──► child: enters a host, becomes `wgdisco WORDS`
                 ◄─exit status──                            ◄─ends──

A connection stands for one child: its first message says where and what, with the descriptors for standard output and
error; each later byte is a signal; the answer is its exit status. A child ends with its connection.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

from wgdisco.errors import LocalError
from wgdisco.lab.world import Host

_PATH = "/run/warm.sock"
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MESSAGE_SIZE = 4096
_BACKLOG = 64
_START_TIMEOUT = 60.0
_LIBC = ctypes.CDLL(None, use_errno=True)


class WarmProcess:
    """A child, from outside: what `world.HostProcess` is to a process of its own."""

    def __init__(self, connection: socket.socket, stderr: IO[str]) -> None:
        self.stderr: IO[str] | None = stderr
        self._connection = connection
        self.returncode: int | None = None

    def send_signal(self, sig: int) -> None:
        """Send it a signal; nothing if it has ended."""
        with contextlib.suppress(OSError):
            self._connection.send(bytes([sig]))

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status as Popen gives it; subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                told = self._connection.recv(_MESSAGE_SIZE)
            except TimeoutError:
                raise subprocess.TimeoutExpired("wgdisco", timeout or 0.0) from None
            except OSError:
                told = b""
            self.returncode = int(told or -signal.SIGKILL)  # with the warm process goes every child
            self._connection.close()
        return self.returncode

    def stop(self, timeout: float = 5.0) -> int:
        """End it with SIGTERM, after `timeout` seconds with SIGKILL; returns its exit status."""
        if self.returncode is None:
            self.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            return self.wait()


class Warm:
    """The warm process of one lab, which it ends with."""

    def __init__(self, core: Host) -> None:
        """Start it in the core; it gets warm by itself."""
        self._path = f"/proc/{core.pid}/root{_PATH}"
        self._process = core.popen(
            [sys.executable, "-m", "wgdisco.lab.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._is_warm = False

    def start(self, host: Host, words: Sequence[str]) -> WarmProcess:
        """Run `wgdisco WORDS` in a host; its standard output is dropped. LocalError when the warm process is gone."""
        self._await()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(self._path)
            reader, writer = os.pipe()
            with open(os.devnull, "wb") as null, open(writer, "wb") as theirs:
                message = json.dumps({"pid": host.inner_pid, "words": list(words)}).encode()
                socket.send_fds(connection, [message], [null.fileno(), theirs.fileno()])
        except OSError as error:
            connection.close()
            raise LocalError(f"the lab's warm process is gone: {error}") from error
        return WarmProcess(connection, open(reader, encoding="utf-8", errors="backslashreplace"))

    def run(self, host: Host, words: Sequence[str]) -> None:
        """Run `wgdisco WORDS` in a host to its end; LocalError with what it complains of."""
        process = self.start(host, words)
        assert process.stderr is not None
        with process.stderr as lines:
            complaint = lines.read()
        if process.wait() != 0:
            raise LocalError(complaint.strip() or f"wgdisco {' '.join(words)} failed")

    def _await(self) -> None:
        assert self._process.stdout is not None
        if not self._is_warm and self._process.stdout.readline() != "warm\n":
            raise LocalError("the lab's warm process did not start")
        self._is_warm = True

    def close(self) -> None:
        """End it, and all that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class _Server:
    """The warm process itself."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(_PATH)
        self._listener.listen(_BACKLOG)
        self._children: dict[int, socket.socket] = {}
        self._woken, wakes = os.pipe()
        for descriptor in (self._woken, wakes):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def run(self) -> None:
        """Until standard input closes."""
        while True:
            connections = {connection: pid for pid, connection in self._children.items()}
            descriptors = [connection.fileno() for connection in connections]
            ready, _, _ = select.select([0, self._woken, self._listener.fileno(), *descriptors], [], [])
            if 0 in ready:
                return
            if self._woken in ready:
                os.read(self._woken, _MESSAGE_SIZE)
                self._reap()
            if self._listener.fileno() in ready:
                self._accept()
            for connection, pid in connections.items():
                if pid in self._children and connection.fileno() in ready:
                    self._pass_on(connection, pid)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_SIZE, 2)
        if not message:
            connection.close()
            return
        told = json.loads(message)
        pid = os.fork()
        if pid == 0:
            self._listener.close()
            for other in (connection, *self._children.values()):
                other.close()
            _become(int(told["pid"]), told["words"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[pid] = connection

    def _pass_on(self, connection: socket.socket, pid: int) -> None:
        for number in connection.recv(_MESSAGE_SIZE) or bytes([signal.SIGKILL]):
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self._children.pop(pid)
            with contextlib.suppress(OSError):
                connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            connection.close()


def _become(host: int, words: Sequence[str], descriptors: Sequence[int]) -> NoReturn:
    """The rest of a child's life: `wgdisco WORDS` where that process is."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for kind, flag in (("net", _CLONE_NEWNET), ("mnt", _CLONE_NEWNS)):
            namespace = os.open(f"/proc/{host}/ns/{kind}", os.O_RDONLY)
            if _LIBC.setns(namespace, flag):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(namespace)
        for descriptor, target in zip((os.open(os.devnull, os.O_RDONLY), *descriptors), range(3), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        random.seed()
        sys.argv = ["wgdisco", *words]
        runpy.run_module("wgdisco", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  what python itself would do at the end of a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _import_all() -> None:
    for module in pkgutil.walk_packages([str(Path(__file__).parents[1])], "wgdisco."):
        if not module.name.startswith("wgdisco.lab") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("zeroconf.asyncio", "aiohttp.web"):
        importlib.import_module(name)


def main() -> None:
    """See the module's docstring."""
    _import_all()
    gc.collect()
    gc.freeze()  # what children share stays shared
    server = _Server()
    sys.stdout.write("warm\n")
    sys.stdout.flush()
    server.run()


if __name__ == "__main__":
    main()
