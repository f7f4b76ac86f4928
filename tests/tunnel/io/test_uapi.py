import asyncio
import errno
import gc
import logging
import os
import shutil
import socket
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace
from tests.tunnel.test_conf import FULL, PRIVATE, PUBLIC_1, PUBLIC_2
from tests.tunnel.test_uapi import NOW, Configured
from wgdisco.errors import LocalError
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.conf import parse_conf
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.uapi import MAX_LINE, UapiServer

PRIVATE_HEX = PrivateKey.from_text(PRIVATE).raw.hex()
needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg (wireguard-tools)")


class Memory(Configured):
    """A device that is its configuration, and does nothing with it."""

    def now(self) -> float:
        return NOW

    def settle(self) -> None:
        self.device.datagrams_to_send()

    @property
    def config(self) -> DeviceConfig:
        return self.device.config()

    @config.setter
    def config(self, config: DeviceConfig) -> None:
        self.device.apply(config, NOW)


async def said(path: Path, request: bytes) -> bytes:
    """Everything the server answers to `request` and the end of input."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


def served(tmp_path, *requests: bytes, device: Memory | None = None) -> list[bytes]:
    async def scenario() -> list[bytes]:
        server = await UapiServer.open("t0", device or Memory(), tmp_path)
        try:
            return [await said(server.path, request) for request in requests]
        finally:
            server.close()

    return asyncio.run(scenario())


@pytest.mark.rule("U3")
def test_several_operations_on_one_connection(tmp_path):
    request = b"get=1\n\nset=1\nlisten_port=7\n\nget=1\n\n"
    assert served(tmp_path, request) == [b"listen_port=0\nerrno=0\n\nerrno=0\n\nlisten_port=7\nerrno=0\n\n"]


@pytest.mark.rule("U3", "U5", "U8")
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"get=1\nx\n", b"errno=%d\n\n" % errno.EINVAL),
        (b"set=1\nlisten_port=x\n\n", b"errno=-%d\n\n" % errno.EINVAL),
        (b"set=1\nlisten_port\n\n", b"errno=-%d\n\n" % errno.EPROTO),
        (b"set=1\n\xff\xfe=1\n\n", b"errno=-%d\n\n" % errno.EINVAL),
        (b"set=2\n\n", b""),
        (b"\n", b""),
        (b"get=1", b""),
        (b"", b""),
        (b"x" * 100_000, b""),
        (b"set=1\n" + b"x" * MAX_LINE * 2 + b"\n\n", b"errno=-%d\n\n" % errno.EIO),
    ],
)
def test_what_cannot_be_done_or_understood(tmp_path, request_, answer):
    device = Memory()
    assert served(tmp_path, request_, b"get=1\n\n", device=device) == [answer, b"listen_port=0\nerrno=0\n\n"]


class Refusing(Memory):
    """One whose machine does not let it listen."""

    def __init__(self, reason: OSError | None) -> None:
        super().__init__()
        self.reason = reason

    def set_listen_port(self, port: int) -> None:
        raise LocalError("not possible") from self.reason


@pytest.mark.rule("U5", "U8")
@pytest.mark.parametrize(
    ("reason", "number"),
    [(OSError(errno.EADDRINUSE, ""), errno.EADDRINUSE), (OSError(errno.EPERM, ""), errno.EPERM), (None, errno.EIO)],
)
def test_why_the_device_refused(tmp_path, reason, number):
    device = Refusing(reason)
    assert served(tmp_path, b"set=1\nlisten_port=7\n\n", device=device) == [b"errno=-%d\n\n" % number]


@pytest.mark.rule("U8")
def test_a_fault_is_told_at_once_and_the_lines_before_it_stay(tmp_path):
    """The rest of that set is passed over, and the next operation understood."""
    device = Memory()
    request = b"set=1\nlisten_port=7\nlisten_port=x\nlisten_port=8\n\nget=1\n\n"
    answer = b"errno=-%d\n\nlisten_port=7\nerrno=0\n\n" % errno.EINVAL
    assert served(tmp_path, request, device=device) == [answer]


@pytest.mark.rule("U3")
def test_the_end_of_the_connection_ends_a_set(tmp_path):
    device = Memory()
    assert served(tmp_path, b"set=1\nlisten_port=9\n", device=device) == [b"errno=0\n\n"]
    assert device.config.listen_port == 9


@pytest.mark.rule("U15")
def test_a_get_waits_for_the_end_of_a_set(tmp_path):
    async def scenario() -> None:
        device = Memory()
        server = await UapiServer.open("t0", device, tmp_path)
        reader, writer = await asyncio.open_unix_connection(server.path)
        writer.write(b"set=1\nlisten_port=1\n")
        while device.config.listen_port != 1:  # noqa: ASYNC110  what the loop does is looked at
            await asyncio.sleep(0)
        asking = [asyncio.ensure_future(said(server.path, request)) for request in (b"get=1\n\n", OTHER_SET)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(task.done() for task in asking)
        writer.write(b"fwmark=2\n\n")
        assert await asking[0] == b"listen_port=1\nfwmark=2\nerrno=0\n\n"
        assert await asking[1] == b"errno=0\n\n"
        assert (device.config.listen_port, device.config.fwmark) == (1, 3)
        assert await reader.readline() == b"errno=0\n"
        writer.close()
        await writer.wait_closed()
        server.close()

    asyncio.run(scenario())


OTHER_SET = b"set=1\nfwmark=3\n\n"


@pytest.mark.rule("U13", "U15")
def test_the_loop_has_its_turn_while_a_large_set_and_get_are_served(tmp_path):
    """So the tunnel runs on: between two turns there is never much more than one slice of work."""

    async def scenario() -> list[float]:
        device = Memory()
        server = await UapiServer.open("t0", device, tmp_path)
        gaps = []

        async def watch() -> None:
            before = time.thread_time()
            while True:
                await asyncio.sleep(0)
                now = time.thread_time()
                gaps.append(now - before)
                before = now

        watching = asyncio.ensure_future(watch())
        prefixes = "".join(f"allowed_ip=10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32\n" for n in range(30_000))
        peers = "".join(f"public_key={n:064x}\n" for n in range(2, 3000))
        whole = f"set=1\nprivate_key={PRIVATE_HEX}\npublic_key={1:064x}\n{prefixes}{peers}\n"
        assert await said(server.path, whole.encode()) == b"errno=0\n\n"
        assert (await said(server.path, b"get=1\n\n")).count(b"\n") > 30_000 + 8 * 2999
        assert await said(server.path, b"set=1\nreplace_peers=true\n\n") == b"errno=0\n\n"
        assert device.config.peers == ()
        watching.cancel()
        server.close()
        return gaps

    gc.collect()
    gc.freeze()  # what the other tests have left would be looked through in the middle of it
    try:
        gaps = asyncio.run(scenario())
    finally:
        gc.unfreeze()
    # in one piece it is some tenths of a second
    assert sorted(gaps)[-3] < 0.08


@pytest.mark.rule("U5")
def test_who_owns_the_interface_sets_it_alone(tmp_path, caplog):
    async def scenario() -> None:
        device = Memory()
        server = await UapiServer.open("t0", device, tmp_path, owner="use wgdisco")
        request = b"set=1\nlisten_port=9\nfwmark=5\n\nget=1\n\n"
        assert await said(server.path, request) == b"errno=-1\n\nlisten_port=0\nerrno=0\n\n"
        server.close()

    caplog.set_level(logging.WARNING, logger="wgdisco")  # whatever a test before has set it to
    asyncio.run(scenario())
    assert caplog.messages == ["use wgdisco"]


@pytest.mark.rule("U1")
def test_the_socket_is_private_and_goes_with_the_server(tmp_path):
    async def scenario():
        path = tmp_path / "deep" / "t0.sock"
        server = await UapiServer.open("t0", Memory(), path.parent)
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o700
        with pytest.raises(LocalError, match="another engine serves"):
            await UapiServer.open("t0", Memory(), path.parent)
        assert await said(path, b"get=1\n\n") == b"listen_port=0\nerrno=0\n\n"
        server.close()
        server.close()
        assert not path.exists()

    asyncio.run(scenario())


@pytest.mark.rule("U1")
def test_who_is_stopped_while_the_socket_is_made_leaves_none(tmp_path):
    async def scenario() -> int:
        for moment in range(10):
            opening = asyncio.ensure_future(UapiServer.open("t0", Memory(), tmp_path))
            for _ in range(moment):
                await asyncio.sleep(0)
            if not opening.cancel():
                opening.result().close()
                return moment
            assert isinstance((await asyncio.gather(opening, return_exceptions=True))[0], asyncio.CancelledError)
            assert list(tmp_path.iterdir()) == []
        pytest.fail("it is never made")

    assert asyncio.run(scenario()) > 1


@pytest.mark.rule("U1", "U2")
def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path):
    async def scenario():
        path = tmp_path / "t0.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        server = await UapiServer.open("t0", Memory(), tmp_path)
        assert await said(path, b"get=1\n\n") == b"listen_port=0\nerrno=0\n\n"
        # Another's socket in its place is left alone.
        path.unlink()
        await asyncio.wait_for(server.wait_deleted(), 5)
        other = await UapiServer.open("t0", Memory(), tmp_path)
        server.close()
        assert path.exists()
        other.close()
        with pytest.raises(LocalError, match="cannot make the socket"):
            await UapiServer.open("x" * 200, Memory(), tmp_path)

    asyncio.run(scenario())


# A real engine behind the socket


def on_an_engine(scenario: Callable[[Engine, Callable[[bytes], Awaitable[bytes]]], Awaitable[None]]) -> None:
    """Run it with an engine and a way to ask it over its socket."""

    async def main() -> None:
        engine = await Engine.open("tt0")
        server = await UapiServer.open("tt0", engine)
        try:
            await scenario(engine, lambda request: said(server.path, request))
        finally:
            server.close()
            await engine.close()

    asyncio.run(main())


NO_STATISTICS = (
    "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=%d\n"
)


def shown(device: str, *peers: tuple[str, str, str, int, str]) -> bytes:
    """The bytes of a get: the device's lines, and of peers the key, preshared key, endpoint, keepalive and prefixes."""
    text = device
    for key, preshared_key, endpoint, keepalive, prefixes in peers:
        text += f"public_key={key * 32}\npreshared_key={preshared_key * 32}\nprotocol_version=1\n"
        text += f"endpoint={endpoint}\n" if endpoint else ""
        text += NO_STATISTICS % keepalive + "".join(f"allowed_ip={prefix}\n" for prefix in prefixes.split())
    return f"{text}errno=0\n\n".encode()


