"""A device of wireguard-go's, or the kernel's, as a backend: what it tells, and how it is led on.

wireguard-go is behind a wire. The kernel's tests run where there is one: test_kernel.py sees to that.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from ipaddress import ip_network

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from tests.tunnel.io.test_raw import CHECK, INITIATION, OURS, STUN, THEIRS, two_hosts
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, PathSeen, PeerHandshake, RawReceived
from wgdisco.tunnel.io.external import ExternalWireGuard
from wgdisco.tunnel.io.kernel import KernelWireGuard
from wgdisco.tunnel.io.looker import Looker
from wgdisco.tunnel.io.polled import PolledDevice

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="needs wireguard-go")

PORT = 4500
KEYS = {name: PrivateKey(bytes([number] * 31 + [64])) for number, name in enumerate(("ours", "theirs"), 8)}
INSIDE = {"ours": "10.0.0.1", "theirs": "10.0.0.2"}
KEY = KEYS["theirs"].public_key()


def bring_up(name: str, *host: str, engine: str = "external") -> ExternalWireGuard | KernelWireGuard:
    """An interface, here or (`host` says to `ip` where) at the peer's."""
    enter = ["ip", "netns", "exec", host[1]] if host else []
    if engine == "kernel":
        client = KernelWireGuard.open(name)
    else:
        subprocess.run([*enter, "wireguard-go", name], check=True, capture_output=True)
        client = ExternalWireGuard(name)
        until = time.monotonic() + 10
        while not os.path.exists(f"/var/run/wireguard/{name}.sock"):
            assert time.monotonic() < until
    client.apply(DeviceConfig(KEYS[name], PORT))
    ip(*host, "link", "set", name, "up")
    ip(*host, "address", "add", f"{INSIDE[name]}/24", "dev", name)
    return client


def peer(name: str, endpoint: str | None = None, keepalive: int = 0) -> PeerConfig:
    networks = (ip_network(f"{INSIDE[name]}/32"),)
    where = None if endpoint is None else Endpoint.from_text(endpoint)
    return PeerConfig(KEYS[name].public_key(), None, where, networks, keepalive)


def their_port(client: ExternalWireGuard, port: int) -> Endpoint:
    """Have the peer listen there from now on."""
    client.change(DeviceConfig(KEYS["theirs"], port))
    return Endpoint.from_text(f"{THEIRS[4]}:{port}")


async def next_of(device: PolledDevice, kind, seconds: float = 10.0):
    async with asyncio.timeout(seconds):
        async for event in device.events():
            if isinstance(event, kind):
                return event
    raise AssertionError(f"it ended without {kind}")


async def connected(engine: str) -> tuple[PolledDevice, ExternalWireGuard]:
    """Ours, and the peer, with a session between them that ours began."""
    ours, theirs = bring_up("ours", engine=engine), bring_up("theirs", "-n", "other")
    theirs.change(DeviceConfig(KEYS["theirs"], 0, 0, (peer("ours"),)))
    ours.change(DeviceConfig(KEYS["ours"], 0, 0, (peer("theirs"),)))
    device = PolledDevice(ours)
    there = Endpoint.from_text(f"{THEIRS[4]}:{PORT}")
    device.initiate(KEY, (there,))
    assert (await next_of(device, PeerHandshake)).endpoint == there
    return device, theirs


def session_and_what_else_comes_to_the_port(engine):
    two_hosts()

    async def body():
        device, _ = await connected(engine)
        assert device.capabilities.raw_send
        assert device.capabilities.raw_receive
        say = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        say += f"s.bind(('{THEIRS[4]}', 9999)); "
        say += f"[s.sendto(data, ('{OURS[4]}', {PORT})) for data in ({INITIATION!r}, b'x', {CHECK!r}, {STUN!r})]"
        speaker = await asyncio.create_subprocess_exec("ip", "netns", "exec", "other", sys.executable, "-c", say)
        assert await speaker.wait() == 0
        source = Endpoint.from_text(f"{THEIRS[4]}:9999")
        assert await next_of(device, RawReceived) == RawReceived(CHECK, source)
        assert await next_of(device, RawReceived) == RawReceived(STUN, source)
        ip("link", "delete", "ours")
        assert "ours" in (await next_of(device, DeviceGone)).reason
        await device.close()

    asyncio.run(body())


