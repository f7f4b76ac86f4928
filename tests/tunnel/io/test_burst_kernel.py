"""Both bursts against the kernel: what it leaves to us to cut is cut right, and what is merged it takes as it was sent.

One TUN interface, and a mirror behind it: what the kernel sends is cut, sealed, opened, merged, and comes back with
source and destination exchanged, so that the kernel talks to itself.
"""

import fcntl
import os
import random
import select
import socket
import struct
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from tests.tunnel.traffic import is_intact
from wgdisco.tunnel import burst
from wgdisco.tunnel.burst import Burst, Frames, Room
from wgdisco.tunnel.io.syscalls import FrameReader, write_frames
from wgdisco.tunnel.segment import Offload

KEY = bytes(32)
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000
CSUM, TSO4, TSO6, USO4, USO6 = 1, 2, 4, 32, 64
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104


def swapped(packet: bytearray) -> bytearray:
    at, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    packet[at : at + 2 * size] = packet[at + size : at + 2 * size] + packet[at : at + size]
    return packet


class Mirror:
    """Reads the interface in a thread of its own. `cut` and `merged` count large frames of each gso_type."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", b"tt0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        self.offloads = CSUM | TSO4 | TSO6
        fcntl.ioctl(self.fd, TUNSETOFFLOAD, self.offloads)
        try:
            fcntl.ioctl(self.fd, TUNSETOFFLOAD, self.offloads | USO4 | USO6)
            self.offloads |= USO4 | USO6
        except OSError:
            pass
        ip("addr", "add", "10.77.0.1/24", "dev", "tt0")
        ip("addr", "add", "fd77::1/64", "dev", "tt0", "nodad")
        ip("link", "set", "tt0", "mtu", "1420", "up")
        self.cut: Counter[int] = Counter()
        self.merged: Counter[int] = Counter()
        self.failed: BaseException | None = None
        self.stop_read, self.stop_write = os.pipe()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            self.reflect()
        except BaseException as error:  # noqa: BLE001 - the test tells
            self.failed = error

    def reflect(self) -> None:
        sealer, opener, room = burst.create_sealer(KEY), burst.create_opener(KEY), Room()
        counter = 0
        os.set_blocking(self.fd, False)
        reader = FrameReader()
        while select.select([self.fd, self.stop_read], [], [])[0] != [self.stop_read]:
            for group in reader.read(self.fd):
                room.clear()
                kinds = Counter(Offload.parse(bytes(frame)).gso_type for frame in group)
                self.cut += kinds
                sealed = sealer.seal(group, 1, counter, 1420, room)
                assert sealed.bad == 0
                counter += sealed.counters
                assert sealed.counters >= len(group) + kinds.total() - kinds[0]
                for datagrams in sealed.bursts:
                    self.check(datagrams)
                    opened = opener.open(datagrams, room)
                    assert (opened.forged, opened.bad) == (0, 0)
                    for run in opened.frames:
                        self.write(run)

    def check(self, datagrams: Burst) -> None:
        """Every packet by itself is one that could have been sent so."""
        for row in datagrams.rows():
            alone = burst.create_opener(KEY).open(Burst.of(row), Room(4096, 4)).frames
            packet = bytes(next(alone[0].packets()))
            if (packet[9] if packet[0] >> 4 == 4 else packet[6]) in (6, 17):
                assert is_intact(packet)

    def write(self, frames: Frames) -> None:
        self.merged += Counter(Offload.parse(bytes(frame)).gso_type for frame in frames)
        back = [frame[:10] + swapped(frame[10:]) for frame in map(bytearray, frames)]
        assert write_frames(self.fd, Frames.behind_one_another(back)) == []

    def close(self) -> None:
        os.write(self.stop_write, b"x")
        self.thread.join()
        for fd in (self.fd, self.stop_read, self.stop_write):
            os.close(fd)


def over_tcp(here: str, there: str, data: bytes) -> None:
    family = socket.AF_INET if "." in here else socket.AF_INET6
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((here, 0), family=family))
        received = bytearray()

        def receive() -> None:
            with listener.accept()[0] as connection:
                connection.settimeout(20)
                while piece := connection.recv(1 << 20):
                    received.extend(piece)

        thread = threading.Thread(target=receive)
        thread.start()
        with socket.create_connection((there, listener.getsockname()[1]), 20) as connection:
            connection.sendall(data)
        thread.join()
    assert bytes(received) == data


def over_udp(here: str, there: str, sizes: list[int], segment: int, *, gro: bool) -> None:
    """Datagrams of `segment` bytes sent by UDP_SEGMENT arrive as they were sent, in order."""
    family = socket.AF_INET if "." in here else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender:
        receiver.bind((here, 0))
        receiver.settimeout(10)
        receiver.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        if gro:
            receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        sender.bind((here, 0))
        sent = []
        for number, size in enumerate(sizes):
            data = random.Random(number).randbytes(size)
            control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))]
            sender.sendmsg([data], control, 0, (there, receiver.getsockname()[1]))
            sent += [data[at : at + segment] for at in range(0, size, segment)]
        found = []
        while len(found) < len(sent):
            data, control, _, _ = receiver.recvmsg(1 << 16, 100)
            row = struct.unpack("=i", control[0][2])[0] if control else len(data)
            found += [data[at : at + row] for at in range(0, len(data), row)]
        assert found == sent


def through(name: burst.Implementation, megabytes: int) -> None:
    Path("/proc/sys/net/ipv6/conf/all/accept_dad").write_text("0")
    burst.use(name)
    mirror = Mirror()
    try:
        data = random.Random(1).randbytes(megabytes << 20)
        over_tcp("10.77.0.1", "10.77.0.2", data)
        over_tcp("fd77::1", "fd77::2", data)
        for here, there in (("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")):
            for gro in (False, True):
                over_udp(here, there, [40_000, 7, 1300, 2600, 30_001], 1300, gro=gro)
                over_udp(here, there, [640, 1000], 64, gro=gro)
    finally:
        mirror.close()
    assert mirror.failed is None
    for kind in (1, 4):
        assert mirror.cut[kind] > 0
        assert mirror.merged[kind] > 0
    if mirror.offloads & USO4:
        assert mirror.cut[5] > 10
        assert mirror.merged[5] > 5  # two that are read at once may become one


@pytest.mark.skipif(burst.compiled is None, reason="the compiled burst was not built (make test builds it)")
@in_namespace
def test_compiled():
    through("compiled", 8)


@in_namespace
def test_reference():
    through("reference", 2)
