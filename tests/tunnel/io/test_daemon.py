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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.tunnel.cli import main
from wgdisco.tunnel.io.daemon import follow
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.tun import Tun

COMMAND = [sys.executable, "-c", "import sys; from wgdisco.tunnel.cli import main; sys.exit(main())"]
SOCKET = Path("/var/run/wireguard/tt0.sock")
FOREGROUND = "WG_PROCESS_FOREGROUND"

needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg (wireguard-tools)")


def tunnel(*arguments: str, fds: tuple[int, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to its end; in the background mode that is when all is there."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        pass_fds=fds,
        env={**os.environ, **variables},
    )


def wg(*arguments: str, text: str = "") -> str:
    return subprocess.run(["wg", *arguments], input=text, capture_output=True, text=True, check=True).stdout


def ask(request: bytes) -> bytes:
    """What the engine answers to the bytes and the end of input."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(SOCKET))
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: peer.recv(65536), b""))


@contextmanager
def foreground(*prefix: str, fds: tuple[int, ...] = (), **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run as a child, once its socket answers; killed at the end unless it ended before."""
    command = [*prefix, *COMMAND, "tt0"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, pass_fds=fds, env={**os.environ, **variables, FOREGROUND: "1"}
    )
    try:
        wait_for_socket()
        yield process
    finally:
        process.kill()
        process.communicate()


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


@pytest.mark.rule("U2")
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


@pytest.mark.rule("U2")
@in_namespace
def test_background_until_the_interface_is_deleted():
    assert tunnel("tt0").returncode == 0
    pid = engine()
    ip("link", "del", "tt0")
    wait_for_end(pid)
    assert not SOCKET.exists()


@pytest.mark.rule("U2")
@in_namespace
def test_background_with_all_standard_descriptors_closed():
    """As some init systems start what they start: then the interface must not be one of the three."""
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, "tt0"], timeout=20, check=True)
    pid = engine()
    standard = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
    assert standard == [os.devnull] * 3
    ip("link", "del", "tt0")
    wait_for_end(pid)


@pytest.mark.rule("U2")
@in_namespace
def test_the_background_keeps_nothing_of_who_started_it():
    """`flock FILE wg-quick up IFACE` lets go of the lock once the interface is there."""
    reader, writer = os.pipe()
    assert tunnel("tt0", fds=(writer,)).returncode == 0
    os.close(writer)
    assert select.select([reader], [], [], 0)[0], "somebody holds the other end"
    os.close(reader)
    pid = engine()
    ip("link", "del", "tt0")
    wait_for_end(pid)


@pytest.mark.rule("U2")
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


@pytest.mark.rule("U1", "U2")
@in_namespace
def test_what_it_cannot_do():
    assert tunnel("lo").stderr.startswith("wgdisco-tunnel: interface lo exists and is no TUN interface")
    SOCKET.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(SOCKET))
        other.listen()
        refused = tunnel("tt0")
        assert refused.returncode == 1
        assert refused.stderr.startswith("wgdisco-tunnel: another engine serves")
        assert refused.stderr.count("\n") == 1
    assert "tt0" not in ip("link")
    SOCKET.unlink()
    assert list(SOCKET.parent.iterdir()) == []
    assert "tt0" not in ip("link")
    SOCKET.parent.rmdir()
    SOCKET.parent.touch()
    no_directory = tunnel("tt0")
    assert no_directory.stderr.startswith("wgdisco-tunnel: cannot make the socket")
    assert (no_directory.returncode, no_directory.stderr.count("\n")) == (1, 1)
    assert "tt0" not in ip("link")


@pytest.mark.rule("U2")
@pytest.mark.parametrize("name", ["WG_TUN_FD", "WG_UAPI_FD"])
@pytest.mark.parametrize("text", ["99", "x", "-1", ""])
def test_a_descriptor_that_is_none(monkeypatch, capsys, name, text):
    monkeypatch.setenv(name, text)
    monkeypatch.setenv(FOREGROUND, "1")
    # An impossible name: with the empty text, as without one, the name is what is looked at.
    assert main(["no/slash"]) == 2
    complaint = f"{name}={text} is no open descriptor" if text else "'no/slash' cannot name an interface"
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1


