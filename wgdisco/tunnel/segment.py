"""Cutting a large packet into those it stands for, and merging packets into a large one (rules S1 to S3, S9, S10).

This is the reference: packet by packet, in the order of the rules. `_burst.c` does byte for byte the same.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from wgdisco.tunnel.frames import MAX_PACKET, VIRTIO_SIZE

TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 1, 8, 16, 128
_DONT_FRAGMENT, _FRAGMENT = 0x4000, 0x3FFF

# linux/virtio_net.h; of the host's byte order on a TUN interface
_NEEDS_CSUM = 1
_GSO_NONE, _GSO_TCP4, _GSO_TCP6, _GSO_UDP, _GSO_ECN = 0, 1, 4, 5, 0x80
_HEADER = struct.Struct("=BBHHHH")
_U16 = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Offload:
    """A virtio header, `struct virtio_net_hdr`: what the other side of a TUN interface left to be done."""

    flags: int = 0
    gso_type: int = 0
    header_size: int = 0  # a hint, which is not believed
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        """10 bytes."""
        return _HEADER.pack(
            self.flags, self.gso_type, self.header_size, self.gso_size, self.csum_start, self.csum_offset
        )

    @classmethod
    def parse(cls, frame: bytes) -> "Offload":
        """The first 10 bytes of a frame."""
        return cls(*_HEADER.unpack(frame[:VIRTIO_SIZE]))


# Checksums (RFC 1071)


def ones_sum(data: bytes | bytearray) -> int:
    """The sum of 16-bit words in one's complement arithmetic, a missing last byte being zero."""
    number = int.from_bytes(data, "big") << 8 * (len(data) % 2)
    return (number - 1) % 0xFFFF + 1 if number else 0


def checksum(data: bytes | bytearray) -> int:
    """What makes the sum of `data` with it 0xffff."""
    return ~ones_sum(data) & 0xFFFF


def pseudo_header(packet: bytes | bytearray, protocol: int, size: int) -> bytes:
    """What the checksums of TCP and UDP cover besides `size` bytes of themselves (RFC 9293 3.1, RFC 8200 8.1)."""
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return bytes(addresses) + _U16.pack(protocol) + _U16.pack(size)


def _put(packet: bytearray, at: int, value: int) -> None:
    _U16.pack_into(packet, at, value & 0xFFFF)


def _finish_ip(packet: bytearray) -> None:
    """Length and header checksum for what the packet now is."""
    if packet[0] >> 4 == 6:
        _put(packet, 4, len(packet) - 40)
        return
    _put(packet, 2, len(packet))
    _put(packet, 10, 0)
    _put(packet, 10, checksum(packet[: (packet[0] & 15) * 4]))


# Cutting


def split(frame: bytes) -> list[bytes] | None:
    """The packets a frame stands for, complete; None when its virtio header cannot be meant for its packet."""
    offload, packet = Offload.parse(frame), frame[VIRTIO_SIZE:]
    needs_csum = bool(offload.flags & _NEEDS_CSUM)
    if needs_csum and offload.csum_start + offload.csum_offset + 2 > len(packet):
        return None
    if len(packet) > MAX_PACKET:
        return None
    if offload.gso_type & ~_GSO_ECN == _GSO_NONE:
        return [_finish_checksum(packet, offload) if needs_csum else packet]
    headers = _headers_size(packet, offload) if needs_csum and offload.gso_size and len(packet) >= 20 else 0
    if not headers or headers > len(packet):
        return None
    starts = range(headers, len(packet), offload.gso_size) or [headers]
    return [_segment(packet, headers, offload, number, start) for number, start in enumerate(starts)]


def _finish_checksum(packet: bytes, offload: Offload) -> bytes:
    """The checksum field holds the pseudo-header's sum (rule S1)."""
    finished = bytearray(packet)
    at = offload.csum_start + offload.csum_offset
    _put(finished, at, checksum(packet[offload.csum_start :]) or 0xFFFF)
    return bytes(finished)


