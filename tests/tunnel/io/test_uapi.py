import asyncio
import errno
import os
import shutil
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace
from tests.tunnel.test_conf import FULL, PUBLIC_1, PUBLIC_2
from tests.tunnel.test_uapi import status_of
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.tunnel.conf import parse_conf
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io.uapi import MAX_LINE, UapiServer

needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg (wireguard-tools)")


class Memory:
    """A device that is its configuration, and does nothing with it."""

    def __init__(self) -> None:
        self.config = DeviceConfig()
        self.refusal: OSError | None = None

    def get_config(self) -> DeviceConfig:
        return self.config

    def status(self) -> DeviceStatus:
        return status_of(self.config)

    def apply(self, config: DeviceConfig) -> None:
        if self.refusal is not None:
            raise LocalError("not possible") from self.refusal
        self.config = config


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


def test_several_operations_on_one_connection(tmp_path):
    request = b"get=1\n\nset=1\nlisten_port=7\n\nget=1\n\n"
    assert served(tmp_path, request) == [b"listen_port=0\nerrno=0\n\nerrno=0\n\nlisten_port=7\nerrno=0\n\n"]


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
        (b"set=1\nlisten_port=9\n", b""),
        (b"", b""),
        (b"x" * 100_000, b""),
        (b"set=1\n" + b"x" * MAX_LINE * 2 + b"\n\n", b""),
    ],
)
def test_what_cannot_be_done_or_understood(tmp_path, request_, answer):
    device = Memory()
    assert served(tmp_path, request_, b"get=1\n\n", device=device) == [answer, b"listen_port=0\nerrno=0\n\n"]


@pytest.mark.parametrize(
    ("refusal", "number"),
    [(OSError(errno.EADDRINUSE, ""), errno.EADDRINUSE), (OSError(errno.EPERM, ""), errno.EPERM), (None, errno.EIO)],
)
def test_why_the_device_refused(tmp_path, refusal, number):
    device = Memory()
    device.refusal = refusal
    if refusal is None:
        device.apply = lambda _config: (_ for _ in ()).throw(LocalError("no cause"))  # type: ignore[method-assign]
    assert served(tmp_path, b"set=1\nlisten_port=7\n\n", device=device) == [b"errno=-%d\n\n" % number]


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
        device.refusal = OSError(errno.EADDRINUSE, "")
        assert await wg("set", "t0", "listen-port", "9") == (
            1,
            "",
            "Unable to modify interface: Address already in use\n",
        )
        server.close()
        assert (await wg("show", "t0"))[0] == 1

    asyncio.run(scenario())


@needs_wg
@in_namespace
def test_a_hundred_thousand_allowed_ips():
    async def scenario():
        device = Memory()
        server = await UapiServer.open("t0", device)
        prefixes = [f"10.{number >> 8 & 255}.{number & 255}.{number >> 16}/32" for number in range(130_560)]
        conf = f"[Peer]\nPublicKey={PUBLIC_1}\n" + "".join(
            f"AllowedIPs={','.join(prefixes[start : start + 1000])}\n" for start in range(0, len(prefixes), 1000)
        )
        assert await wg("setconf", "t0", "/dev/stdin", stdin=conf) == (0, "", "")
        assert len(device.config.peers[0].allowed_ips) == 130_560
        _, out, _ = await wg("show", "t0", "allowed-ips")
        assert len(out.split()) == 1 + 130_560
        server.close()

    asyncio.run(scenario())


def test_a_key_of_wg(tmp_path):
    device = Memory()
    key = PublicKey.from_text(PUBLIC_1)
    served(tmp_path, b"set=1\npublic_key=%s\n\n" % key.raw.hex().encode(), device=device)
    assert [peer.public_key for peer in device.config.peers] == [key]