def moved_peer_is_followed_before_its_session_ends(engine):
    two_hosts()

    async def body():
        device, theirs = await connected(engine)
        (before,) = device.status().peers
        there = their_port(theirs, 4777)
        device.initiate(KEY, (before.endpoint, there))
        assert (await next_of(device, PathSeen)).endpoint == there
        (after,) = device.status().peers
        assert (after.endpoint, after.handshake_unix) == (there, before.handshake_unix)
        await device.close()

    asyncio.run(body())


def peer_that_did_not_move_is_left_where_it_answers(engine):
    two_hosts()

    async def body():
        device, _ = await connected(engine)
        (before,) = device.status().peers
        device.initiate(KEY, (before.endpoint, Endpoint.from_text(f"{THEIRS[4]}:9999")))
        async with asyncio.timeout(10):
            while device.status().peers[0].rx_bytes == before.rx_bytes:
                assert device.status().peers[0].endpoint == before.endpoint
                await asyncio.sleep(0.05)
        await device.close()
        assert device.status().peers[0].endpoint == before.endpoint

    asyncio.run(body())


@in_namespace
def test_a_session_of_wireguard_go_s():
    session_and_what_else_comes_to_the_port("external")


@in_namespace
def test_a_peer_that_moved_of_wireguard_go_s():
    moved_peer_is_followed_before_its_session_ends("external")


@in_namespace
def test_a_peer_that_did_not_move_of_wireguard_go_s():
    peer_that_did_not_move_is_left_where_it_answers("external")


@pytest.fixture
def kernel():
    """A kernel with WireGuard."""
    if not KernelWireGuard.is_there():
        pytest.skip("this kernel has no WireGuard: test_kernel.py runs this on one that has")


@pytest.mark.usefixtures("kernel")
@in_namespace
def test_a_session_of_the_kernels():
    session_and_what_else_comes_to_the_port("kernel")


@pytest.mark.usefixtures("kernel")
@in_namespace
def test_a_peer_that_moved_of_the_kernels():
    moved_peer_is_followed_before_its_session_ends("kernel")


@pytest.mark.usefixtures("kernel")
@in_namespace
def test_a_peer_that_did_not_move_of_the_kernels():
    peer_that_did_not_move_is_left_where_it_answers("kernel")


@in_namespace
def test_without_the_capability_it_is_polled():
    two_hosts()
    without = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
    code = "from tests.tunnel.io import test_polled; test_polled.polled_only()"
    done = subprocess.run([*without, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def polled_only(engine="external"):
    async def body():
        device, _ = await connected(engine)
        assert not device.capabilities.raw_send
        assert not device.capabilities.raw_receive
        device.send_raw(CHECK, Endpoint.from_text(f"{THEIRS[4]}:{PORT}"))
        await device.close()

    asyncio.run(body())


@in_namespace
def test_an_engine_that_ends_while_it_is_asked_is_gone():
    os.makedirs("/var/run/wireguard")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("/var/run/wireguard/ours.sock")
        server.listen()

        def end() -> None:
            connection, _ = server.accept()
            connection.close()

        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(LocalError, match="no engine answers for ours"):
            ExternalWireGuard("ours").status()
        ending.join()


class Engine:
    """One that is always the same."""

    interface = "ours"

    def status(self) -> DeviceStatus:
        return DeviceStatus(None, PORT, 0, (), {})

    def change(self, config, gone=()) -> None:
        raise AssertionError("nobody asked for that")

    def set_peer(self, key, endpoint, keepalive) -> None:
        raise AssertionError("nobody asked for that")

    def close(self) -> None:
        pass


@in_namespace
def test_what_looks_like_a_handshake_is_looked_after():
    """Sooner than it would be by itself, once a second; and a flood makes it no more than a hundred times a second."""
    times: list[float] = []
    looker = Looker(Engine(), PORT + 1, lambda _status, _done: times.append(time.monotonic()), print)
    looker.start()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        while not times:  # the filter follows the port
            time.sleep(0.01)
        first, began = len(times), time.monotonic()
        while len(times) < first + 4:
            sock.sendto(INITIATION, ("::1", PORT))
    looker.close()
    assert 0.03 <= times[first + 3] - began < 2.5