OK = b"errno=0\n\n"
INVALID = b"errno=-%d\n\n" % errno.EINVAL


@pytest.mark.rule("U4", "U6", "U8")
@in_namespace
def test_device_keys_on_an_engine():
    async def scenario(engine: Engine, ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        assert await ask(b"set=1\nlisten_port=7\nfwmark=4294967295\n\n") == OK
        assert await ask(b"get=1\n\n") == shown("listen_port=7\nfwmark=4294967295\n")
        # Read back clamped, as the kernel has it.
        assert await ask(b"set=1\nprivate_key=%s\nfwmark=0\n\n" % (b"FF" * 32)) == OK
        assert await ask(b"get=1\n\n") == shown(f"private_key=f8{'ff' * 30}7f\nlisten_port=7\n")
        assert await ask(b"set=1\nprivate_key=%s\n\n" % (b"00" * 32)) == OK
        assert await ask(b"get=1\n\n") == shown("listen_port=7\n")
        for line in (
            "listen_port=65536",
            "fwmark=-1",
            "replace_peers=1",
            "private_key=00",
            "preshared_key=" + "0" * 64,
        ):
            assert await ask(f"set=1\nlisten_port=8\n{line}\nlisten_port=9\n\n".encode()) == INVALID
            assert await ask(b"get=1\n\n") == shown("listen_port=8\n")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("", 777))
            taken = await ask(b"set=1\nfwmark=5\nlisten_port=777\nfwmark=6\n\n")
        assert taken == b"errno=-%d\n\n" % errno.EADDRINUSE
        assert await ask(b"get=1\n\n") == shown("listen_port=8\nfwmark=5\n")
        assert await ask(b"set=1\nfwmark=0\nlisten_port=0\n\n") == OK
        assert b"listen_port=8\n" not in await ask(b"get=1\n\n")

    on_an_engine(scenario)


