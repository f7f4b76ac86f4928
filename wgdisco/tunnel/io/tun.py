"""A TUN interface: packets from the kernel, and packets to it.

Opened with IFF_VNET_HDR: a read or write is a frame, a virtio header and a packet, which may stand for many of TCP or
UDP where the kernel offers that (TSO, USO).
"""

import errno
import fcntl
import logging
import os
import re
import struct
from collections import Counter
from typing import Any, Self

from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.frames import MAX_PACKET, Frames
from wgdisco.tunnel.io.syscalls import FrameReader, write_frames
from wgdisco.tunnel.offloads import ALL, Offloads
from wgdisco.tunnel.segment import split

LOG = logging.getLogger(__name__)

TUN_PATH = "/dev/net/tun"

# linux/if_tun.h, linux/if.h
_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_TUNGETDEVNETNS = 0x54E3
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_TUNSETOFFLOAD = 0x400454D0
_IFF_VNET_HDR = 0x4000
_CSUM, _TSO, _USO = 0x01, 0x02 | 0x04, 0x20 | 0x40  # of both families
_IFREQ = struct.Struct("16sH22x")

_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
# Path components, and what the kernel keeps for itself under /proc/sys/net
_NO_NAMES = frozenset({".", "..", "all", "default"})
_PLAIN_READS = 64


class InterfaceGoneError(LocalError):
    """The interface was deleted underneath (rule E8). The file descriptor is of no more use but to be closed."""


