"""WireGuard's datagrams through a WebSocket over TLS, over real sockets on the loopback.

What stands for the devices are UDP sockets: the registry's echoes what it gets, until told not to.
"""

import asyncio
import os
import socket
import ssl
import stat
from contextlib import asynccontextmanager, suppress

import pytest
from cryptography import x509

from wgdisco.errors import LocalError
from wgdisco.peer.io.websocket import standing_in
from wgdisco.registry.io import websocket
from wgdisco.registry.io.certificate import make_certificate, server_context
from wgdisco.registry.io.websocket import WebSocketServer
from wgdisco.tunnel.io.websocket import MESSAGE_MAX_SIZE


class Device(asyncio.DatagramProtocol):
    """A UDP socket: keeps what comes, and echoes it where it is the registry's."""

    def __init__(self, echoes):
        self.echoes = echoes
        self.received = asyncio.Queue()

    def connection_made(self, transport):
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data, source):
        self.received.put_nowait((data, source))
        if self.echoes:
            self.transport.sendto(data, source)

    async def take(self):
        async with asyncio.timeout(5):
            return await self.received.get()


@asynccontextmanager
async def device(echoes=False):
    transport, it = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Device(echoes), ("127.0.0.1", 0))
    try:
        yield it
    finally:
        transport.close()
        await asyncio.sleep(0)  # the loop closes it in its next turn


def free_tcp_port():
    """One that no connection of another test is given meanwhile: below those that the system chooses from."""
    for port in range(20000 + os.getpid() % 10000, 32000):
        with suppress(OSError), socket.create_server(("0.0.0.0", port)):
            return port
    raise AssertionError("no port is free")


@asynccontextmanager
async def served(directory, echoes=True):
    """A server and the device behind it."""
    async with device(echoes) as registry:
        server = WebSocketServer(registry.port, directory / "tls.pem")
        await server.listen(free_tcp_port(), ["vpn.example", "198.51.100.10"])
        try:
            yield server, registry
        finally:
            await server.close()


def context():
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    return unchecked


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.01)


