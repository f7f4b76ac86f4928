"""Where an event loop waits, packets of sessions that stand go on meanwhile (`tunnel/lanes.py`, `_lanes.c`).

With the reference engine, or without a `LaneSelector` to wait in (`lane_loop.py`), nobody has a lane.
"""

import os
from typing import Any

from wgdisco.tunnel.burst import Burst, Frames, OwnAddress, implementation
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.io.tun import Tun
from wgdisco.tunnel.io.udp import A_CALL, UdpSockets, Way
from wgdisco.tunnel.lanes import Carried, Lane
from wgdisco.tunnel.peer import Peer
from wgdisco.tunnel.session import Session

CompiledCounters: Any
_ffi: Any
_lib: Any
try:
    from wgdisco.tunnel._native import ffi as _ffi
    from wgdisco.tunnel._native import lib as _lib
    from wgdisco.tunnel.compiled import CompiledCounters
except ImportError:
    _ffi = _lib = None
    CompiledCounters = ()

_EVENTS = 64
_OUT = 1 << 18  # of 128 KiB of frames, sealed; of a datagram's 64 KiB, opened
_GROUPS = 256
_ROWS = 2048  # transport data has 32 bytes at least
_MERGE_TCP, _MERGE_UDP = 1, 2


def can_have_lanes() -> bool:
    """Whether keys are made for them."""
    return _lib is not None and implementation() == "compiled"


class Lanes:
    """The lanes of one device's peers, between its interface and its sockets.

    Before each `wait` all of before is to be told (`tell`) and done (`finish`).
    """

    def __init__(self, device: Device, tun: Tun) -> None:
        table = self._table = _ffi.new("burst_table *")
        self._memory = [
            _ffi.new("uint8_t[]", _OUT),
            _ffi.new("uint32_t[]", 4 * _GROUPS),
            _ffi.new("uint32_t[]", 2 * _ROWS),
            _ffi.new("uint32_t[]", _ROWS),
            _ffi.new("uint64_t[]", _ROWS),
            _ffi.new("uint8_t[]", _ROWS),
            _ffi.new("uint8_t[]", _ROWS),
        ]
        table.out, table.groups, table.spans, table.runs, table.counters, table.forged, table.refused = self._memory
        table.out_size, table.max_groups, table.max_rows = _OUT, _GROUPS, _ROWS
        table.tun, table.sockets = tun.fd, [-1, -1]
        table.merge = (_MERGE_TCP if tun.takes_tcp else 0) | (_MERGE_UDP if tun.takes_udp else 0)
        tun.lend(table)
        self._events = _ffi.new("burst_event[]", _EVENTS)
        self._out = memoryview(_ffi.buffer(self._memory[0]))
        self._spans = memoryview(_ffi.buffer(self._memory[2])).cast("I")
        self._device = device
        self._tun = tun
        self._udp: UdpSockets | None = None
        self._given: dict[int, tuple[Any, Peer, Session]] = {}  # by their place in the table
        self._left_by: Peer | None = None
        self._changes = 0
        device.talked()  # from now on

    def use(self, udp: UdpSockets | None) -> None:
        """The sockets are these now; with None no packet takes a lane until there are some."""
        self._udp = udp
        self._table.sockets = [*(() if udp is None else udp.fds), -1, -1][:2]
        if udp is not None:
            udp.lend(self._table)
        self.clear()

    def clear(self) -> None:
        """Something changed that may be about any of them."""
        if self._given:
            _lib.burst_clear_lanes(self._table)
            for _, _, session in self._given.values():
                session.leave_lane()
            self._given.clear()

    def wait(self, epoll: int, milliseconds: int, slept: float) -> list[tuple[int, int]]:
        """As epoll_wait: descriptors and what is with them. See `lane_loop.Carrier`."""
        if self._device.allowed_ips.changes != self._changes:
            self._changes = self._device.allowed_ips.changes
            self.clear()
        self._table.slept = slept
        events = self._events
        count = int(_lib.burst_wait(self._table, epoll, milliseconds, events, _EVENTS))
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        return [(events[i].fd, events[i].events) for i in range(count)]

    @property
    def has_news(self) -> bool:
        """Whether packets went since the last time, or were left."""
        return bool(self._table.used_count or self._table.left)

    def tell(self) -> None:
        """Let the device know what went."""
        table = self._table
        for i in range(table.used_count):
            lane = table.used[i]
            _, peer, session = self._given[lane.index % _lib.BURST_LANES]
            self._device.carried(peer, session, _carried(lane))
            _forget(lane)
        table.used_count = 0
        if table.left & (_lib.LEFT_SEALED | _lib.LEFT_OPENED):
            self._left_by = self._given[table.by.index % _lib.BURST_LANES][1]

    def finish(self, now: float) -> int | None:
        """Do what was left; the socket that has more to read, if one has. Raises InterfaceGoneError."""
        table, left = self._table, self._table.left
        table.left = 0
        peer, self._left_by = self._left_by, None
        if peer is not None and left & _lib.LEFT_SEALED:
            self._send_sealed(peer)
            peer.leave_lane()  # the way there may have to be another
        if peer is not None and left & _lib.LEFT_OPENED:
            self._deliver_opened(peer)
        if left & _lib.LEFT_FRAMES:
            runs = slice(table.frame_run, table.frame_run_count)
            for frames in self._tun.left(table.frame_count, table.frame_first, runs):
                self._device.send(frames, now)
        if left & _lib.LEFT_DATAGRAMS and self._udp is not None:
            for datagrams, source in self._udp.left(table.received_count, table.received_first):
                self._device.receive(datagrams, source, now)
            if table.received_count == A_CALL:
                return int(table.received_fd)
        return None

    def give(self, now: float) -> None:
        """A lane to everybody who talked, where nothing stands against it."""
        indices: dict[Peer, int | None] = {}  # a peer may have talked from and to very many addresses
        for address, peer in self._device.talked().items():
            if peer not in indices:
                lane = peer.lane(now)
                indices[peer] = lane.session.index if lane is not None and self._give(peer, lane, now) else None
            index = indices[peer]
            if index is not None:
                _lib.burst_add_route(self._table, address, len(address), index)

    def _give(self, peer: Peer, lane: Lane, now: float) -> bool:
        sealer, opener, counters = lane.session.parts()
        if not isinstance(counters, CompiledCounters) or peer.endpoint is None or self._udp is None:
            return False
        place = lane.session.index % _lib.BURST_LANES
        native: Any
        native, _, holder = self._given.get(place, (None, None, None))
        if holder is not None and holder is not lane.session:
            if holder.is_on_lane and now < native.until:
                return False  # two of them have the same place: taking it from each other would help neither
            native = None
        way = self._udp.way(peer.endpoint, peer.roaming.local)
        if way is None:
            return False
        native = native or _ffi.new("burst_lane *")
        native.seals, native.opens, native.counters = sealer.native, opener.native, counters.native
        native.until, native.waits = lane.until, lane.waits
        native.index, native.remote, native.mtu = lane.session.index, lane.session.remote_index, self._device.mtu
        _fill(native, way, peer.roaming.local)
        self._given[place] = native, peer, lane.session
        self._table.lanes[place] = native
        counters.lane = 1
        return True

    def _send_sealed(self, peer: Peer) -> None:
        table = self._table
        groups = _ffi.unpack(table.groups, 4 * table.group_count)[4 * table.group_first :]
        if peer.endpoint is None or self._udp is None:
            return
        for start, size, row, tos in zip(groups[::4], groups[1::4], groups[2::4], groups[3::4], strict=True):
            datagrams = Burst(self._out[start : start + size], row, tos, peer.roaming.local)
            self._udp.send(datagrams, peer.endpoint)

    def _deliver_opened(self, peer: Peer) -> None:
        table, first = self._table, self._table.opened_first
        for count in _ffi.unpack(table.runs, table.run_count)[table.run_first :]:
            self._device.deliver(peer, Frames(self._out, self._spans, first, count))
            first += count
        for frames in self._device.packets_to_deliver():  # while they are there
            self._tun.write(frames)


