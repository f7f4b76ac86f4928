"""Sealing and opening bursts with `_burst.c`, in one call a burst. What it does is said in `reference.py`.

Importing this fails where that was not built.
"""

from collections.abc import Sequence
from typing import Any

from wgdisco.tunnel._native import ffi, lib
from wgdisco.tunnel.frames import MAX_PACKET, Burst, Frames, Opened, Room, Sealed
from wgdisco.tunnel.messages import MINIMUM_TRANSPORT_SIZE, PADDING

_LARGEST_DATAGRAM = MAX_PACKET + PADDING + MINIMUM_TRANSPORT_SIZE
_GROUPS = 256
_MERGE_TCP, _MERGE_UDP = 1, 2


def leading_run(datagrams: Burst) -> int:
    """See `burst.leading_run`."""
    data = ffi.from_buffer(datagrams.data)
    return int(lib.burst_run(data, len(data), datagrams.row))


class CompiledCounters:
    """See `replay.Counters`. `native` is where they are, for who counts with them in `_lanes.c`."""

    __slots__ = ("native",)

    def __init__(self) -> None:
        self.native = ffi.new("burst_counters *")

    @property
    def next_sent(self) -> int:
        """The next counter to send with."""
        return int(self.native.next_sent)

    @next_sent.setter
    def next_sent(self, value: int) -> None:
        self.native.next_sent = value

    @property
    def lane(self) -> int:
        """Whether packets may take a lane."""
        return int(self.native.lane)

    @lane.setter
    def lane(self, value: int) -> None:
        self.native.lane = value

    def accept(self, counter: int) -> bool:
        """See `ReplayWindow.accept`."""
        return bool(lib.burst_accept(self.native, counter))

    def accept_run(self, first: int, count: int) -> bool:
        """See `ReplayWindow.accept_run`."""
        return bool(lib.burst_accept_run(self.native, first, count))


class _Key:
    """A key inside libcrypto. Not for two threads at once."""

    __slots__ = ("_context",)

    def __init__(self, key: bytes, *, seals: bool) -> None:
        if len(key) != 32:
            raise ValueError("a key has 32 bytes")
        context = lib.burst_key_new(ffi.from_buffer(key), seals)
        if context == ffi.NULL:
            raise MemoryError("libcrypto has no ChaCha20-Poly1305")
        self._context: Any = ffi.gc(context, lib.burst_key_free)

    @property
    def native(self) -> Any:
        """The key, for `_lanes.c`; None once it is closed."""
        return self._context

    def close(self) -> None:
        """Overwrite the key and free it."""
        context, self._context = self._context, None
        if context is not None:
            ffi.release(context)


def _memory_of(view: object) -> bytearray | None:
    """The memory that this is a view of the whole of; None when it is no such view.

    Pointers that are kept are of memory, and not of views: CPython crashes on collecting a view together with somebody
    who has a pointer by it.
    """
    memory = view.obj if type(view) is memoryview else None
    return memory if type(memory) is bytearray and len(memory) == view.nbytes else None  # type: ignore[attr-defined]


def _pointers(room: Room) -> Any:
    """Where the room's memory is: data, spans."""
    if room.native is None:
        room.native = (
            ffi.from_buffer("uint8_t[]", _memory_of(room.data)),
            ffi.from_buffer("uint32_t[]", _memory_of(room.spans)),
        )
    return room.native


