"""Lanes between a real interface and real sockets: what Python does not look at goes as it would have gone."""

import asyncio
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.tunnel.by_hand import packets_in
from tests.tunnel.io.namespace import in_namespace, ip
from tests.tunnel.wire import ip_packet
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.burst import Burst, Frames, implementation, padded_size
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.io.engine import Engine
from wgdisco.tunnel.io.lane_loop import LaneLoop
from wgdisco.tunnel.io.lanes import Lanes
from wgdisco.tunnel.io.udp import UdpSockets

if implementation() != "compiled":
    pytest.skip("the compiled burst was not built", allow_module_level=True)

OURS, THEIRS = "10.9.0.1", "10.9.0.2"
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_VNET_HDR = 263, 15


class Far:
    """A peer at 127.0.0.1, by hand: a device without an interface, and its socket."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.private, ours = PrivateKey(os.urandom(32)), PrivateKey(os.urandom(32))
        self.device = Device(os.urandom, time.time)
        there = Endpoint.from_text(f"127.0.0.1:{engine.status().listen_port}")
        us = PeerConfig(ours.public_key(), endpoint=there, allowed_ips=(ip_network(f"{OURS}/32"),))
        self.device.apply(DeviceConfig(self.private, peers=(us,)), boot_time())
        here = Endpoint.from_text(f"127.0.0.1:{self.sock.getsockname()[1]}")
        self.config = PeerConfig(self.private.public_key(), endpoint=here, allowed_ips=(ip_network(f"{THEIRS}/32"),))
        engine.apply(DeviceConfig(ours, peers=(self.config,)))
        self.there = ("127.0.0.1", engine.status().listen_port)
        self.sealed: list[bytes] = []  # the last that were sent
        self.packets: list[bytes] = []

    def say(self, *packets: bytes) -> None:
        """Send packets in the session, or what it takes to have one."""
        self.device.send(Frames.of(*packets), boot_time())
        self.flush()

    def flush(self) -> None:
        out = [bytes(row) for burst, _ in self.device.datagrams_to_send() for row in burst.rows()]
        self.sealed = out or self.sealed
        for datagram in out:
            self.sock.sendto(datagram, self.there)

    def hear(self) -> None:
        while True:
            try:
                data, address = self.sock.recvfrom(1 << 16)
            except BlockingIOError:
                break
            self.device.receive(Burst.of(data), Endpoint.from_text(f"{address[0]}:{address[1]}"), boot_time())
            self.device.handle_handshakes(boot_time())
            self.packets += packets_in(self.device.packets_to_deliver())
        self.flush()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.hear()
                await asyncio.sleep(0.002)

    def status(self):
        (peer,) = self.engine.status().peers
        return peer


class Bench:
    """An engine with an address, a socket inside, a peer it has talked with, and how often Python looked at packets."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        ip("addr", "add", f"{OURS}/24", "dev", engine.interface)
        ip("link", "set", engine.interface, "up")
        self.inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inside.bind((OURS, 7))
        self.inside.setblocking(False)
        self.far = Far(engine)
        self.looked: Counter[str] = Counter()
        for name in ("send", "receive"):
            count_calls(Device, name, self.looked, engine._device)

    def heard(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.inside.recv(1 << 16))
            except BlockingIOError:
                return found

    async def talk(self) -> None:
        """Until both ways are by lane."""
        self.inside.sendto(b"one", (THEIRS, 9))
        await self.far.until(lambda: len(self.far.packets) == 1)
        for _ in range(3):
            self.far.say(udp(b"two"))
            await self.far.until(lambda: bool(self.heard()))
        self.inside.sendto(b"three", (THEIRS, 9))
        await self.far.until(lambda: len(self.far.packets) == 2)
        self.far.packets.clear()
        self.looked.clear()


def count_calls(kind: type, name: str, counted: Counter[str], of: object = None) -> None:
    """From now on count calls of a method, of one instance or all."""
    original = getattr(kind, name)

    def counting(one, *arguments):
        if of is None or one is of:
            counted[name] += 1
        return original(one, *arguments)

    setattr(kind, name, counting)


