"""Sealing and opening bursts with `_burst.c`, in one call a burst. What it does is said in `reference.py`.

Importing this fails where that was not built.
"""

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


class _Key:
    """A key inside libcrypto. Not for two threads at once."""

    __slots__ = ("_context",)

    def __init__(self, key: bytes, *, seals: bool) -> None:
        if len(key) != 32:
            raise ValueError("a key has 32 bytes")
        context = lib.burst_key_new(key, seals)
        if context == ffi.NULL:
            raise MemoryError("libcrypto has no ChaCha20-Poly1305")
        self._context: Any = ffi.gc(context, lib.burst_key_free)

    def close(self) -> None:
        """Overwrite the key and free it."""
        context, self._context = self._context, None
        if context is not None:
            ffi.release(context)


class CompiledSealer(_Key):
    """One key of a session, for sending."""

    __slots__ = ("_at", "_groups")

    def __init__(self, key: bytes) -> None:
        super().__init__(key, seals=True)
        self._at = ffi.new("burst_sealing *")
        self._groups = ffi.new("uint32_t[]", 4 * _GROUPS)

    def seal(self, frames: Frames, receiver: int, counter: int, mtu: int, room: Room) -> Sealed:
        """See `Sealer.seal`."""
        if self._context is None:
            raise ValueError("this key is closed")
        at, groups = self._at, self._groups
        at.counter, at.frame, at.segment, at.bad = counter, 0, 0, 0
        data, spans = ffi.from_buffer(frames.data), ffi.from_buffer("uint32_t[]", frames.spans)
        bursts: list[Burst] = []
        is_done = 0
        while not is_done:
            room.reserve(_LARGEST_DATAGRAM, 0)
            free = room.data[room.data_used :]
            is_done = lib.burst_seal(
                self._context,
                data,
                len(data),
                spans,
                len(spans) // 2,
                receiver,
                mtu,
                ffi.from_buffer("uint8_t[]", free),
                len(free),
                groups,
                _GROUPS,
                at,
            )
            if is_done < 0:
                raise MemoryError("libcrypto failed to seal")
            for i in range(0, 4 * at.groups, 4):
                start = groups[i]
                bursts.append(Burst(free[start : start + groups[i + 1]], groups[i + 2], groups[i + 3]))
            room.data_used += at.used
        return Sealed(bursts, at.counter - counter, at.bad)


class CompiledOpener(_Key):
    """One key of a session, for receiving."""

    __slots__ = ("_counters", "_forged", "_result", "_rows", "_runs")

    def __init__(self, key: bytes) -> None:
        super().__init__(key, seals=False)
        self._result = ffi.new("burst_opened *")
        self._rows = 0
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
        data = ffi.from_buffer(datagrams.data)
        size, row, rows = len(data), datagrams.row, datagrams.count
        if size == 0:  # one row, which is empty
            return Opened([], [None], 0 if refused and refused[0] else 1, 0, 0)
        if rows > self._rows:
            self._make_tables(rows)
        room.reserve(size, rows)
        free, spans = room.data[room.data_used :], room.spans[room.spans_used :]
        result = self._result
        status = lib.burst_open(
            self._context,
            data,
            size,
            row,
            ffi.NULL if refused is None else ffi.from_buffer(refused),
            tcp * _MERGE_TCP | udp * _MERGE_UDP,
            datagrams.tos,
            ffi.from_buffer("uint8_t[]", free),
            len(free),
            ffi.from_buffer("uint32_t[]", spans),
            self._runs,
            self._counters,
            self._forged,
            rows,
            result,
        )
        assert status == 0, "the arguments are possible"
        frames: list[Frames] = []
        at = 0
        for run in self._runs[0 : result.runs] if result.runs != 1 else (result.frames,):
            frames.append(Frames(free, spans[2 * at : 2 * (at + run)]))
            at += run
        if at:
            room.spans_used += 2 * at
            room.data_used += spans[2 * at - 2] + spans[2 * at - 1]
        counters: Any
        if result.consecutive and result.authentic == rows:
            counters = range(result.first, result.first + rows)
        else:
            lost = ffi.unpack(self._forged, rows)
            counters = ffi.unpack(self._counters, rows)
            for number in range(rows):
                if lost[number] or (refused is not None and refused[number]):
                    counters[number] = None
        return Opened(frames, counters, result.forged, result.keepalives, result.bad)
