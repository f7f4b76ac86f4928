"""IP packets, virtio headers and flows for tests of the burst data path: built by hand, field by field."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from wgdisco.tunnel.segment import Offload

TCP, UDP = 6, 17
FIN, SYN, PSH, ACK, ECE, CWR = 1, 2, 8, 16, 64, 128


def word_sum(data: bytes) -> int:
    """RFC 1071 section 4.1, literally: 16 bits at a time, the carries added back."""
    total = 0
    for at in range(0, len(data) - 1, 2):
        total += data[at] << 8 | data[at + 1]
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def rfc1071(data: bytes) -> int:
    return ~word_sum(data) & 0xFFFF


@dataclass(frozen=True)
class Packet:
    """TCP or UDP over IPv4 or IPv6, all checksums right, unless it is told otherwise."""

    payload: bytes = b""
    version: int = 4
    protocol: int = TCP
    source: int = 1
    destination: int = 2
    tos: int = 0
    ttl: int = 64
    identification: int = 0
    fragment: int = 0x4000
    ip_options: bytes = b""
    extension: bytes = b""  # an IPv6 destination options header, without its first byte
    ports: tuple[int, int] = (5000, 80)
    sequence: int = 0
    acknowledged: int = 77
    flags: int = ACK
    window: int = 500
    reserved: int = 0  # the four bits beside the data offset
    options: bytes = b""
    wrong_ip_sum: bool = False
    wrong_sum: bool = False
    no_sum: bool = False
    excess: int = 0  # of UDP's length over what there is

    def pseudo(self, size: int) -> bytes:
        width = 4 if self.version == 4 else 16
        base = 10 << 24 if self.version == 4 else 0xFD << 120
        addresses = b"".join((base + n).to_bytes(width, "big") for n in (self.source, self.destination))
        return addresses + struct.pack(
            ">HH" if self.version == 4 else ">II",
            *((self.protocol, size) if self.version == 4 else (size, self.protocol)),
        )

    def l4(self, checksum: int | None = None) -> bytes:
        if self.protocol == TCP:
            offset = (20 + len(self.options)) // 4 << 4 | self.reserved
            head = struct.pack(
                ">HHIIBBHHH",
                *self.ports,
                self.sequence & 0xFFFFFFFF,
                self.acknowledged,
                offset,
                self.flags,
                self.window,
                0,
                0,
            )
            head += self.options
            at = 16
        elif self.protocol == UDP:
            head = struct.pack(">HHHH", *self.ports, 8 + len(self.payload) + self.excess, 0)
            at = 6
        else:
            return self.payload
        whole = head + self.payload
        if checksum is None:
            checksum = rfc1071(self.pseudo(len(whole)) + whole)
            if self.protocol == UDP and checksum == 0:
                checksum = 0xFFFF
            if self.wrong_sum:
                checksum = checksum - 1 if checksum > 1 else checksum + 1
            if self.no_sum:
                checksum = 0
        return whole[:at] + checksum.to_bytes(2, "big") + whole[at + 2 :]

    def ip(self, size: int) -> bytes:
        """The IP header of a packet with `size` bytes behind it."""
        if self.version == 4:
            length = 20 + len(self.ip_options)
            head = struct.pack(
                ">BBHHHBBH",
                0x40 | length // 4,
                self.tos,
                length + size & 0xFFFF,
                self.identification & 0xFFFF,
                self.fragment,
                self.ttl,
                self.protocol,
                0,
            )
            head += self.pseudo(0)[:8] + self.ip_options
            checksum = rfc1071(head) ^ self.wrong_ip_sum
            return head[:10] + checksum.to_bytes(2, "big") + head[12:]
        next_header = 60 if self.extension else self.protocol
        extension = bytes([self.protocol]) + self.extension if self.extension else b""
        first = 6 << 28 | self.tos << 20
        return (
            struct.pack(">IHBB", first, size + len(extension) & 0xFFFF, next_header, self.ttl)
            + self.pseudo(0)[:32]
            + extension
        )

    def pack(self) -> bytes:
        l4 = self.l4()
        return self.ip(len(l4)) + l4

    def large(self, gso_size: int, *, ecn: bool = False) -> bytes:
        """The frame of a large packet that a kernel would leave for us to cut, as it would."""
        size = len(self.l4(0))
        seed = word_sum(self.pseudo(size))
        kind = {(4, TCP): 1, (6, TCP): 4}.get((self.version, self.protocol), 5)
        head = self.ip(size)
        headers = len(head) + size - len(self.payload)
        offload = Offload(1, kind | ecn << 7, headers, gso_size, len(head), 16 if self.protocol == TCP else 6)
        return offload.pack() + head + self.l4(seed)

    def unfinished(self) -> bytes:
        """The frame of a packet whose checksum the kernel left to us."""
        size = len(self.l4(0))
        head = self.ip(size)
        offload = Offload(1, 0, 0, 0, len(head), 16 if self.protocol == TCP else 6)
        return offload.pack() + head + self.l4(word_sum(self.pseudo(size)))


def plain_frame(packet: bytes) -> bytes:
    return bytes(10) + packet


def is_intact(packet: bytes) -> bool:
    """Whether lengths and checksums of a TCP or UDP packet without extension headers are right, looked at afresh."""
    if packet[0] >> 4 == 4:
        ip, protocol = (packet[0] & 15) * 4, packet[9]
        if int.from_bytes(packet[2:4], "big") != len(packet) or word_sum(packet[:ip]) != 0xFFFF:
            return False
        pseudo = packet[12:20] + struct.pack(">HH", protocol, len(packet) - ip)
    else:
        ip, protocol = 40, packet[6]
        if int.from_bytes(packet[4:6], "big") != len(packet) - ip:
            return False
        pseudo = packet[8:40] + struct.pack(">II", len(packet) - ip, protocol)
    if protocol == UDP and int.from_bytes(packet[ip + 4 : ip + 6], "big") != len(packet) - ip:
        return False
    return word_sum(pseudo + packet[ip:]) == 0xFFFF


def impossible_frames() -> Iterator[bytes]:
    """Large packets whose virtio header cannot be meant for them."""
    frame = Packet(bytes(300)).large(100)
    good, packet = Offload.parse(frame), frame[10:]
    for wrong in (
        {"flags": 0},
        {"gso_size": 0},
        {"gso_type": 3},
        {"gso_type": 4},
        {"gso_type": 5},
        {"csum_start": 24},
        {"csum_start": 65535},
        {"csum_offset": 6},
        {"csum_offset": 65535},
    ):
        yield replace(good, **wrong).pack() + packet
    for size in (0, 1, 19, 20, 37, 39):
        yield good.pack() + packet[:size]
    yield good.pack() + packet[:32] + b"\x40" + packet[33:]  # a TCP header of 16 bytes
    yield good.pack() + packet[:32] + b"\xf0" + packet[33:50]  # of 60, of which not all is there
    yield good.pack() + packet[:9] + b"\x11" + packet[10:]
    yield good.pack() + b"\x55" + packet[1:]
    six = Packet(bytes(300), version=6, protocol=UDP).large(100)
    yield six[:10] + six[10:16] + b"\x06" + six[17:]
    yield Offload(1, 4, 0, 100, 39, 16).pack() + Packet(bytes(300), version=6).pack()
    yield Offload(1, 0, 0, 0, 10, 90).pack() + bytes(101)


DATA = bytes(range(256)) * 12
# What one of two packets of a flow may have, so that they are not merged
CHANGES: list[dict] = [
    {"source": 9},
    {"destination": 9},
    {"tos": 4},
    {"ttl": 63},
    {"fragment": 0},
    {"ports": (5000, 81)},
    {"ports": (5001, 80)},
    {"sequence": 99},
    {"sequence": 101},
    {"acknowledged": 78},
    {"window": 501},
    {"reserved": 1},
    {"options": bytes(4)},
    {"flags": ACK | FIN},
    {"flags": ACK | 64},
    {"flags": 0},
    {"wrong_sum": True},
    {"wrong_ip_sum": True},
    {"payload": b""},
]
# … and both
NEVER_MERGED: list[dict] = [
    {"fragment": 0x2000},
    {"fragment": 0x4001},
    {"ip_options": bytes(4)},
    {"flags": ACK | PSH},
    {"flags": ACK | FIN},
    {"protocol": 1},
    {"protocol": UDP, "no_sum": True},
    {"protocol": UDP, "excess": -1},
    {"protocol": UDP, "excess": 1},
    {"version": 6, "extension": bytes([0, 1, 4, 0, 0, 0, 0])},
]


def run_of(count: int, size: int = 100, **fields) -> list[Packet]:
    """What the segments of one large packet look like."""
    first = Packet(**fields)
    return [
        replace(
            first,
            payload=DATA[n * size : (n + 1) * size],
            sequence=first.sequence + n * size,
            identification=first.identification + n,
        )
        for n in range(count)
    ]


# Strategies

options = st.sampled_from([b"", b"", bytes([1, 1, 8, 10, *range(8)]), bytes(40)])
_FILLING = bytes(range(256)) * 6
payloads = st.builds(
    lambda start, more: start + _FILLING[:more], st.binary(max_size=12), st.sampled_from([0, 0, 1, 7, 100, 1360])
)
packets = st.builds(
    Packet,
    payload=payloads,
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, TCP, UDP, UDP, 1]),
    source=st.integers(1, 2),
    destination=st.integers(1, 2),
    tos=st.sampled_from([0, 0, 0, 1, 2, 3, 0xB8]),
    ttl=st.sampled_from([64, 64, 63]),
    identification=st.sampled_from([0, 7, 0xFFFF]),
    fragment=st.sampled_from([0x4000, 0x4000, 0, 0x2000, 0x2001, 0x8000]),
    ip_options=st.sampled_from([b"", b"", b"", b"\x94\x04\0\0", bytes(40)]),
    extension=st.sampled_from([b"", b"", b"", bytes([0, 1, 4, 0, 0, 0, 0])]),
    ports=st.sampled_from([(5000, 80), (5000, 80), (5001, 80)]),
    sequence=st.sampled_from([0, 1000, 2**32 - 500]),
    flags=st.sampled_from([ACK, ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN | CWR, SYN, ACK | ECE]),
    options=options,
)


@st.composite
def flows(draw: st.DrawFn) -> list[bytes]:
    """Packets of one flow as they might come out of a tunnel: mostly in order, of one size, and right."""
    first = draw(packets)
    size = draw(st.sampled_from([1, 2, 33, 1000, 1368]))
    count = draw(st.integers(1, 8))
    out = []
    for number in range(count):
        payload = bytes((number * 31 + i) & 255 for i in range(size))
        packet = replace(
            first,
            payload=payload,
            sequence=first.sequence + number * size,
            identification=first.identification + number * draw(st.sampled_from([1, 1, 1, 0])),
        )
        match draw(st.integers(0, 40)):
            case 0:
                packet = replace(packet, wrong_sum=True)
            case 1:
                packet = replace(packet, wrong_ip_sum=True)
            case 2:
                packet = replace(packet, payload=payload[: draw(st.integers(0, size))])
            case 3:
                packet = replace(packet, flags=draw(st.sampled_from([ACK | PSH, ACK | FIN, ACK | ECE, SYN])))
            case 4:
                packet = replace(packet, window=draw(st.integers(0, 2)))
            case 5:
                packet = replace(packet, sequence=packet.sequence + 1)
            case 6:
                packet = replace(packet, no_sum=True)
            case 7:
                packet = replace(packet, payload=payload + b"x")
            case 8:
                packet = replace(packet, tos=packet.tos ^ 1)
            case _:
                pass
        out.append(packet.pack())
    return out


inner = st.one_of(
    flows(),
    packets.map(lambda packet: [packet.pack()]),
    st.just([b""]),
    st.binary(max_size=90).map(lambda data: [data]),
    st.tuples(packets, st.integers(0, 99)).map(lambda cut: [cut[0].pack()[: cut[1]]]),
)
streams = st.lists(inner, max_size=5).map(lambda parts: [packet for part in parts for packet in part])

offloads = st.builds(
    Offload,
    st.sampled_from([0, 1, 1, 1, 2, 255]),
    st.sampled_from([0, 1, 3, 4, 5, 0x81, 0x85, 77]),
    st.integers(0, 65535),
    st.sampled_from([0, 1, 8, 100, 1368, 65535]),
    st.sampled_from([0, 19, 20, 24, 40, 48, 60, 65535]),
    st.sampled_from([0, 6, 16, 17, 65535]),
)
frames = st.one_of(
    st.builds(lambda packet: plain_frame(packet.pack()), packets),
    st.builds(Packet.unfinished, packets.filter(lambda packet: packet.protocol in (TCP, UDP))),
    st.builds(
        lambda packet, size, ecn: packet.large(size, ecn=ecn),
        packets.filter(lambda packet: packet.protocol in (TCP, UDP)),
        st.sampled_from([1, 5, 100, 1368, 60000]),
        st.booleans(),
    ),
    st.builds(
        lambda offload, packet: offload.pack() + packet,
        offloads,
        st.one_of(st.binary(max_size=120), packets.map(Packet.pack)),
    ),
    st.just(bytes(10)),
    st.binary(max_size=12),
)