@pytest.mark.rule("U4", "U7", "U8", "U9", "U10")
@in_namespace
def test_peer_keys_on_an_engine():
    async def scenario(engine: Engine, ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        async def after(*blocks: str, answer: bytes = OK) -> bytes:
            assert await ask("".join(["set=1\n", *blocks, "\n"]).encode()) == answer
            return await ask(b"get=1\n\n")

        device, one, other = "listen_port=7\n", "public_key=" + "5A" * 32 + "\n", "public_key=" + "5b" * 32 + "\n"
        whole = "protocol_version=1\nendpoint=[fe80::1%lo]:65535\npersistent_keepalive_interval=65535\n"
        prefixes = "allowed_ip=10.1.2.3/16\nallowed_ip=fd00::1/64\nallowed_ip=0.0.0.0/0\n"
        known = ("5a", "0c", "[fe80::1%lo]:65535", 65535, "10.1.0.0/16 fd00::/64 0.0.0.0/0")
        psk = f"preshared_key={'0c' * 32}\n"
        assert await after("listen_port=7\n", one, psk, whole, prefixes) == shown(device, known)
        assert await after(one) == shown(device, known)  # what is not said stays
        # A prefix has one owner, and goes only from its owner.
        moved, bare = ("5b", "00", "192.0.2.1:1", 0, "10.1.0.0/16"), (*known[:4], "fd00::/64 0.0.0.0/0")
        block = f"{other}endpoint=192.0.2.1:1\nallowed_ip=10.1.9.9/16\nallowed_ip=-fd00::/64\n"
        assert await after(block) == shown(device, bare, moved)
        assert await after(
            one, "allowed_ip=-fd00::/64\n", "allowed_ip=-0.0.0.0/0\n", f"preshared_key={'00' * 32}\n"
        ) == (shown(device, ("5a", "00", *known[2:4], ""), moved))
        assert await after(one, "allowed_ip=1.2.3.4/32\nreplace_allowed_ips=true\nallowed_ip=::/0\n") == (
            shown(device, ("5a", "00", *known[2:4], "::/0"), moved)
        )
        # update_only makes no peer; what follows a remove, and a block about our own key, says nothing.
        missing = "public_key=" + "5c" * 32 + "\nupdate_only=true\nallowed_ip=::/0\npersistent_keepalive_interval=9\n"
        same = shown(device, ("5a", "00", *known[2:4], "::/0"), moved)
        assert await after(missing) == same
        assert await after(other, "update_only=true\nremove=true\nallowed_ip=::/0\n", missing) == (
            shown(device, ("5a", "00", *known[2:4], "::/0"))
        )
        own = PrivateKey(bytes(range(32)))
        key = f"private_key={own.raw.hex()}\n"
        with_key = shown(key + device)
        about_us = f"public_key={own.public_key().raw.hex()}\nallowed_ip=::/0\nendpoint=192.0.2.1:5\n"
        assert await after(key, "replace_peers=true\n", about_us) == with_key
        assert await after(f"private_key={'00' * 32}\n", about_us, answer=OK) != with_key
        assert await after(key) == with_key  # it was a peer as long as it was not ours
        faults = ("listen_port=1", "remove=yes", "endpoint=a.example:5", "endpoint=::1:5", "allowed_ip=10.0.0.0", "x=y")
        for fault in (
            *faults,
            "persistent_keepalive_interval=65536",
            "protocol_version=2",
            "update_only=",
            "allowed_ip=",
        ):
            block = f"replace_peers=true\n{one}allowed_ip=10.2.0.0/16\n{fault}\n{other}"
            assert await after(block, answer=INVALID) == shown(key + device, ("5a", "00", "", 0, "10.2.0.0/16"))
        assert await after("fwmark\n", answer=b"errno=-%d\n\n" % errno.EPROTO)

    on_an_engine(scenario)


# The real `wg`, which looks in /var/run/wireguard and nowhere else


async def wg(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "wg",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "WG_ENDPOINT_RESOLUTION_RETRIES": "0"},
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.rule("U4", "U5", "U6", "U7", "U10", "U12")
@needs_wg
@in_namespace
def test_wg_sets_and_shows():
    async def scenario():
        device = Memory()
        server = await UapiServer.open("t0", device)
        assert (await wg("show", "interfaces"))[1] == "t0\n"
        text = FULL.replace("vpn.example.com", "192.0.2.9").replace("allowedips =\n", "allowedips = 10.3.0.0/16\n")
        whole = parse_conf(text, "a.conf").device
        wg_part = "\n".join(line for line in text.split("\n") if not line.strip().startswith(("Address", "MTU")))
        assert (await wg("setconf", "t0", "/dev/stdin", stdin=wg_part))[0] == 0
        assert device.config == whole
        shown = (await wg("showconf", "t0"))[1]
        assert parse_conf(shown, "b.conf").device == whole

        assert (await wg("set", "t0", "listen-port", "7", "peer", PUBLIC_1, "remove"))[0] == 0
        assert device.config == replace(whole, listen_port=7, peers=whole.peers[1:])
        off = ("persistent-keepalive", "off", "preshared-key", "/dev/null", "allowed-ips", "10.9.0.1/16,::/0")
        assert (await wg("set", "t0", "private-key", "/dev/null", "fwmark", "off", "peer", PUBLIC_2, *off))[0] == 0
        (peer,) = device.config.peers
        assert (device.config.private_key, device.config.fwmark) == (None, 0)
        assert list(map(str, peer.allowed_ips)) == ["10.9.0.0/16", "::/0"]
        assert (await wg("set", "t0", "peer", PUBLIC_2, "allowed-ips", ""))[0] == 0
        assert (await wg("syncconf", "t0", "/dev/stdin", stdin=wg_part))[0] == 0
        assert device.config == replace(whole, peers=whole.peers[::-1])
        assert (await wg("setconf", "t0", "/dev/stdin", stdin=""))[0] == 0
        assert device.config == DeviceConfig()
        device.taken = 9
        assert await wg("set", "t0", "listen-port", "9") == (
            1,
            "",
            "Unable to modify interface: Address already in use\n",
        )
        server.close()
        assert (await wg("show", "t0"))[0] == 1

    asyncio.run(scenario())


def test_a_key_of_wg(tmp_path):
    device = Memory()
    key = PublicKey.from_text(PUBLIC_1)
    served(tmp_path, b"set=1\npublic_key=%s\n\n" % key.raw.hex().encode(), device=device)
    assert [peer.public_key for peer in device.config.peers] == [key]