async def ask(port, request):
    """What the server answers to a request, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context())
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


UPGRADE = (
    b"GET /wireguard HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_datagrams_go_through_whole_and_in_both_directions(tmp_path):
    async def main():
        async with served(tmp_path) as (server, registry), device() as member:
            async with standing_in([f"127.0.0.1:{server.port}"], member.port) as endpoint:
                for size in (1, 148, 1312, MESSAGE_MAX_SIZE):
                    member.transport.sendto(bytes([size % 256]) * size, (str(endpoint.address), endpoint.port))
                    assert (await registry.take())[0] == bytes([size % 256]) * size
                    assert (await member.take())[0] == bytes([size % 256]) * size
            await until(lambda: not server._tasks or len(server._tasks) <= 2)

    asyncio.run(main())


def test_each_connection_is_an_endpoint_of_its_own_on_the_loopback(tmp_path):
    async def main():
        async with served(tmp_path) as (server, registry), device() as one, device() as other:
            at = [f"127.0.0.1:{server.port}"]
            async with standing_in(at, one.port) as first, standing_in(at, other.port) as second:
                sources = set()
                for member, endpoint in ((one, first), (other, second)):
                    member.transport.sendto(b"x" * 32, (str(endpoint.address), endpoint.port))
                    sources.add((await registry.take())[1])
                    await member.take()
            assert len(sources) == 2
            assert {address for address, _ in sources} == {"127.0.0.1"}

    asyncio.run(main())


def test_nobody_else_on_the_host_is_heard_by_the_stand_in(tmp_path):
    async def main():
        async with (
            served(tmp_path) as (server, registry),
            device() as member,
            device() as stranger,
            standing_in([f"127.0.0.1:{server.port}"], member.port) as endpoint,
        ):
            to = (str(endpoint.address), endpoint.port)
            stranger.transport.sendto(b"stranger", to)
            member.transport.sendto(b"member", to)
            assert (await registry.take())[0] == b"member"
            assert registry.received.empty()

    asyncio.run(main())


def test_a_connection_that_breaks_is_made_anew(tmp_path):
    async def main():
        async with served(tmp_path) as (server, registry), device() as member:
            port = server.port
            async with standing_in([f"127.0.0.1:{port}"], member.port) as endpoint:
                to = (str(endpoint.address), endpoint.port)
                member.transport.sendto(b"before", to)
                assert (await member.take())[0] == b"before"
                await server.close()
                await server.listen(port, ["vpn.example"])
                while registry.received.qsize() < 2:  # what was sent into the broken one is lost, as UDP is
                    member.transport.sendto(b"after", to)
                    await asyncio.sleep(0.05)
                assert (await member.take())[0] == b"after"

    asyncio.run(main())


def test_a_registry_that_has_no_such_port_is_passed_over(tmp_path):
    async def main():
        async with served(tmp_path) as (server, _), device() as member:
            registries = [f"127.0.0.1:{free_tcp_port()}", f"127.0.0.1:{server.port}"]
            async with standing_in(registries, member.port) as endpoint:
                member.transport.sendto(b"x", (str(endpoint.address), endpoint.port))
                assert (await member.take())[0] == b"x"

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /wireguard HTTP/1.1\r\nHost: x\r\n\r\n",
        UPGRADE.replace(b"/wireguard", b"/v1/self"),
        b"POST /wireguard HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_to_anything_else_it_is_a_web_server_that_has_nothing(tmp_path, request_):
    async def main():
        async with served(tmp_path) as (server, registry):
            answer = await ask(server.port, request_)
            assert answer.startswith(b"HTTP/1.1 404")
            assert b"aiohttp" not in answer
            assert b"Python" not in answer
            assert registry.received.empty()

    asyncio.run(main())


@pytest.mark.parametrize("rubbish", [b"\x00" * 300, b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_rubbish_before_tls_ends_the_connection_and_nothing_else(tmp_path, rubbish):
    async def main():
        async with served(tmp_path) as (server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(rubbish)
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
            assert (await ask(server.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404")
            await until(lambda: not server._sources)

    asyncio.run(main())


def test_who_asks_for_nothing_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(websocket, "REQUEST_TIMEOUT", 0.2)

    async def main():
        async with served(tmp_path) as (server, _):
            silent, unused = await asyncio.open_connection("127.0.0.1", server.port)
            shaken, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context())
            writer.write(b"GET /wire")
            async with asyncio.timeout(5):
                assert await silent.read() == b""
                assert await shaken.read() == b""
            unused.close()
            writer.close()
            await until(lambda: not server._sources)

    asyncio.run(main())


def test_who_the_device_does_not_answer_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(websocket, "FIRST_TIMEOUT", 0.2)

    async def main():
        async with served(tmp_path, echoes=False) as (server, _):
            answer = await ask(server.port, UPGRADE)
            assert answer.startswith(b"HTTP/1.1 101")
            await until(lambda: not server._sources)

    asyncio.run(main())


def test_connections_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(websocket, "CONNECTIONS_A_SOURCE", 2)
    monkeypatch.setattr(websocket, "REQUEST_TIMEOUT", 1.0)

    async def main():
        async with served(tmp_path) as (server, _):
            held = [await asyncio.open_connection("127.0.0.1", server.port, ssl=context()) for _ in range(2)]
            with pytest.raises(OSError):  # noqa: PT011  reset, or the end in the middle of a handshake
                await asyncio.open_connection("127.0.0.1", server.port, ssl=context())
            for _, writer in held:
                writer.close()
            await until(lambda: not server._sources)

    asyncio.run(main())


def test_a_message_that_is_too_long_ends_its_connection(tmp_path):
    async def main():
        async with served(tmp_path) as (server, registry):
            frame = b"\x82\xfe" + (4096).to_bytes(2, "big") + bytes(4) + bytes(4096)
            answer = await ask(server.port, UPGRADE + frame)
            assert answer.startswith(b"HTTP/1.1 101")
            assert registry.received.empty()

    asyncio.run(main())


def test_a_port_that_is_taken_is_said(tmp_path):
    async def main():
        server = WebSocketServer(1, tmp_path / "tls.pem")
        with socket.create_server(("", 0)) as taken, pytest.raises(LocalError, match="cannot be had"):
            await server.listen(taken.getsockname()[1], ["x"])
        await server.close()

    asyncio.run(main())


def test_the_certificate_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "tls.pem"
    server_context(path, ["vpn.example", "198.51.100.10", "[2001:db8::1]"])
    text = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server_context(path, ["other"])
    assert path.read_bytes() == text
    names = x509.load_pem_x509_certificate(text).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["vpn.example"]
    assert [str(one) for one in names.value.get_values_for_type(x509.IPAddress)] == ["198.51.100.10", "2001:db8::1"]
    path.write_bytes(b"rubbish")
    with pytest.raises(LocalError, match="damaged: delete it"):
        server_context(path, ["x"])


def test_a_long_name_makes_a_certificate_too():
    assert b"PRIVATE KEY" in make_certificate(["a" * 60 + ".example.org"])