@pytest.mark.rule("U2")
@pytest.mark.parametrize("arguments", [[], ["-f"], ["-f", "one", "two"], ["--background", "one"]])
def test_how_it_is_called(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "IFACE" in capsys.readouterr().err


@pytest.mark.rule("U2")
def test_a_descriptor_of_another_kind(monkeypatch, capsys):
    with open("/dev/null") as null:
        monkeypatch.setenv("WG_TUN_FD", str(null.fileno()))
        assert main(["-f", "tt0"]) == 1
    assert capsys.readouterr().err.endswith("is no open TUN interface: Inappropriate ioctl for device\n")


@pytest.mark.rule("U2")
@in_namespace
def test_descriptors_that_are_handed_over():
    """The interface keeps its name, whatever the argument says; who deletes the socket's file ends it here too."""
    tun = Tun.open("tt0")
    SOCKET.parent.mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(SOCKET))
    fds = (tun.fd, listener.fileno())
    done = tunnel("other", fds=fds, WG_TUN_FD=str(fds[0]), WG_UAPI_FD=str(fds[1]))
    assert (done.returncode, done.stderr) == (0, "")
    tun.close()
    listener.close()
    pid = engine()
    assert "mtu 1420" in ip("link", "show", "tt0")
    assert ask(b"set=1\nlisten_port=7\n\nget=1\n\n") == b"errno=0\n\nlisten_port=7\nerrno=0\n\n"
    SOCKET.unlink()
    wait_for_end(pid)
    assert "tt0" not in ip("link")


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@pytest.mark.rule("U2", "D10", "T12")
@in_namespace
def test_without_any_privilege_on_descriptors_that_are_handed_over():
    """As in a sandbox: senders are told, the interface is followed, and the end is quiet, though the file stays."""
    tun = Tun.open("tt0")
    SOCKET.parent.mkdir(parents=True)
    os.chown(SOCKET.parent, 65534, 65534)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(SOCKET))
    listener.listen()
    fds = (tun.fd, listener.fileno())
    variables = {"WG_TUN_FD": str(fds[0]), "WG_UAPI_FD": str(fds[1]), "LOG_LEVEL": "verbose"}
    with foreground("setpriv", "--bounding-set=-all", "--inh-caps=-all", fds=fds, **variables) as process:
        tun.close()
        assert ask(b"set=1\nlisten_port=7000\n\n") == b"errno=0\n\n"
        ip("address", "add", "10.9.0.1/24", "dev", "tt0")
        for state in ("up", "down", "up"):
            ip("link", "set", "tt0", state)
            deadline = time.monotonic() + 10
            while is_free(7000) != (state == "down"):
                assert time.monotonic() < deadline, state
                time.sleep(0.01)
        ping = subprocess.run(["ping", "-c1", "-W2", "10.9.0.2"], capture_output=True, text=True, check=False)
        assert "Destination Host Unreachable" in ping.stdout
        process.terminate()
        _, told = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in told
    listener.close()


@pytest.mark.rule("U12")
@needs_wg
@in_namespace
def test_without_a_privilege_a_mark_that_stays_is_no_error():
    """As in a container, or where the engine was started by who has it: `wg setconf` always says fwmark=0."""
    tun = Tun.open("tt0")
    powerless = ("setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw")
    with foreground(*powerless, fds=(tun.fd,), WG_TUN_FD=str(tun.fd)):
        wg("setconf", "tt0", "/dev/stdin", text="")
        refused = subprocess.run(["wg", "set", "tt0", "fwmark", "9"], capture_output=True, text=True, check=False)
        assert refused.stderr == "Unable to modify interface: Operation not permitted\n"
    tun.close()


def pair_of_devices() -> tuple[str, str]:
    """tt0 told of a peer tt1 beside it, over the loopback; their public keys."""
    keys = [wg("genkey") for _ in range(2)]
    public = [wg("pubkey", text=key).strip() for key in keys]
    for name, key, port, peer in (("tt0", keys[0], 7000, public[1]), ("tt1", keys[1], 7001, public[0])):
        there = ("endpoint", f"127.0.0.1:{14001 - port}", "allowed-ips", "10.9.0.0/24")
        wg("set", name, "private-key", "/dev/stdin", "listen-port", str(port), "peer", peer, *there, text=key)
    return public[0], public[1]


