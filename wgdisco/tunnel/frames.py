"""What the data path passes around: bursts of datagrams, frames of the TUN interface, and memory for both.

A **frame** is what one read of a TUN interface with IFF_VNET_HDR returns, or one write takes: a virtio header of 10
bytes, and a packet of up to 64 KiB. The header may say that the packet stands for many, of `gso_size` payload bytes
each, and that its checksum is unfinished.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

VIRTIO_SIZE = 10
MAX_PACKET = 65535
_PLAIN = bytes(VIRTIO_SIZE)

Memory = bytes | bytearray | memoryview


class OwnAddress(NamedTuple):
    """An address of ours, 4 or 16 bytes, and the index of the interface that a datagram to it came in by."""

    packed: bytes
    interface: int


# One of each is made for every burst, a lone packet too. A frozen dataclass takes 0.4 µs longer to make than one that
# is not, so these are not; nobody changes them.


@dataclass(slots=True)
class Burst:
    """Datagrams: rows of equal size in one buffer; the last row may be shorter. A lone one is a burst of one.

    Beside them what their IP headers say: the traffic class `tos`, the address of ours they came to or are to leave
    from (`local`; None leaves it to the system), and of those to send the hop limit (`hops`; 0 leaves it).
    """

    data: Memory
    row: int
    tos: int = 0
    local: OwnAddress | None = None
    hops: int = 0

    def rows(self) -> Iterator[memoryview]:
        """Each row in turn; one empty row for an empty buffer."""
        view = memoryview(self.data)
        if len(view) <= self.row:
            yield view
            return
        for start in range(0, len(view), self.row):
            yield view[start : start + self.row]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return max(1, -(-len(self.data) // self.row)) if self.row else 1

    @classmethod
    def of(cls, packet: Memory) -> "Burst":
        """A burst of this one packet."""
        return cls(packet, len(packet))


def source_of(packet: Memory) -> bytes | None:
    """Where an IP packet is from, 4 or 16 bytes; None when it is no IP packet."""
    return _address(packet, 12, 8)


def destination_of(packet: Memory) -> bytes | None:
    """Where an IP packet goes, 4 or 16 bytes; None when it is no IP packet."""
    return _address(packet, 16, 24)


def _address(packet: Memory, at4: int, at6: int) -> bytes | None:
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version == 4:
        return bytes(packet[at4 : at4 + 4])
    if version == 6 and len(packet) >= 40:
        return bytes(packet[at6 : at6 + 16])
    return None


@dataclass(slots=True)
class Frames:
    """Frames somewhere in `data`: `count` of those in `spans`, from `first` on.

    `spans` has two u32 a frame: where it begins, and its size with the virtio header.
    """

    data: Memory
    spans: "memoryview[int] | array[int]"
    first: int
    count: int

    def __len__(self) -> int:
        """How many."""
        return self.count

    def __iter__(self) -> Iterator[memoryview]:
        """Each frame in turn."""
        view, spans = memoryview(self.data), self.spans
        for at in range(2 * self.first, 2 * (self.first + self.count), 2):
            yield view[spans[at] : spans[at] + spans[at + 1]]

    def packets(self) -> Iterator[memoryview]:
        """Each frame's packet: what follows its virtio header."""
        return (frame[VIRTIO_SIZE:] for frame in self)

    @property
    def head(self) -> memoryview:
        """The first packet."""
        start, size = self.spans[2 * self.first], self.spans[2 * self.first + 1]
        return memoryview(self.data)[start + VIRTIO_SIZE : start + size]

    @property
    def source(self) -> bytes | None:
        """Where the first packet is from, 4 or 16 bytes; None when it is no IP packet."""
        return source_of(self.head)

    @property
    def destination(self) -> bytes | None:
        """Where the first packet goes, 4 or 16 bytes; None when it is no IP packet."""
        return destination_of(self.head)

    @classmethod
    def behind_one_another(cls, frames: Sequence[Memory]) -> "Frames":
        """These frames, copied."""
        spans = array("I")
        start = 0
        for frame in frames:
            spans.extend((start, len(frame)))
            start += len(frame)
        return cls(b"".join(frames), spans, 0, len(frames))

    @classmethod
    def of(cls, *packets: Memory) -> "Frames":
        """These packets, copied, each to be sent as it is. An empty one makes a keepalive."""
        return cls.behind_one_another([b"".join((_PLAIN, packet)) for packet in packets])


@dataclass(slots=True)
class Sealed:
    """Datagrams to send. `counters` is how many were used, `bad` how many frames had an impossible virtio header."""

    bursts: list[Burst]
    counters: int
    bad: int


@dataclass(slots=True)
class Opened:
    """What was in a burst of datagrams: frames for the TUN interface, those of one source in a row together.

    `counters` has one entry a row, None where the row did not authenticate or was to be left out; it is a range when
    all of them follow one another. `bad` rows are authentic, and no IP packet.
    """

    frames: list[Frames]
    counters: Sequence[int | None]
    forged: int
    keepalives: int
    bad: int


class Room:
    """Memory that bursts are sealed and opened into, over and over. `clear` when all that came of it is done with.

    What is asked for beyond its size is had, from new memory. `native` is for who needs to keep pointers to it.
    """

    __slots__ = ("data", "data_used", "native", "spans", "spans_used")

    def __init__(self, size: int = 1 << 20, frames: int = 1 << 14) -> None:
        self.data = memoryview(bytearray(size))
        self.spans = memoryview(bytearray(8 * frames)).cast("I")
        self.data_used = self.spans_used = 0
        self.native: Any = None

    def clear(self) -> None:
        """All of it is free again: nothing sealed or opened before may be looked at any more."""
        self.data_used = self.spans_used = 0

    def reserve(self, size: int, frames: int) -> None:
        """Have at least `size` free bytes and `frames` free spans."""
        if len(self.data) - self.data_used < size:
            self.data = memoryview(bytearray(max(size, len(self.data))))
            self.data_used, self.native = 0, None
        if len(self.spans) - self.spans_used < 2 * frames:
            self.spans = memoryview(bytearray(8 * max(frames, len(self.spans) // 2))).cast("I")
            self.spans_used, self.native = 0, None