def _headers_size(packet: bytes, offload: Offload) -> int:
    """What every segment begins with, in bytes; 0 when the virtio header is wrong (rule S2)."""
    kind, l4 = offload.gso_type & ~_GSO_ECN, offload.csum_start
    version = packet[0] >> 4
    if version == 4:
        protocol = packet[9]
        if l4 < 20 or l4 != (packet[0] & 15) * 4:
            return 0
    elif version == 6 and l4 >= 40:
        protocol = UDP if kind == _GSO_UDP else TCP  # behind extension headers it is not in the first
        if l4 == 40 and packet[6] != protocol:
            return 0
    else:
        return 0
    if kind == _GSO_UDP:
        return l4 + 8 if protocol == UDP and offload.csum_offset == 6 else 0
    if kind != (_GSO_TCP4 if version == 4 else _GSO_TCP6) or protocol != TCP or offload.csum_offset != 16:
        return 0
    size = (packet[l4 + 12] >> 4) * 4
    return l4 + size if size >= 20 else 0


def _segment(packet: bytes, headers: int, offload: Offload, number: int, start: int) -> bytes:
    """Segment `number`, with the payload that begins at `start` (rule S3)."""
    is_last = start + offload.gso_size >= len(packet)
    segment = bytearray(packet[:headers] + packet[start : start + offload.gso_size])
    l4 = offload.csum_start
    at = l4 + offload.csum_offset
    protocol = UDP if offload.csum_offset == 6 else TCP
    if packet[0] >> 4 == 4:
        _put(segment, 4, int.from_bytes(packet[4:6], "big") + number)
    _finish_ip(segment)
    if protocol == UDP:
        _put(segment, l4 + 4, len(segment) - l4)
    else:
        sequence = int.from_bytes(packet[l4 + 4 : l4 + 8], "big") + number * offload.gso_size
        segment[l4 + 4 : l4 + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
        segment[l4 + 13] &= ~(0 if is_last else FIN | PSH) & ~(CWR if number else 0) & 0xFF
    _put(segment, at, 0)
    found = checksum(pseudo_header(packet, protocol, len(segment) - l4) + segment[l4:])
    _put(segment, at, 0xFFFF if found == 0 and protocol == UDP else found)
    return bytes(segment)


# Merging


@dataclass(slots=True)
class _Flow:
    """A packet that might be merged.

    `constant` is its headers without what differs between the segments of one large packet; `sequence` and
    `identification` are what the next one must have.
    """

    constant: bytes
    protocol: int
    ip: int
    payload: int
    sequence: int
    identification: int
    is_push: bool

    @classmethod
    def of(cls, packet: bytes, *, tcp: bool, udp: bool) -> "_Flow | None":
        """None unless this is TCP or UDP without fragments, IP options or extension headers, and with payload."""
        ip = 20 if packet[0] >> 4 == 4 else 40
        if ip == 20 and (packet[0] != 0x45 or int.from_bytes(packet[6:8], "big") & _FRAGMENT):
            return None
        protocol = packet[9] if ip == 20 else packet[6]
        l4_size = len(packet) - ip
        sequence = push = 0
        if tcp and protocol == TCP and l4_size > 20:
            size, flags = (packet[ip + 12] >> 4) * 4, packet[ip + 13]
            if not 20 <= size < l4_size or flags & ~PSH != ACK:
                return None
            push = flags & PSH
            sequence = int.from_bytes(packet[ip + 4 : ip + 8], "big") + l4_size - size & 0xFFFFFFFF
        elif udp and protocol == UDP and l4_size > 8:
            size = 8
            if int.from_bytes(packet[ip + 4 : ip + 6], "big") != l4_size or packet[ip + 6 : ip + 8] == b"\0\0":
                return None
        else:
            return None
        identification = int.from_bytes(packet[4:6], "big") + 1 & 0xFFFF
        constant = _constant(packet[: ip + size], ip, protocol)
        return cls(constant, protocol, ip, l4_size - size, sequence, identification, bool(push))


def _constant(headers: bytes, ip: int, protocol: int) -> bytes:
    """Headers without lengths, checksums, identification, sequence number and PSH."""
    network = headers[:2] + headers[6:10] + headers[12:20] if ip == 20 else headers[:4] + headers[6:40]
    if protocol == UDP:
        return network + headers[ip : ip + 4]
    return network + headers[ip : ip + 4] + headers[ip + 8 : ip + 13] + headers[ip + 14 : ip + 16] + headers[ip + 18 :]


@dataclass(slots=True)
class _Merged:
    """Packets of one flow so far; `flow` is None, or `is_closed`, when no more may be added."""

    packet: bytearray
    flow: _Flow | None
    step: int
    payload: int
    count: int
    is_closed: bool

    def frame(self) -> bytes:
        """What is written to the TUN interface (rule S10)."""
        if self.count == 1 or self.flow is None:
            return Offload().pack() + self.packet
        packet, flow = self.packet, self.flow
        is_tcp, l4_size = flow.protocol == TCP, len(self.packet) - flow.ip
        gso_type = _GSO_UDP if not is_tcp else _GSO_TCP4 if flow.ip == 20 else _GSO_TCP6
        headers = len(packet) - self.payload
        offload = Offload(_NEEDS_CSUM, gso_type, headers, self.step, flow.ip, 16 if is_tcp else 6)
        _finish_ip(packet)
        if is_tcp:
            packet[flow.ip + 13] |= PSH if flow.is_push else 0
        else:
            _put(packet, flow.ip + 4, l4_size)
        _put(packet, flow.ip + offload.csum_offset, ones_sum(pseudo_header(packet, flow.protocol, l4_size)))
        return offload.pack() + packet


def merge(packets: Iterable[bytes], *, tcp: bool = True, udp: bool = True) -> list[bytes]:
    """IP packets without padding as frames: those of one flow that follow one another as one (rule S9)."""
    merged: list[_Merged] = []
    for packet in packets:
        flow = _Flow.of(packet, tcp=tcp, udp=udp)
        if flow is not None and merged and _joins(merged[-1], packet, flow):
            last = merged[-1]
            last.packet += packet[-flow.payload :]
            last.flow = flow
            last.payload += flow.payload
            last.count += 1
            last.is_closed = flow.payload < last.step or flow.is_push
        else:
            step = flow.payload if flow else 0
            merged.append(_Merged(bytearray(packet), flow, step, step, 1, flow is None or flow.is_push))
    return [one.frame() for one in merged]


def _joins(last: _Merged, packet: bytes, flow: _Flow) -> bool:
    if last.flow is None or last.is_closed or not _continues(last, packet, flow):
        return False
    if last.count == 1 and not _is_intact(last.packet, last.flow):
        last.is_closed = True
        return False
    return _is_intact(packet, flow)


def _continues(last: _Merged, packet: bytes, flow: _Flow) -> bool:
    """Whether the headers differ in nothing but what differs between the segments of one large packet."""
    before = last.flow
    assert before is not None
    if flow.constant != before.constant or flow.ip != before.ip or flow.protocol != before.protocol:
        return False
    if flow.payload > last.step or len(last.packet) + flow.payload > MAX_PACKET:
        return False
    may_be_cut = flow.ip == 20 and not int.from_bytes(packet[6:8], "big") & _DONT_FRAGMENT
    if may_be_cut and int.from_bytes(packet[4:6], "big") != before.identification:
        return False  # without DF the identification means something
    return flow.protocol == UDP or int.from_bytes(packet[flow.ip + 4 : flow.ip + 8], "big") == before.sequence


def _is_intact(packet: bytes | bytearray, flow: _Flow) -> bool:
    """Whether both checksums are right."""
    l4 = packet[flow.ip :]
    if flow.ip == 20 and checksum(packet[:20]) != 0:
        return False
    return checksum(pseudo_header(packet, flow.protocol, len(l4)) + l4) == 0
