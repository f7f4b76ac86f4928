"""What the core sends on, recorded packet by packet: the proof of which way the traffic went.

`Capture` starts this module as a process in the core. That reads a packet socket and prints a line a packet, until its
standard input closes; the last line says how many packets it lost.
"""

import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.errors import LocalError
from wgdisco.lab.world import Host

UDP = 17
_TCP = 6
# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_PACKET_OUTGOING = 4
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_VNET_HDR = 15
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_VNET_HEADER = struct.Struct("=BBHHHH")
_ETHERNET_SIZE = 14
_SNAP_SIZE = 192
_RECEIVE_BUFFER = 32 << 20


@dataclass(frozen=True, slots=True)
class Packet:
    """One IPv4 packet the core sent on at `at` (boot-time clock, seconds).

    `length` is that of the IP packet in bytes. What the sender left to its card to cut up comes as one packet whose
    `segments` says how many that makes on a wire; `length` is then the whole. `first_byte` is the payload's, None
    where it has none or is not UDP or TCP; ports are then 0.
    """

    at: float
    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int
    destination_port: int
    length: int
    segments: int
    first_byte: int | None

    @classmethod
    def from_text(cls, line: str) -> Self:
        """Parse what `to_text` gives; ValueError otherwise."""
        at, source, destination, *numbers, first_byte = line.split()
        protocol, source_port, destination_port, length, segments = map(int, numbers)
        return cls(
            at=float(at),
            source=_address(source),
            destination=_address(destination),
            protocol=protocol,
            source_port=source_port,
            destination_port=destination_port,
            length=length,
            segments=segments,
            first_byte=None if first_byte == "-" else int(first_byte),
        )

    def to_text(self) -> str:
        """One line of nine words."""
        first_byte = "-" if self.first_byte is None else self.first_byte
        return (
            f"{self.at:.6f} {self.source} {self.destination} {self.protocol} {self.source_port} "
            f"{self.destination_port} {self.length} {self.segments} {first_byte}"
        )

    @property
    def is_udp(self) -> bool:
        """Whether it is a UDP datagram, or part of one."""
        return self.protocol == UDP

    def touches(self, address: IPAddress) -> bool:
        """Whether it comes from or goes to `address`."""
        return address in (self.source, self.destination)


_address = lru_cache(maxsize=1024)(parse_address)


def count(packets: Iterable[Packet]) -> int:
    """How many packets that is on a wire."""
    return sum(packet.segments for packet in packets)


class Capture:
    """A running capture in host `core`; a context manager. `packets` grows as they pass and is whole after `stop`."""

    def __init__(self, core: Host) -> None:
        """Start it; it is recording when this returns. LocalError if the packet socket cannot be had."""
        self.packets: list[Packet] = []
        self.lost = 0
        self._process = core.popen(
            [sys.executable, "-m", "wgdisco.lab.capture"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._process.wait()
            raise LocalError("the capture in the core did not start")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("lost "):
                self.lost = int(line.split()[1])
            else:
                self.packets.append(Packet.from_text(line))

    def direct(self, source: IPAddress, destination: IPAddress, since: float = 0.0) -> list[Packet]:
        """UDP packets from `source` to `destination` sent on at or after `since`."""
        return [
            packet
            for packet in tuple(self.packets)
            if packet.at >= since and packet.is_udp and (packet.source, packet.destination) == (source, destination)
        ]

    def touching(self, address: IPAddress, since: float = 0.0) -> list[Packet]:
        """Packets from or to `address` sent on at or after `since`."""
        return [packet for packet in tuple(self.packets) if packet.at >= since and packet.touches(address)]

    def stop(self) -> None:
        """End it; every packet that passed before is then in `packets`. May be called again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._reader.join()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _open_tap() -> socket.socket:
    """A packet socket in the network namespace of this process."""
    # ETH_P_ALL is the one protocol whose sockets see what a host sends
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.setblocking(False)
    try:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:  # in a user namespace: as much as the system allows
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    tap.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    return tap


def _drain(tap: socket.socket) -> Iterator[Packet]:
    """The IPv4 packets sent on that wait in `tap` now."""
    while True:
        try:
            data, ancillary, _, sender = tap.recvmsg(_SNAP_SIZE, 64)
        except BlockingIOError:
            return
        _, protocol, packet_type, *_ = sender
        if packet_type == _PACKET_OUTGOING and protocol == _ETH_P_IP:
            yield _dissect(data, _sent_at(ancillary))


def _sent_at(ancillary: list[tuple[int, int, bytes]]) -> float:
    """The kernel's timestamp, moved from the wall clock to the boot-time clock."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for _, kind, value in ancillary:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("=qq", value)
            now -= max(0, time.time_ns() - (seconds * 1_000_000_000 + nanoseconds))
    return now / 1e9


def _dissect(data: bytes, at: float) -> Packet:
    """`data` begins with a virtio_net_hdr and an Ethernet header, and may be cut short behind the transport header."""
    _, _, headers_size, segment_size, _, _ = _VNET_HEADER.unpack_from(data)
    ip = data[_VNET_HEADER.size + _ETHERNET_SIZE :]
    length = int.from_bytes(ip[2:4])
    body = ip[(ip[0] & 15) * 4 : length]
    source_port = destination_port = 0
    first_byte = None
    is_fragment = int.from_bytes(ip[6:8]) & 0x1FFF != 0
    if ip[9] in (_TCP, UDP) and not is_fragment:
        source_port, destination_port = struct.unpack_from("!HH", body)
        first_byte = next(iter(body[8 if ip[9] == UDP else (body[12] >> 4) * 4 :]), None)
    return Packet(
        at=at,
        source=IPv4Address(ip[12:16]),
        destination=IPv4Address(ip[16:20]),
        protocol=ip[9],
        source_port=source_port,
        destination_port=destination_port,
        length=length,
        segments=-(-(length - headers_size + _ETHERNET_SIZE) // segment_size) if segment_size else 1,
        first_byte=first_byte,
    )


def main() -> None:
    """Record until standard input closes, and then what still waits."""
    tap = _open_tap()
    sys.stdout.write("recording\n")
    sys.stdout.flush()
    ends = False
    while not ends:
        ready, _, _ = select.select([tap, sys.stdin], [], [])
        ends = sys.stdin in ready
        for packet in _drain(tap):
            sys.stdout.write(packet.to_text() + "\n")
        sys.stdout.flush()
    _, lost = struct.unpack("=II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    sys.stdout.write(f"lost {lost}\n")


if __name__ == "__main__":
    main()
