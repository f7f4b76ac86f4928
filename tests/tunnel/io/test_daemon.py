"""The command `wgdisco-tunnel`, as wg-quick and people run it."""

import asyncio
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.tunnel.io.daemon import follow
from wgdisco.tunnel.io.engine import Engine

COMMAND = [sys.executable, "-c", "import sys; from wgdisco.tunnel.cli import main; sys.exit(main())"]
SOCKET = Path("/var/run/wireguard/tt0.sock")

needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg (wireguard-tools)")


def tunnel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run to its end; in the background mode that is when all is there."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=20, check=False)


def engine() -> int:
    """The process that answers on the socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(SOCKET))
        return int.from_bytes(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")


def wait_for_end(pid: int) -> None:
    """Block until the process, no child of ours, is gone; the caller's time limit ends a vain wait."""
    descriptor = os.pidfd_open(pid)
    assert select.select([descriptor], [], [], 10)[0], "it does not end"
    os.close(descriptor)


def wait_for_socket() -> None:
    """Ask until somebody answers on the socket: a foreground command does not say when all is there."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            engine()
        except OSError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("no socket")


@needs_wg
@in_namespace
def test_background_until_the_socket_is_deleted():
    done = tunnel("tt0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = engine()
    assert "mtu 1420" in ip("link", "show", "tt0")
    key = subprocess.run(["wg", "genkey"], capture_output=True, check=True).stdout
    subprocess.run(["wg", "set", "tt0", "private-key", "/dev/stdin", "listen-port", "7"], input=key, check=True)
    shown = subprocess.run(["wg", "show", "tt0", "private-key"], capture_output=True, check=True).stdout
    assert shown == key
    again = tunnel("tt0")
    assert (again.returncode, again.stderr) == (1, "wgdisco-tunnel: interface tt0 is in use by another program\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("", 777))
        taken = subprocess.run(["wg", "set", "tt0", "listen-port", "777"], capture_output=True, text=True, check=False)
        assert "Address already in use" in taken.stderr
    assert subprocess.run(["wg", "show", "tt0", "listen-port"], capture_output=True, check=True).stdout == b"7\n"
    SOCKET.unlink()
    wait_for_end(pid)
    assert "tt0" not in ip("link")


@in_namespace
def test_background_until_the_interface_is_deleted():
    assert tunnel("tt0").returncode == 0
    pid = engine()
    ip("link", "del", "tt0")
    wait_for_end(pid)
    assert not SOCKET.exists()


@in_namespace
def test_foreground_until_a_signal():
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen([*COMMAND, "-f", "tt0"], stderr=subprocess.PIPE, text=True)
        try:
            wait_for_socket()
            process.send_signal(number)
            _, complaint = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
        assert (process.returncode, complaint) == (0, "")
        assert not SOCKET.exists()
        assert "tt0" not in ip("link")


@in_namespace
def test_what_it_cannot_do():
    bad_name = tunnel("-f", "no/slash")
    assert (bad_name.returncode, bad_name.stderr.count("\n")) == (2, 1)
    assert tunnel("lo").stderr.startswith("wgdisco-tunnel: interface lo exists and is no TUN interface")
    assert tunnel().returncode == 2
    SOCKET.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(SOCKET))
        other.listen()
        refused = tunnel("tt0")
        assert refused.returncode == 1
        assert refused.stderr.startswith("wgdisco-tunnel: another engine serves")
    assert "tt0" not in ip("link")


@in_namespace
def test_the_engine_follows_the_mtu_that_wg_quick_sets_later():
    async def main():
        engine = await Engine.open("tt0")
        told = asyncio.Queue()
        engine.set_mtu = told.put_nowait
        following = asyncio.ensure_future(follow(engine))
        async with asyncio.timeout(10):
            assert await told.get() == 1500  # what the kernel gives a TUN
            ip("link", "set", "tt0", "mtu", "1300")
            while await told.get() != 1300:
                pass
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await engine.close()

    asyncio.run(main())


@pytest.mark.rule("T12")
@in_namespace
def test_sockets_are_there_while_the_interface_is_up():
    def bound() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 51820))
            except OSError:
                return True
            return False

    async def main():
        engine = await Engine.open("tt0", listen_port=51820)
        following = asyncio.ensure_future(follow(engine))
        for wanted in (False, True, False, True):
            ip("link", "set", "tt0", "up" if wanted else "down")
            async with asyncio.timeout(10):
                while bound() != wanted:  # noqa: ASYNC110  the socket itself is looked at
                    await asyncio.sleep(0.01)
            assert engine.status().listen_port == 51820
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await engine.close()

    asyncio.run(main())
