"""A TUN interface: packets from the kernel, and packets to it.

Opened without IFF_VNET_HDR for now: a read is one packet. Reads are gathered into bursts all the same, so that what is
above sees the shape that segmentation offload will give it.
"""

import errno
import fcntl
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Self

from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.burst import Burst

TUN_PATH = "/dev/net/tun"

# linux/if_tun.h, linux/if.h
_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_TUNGETDEVNETNS = 0x54E3
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_FORM = 0x0001 | 0x1000 | 0x4000  # what must be as ours is: IFF_TUN, IFF_NO_PI, and no IFF_VNET_HDR
_IFREQ = struct.Struct("16sH22x")

_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
# Path components, and what the kernel keeps for itself under /proc/sys/net
_NO_NAMES = frozenset({".", "..", "all", "default"})
_MAX_PACKET = 65535


class InterfaceGoneError(LocalError):
    """The interface was deleted underneath (rule E8). The file descriptor is of no more use but to be closed."""


class Tun:
    """An open TUN interface. Closing it deletes the interface, unless somebody made it persistent.

    `fd` is non-blocking; when it is readable, call `read_burst`. `dropped` counts packets the kernel did not take, by
    the name of the error: EIO while the interface is down, EINVAL for what is no IP packet.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self.dropped: Counter[str] = Counter()
        # Room for 64 KiB of gathered packets, and behind them for one more of any size.
        self._buffer = memoryview(bytearray(2 * _MAX_PACKET))

    @classmethod
    def open(cls, name: str) -> Self:
        """Create the interface `name`, or attach to a persistent TUN of that name.

        Raises ConfigError for an impossible name; LocalError when there is no TUN driver, no privilege, or the name is
        taken.
        """
        check_name(name)
        try:
            fd = os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError(_open_failure(error)) from error
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
        except OSError as error:
            os.close(fd)
            raise LocalError(_create_failure(error, name)) from error
        return cls(fd, name)

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """An interface that somebody else has opened; LocalError when `fd` is none we can use."""
        try:
            name, flags = _IFREQ.unpack(fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size)))
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        except OSError as error:
            raise LocalError(f"descriptor {fd} is no open TUN interface: {error.strerror}") from error
        if flags & _FORM != _IFF_TUN | _IFF_NO_PI:
            raise LocalError(f"descriptor {fd} is an interface of another form: IFF_TUN and IFF_NO_PI, nothing else")
        return cls(fd, name.rstrip(b"\0").decode())

    def read_burst(self, max_packets: int = 64) -> list[Burst]:
        """What waits to be sent into the tunnel: at most `max_packets` packets and about 64 KiB.

        Consecutive packets to one destination, alike in what their outer headers are made of and of one size but for a
        shorter last one, share a Burst. An empty list when nothing waits. Raises InterfaceGoneError.
        """
        sizes: list[int] = []
        used = 0
        while len(sizes) < max_packets and used <= _MAX_PACKET:
            try:
                size = os.readv(self.fd, [self._buffer[used : used + _MAX_PACKET]])
            except BlockingIOError:
                break
            except OSError as error:
                if sizes:
                    break  # what was read first goes first; the next call fails again
                self._check_gone(error)
                self.dropped[_name_of(error)] += 1
                break
            sizes.append(size)
            used += size
        return gather(self._buffer, sizes)

    def write(self, packets: Iterable[bytes | memoryview]) -> None:
        """Hand packets to the kernel, as if they had arrived on the interface. Raises InterfaceGoneError."""
        for packet in packets:
            try:
                os.write(self.fd, packet)
            except OSError as error:
                self._check_gone(error)
                self.dropped[_name_of(error)] += 1

    def place(self) -> tuple[str, int]:
        """What the interface is called now, and a new descriptor of the network namespace it is in (rule E7).

        Raises InterfaceGoneError.
        """
        try:
            name, _flags = _IFREQ.unpack(fcntl.ioctl(self.fd, _TUNGETIFF, bytes(_IFREQ.size)))
            return name.rstrip(b"\0").decode(), fcntl.ioctl(self.fd, _TUNGETDEVNETNS)
        except OSError as error:
            self._check_gone(error)
            raise

    def close(self) -> None:
        """Close the descriptor, and with it delete the interface. Again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _check_gone(self, error: OSError) -> None:
        if error.errno == errno.EBADFD:
            raise InterfaceGoneError(f"interface {self.name} was deleted") from error
        if error.errno == errno.EBADF:
            raise error  # used after close(): our own bug


def check_name(name: str) -> None:
    """Raise ConfigError unless `name` can be an interface's (the names wg-quick allows, rule Q1)."""
    if not _NAME.fullmatch(name) or name in _NO_NAMES:
        raise ConfigError(f"{name!r} cannot name an interface: use 1 to 15 of the characters a-z A-Z 0-9 _ = + . -")


def gather(buffer: memoryview, sizes: list[int]) -> list[Burst]:
    """Cut packets that lie one behind the other in `buffer` into bursts; each burst owns a copy."""
    bursts: list[Burst] = []
    start = end = row = 0
    like: bytes | None = None
    for size in sizes:
        packet_like = _likeness(buffer[end : end + size])
        # A row shorter than the first one ends its burst; after it the length no longer divides.
        fits = like is not None and packet_like == like and size <= row and (end - start) % row == 0
        if not fits:
            if end > start:
                bursts.append(Burst(bytes(buffer[start:end]), row))
            start, row, like = end, size, packet_like
        end += size
    if end > start:
        bursts.append(Burst(bytes(buffer[start:end]), row))
    return bursts


def _likeness(packet: memoryview) -> bytes | None:
    """Destination, traffic class, protocol and hop limit; None when this is no IP packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return bytes(packet[1:2]) + bytes(packet[8:10]) + bytes(packet[16:20])
    if version == 6 and len(packet) >= 40:
        return bytes((packet[0], packet[1] & 0xF0)) + bytes(packet[6:8]) + bytes(packet[24:40])
    return None


def _open_failure(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"no TUN device: load it with 'modprobe tun', or start the container with '--device {TUN_PATH}' "
            "and '--cap-add NET_ADMIN'"
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"no permission to open {TUN_PATH}: run as root, or let the container have the device"
    return f"cannot open {TUN_PATH}: {error.strerror}"


def _create_failure(error: OSError, name: str) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"no permission to create interface {name}: run as root, or with the capability CAP_NET_ADMIN"
    if error.errno == errno.EBUSY:
        return f"interface {name} is in use by another program"
    if error.errno == errno.ENOTTY:
        return f"{TUN_PATH} is not the TUN device: make it with 'mknod {TUN_PATH} c 10 200'"
    if error.errno == errno.EINVAL:
        return f"interface {name} exists and is no TUN interface: choose another name, or delete it"
    return f"cannot create interface {name}: {error.strerror}"


def _name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown")
