"""Sealing and opening bursts in plain Python, packet by packet: runs anywhere, and says what is right.

`compiled.py` is the same in one call a burst; tests hold the two equal, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.tunnel.frames import VIRTIO_SIZE, Burst, Frames, Opened, Room, Sealed, destination_of, source_of
from wgdisco.tunnel.messages import (
    MINIMUM_TRANSPORT_SIZE,
    PADDING,
    REJECT_AFTER_MESSAGES,
    TRANSPORT,
    TRANSPORT_HEADER,
    TRANSPORT_HEADER_SIZE,
)
from wgdisco.tunnel.segment import merge, split

_NONCE_PREFIX = bytes(4)
_NOT_ECT, _ECT1, _ECT0, _CE = range(4)


def padded_size(size: int, mtu: int) -> int:
    """The size of a packet after padding to 16 bytes, never past the MTU (rule D4)."""
    if mtu == 0:
        return size
    last = size % mtu if size > mtu else size
    padded = min(mtu, -(-last // PADDING) * PADDING)
    return size - last + padded


def inner_size(plain: bytes) -> int:
    """The size of an IP packet without its padding; 0 when it is no packet (rule D6)."""
    size = len(plain)
    version = plain[0] >> 4 if plain else 0
    total = 0
    if version == 4 and size >= 20:
        total = int.from_bytes(plain[2:4], "big")
        total = total if total >= 20 else 0
    elif version == 6 and size >= 40:
        total = 40 + int.from_bytes(plain[4:6], "big")
    return total if total <= size else 0


def decapsulate_ecn(packet: bytes, outer: int) -> bytes | None:
    """The packet with what happened on the way noted in it; None when it is to be dropped (RFC 6040, figure 4)."""
    shift = 0 if packet[0] >> 4 == 4 else 4
    inner = packet[1] >> shift & 3
    if outer == _CE and inner == _NOT_ECT:
        return None
    if inner == _NOT_ECT or not (outer == _CE or (outer == _ECT1 and inner == _ECT0)):
        return packet
    changed = bytearray(packet)
    changed[1] = packet[1] & ~(3 << shift) | outer << shift
    if shift == 0:  # RFC 1624: what was wrong stays wrong
        found = ~int.from_bytes(packet[10:12], "big") & 0xFFFF
        before, after = (int.from_bytes(header[:2], "big") for header in (packet, changed))
        total = found + (~before & 0xFFFF) + after
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        changed[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


def _ecn_of(packet: memoryview) -> int:
    if destination_of(packet) is None:
        return 0
    return packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3


@dataclass(slots=True)
class _Group:
    """Datagrams that can be one send: of one size, but for a shorter last."""

    datagrams: list[bytes]
    row: int
    ecn: int

    def add(self, datagram: bytes, ecn: int) -> bool:
        """False when it does not belong here."""
        belongs = len(self.datagrams[-1]) == self.row >= len(datagram) and ecn == self.ecn
        if belongs:
            self.datagrams.append(datagram)
        return belongs


class ReferenceSealer:
    """One key of a session, for sending."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead: ChaCha20Poly1305 | None = ChaCha20Poly1305(key)

    def seal(self, frames: Frames, receiver: int, counter: int, mtu: int, room: Room) -> Sealed:
        """See `Sealer.seal`; the memory is always new."""
        if self._aead is None:
            raise ValueError("this key is closed")
        first, bad = counter, 0
        groups: list[_Group] = []
        for frame in frames:
            packets = split(bytes(frame)) if len(frame) >= VIRTIO_SIZE else None
            if packets is None:
                bad += 1
                continue
            ecn = _ecn_of(frame[VIRTIO_SIZE:])
            if counter + len(packets) > REJECT_AFTER_MESSAGES:
                packets = packets[: max(0, REJECT_AFTER_MESSAGES - counter)]
                bad += 1
            for packet in packets:
                datagram = self._datagram(packet, receiver, counter, mtu)
                counter += 1
                if not groups or not groups[-1].add(datagram, ecn):
                    groups.append(_Group([datagram], len(datagram), ecn))
        bursts = [Burst(b"".join(group.datagrams), group.row, group.ecn) for group in groups]
        return Sealed(bursts, counter - first, bad)

    def _datagram(self, packet: bytes, receiver: int, counter: int, mtu: int) -> bytes:
        assert self._aead is not None
        header = TRANSPORT_HEADER.pack(TRANSPORT, receiver, counter)
        plain = packet + bytes(padded_size(len(packet), mtu) - len(packet))
        return header + self._aead.encrypt(_NONCE_PREFIX + header[8:], plain, None)

    def close(self) -> None:
        """Forget the key."""
        self._aead = None


class ReferenceOpener:
    """One key of a session, for receiving."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead: ChaCha20Poly1305 | None = ChaCha20Poly1305(key)

    def open(
        self, datagrams: Burst, room: Room, refused: bytes | None = None, *, tcp: bool = True, udp: bool = True
    ) -> Opened:
        """See `Opener.open`; the memory is always new."""
        counters: list[int | None] = []
        packets: list[bytes] = []
        keepalives = bad = forged = 0
        for number, row in enumerate(datagrams.rows()):
            counters.append(None)
            if refused is not None and refused[number]:
                continue
            plain = self._plain(bytes(row))
            if plain is None:
                forged += 1
                continue
            counters[-1] = int.from_bytes(row[8:16], "little")
            packet = plain[: inner_size(plain)] or None
            if packet is not None and datagrams.ecn:
                packet = decapsulate_ecn(packet, datagrams.ecn)
            if packet is not None:
                packets.append(packet)
            elif plain:
                bad += 1
            else:
                keepalives += 1
        frames = merge(packets, tcp=tcp, udp=udp)
        runs = groupby(frames, lambda frame: source_of(frame[VIRTIO_SIZE:]))
        return Opened(
            [Frames.behind_one_another(list(run)) for _, run in runs], _as_range(counters), forged, keepalives, bad
        )

    def _plain(self, datagram: bytes) -> bytes | None:
        """What is sealed in it, padding included; None when it does not authenticate."""
        if self._aead is None:
            raise ValueError("this key is closed")
        if len(datagram) < MINIMUM_TRANSPORT_SIZE or int.from_bytes(datagram[:4], "little") != TRANSPORT:
            return None
        try:
            return self._aead.decrypt(_NONCE_PREFIX + datagram[8:16], datagram[TRANSPORT_HEADER_SIZE:], None)
        except InvalidTag:
            return None

    def close(self) -> None:
        """Forget the key."""
        self._aead = None


def _as_range(counters: list[int | None]) -> Sequence[int | None]:
    first = counters[0]
    if first is None or counters != list(range(first, first + len(counters))):
        return counters
    return range(first, first + len(counters))
