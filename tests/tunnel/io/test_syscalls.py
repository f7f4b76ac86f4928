"""The system calls of the data path, many in one and one by one: the same comes of both."""

import errno
import gc
import os
import random
import select
import socket
from contextlib import ExitStack

import pytest

from tests.tunnel.traffic import UDP, Packet, plain_frame
from wgdisco.tunnel import burst
from wgdisco.tunnel.burst import Burst, Frames, OwnAddress
from wgdisco.tunnel.io.ancillary import ancillary_for
from wgdisco.tunnel.io.port import _bound
from wgdisco.tunnel.io.syscalls import (
    DatagramReceiver,
    FrameReader,
    name_of,
    pack_control,
    parse_name,
    send_datagrams,
    write_frames,
)
from wgdisco.tunnel.nesting import is_nested

LOOPBACKS = [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]


@pytest.fixture(params=["reference", "compiled"], autouse=True)
def _chosen(request):
    if request.param == "compiled" and burst.compiled is None:
        pytest.skip("the compiled burst was not built (make test builds it)")
    before = burst.implementation()
    burst.use(request.param)
    yield
    burst.use(before)


@pytest.fixture
def pair():
    """Two ends that keep frames apart, as a TUN interface does."""
    with ExitStack() as stack:
        ends = [stack.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)]
        for end in ends:
            end.setblocking(False)
        yield ends