class Tun:
    """An open TUN interface. Closing it deletes the interface, unless somebody made it persistent.

    `fd` is non-blocking; when it is readable, call `read`. `takes_tcp` and `takes_udp` say of what it takes large
    frames. `dropped` counts frames the kernel did not take, by the name of the error: EIO while the interface is down,
    EINVAL for what is no IP packet.
    """

    def __init__(self, fd: int, name: str, offloads: Offloads, *, has_headers: bool = True) -> None:
        self.fd = fd
        self.name = name
        self.dropped: Counter[str] = Counter()
        self._has_headers = has_headers
        self._reader = FrameReader()
        self.takes_tcp = has_headers and offloads.tso and self._offload(_CSUM | _TSO)
        self.takes_udp = self.takes_tcp and offloads.uso and self._offload(_CSUM | _TSO | _USO)

    @classmethod
    def open(cls, name: str, offloads: Offloads = ALL) -> Self:
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
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        except OSError as error:
            os.close(fd)
            raise LocalError(_create_failure(error, name)) from error
        return cls(fd, name, offloads)

    @classmethod
    def adopt(cls, fd: int, offloads: Offloads = ALL) -> Self:
        """An interface that somebody else has opened; LocalError when `fd` is none we can use."""
        try:
            name, flags = _IFREQ.unpack(fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size)))
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        except OSError as error:
            raise LocalError(f"descriptor {fd} is no open TUN interface: {error.strerror}") from error
        if flags & (_IFF_TUN | _IFF_NO_PI) != _IFF_TUN | _IFF_NO_PI:
            raise LocalError(f"descriptor {fd} is an interface of another form: it takes IFF_TUN and IFF_NO_PI")
        return cls(fd, name.rstrip(b"\0").decode(), offloads, has_headers=bool(flags & _IFF_VNET_HDR))

    def read(self) -> list[Frames]:
        """Some of what waits to be sent into the tunnel, frames together that are alike in their outer headers.

        They are good until the next call. Raises InterfaceGoneError.
        """
        try:
            return self._reader.read(self.fd) if self._has_headers else self._read_plain()
        except OSError as error:
            self._drop(error)
            return []

    def lend(self, table: Any) -> None:
        """Let packets that take lanes be read with the same memory (`io/lanes.py`)."""
        self._reader.lend(table)

    def left(self, count: int, first: int, runs: slice) -> list[Frames]:
        """Of `count` frames so read, or -errno, those from `first` on, which begins the first of these runs.

        Raises InterfaceGoneError.
        """
        if count < 0:
            self._drop(OSError(-count, os.strerror(-count)))
            return []
        return self._reader.left(first, runs)

    @property
    def has_headers(self) -> bool:
        """Whether frames come with virtio headers."""
        return self._has_headers

    def write(self, frames: Frames) -> None:
        """Hand frames to the kernel, as if they had arrived on the interface. Raises InterfaceGoneError."""
        if not self._has_headers:
            self._write_plain(frames)
            return
        for frame, error in write_frames(self.fd, frames):
            if error.errno == errno.EINVAL and frame[1]:
                # Some kernels refuse a large frame whose last segment is short: they get its packets one by one.
                self.dropped["apart"] += 1
                if self.dropped["apart"] == 1:
                    LOG.warning("%s: the kernel refuses a large packet: they go one by one, which is slower", self.name)
                for _, failure in write_frames(self.fd, Frames.of(*split(bytes(frame)) or ())):
                    self._drop(failure)
            else:
                self._drop(error)

    def _read_plain(self) -> list[Frames]:
        """As read, of an interface without virtio headers."""
        packets: list[Frames] = []
        while len(packets) < _PLAIN_READS:
            try:
                packets.append(Frames.of(os.read(self.fd, MAX_PACKET)))
            except BlockingIOError:
                break
            except OSError:
                if packets:
                    break  # what was read first goes first; the next call fails again
                raise
        return packets

    def _write_plain(self, frames: Frames) -> None:
        for packet in frames.packets():
            try:
                os.write(self.fd, packet)
            except OSError as error:
                self._drop(error)

    def place(self) -> tuple[str, int]:
        """What the interface is called now, and a new descriptor of the network namespace it is in (rule E7).

        Who may not ask that, without CAP_NET_ADMIN, is told the one of this process. Raises InterfaceGoneError.
        """
        try:
            name, _flags = _IFREQ.unpack(fcntl.ioctl(self.fd, _TUNGETIFF, bytes(_IFREQ.size)))
            try:
                namespace = fcntl.ioctl(self.fd, _TUNGETDEVNETNS)
            except PermissionError:
                namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._check_gone(error)
            raise
        return name.rstrip(b"\0").decode(), namespace

    def close(self) -> None:
        """Close the descriptor, and with it delete the interface. Again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _offload(self, what: int) -> bool:
        """Ask for it; whether the kernel has it (USO came with 6.2)."""
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, what)
        except OSError:
            return False
        return True

    def _drop(self, error: OSError) -> None:
        """Count it, unless it says that the interface is gone."""
        self._check_gone(error)
        self.dropped[errno.errorcode.get(error.errno or 0, "unknown")] += 1

    def _check_gone(self, error: OSError) -> None:
        if error.errno == errno.EBADFD:
            raise InterfaceGoneError(f"interface {self.name} was deleted") from error
        if error.errno == errno.EBADF:
            raise error  # used after close(): our own bug


def check_name(name: str) -> None:
    """Raise ConfigError unless `name` can be an interface's (the names wg-quick allows, rule Q1)."""
    if not _NAME.fullmatch(name) or name in _NO_NAMES:
        raise ConfigError(f"{name!r} cannot name an interface: use 1 to 15 of the characters a-z A-Z 0-9 _ = + . -")


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
        return (
            f"no permission to create interface {name}: run as root, or with the capability CAP_NET_ADMIN"
            " (a container: '--cap-add NET_ADMIN')"
        )
    if error.errno == errno.EBUSY:
        return f"interface {name} is in use by another program"
    if error.errno == errno.ENOTTY:
        return f"{TUN_PATH} is not the TUN device: make it with 'mknod {TUN_PATH} c 10 200'"
    if error.errno == errno.EINVAL:
        return f"interface {name} exists and is no TUN interface: choose another name, or delete it"
    return f"cannot create interface {name}: {error.strerror}"
