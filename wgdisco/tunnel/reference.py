"""Sealing and opening bursts in plain Python, packet by packet: runs anywhere, and says what is right.

`compiled.py` is the same in one call a burst; tests hold the two equal, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.tunnel.ecn import decapsulated, outer_for
from wgdisco.tunnel.frames import VIRTIO_SIZE, Burst, Frames, Opened, Room, Sealed, source_of
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


def leading_run(datagrams: Burst) -> int:
    """See `burst.leading_run`."""
    head = bytes(memoryview(datagrams.data)[:8])
    for number, row in enumerate(datagrams.rows()):
        is_transport = len(row) >= MINIMUM_TRANSPORT_SIZE and int.from_bytes(row[:4], "little") == TRANSPORT
        if not is_transport or row[:8] != head:
            return number
    return datagrams.count


@dataclass(slots=True)
class _Group:
    """Datagrams that can be one send: of one size, but for a shorter last."""

    datagrams: list[bytes]
    row: int
    tos: int

    def add(self, datagram: bytes, tos: int) -> bool:
        """False when it does not belong here."""
        belongs = len(self.datagrams[-1]) == self.row >= len(datagram) and tos == self.tos
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
            tos = outer_for(frame[VIRTIO_SIZE:])
            if counter + len(packets) > REJECT_AFTER_MESSAGES:
                packets = packets[: max(0, REJECT_AFTER_MESSAGES - counter)]
                bad += 1
            for packet in packets:
                datagram = self._datagram(packet, receiver, counter, mtu)
                counter += 1
                if not groups or not groups[-1].add(datagram, tos):
                    groups.append(_Group([datagram], len(datagram), tos))
        bursts = [Burst(b"".join(group.datagrams), group.row, group.tos) for group in groups]
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
            if packet is not None and datagrams.tos & 3:
                packet = decapsulated(packet, datagrams.tos)
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