def _fill(native: Any, way: Way, local: OwnAddress | None) -> None:
    native.fd, native.row_bytes = way.fd, way.segments
    native.name_size, native.name = len(way.name), way.name.ljust(28, b"\0")
    packed, native.interface = (b"", 0) if local is None else local
    native.local_size, native.local = len(packed), packed.ljust(16, b"\0")
    for i, control in enumerate(way.control):
        native.control_size[i] = len(control)
        native.control[i] = control.ljust(64, b"\0")


def _carried(lane: Any) -> Carried:
    drops = (
        (Drop.BAD_FRAME, lane.bad_frames),
        (Drop.FORGED, lane.forged),
        (Drop.REPLAYED, lane.replayed),
        (Drop.BAD_INNER_PACKET, lane.bad_packets),
    )
    return Carried(
        lane.tx_bytes,
        lane.rx_bytes,
        lane.sent_at or None,
        lane.received_at or None,
        lane.unanswered_at or None,
        lane.waiting_at or None,
        bool(lane.more_came),
        tuple(drop for drop in drops if drop[1]),
    )


def _forget(lane: Any) -> None:
    lane.tx_bytes = lane.rx_bytes = lane.bad_frames = lane.forged = lane.replayed = lane.bad_packets = 0
    lane.sent_at = lane.received_at = lane.unanswered_at = lane.waiting_at = 0.0
    lane.more_came = lane.used = 0