@pytest.mark.rule("U2")
@needs_wg
@in_namespace
def test_the_log_tells_of_handshakes_when_it_is_asked_to():
    def ping() -> None:
        deadline = time.monotonic() + 10
        while "\t0\n" in wg("show", "tt0", "latest-handshakes"):
            subprocess.run(["ping", "-c1", "-W0.05", "-I", "tt0", "10.9.0.2"], capture_output=True, check=False)
            assert time.monotonic() < deadline, "no handshake"

    assert tunnel("tt1").returncode == 0
    with foreground(LOG_LEVEL="verbose") as process:
        public, peer = pair_of_devices()
        ip("address", "add", "10.9.0.1/24", "dev", "tt0")
        ip("link", "set", "tt0", "up")
        ip("link", "set", "tt1", "up")
        private = wg("show", "tt0", "private-key").strip()
        ping()
        process.terminate()
        _, log = process.communicate(timeout=10)
    short = f"tt0: peer {peer[:4]}…{peer[39:43]}: "
    assert f"{short}initiation sent\n" in log
    assert f"{short}response received\n" in log
    assert not any(key in log for key in (private, public, peer))
    # Also from the background, where without LOG_LEVEL nothing is told.
    for level, told in (("debug", True), ("silent", False)):
        with open("/run/log", "w+") as log_file:
            command = [*COMMAND, "tt0"]
            environment = {**os.environ, "LOG_LEVEL": level}
            subprocess.run(command, check=True, timeout=20, stderr=log_file, env=environment)
            pid = engine()
            ask(b"set=1\nlisten_port=x\n\n")
            ip("link", "del", "tt0")
            wait_for_end(pid)
            log_file.seek(0)
            said = log_file.read()
        assert ("tt0 is up" in said) == told
        assert ("a setting was refused: listen_port: not a number" in said) == (level != "silent")
    ip("link", "del", "tt1")


@pytest.mark.rule("U3", "U5", "U6", "U7", "U10")
@needs_wg
@in_namespace
def test_every_verb_of_wg():
    """show, showconf, set, setconf, addconf and syncconf, to an engine in the background."""
    assert tunnel("tt0").returncode == 0
    one, two, psk = wg("genkey"), wg("genkey"), wg("genpsk").strip()
    public, other = (wg("pubkey", text=key).strip() for key in (one, two))
    conf = f"[Interface]\nListenPort = 7\nFwMark = 0xa\nPrivateKey = {one}"
    peer = f"\n[Peer]\nPublicKey = {other}\n"
    details = f"PresharedKey = {psk}\nAllowedIPs = 10.9.0.2/32, fd09::/64\nEndpoint = [fe80::1%lo]:9\n"
    keepalive = "PersistentKeepalive = 25\n"
    wg("setconf", "tt0", "/dev/stdin", text=conf)
    assert wg("showconf", "tt0").strip() == conf.strip()
    wg("addconf", "tt0", "/dev/stdin", text=peer + details + keepalive)
    assert wg("showconf", "tt0") == conf + peer + details + keepalive
    assert wg("show", "interfaces") == "tt0\n"
    assert wg("show", "tt0", "public-key").strip() == public
    dump = [line.split("\t") for line in wg("show", "tt0", "dump").splitlines()]
    assert dump[0] == [one.strip(), public, "7", "0xa"]
    assert dump[1] == [other, psk, "[fe80::1%lo]:9", "10.9.0.2/32,fd09::/64", "0", "0", dump[1][6], "25"]
    syncing = conf + peer + "AllowedIPs = 10.9.0.0/16\n"
    wg("syncconf", "tt0", "/dev/stdin", text=syncing)
    # Whether the preshared key that is not in the file goes is up to the version of wg.
    assert wg("show", "tt0", "allowed-ips").split() == [other, "10.9.0.0/16"]
    wg("set", "tt0", "fwmark", "off", "peer", other, "allowed-ips", "", "endpoint", "192.0.2.1:5")
    assert wg("show", "tt0", "allowed-ips").split() == [other, "(none)"]
    assert wg("show", "tt0", "endpoints").split() == [other, "192.0.2.1:5"]
    assert wg("show", "tt0", "fwmark") == "off\n"
    wg("set", "tt0", "peer", other, "remove")
    assert wg("show", "tt0", "peers") == ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("", 777))
        taken = subprocess.run(["wg", "set", "tt0", "listen-port", "777"], capture_output=True, text=True, check=False)
        assert taken.stderr == "Unable to modify interface: Address already in use\n"
    wg("setconf", "tt0", "/dev/stdin", text="")
    assert wg("show", "tt0", "private-key") == "(none)\n"
    assert wg("show", "tt0", "listen-port") != "7\n"  # any port that is free, as the kernel does
    ip("link", "del", "tt0")


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
    async def main():
        engine = await Engine.open("tt0", listen_port=51820)
        following = asyncio.ensure_future(follow(engine))
        for wanted in (False, True, False, True):
            ip("link", "set", "tt0", "up" if wanted else "down")
            async with asyncio.timeout(10):
                while is_free(51820) == wanted:  # noqa: ASYNC110  the socket itself is looked at
                    await asyncio.sleep(0.01)
            assert engine.status().listen_port == 51820
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await engine.close()

    asyncio.run(main())