def udp(payload: bytes, source: str = THEIRS, port: int = 7) -> bytes:
    header = (9).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + bytes(2)
    packet = bytearray(ip_packet(source, OURS, header + payload))
    total = sum(int.from_bytes(packet[at : at + 2], "big") for at in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


def on_a_lane(test):
    """Run `test(bench)` with lanes both ways."""

    def body() -> None:
        async def main() -> None:
            engine = await Engine.open("tt0")
            try:
                bench = Bench(engine)
                await bench.talk()
                with bench.inside, bench.far.sock:
                    await test(bench)
            finally:
                await engine.close()

        with asyncio.Runner(loop_factory=LaneLoop) as runner:
            runner.run(main())

    body.__name__, body.__module__, body.__doc__ = test.__name__, test.__module__, test.__doc__
    return in_namespace(body)


@on_a_lane
async def test_packets_go_both_ways_and_nobody_looks(bench):
    before = bench.far.status()
    for n in range(50):
        bench.inside.sendto(b"out%d" % n, (THEIRS, 9))
        await bench.far.until(lambda n=n: len(bench.far.packets) == n + 1)
        bench.far.say(udp(b"in%d" % n))
        found = []
        await bench.far.until(lambda found=found: bool(found.extend(bench.heard()) or found))
        assert found == [b"in%d" % n]
    assert [packet[28:] for packet in bench.far.packets] == [b"out%d" % n for n in range(50)]
    assert bench.looked == {}
    after = bench.far.status()
    assert after.tx_bytes - before.tx_bytes == sum(padded_size(28 + len(b"out%d" % n), 1420) + 32 for n in range(50))
    assert after.rx_bytes - before.rx_bytes == sum(padded_size(28 + len(b"in%d" % n), 1420) + 32 for n in range(50))
    assert after.received_at > before.received_at


@on_a_lane
async def test_what_is_said_twice_or_forged_is_dropped_and_counted(bench):
    bench.far.say(udp(b"once"))
    (said,) = bench.far.sealed
    await bench.far.until(lambda: bench.heard() == [b"once"])
    bench.far.sock.sendto(said, bench.far.there)
    bench.far.sock.sendto(said[:-1] + bytes([said[-1] ^ 1]), bench.far.there)
    await bench.far.until(lambda: bench.engine.status().drops.get(Drop.FORGED, 0) == 1)
    assert bench.engine.status().drops[Drop.REPLAYED] == 1
    assert bench.heard() == []
    bench.far.say(udp(b"again"))
    await bench.far.until(lambda: bench.heard() == [b"again"])
    assert bench.looked == {}


@on_a_lane
async def test_another_s_address_inside_is_not_let_in(bench):
    bench.far.say(udp(b"mine"), udp(b"not mine", "10.9.0.3"), udp(b"mine too"))
    found = []
    await bench.far.until(lambda: len(found.extend(bench.heard()) or found) == 2)
    assert found == [b"mine", b"mine too"]
    assert bench.engine.status().drops[Drop.SOURCE_NOT_ALLOWED] == 1


@on_a_lane
async def test_who_comes_from_elsewhere_is_followed_there(bench):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.setblocking(False)
        bench.far.sock, old = elsewhere, bench.far.sock
        old.close()
        bench.far.say(udp(b"hello"))
        await bench.far.until(lambda: bench.heard() == [b"hello"])
        assert bench.far.status().endpoint.port == elsewhere.getsockname()[1]
        bench.inside.sendto(b"there", (THEIRS, 9))
        await bench.far.until(lambda: len(bench.far.packets) == 1)


@on_a_lane
async def test_a_route_that_is_taken_away_is_not_gone_any_more(bench):
    bench.engine.device.allowed_ips.remove(ip_network(f"{THEIRS}/32"), next(iter(bench.engine.device.peers.values())))
    bench.inside.sendto(b"nowhere", (THEIRS, 9))
    await bench.far.until(lambda: bench.engine.status().drops.get(Drop.NO_ROUTE, 0) == 1)
    bench.far.say(udp(b"from nowhere"))
    await bench.far.until(lambda: bench.engine.status().drops.get(Drop.SOURCE_NOT_ALLOWED, 0) == 1)
    assert bench.heard() == []


@on_a_lane
async def test_another_port_and_the_way_there_goes_on(bench):
    bench.engine.set_listen_port(0 if bench.far.there[1] != 51999 else 51998)
    bench.engine.set_listen_port(51999)
    bench.far.there = ("127.0.0.1", 51999)
    for n in range(3):
        bench.inside.sendto(b"%d" % n, (THEIRS, 9))
        await bench.far.until(lambda n=n: len(bench.far.packets) == n + 1)
        bench.far.say(udp(b"%d" % n))
        await bench.far.until(lambda n=n: bench.heard() == [b"%d" % n])


@on_a_lane
async def test_what_cannot_be_sent_so_is_sent_as_it_can(bench):
    """The path takes less than a packet: no datagram in segments, and fragments instead."""
    ip("link", "set", "lo", "mtu", "1000")
    await asyncio.sleep(0.05)
    payloads = [bytes([n]) * 1300 for n in range(20)]
    for payload in payloads:
        bench.inside.sendto(payload, (THEIRS, 9))
    await bench.far.until(lambda: len(bench.far.packets) == 20)
    assert [packet[28:] for packet in bench.far.packets] == payloads


@on_a_lane
async def test_an_interface_that_goes_down_takes_nothing_with_it(bench):
    ip("link", "set", "tt0", "down")
    bench.far.say(udp(b"to nobody"))
    await bench.far.until(lambda: bench.engine._tun.dropped["EIO"] == 1)
    ip("link", "set", "tt0", "up")
    bench.far.say(udp(b"to us"))
    await bench.far.until(lambda: bench.heard() == [b"to us"])


@on_a_lane
async def test_a_peer_that_goes_takes_its_lane_along(bench):
    bench.engine.apply(DeviceConfig(bench.engine._device.private_key))
    bench.far.say(udp(b"still here?"))
    await bench.far.until(lambda: bench.engine.status().drops.get(Drop.UNKNOWN_INDEX, 0) == 1)
    bench.inside.sendto(b"and you?", (THEIRS, 9))
    await bench.far.until(lambda: bench.engine.status().drops.get(Drop.NO_ROUTE, 0) == 1)
    assert bench.heard() == []


@on_a_lane
async def test_what_else_the_loop_waits_for_is_not_kept_waiting(bench):
    """Timers and other descriptors, while packets never stop."""
    ours, other = socket.socketpair()
    with ours, other:
        ours.setblocking(False)
        loop, ended = asyncio.get_running_loop(), threading.Event()

        def flood() -> None:
            while not ended.is_set():
                with suppress(BlockingIOError):
                    bench.inside.sendto(b"x", (THEIRS, 9))

        flooding = loop.run_in_executor(None, flood)
        try:
            async with asyncio.timeout(20):
                for _ in range(100):
                    other.send(b"y")
                    await loop.sock_recv(ours, 1)
                    await asyncio.sleep(0.001)
                    bench.far.hear()
        finally:
            ended.set()
            await flooding
    assert len(bench.far.packets) > 100
    assert bench.looked == {}


@on_a_lane
async def test_what_comes_between_what_is_left_and_doing_it_does_no_harm(bench):
    """Callbacks that were waiting already run first: they may take all lanes back, and ask how it stands."""
    ip("link", "set", "lo", "mtu", "1000")  # which the engine hears of after the packets that lanes cannot send
    payloads = [bytes([n]) * 1300 for n in range(3)]
    for payload in payloads:
        bench.inside.sendto(payload, (THEIRS, 9))
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def between() -> None:
        assert bench.engine._lanes.has_news, "lanes left something"
        bench.engine.settle()
        bench.engine.status()
        asked.set()

    loop.call_soon(between)
    async with asyncio.timeout(5):
        await asked.wait()
    await bench.far.until(lambda: len(bench.far.packets) == len(payloads))
    assert [packet[28:] for packet in bench.far.packets] == payloads


@on_a_lane
async def test_a_packet_that_is_cut_into_more_than_there_is_room_for_arrives_once(bench):
    """And so it does when the rest cannot be sent as the first part was."""
    frame = large_tcp(48, 64000)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        bench.far.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        ip("link", "set", "lo", "mtu", "100")
        for _ in range(2):
            raw.sendto(frame, (bench.engine.interface, 0x0800))
        await bench.far.until(lambda: len(bench.far.packets) >= 2 * (64000 // 48))
    await asyncio.sleep(0.1)
    bench.far.hear()
    sequences = [int.from_bytes(packet[24:28], "big") for packet in bench.far.packets]
    assert sequences == 2 * list(range(0, 64000, 48))


@on_a_lane
async def test_the_next_session_at_the_same_place_has_a_lane_that_can_be_taken_back(bench):
    device, far = bench.engine._device, bench.far.device
    (peer,) = device.peers.values()
    old = peer._on_lane
    device._local.random_bytes = lambda count: (
        (old.index ^ 1 << 20).to_bytes(4, "little") if count == 4 else os.urandom(count)
    )
    far.set_up(False, boot_time())
    far.set_up(True, boot_time())
    bench.far.say(udp(b"anew"))
    await bench.far.until(lambda: bench.heard() == [b"anew"])
    session = peer._sessions.current
    assert session.index == old.index ^ 1 << 20
    assert session.parts()[2].lane
    device._peers.touch(peer)
    assert not session.parts()[2].lane


@on_a_lane
async def test_what_is_done_to_one_peer_takes_no_other_s_lane(bench):
    (peer,), engine = bench.engine._device.peers.values(), bench.engine
    other = PeerConfig(PrivateKey(os.urandom(32)).public_key(), managed=True)
    engine.apply(DeviceConfig(engine._device.private_key, peers=(bench.far.config, other)))
    await bench.talk()
    there = Endpoint.from_text("127.0.0.1:9")
    engine.set_peer(other.public_key, there, 0)
    engine.initiate(other.public_key, (there,))
    engine.probe(other.public_key, there)
    bench.inside.sendto(b"on", (THEIRS, 9))
    await bench.far.until(lambda: len(bench.far.packets) == 1)
    assert bench.looked == {}
    engine.set_peer(peer.key, there, 0)
    bench.inside.sendto(b"elsewhere", (THEIRS, 9))
    await bench.far.until(lambda: bench.looked["send"] == 1)


@on_a_lane
async def test_a_peer_with_many_addresses_gets_its_lane_once_a_turn(bench):
    counted: Counter[str] = Counter()
    for kind, name in ((Lanes, "give"), (UdpSockets, "way")):
        count_calls(kind, name, counted)
    wide = replace(bench.far.config, allowed_ips=(ip_network("10.9.0.0/24"),))
    bench.engine.apply(DeviceConfig(bench.engine._device.private_key, peers=(wide,)))
    bench.far.say(*(udp(b"x", f"10.9.0.{n}") for n in range(2, 10)))
    found = []
    await bench.far.until(lambda: len(found.extend(bench.heard()) or found) == 8)
    assert counted["way"] <= counted["give"] <= 4


@in_namespace
def test_who_talked_before_the_port_was_taken_over_has_no_lane_for_what_is_another_s_now():
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
            owner.bind(("", 51999))
            engine = await Engine.open("tt0", listen_port=51999, beside=True)
            engine.hear_beside()
            bench = Bench(engine)
            with bench.inside, bench.far.sock:
                await bench.talk()
                bench.far.say(udp(b"late"))
                owner.close()
                assert engine.take_port()
                await bench.far.until(lambda: bench.heard() == [b"late"])
                heir = PeerConfig(PrivateKey(os.urandom(32)).public_key(), allowed_ips=bench.far.config.allowed_ips)
                former = replace(bench.far.config, allowed_ips=())
                engine.apply(DeviceConfig(engine._device.private_key, 51999, peers=(former, heir)))
                bench.far.say(udp(b"not mine any more"))
                await bench.far.until(lambda: engine.status().drops.get(Drop.SOURCE_NOT_ALLOWED, 0) == 1)
                bench.inside.sendto(b"to the heir", (THEIRS, 9))
                await bench.far.until(lambda: bench.far.packets or engine.status().drops.get(Drop.NO_ENDPOINT, 0) == 1)
                assert bench.far.packets == []
            await engine.close()

    with asyncio.Runner(loop_factory=LaneLoop) as runner:
        runner.run(main())


def large_tcp(segment: int, size: int) -> bytes:
    """A packet that stands for many, as a socket inside sends it: `size` bytes, in segments."""
    tcp = (9).to_bytes(2, "big") * 2 + bytes(8) + bytes([0x50, 0x10]) + bytes(6)
    packet = bytearray(ip_packet(OURS, THEIRS, tcp + bytes(size)))
    packet[9] = 6
    header = struct.pack("=BBHHHH", 1, 1, 40, segment, 20, 16)
    return header + packet
