"""The system calls of the data path: many in one where the compiled burst runs, else one by one. None waits.

What is read or received lies in memory of the reader, and is good until it is asked again.
"""

import errno
import os
import socket
import struct
from array import array
from collections.abc import Iterator
from typing import Any

from wgdisco.tunnel import burst
from wgdisco.tunnel.burst import Burst, Frames, OwnAddress
from wgdisco.tunnel.frames import MAX_PACKET, VIRTIO_SIZE
from wgdisco.tunnel.io.ancillary import ANCILLARY_SIZE, Ancillary, parse_ancillary, segment_message
from wgdisco.tunnel.nesting import is_nested

_ffi: Any
_lib: Any
try:
    from wgdisco.tunnel._native import ffi as _ffi
    from wgdisco.tunnel._native import lib as _lib
except ImportError:
    _ffi = _lib = None

LARGEST_FRAME = VIRTIO_SIZE + MAX_PACKET
_SLOT = 1 << 16  # no datagram, and no run of datagrams that UDP_GRO made one, is larger
_SLOTS = 8
_RECEIVED = struct.Struct("=6I16s28s")
_NAME4 = struct.Struct("=H2s4s8x")
_NAME6 = struct.Struct("=H2sI16sI")


def _is_compiled() -> bool:
    return _lib is not None and burst.implementation() == "compiled"


# Frames of a TUN interface


class FrameReader:
    """Reads a TUN interface that was opened with IFF_VNET_HDR, and is non-blocking."""

    def __init__(self, max_frames: int = 64) -> None:
        self._max_frames = max_frames
        # Frames are read while there is room for one of any size
        data, spans = bytearray(2 * LARGEST_FRAME), bytearray(8 * max_frames)
        self._data, self._spans = memoryview(data), memoryview(spans).cast("I")
        self._runs = array("I", bytes(4 * max_frames))
        if _lib is not None:
            # Not of the views: CPython crashes on collecting a view with somebody who has a pointer by it
            self._pointers = [
                _ffi.from_buffer("uint8_t[]", data),
                _ffi.from_buffer("uint32_t[]", spans),
                _ffi.from_buffer("uint32_t[]", self._runs),
                _ffi.new("uint32_t *"),
            ]

    def read(self, fd: int) -> list[Frames]:
        """What waits, at most `max_frames` and about 64 KiB; what is alike in its outer headers together.

        Alike are frames of one destination, traffic class, protocol and hop limit, and either all or none of them
        WireGuard's own. Raises OSError when the first read
        fails; an error behind a frame shows the next time.
        """
        if not _is_compiled():
            return self._read_each(fd)
        data, spans, runs, run_count = self._pointers
        count = _lib.burst_read(fd, data, len(self._data), LARGEST_FRAME, spans, self._max_frames, runs, run_count)
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        if run_count[0] == 1:
            return [Frames(self._data, self._spans, 0, count)]
        return list(self._grouped(self._runs[: run_count[0]]))

    def lend(self, table: Any) -> None:
        """Let packets that take lanes be read with the same memory (`_lanes.c`)."""
        table.frames, table.frame_spans, table.frame_runs, _ = self._pointers
        table.frames_size, table.largest, table.max_frames = len(self._data), LARGEST_FRAME, self._max_frames

    def left(self, first: int, runs: slice) -> list[Frames]:
        """What was so read and not sent: from frame `first` on, which begins the first of these runs."""
        return list(self._grouped(self._runs[runs], first))

    def _grouped(self, runs: "array[int] | list[int]", first: int = 0) -> Iterator[Frames]:
        for count in runs:
            yield Frames(self._data, self._spans, first, count)
            first += count

    def _read_each(self, fd: int) -> list[Frames]:
        used = count = 0
        runs: list[int] = []
        last: bytes | None = None
        while count < self._max_frames and len(self._data) - used >= LARGEST_FRAME:
            try:
                size = os.readv(fd, [self._data[used:]])
            except BlockingIOError:
                break
            except OSError:
                if count:
                    break
                raise
            if size == 0:
                break
            like = likeness(self._data[used + VIRTIO_SIZE : used + size])
            if like is not None and like == last:
                runs[-1] += 1
            else:
                runs.append(1)
            self._spans[2 * count], self._spans[2 * count + 1] = used, size
            last = like
            used += size
            count += 1
        return list(self._grouped(runs))


def likeness(packet: memoryview) -> bytes | None:
    """What of an IP packet its outer header is made of; None when it is no IP packet."""
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version == 4:
        return bytes((packet[1], *packet[8:10], *packet[16:20], is_nested(packet)))
    if version == 6 and len(packet) >= 40:
        return bytes((packet[0], packet[1] & 0xF0, *packet[6:8], *packet[24:40], is_nested(packet)))
    return None


def write_frames(fd: int, frames: Frames) -> list[tuple[memoryview, OSError]]:
    """Write all to a TUN interface that was opened with IFF_VNET_HDR; those it did not take, and why."""
    if not _is_compiled():
        return list(_write_each(fd, frames))
    data = _ffi.from_buffer(frames.data)
    spans = _ffi.from_buffer("uint32_t[]", frames.spans) + 2 * frames.first
    error = _ffi.new("int *")
    failed: list[tuple[memoryview, OSError]] = []
    at = _lib.burst_write(fd, data, len(data), spans, frames.count, error)
    while at < frames.count:
        start, size = spans[2 * at], spans[2 * at + 1]
        failed.append((memoryview(frames.data)[start : start + size], OSError(error[0], os.strerror(error[0]))))
        at += 1
        at += _lib.burst_write(fd, data, len(data), spans + 2 * at, frames.count - at, error)
    return failed