class CompiledSealer(_Key):
    """One key of a session, for sending."""

    __slots__ = ("_at", "_data", "_data_at", "_groups", "_spans", "_spans_at")

    def __init__(self, key: bytes) -> None:
        super().__init__(key, seals=True)
        self._at = ffi.new("burst_sealing *")
        self._groups = ffi.new("uint32_t[]", 4 * _GROUPS)
        # Where the memory is that frames were in before; who reads an interface uses the same again
        self._data: object = None
        self._spans: object = None
        self._data_at: Any = None
        self._spans_at: Any = None

    def _find(self, frames: Frames) -> None:
        """Set `_data_at` and `_spans_at`. Memory that is read anew each time is remembered, packets are not."""
        data, spans = _memory_of(frames.data), _memory_of(frames.spans)
        if data is None or spans is None:
            self._data = self._spans = None
            self._data_at, self._spans_at = ffi.from_buffer(frames.data), ffi.from_buffer("uint32_t[]", frames.spans)
        else:
            self._data, self._spans = frames.data, frames.spans
            self._data_at, self._spans_at = ffi.from_buffer(data), ffi.from_buffer("uint32_t[]", spans)

    def seal(self, frames: Frames, receiver: int, counter: int, mtu: int, room: Room) -> Sealed:
        """See `Sealer.seal`."""
        if self._context is None:
            raise ValueError("this key is closed")
        at, groups = self._at, self._groups
        at.counter = counter
        if frames.data is not self._data or frames.spans is not self._spans:
            self._find(frames)
        data, size, spans = self._data_at, len(frames.data), self._spans_at
        bursts: list[Burst] = []
        bad = is_done = 0
        while not is_done:
            room.reserve(_LARGEST_DATAGRAM, 0)
            used, view = room.data_used, room.data
            is_done = lib.burst_seal(
                self._context,
                data,
                size,
                spans + 2 * frames.first,
                frames.count,
                receiver,
                mtu,
                _pointers(room)[0] + used,
                len(view) - used,
                groups,
                _GROUPS,
                at,
            )
            if is_done < 0:
                raise MemoryError("libcrypto failed to seal")
            for i in range(0, 4 * at.groups, 4):
                start = used + groups[i]
                bursts.append(Burst(view[start : start + groups[i + 1]], groups[i + 2], groups[i + 3]))
            room.data_used = used + at.used
            bad += at.bad
        if self._data is None:
            self._data_at = self._spans_at = None
        return Sealed(bursts, at.counter - counter, bad)


class CompiledOpener(_Key):
    """One key of a session, for receiving."""

    __slots__ = ("_counters", "_forged", "_result", "_rows", "_runs")

    def __init__(self, key: bytes) -> None:
        super().__init__(key, seals=False)
        self._result = ffi.new("burst_opened *")
        self._make_tables(64)

    def _make_tables(self, rows: int) -> None:
        self._rows = rows
        self._runs = ffi.new("uint32_t[]", rows)
        self._counters = ffi.new("uint64_t[]", rows)
        self._forged = ffi.new("uint8_t[]", rows)

    def open(
        self, datagrams: Burst, room: Room, refused: bytes | None = None, *, tcp: bool = True, udp: bool = True
    ) -> Opened:
        """See `Opener.open`."""
        if self._context is None:
            raise ValueError("this key is closed")
        data, row = ffi.from_buffer(datagrams.data), datagrams.row
        size = len(data)
        if size == 0:  # one row, which is empty
            return Opened([], [None], 0 if refused and refused[0] else 1, 0, 0)
        rows = -(-size // row)
        if rows > self._rows:
            self._make_tables(rows)
        room.reserve(size, rows)
        first = room.spans_used // 2
        out, spans = _pointers(room)
        result = self._result
        simple = lib.burst_open(
            self._context,
            data,
            size,
            row,
            ffi.NULL if refused is None else ffi.from_buffer(refused),
            (_MERGE_TCP if tcp else 0) | (_MERGE_UDP if udp else 0),
            datagrams.tos,
            out,
            room.data_used,
            len(room.data),
            spans + 2 * first,
            self._runs,
            self._counters,
            self._forged,
            rows,
            result,
        )
        assert simple >= 0, "the arguments are possible"
        if simple:
            _use(room, first + simple)
            start = result.first
            return Opened([Frames(room.data, room.spans, first, simple)], range(start, start + rows), 0, 0, 0)
        frames: list[Frames] = []
        for count in ffi.unpack(self._runs, result.runs):
            frames.append(Frames(room.data, room.spans, first, count))
            first += count
        _use(room, first)
        return Opened(frames, self._counted(rows, refused), result.forged, result.keepalives, result.bad)

    def _counted(self, rows: int, refused: bytes | None) -> Sequence[int | None]:
        """The rows' counters after an `open`."""
        result = self._result
        if result.consecutive and result.authentic == rows:
            return range(result.first, result.first + rows)
        forged, counters = ffi.unpack(self._forged, rows), ffi.unpack(self._counters, rows)
        return [
            None if forged[n] or (refused is not None and refused[n]) else counter for n, counter in enumerate(counters)
        ]


def _use(room: Room, end: int) -> None:
    """The spans of the room are used up to frame `end`, and the data up to where that one's last ends."""
    if 2 * end > room.spans_used:
        room.spans_used = 2 * end
        room.data_used = room.spans[2 * end - 2] + room.spans[2 * end - 1]