def udp_pair(stack: ExitStack, family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    try:
        one, two = stack.enter_context(_bound(family, 0)), stack.enter_context(_bound(family, 0))
    except OSError as error:
        pytest.skip(f"no such sockets here: {error}")
    two.setsockopt(17, 104, 1)  # UDP_GRO
    return one, two


def send(sock: socket.socket, to: tuple, burst_: Burst, start: int = 0, segments: int = 64) -> tuple[int, int]:
    control = ancillary_for(burst_.tos, burst_.local, burst_.hops, sock.family)
    return send_datagrams(sock, name_of(to), control, pack_control(control), burst_, start, segments)


def receive(sock: socket.socket, rows: int) -> list[tuple[bytes, int, OwnAddress | None, bytes]]:
    """Row, traffic class, address of ours and source of each that arrives, until there are so many."""
    receiver, found = DatagramReceiver(), []
    while len(found) < rows:
        assert select.select([sock], [], [], 5)[0], f"only {len(found)} arrived"
        for one, name in receiver.receive(sock):
            found += [(bytes(row), one.tos, one.local, name) for row in one.rows()]
    assert receiver.receive(sock) == []
    return found


# Frames


@pytest.mark.rule("S5")
def test_frames_are_read_with_those_alike_together(pair):
    here, there = pair
    packets = [
        Packet(b"1"),
        Packet(b"22"),
        Packet(b"3", destination=9),
        Packet(b"4", destination=9, tos=1),
        Packet(b"5", destination=9, tos=1, ttl=3),
        Packet(b"6", destination=9, tos=1, ttl=3, protocol=UDP),
        Packet(b"7", version=6),
        Packet(b"8", version=6),
        Packet(b"9", version=6, tos=2),
        Packet(b"10", version=6, destination=9),
    ]
    frames = [plain_frame(packet.pack()) for packet in packets]
    frames += [b"short", b"short", bytes(10), plain_frame(bytes(60)), plain_frame(b"\x60" + bytes(25))]
    for frame in frames:
        there.send(frame)
    groups = FrameReader().read(here.fileno())
    assert [bytes(frame) for group in groups for frame in group] == frames
    assert [len(group) for group in groups] == [2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert groups[0].destination == bytes([10, 0, 0, 2])
    assert FrameReader().read(here.fileno()) == []


def in_fragment(offset: int, packet: bytes) -> bytes:
    """An IPv6 packet with a fragment header, of that offset in bytes."""
    header = bytes([packet[6], 0, *offset.to_bytes(2, "big"), *bytes(4)])
    return packet[:4] + (len(packet) - 32).to_bytes(2, "big") + bytes([44, *packet[7:40]]) + header + packet[40:]


@pytest.mark.parametrize("version", [4, 6])
def test_wireguards_own_packets_are_read_apart_from_others(pair, version):
    """They get another hop limit when they are sealed: a loop of tunnels must not borrow that of other packets."""
    here, there = pair

    def datagram(payload: bytes, **more: int) -> bytes:
        return Packet(payload, version, UDP, **more).pack()

    own, others = b"\4\0\0\0" + bytes(28), b"\5\0\0\0" + bytes(28)
    packets = [datagram(payload) for payload in (others, own, own, others, b"\4\0\1\0", b"\4\0\0", own[:4])]
    if version == 4:
        packets += [datagram(others, fragment=0x2000), datagram(others, fragment=0x2001), datagram(own)]
    else:
        packets += [
            in_fragment(1, datagram(others)),
            in_fragment(0x108, datagram(others)),
            in_fragment(1, datagram(own)),
        ]
    packets.append(Packet(own, version).pack())
    for packet in packets:
        there.send(plain_frame(packet))
    groups = FrameReader().read(here.fileno())
    assert [bytes(packet) for group in groups for packet in group.packets()] == packets
    assert all(len({is_nested(packet) for packet in group.packets()}) == 1 for group in groups)
    assert [len(group) for group in groups] == [1, 2, 3, 1, 1, 2, 1]


def test_no_more_is_read_than_there_is_room_for(pair):
    here, there = pair
    reader = FrameReader(max_frames=4)
    large = [plain_frame(Packet(bytes([n]) * 40_000).pack()) for n in range(3)]
    small = [plain_frame(Packet(bytes([n])).pack()) for n in range(5)]
    for frame in large + small:
        there.send(frame)
    read = []
    while groups := reader.read(here.fileno()):
        read.append([bytes(frame) for group in groups for frame in group])
    assert [len(frames) for frames in read] == [2, 4, 2]
    assert [frame for frames in read for frame in frames] == large + small


def test_an_error_in_reading_is_told():
    descriptor = os.open("/", os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        FrameReader().read(descriptor)
    os.close(descriptor)


def test_frames_are_written_and_what_is_not_taken_is_told(pair):
    here, there = pair
    frames = [plain_frame(Packet(bytes([n]) * n).pack()) for n in range(20)]
    too_large = bytes(1 << 20)
    mixed = Frames.behind_one_another([*frames[:3], too_large, *frames[3:], too_large])
    failed = write_frames(here.fileno(), mixed)
    assert [(len(frame), error.errno) for frame, error in failed] == [(len(too_large), errno.EMSGSIZE)] * 2
    assert [there.recv(1 << 16) for _ in frames] == frames
    some = Frames(mixed.data, mixed.spans, 1, 2)
    assert write_frames(here.fileno(), some) == []
    assert [there.recv(1 << 16) for _ in range(2)] == frames[1:3]


# Datagrams


@pytest.mark.rule("S6")
@pytest.mark.parametrize(("host", "family"), LOOPBACKS)
@pytest.mark.parametrize("segments", [1, 2, 64])
def test_datagrams(host, family, segments):
    with ExitStack() as stack:
        one, two = udp_pair(stack, family)
        data = random.Random(1).randbytes(100 * 130 + 7)
        own = OwnAddress(socket.inet_pton(family, host), 0)
        to = two.getsockname()
        assert send(one, (host, *to[1:]), Burst(data, 100, 2, own), 0, segments) == (len(data), 0)
        found = receive(two, 131)
        assert b"".join(row for row, *_ in found) == data
        assert {len(row) for row, *_ in found[:-1]} == {100}
        assert {tos for _, tos, *_ in found} == {2}
        loopback = OwnAddress(own.packed, socket.if_nametoindex("lo"))
        assert {local for _, _, local, _ in found} == {loopback}
        assert {parse_name(name) for *_, name in found} == {(own.packed, one.getsockname()[1], 0)}


@pytest.mark.parametrize(("host", "family"), LOOPBACKS)
def test_several_sources_at_once(host, family):
    with ExitStack() as stack:
        _, two = udp_pair(stack, family)
        senders = [stack.enter_context(_bound(family, 0)) for _ in range(11)]
        to = (host, *two.getsockname()[1:])
        for number, sender in enumerate(senders):
            assert send(sender, to, Burst.of(bytes([number]) * (number + 1)))[1] == 0
        found = receive(two, 11)
        assert [row for row, *_ in found] == [bytes([n]) * (n + 1) for n in range(11)]
        assert [parse_name(name)[1] for *_, name in found] == [sender.getsockname()[1] for sender in senders]


def test_where_sending_failed_is_told():
    with ExitStack() as stack:
        one, two = udp_pair(stack, socket.AF_INET)
        to = ("127.0.0.1", two.getsockname()[1])
        assert send(one, to, Burst(bytes(70_000), 66_000), 0, 1) == (0, errno.EMSGSIZE)
        assert send(one, to, Burst(b"abcdefgh", 3), 6) == (8, 0)
        assert [row for row, *_ in receive(two, 1)] == [b"gh"]
        elsewhere = OwnAddress(socket.inet_aton("203.0.113.1"), 0)
        sent, error = send(one, to, Burst(bytes(30), 10, 0, elsewhere))
        assert sent == 0
        assert error in (errno.EINVAL, errno.ENETUNREACH)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert send(sock, ("255.255.255.255", 9), Burst.of(b"x")) == (0, errno.EACCES)


def test_an_error_in_receiving_is_told():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone,
    ):
        gone.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.connect(gone.getsockname())
        gone.close()
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            DatagramReceiver().receive(sock)


@pytest.mark.parametrize("address", [("192.0.2.1", 65535), ("2001:db8::1", 1, 0, 0), ("fe80::1", 51820, 7, 3)], ids=str)
def test_names(address):
    packed = socket.inet_pton(socket.AF_INET if len(address) == 2 else socket.AF_INET6, address[0])
    assert parse_name(name_of(address)) == (packed, address[1], address[3] if len(address) > 2 else 0)


def test_no_view_is_kept_that_a_pointer_was_made_by(pair):
    """CPython 3.11 crashes when it collects such a view: it clears the view first, then lets the pointer go."""
    gc.collect()
    others = {id(one): one for one in gc.get_objects() if type(one) is memoryview}  # held, so that no id is another's
    here, there = pair
    reader, receiver, room = FrameReader(), DatagramReceiver(), burst.Room()
    there.send(bytes(10) + b"\x45" + bytes(99))
    (frames,) = reader.read(here.fileno())
    sealer, opener = burst.create_sealer(bytes(32)), burst.create_opener(bytes(32))
    (sealed,) = sealer.seal(frames, 1, 0, 1420, room).bursts
    inside = burst.Room()
    opened = opener.open(sealed, inside)
    del frames, sealed, opened
    views = [one for one in gc.get_objects() if type(one) is memoryview and id(one) not in others]
    assert views
    for view in views:
        view.release()  # BufferError for one that has a pointer
    del reader, receiver, room, inside, sealer, opener