def _write_each(fd: int, frames: Frames) -> Iterator[tuple[memoryview, OSError]]:
    for frame in frames:
        try:
            os.write(fd, frame)
        except OSError as error:
            yield frame, error


# Datagrams


def name_of(address: tuple[Any, ...]) -> bytes:
    """The socket address (`struct sockaddr_in`, `sockaddr_in6`) of what the socket module calls one."""
    host, port = address[:2]
    if len(address) == 2:
        return _NAME4.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_aton(host))
    host = host.partition("%")[0]
    packed = socket.inet_pton(socket.AF_INET6, host)
    return _NAME6.pack(socket.AF_INET6, port.to_bytes(2, "big"), address[2], packed, address[3])


def parse_name(name: bytes) -> tuple[bytes, int, int]:
    """The packed address (4 or 16 bytes), port and scope of a socket address."""
    if len(name) == _NAME4.size:
        _family, port, packed = _NAME4.unpack(name)
        return packed, int.from_bytes(port, "big"), 0
    _family, port, _flow, packed, scope = _NAME6.unpack(name)
    return packed, int.from_bytes(port, "big"), scope


def pack_control(messages: Ancillary) -> bytes:
    """Control messages as the kernel takes them (cmsg(3))."""
    packed = b""
    for level, kind, data in messages:
        header = struct.pack("@Nii", socket.CMSG_LEN(len(data)), level, kind)
        packed += (header + data).ljust(socket.CMSG_SPACE(len(data)), b"\0")
    return packed


class DatagramReceiver:
    """Receives from non-blocking UDP sockets."""

    def __init__(self) -> None:
        data = bytearray(_SLOTS * _SLOT)
        self._data = memoryview(data)
        self._own: dict[tuple[int, int, bytes], OwnAddress] = {}
        if _lib is not None:
            self._pointer = _ffi.from_buffer("uint8_t[]", data)
            self._received = _ffi.new("burst_received[]", _SLOTS)
            self._table = _ffi.buffer(self._received)

    def receive(self, sock: socket.socket) -> list[tuple[Burst, bytes]]:
        """Up to 8 bursts, each with the socket address it came from. Raises OSError when the first call fails."""
        if not _is_compiled():
            return self._receive_each(sock)
        count = _lib.burst_receive(sock.fileno(), self._pointer, _SLOT, _SLOTS, self._received)
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        return self.left(0, count)

    def lend(self, table: Any) -> None:
        """Let packets that take lanes be received with the same memory (`_lanes.c`)."""
        table.datagrams, table.received, table.slot, table.slots = self._pointer, self._received, _SLOT, _SLOTS

    def left(self, first: int, count: int) -> list[tuple[Burst, bytes]]:
        """Of `count` bursts that were received, those from `first` on."""
        found: list[tuple[Burst, bytes]] = []
        start = first * _SLOT
        for size, row, tos, interface, local_size, name_size, local, name in _RECEIVED.iter_unpack(
            self._table[first * _RECEIVED.size : count * _RECEIVED.size]
        ):
            own = self._own_address(interface, local_size, local) if local_size else None
            found.append((Burst(self._data[start : start + size], row, tos, own), name[:name_size]))
            start += _SLOT
        return found

    def _own_address(self, interface: int, size: int, local: bytes) -> OwnAddress:
        key = interface, size, local
        own = self._own.get(key)
        if own is None:
            if len(self._own) >= 64:
                self._own.clear()
            own = self._own[key] = OwnAddress(local[:size], interface)
        return own

    def _receive_each(self, sock: socket.socket) -> list[tuple[Burst, bytes]]:
        found: list[tuple[Burst, bytes]] = []
        for start in range(0, _SLOTS * _SLOT, _SLOT):
            try:
                size, control, _flags, address = sock.recvmsg_into([self._data[start : start + _SLOT]], ANCILLARY_SIZE)
            except BlockingIOError:
                break
            except OSError:
                if found:
                    break
                raise
            row, tos, own = parse_ancillary(control, size)
            found.append((Burst(self._data[start : start + size], row, tos, own), name_of(address)))
        return found


def send_datagrams(
    sock: socket.socket, name: bytes, control: Ancillary, packed: bytes, burst_: Burst, start: int, segments: int
) -> tuple[int, int]:
    """Send the rows of a burst from byte `start` on to a socket address, up to `segments` of them in one call.

    `control` is what their IP headers are to say, and `packed` the same packed. Returns where the first row that was
    not sent begins (the size of the burst when all were), and the errno that says why, or 0.
    """
    data, row = burst_.data, burst_.row
    if not _is_compiled():
        return _send_each(sock, name, control, burst_, start, segments)
    error = _ffi.new("int *")
    pointer = _ffi.from_buffer("uint8_t[]", data)
    sent = _lib.burst_send(
        sock.fileno(), name, len(name), packed, len(packed), pointer + start, len(data) - start, row, segments, error
    )
    return start + sent, error[0]


def _send_each(
    sock: socket.socket, name: bytes, control: Ancillary, burst_: Burst, start: int, segments: int
) -> tuple[int, int]:
    view, row = memoryview(burst_.data), burst_.row
    packed, port, scope = parse_name(name)
    if len(packed) == 4:
        address: tuple[Any, ...] = socket.inet_ntoa(packed), port
    else:
        address = socket.inet_ntop(socket.AF_INET6, packed), port, 0, scope
    for at in range(start, max(len(view), 1), row * segments):
        part = view[at : at + row * segments]
        headers = (*control, segment_message(row)) if len(part) > row else control
        try:
            sock.sendmsg([part], headers, 0, address)
        except OSError as error:
            return at, error.errno or errno.EIO
    return len(view), 0
