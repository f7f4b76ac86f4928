"""Whether an address of ours is still one to send from: the kernel's routes, asked for and followed by rtnetlink.

Synchronous and without a library: the answer is wanted between two datagrams, and pyroute2's synchronous classes refuse
to run inside a loop.
"""

import socket
import struct

from wgdisco.tunnel.burst import OwnAddress
from wgdisco.tunnel.io.netlink import NLM_F_REQUEST, attribute, attributes

# linux/rtnetlink.h, linux/netlink.h
_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_ IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_MARK = 1, 2, 4, 16
_HEADER = struct.Struct("=IHHII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_INT = struct.Struct("=I")
_BUFFER_SIZE = 65536
_TIMEOUT = struct.pack("=qq", 0, 200_000)  # seconds and microseconds: the kernel answers in the call, or not at all


class Routes:
    """Of the network namespace it was opened in. `fd` is readable when something may have changed: call `changed`."""

    def __init__(self) -> None:
        self._monitor = _netlink(_GROUPS)
        self._monitor.setblocking(False)
        self._asking = _netlink(0)
        self._asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        self._sequence = 0

    @property
    def fd(self) -> int:
        """To wait on."""
        return self._monitor.fileno()

    def changed(self) -> bool:
        """Whether addresses or routes changed since the last call."""
        has_changed = False
        while True:
            try:
                self._monitor.recv(_BUFFER_SIZE)
            except BlockingIOError:
                return has_changed
            except OSError:
                pass  # ENOBUFS: there was more than it could hold
            has_changed = True

    def leads_out_by(self, destination: bytes, local: OwnAddress, mark: int = 0) -> bool:
        """Whether what goes to `destination` (4 bytes) from `local` still leaves by the interface `local` has.

        It does not when the address is gone, and when a better route leads elsewhere (rule E3).
        """
        self._sequence += 1
        body = _RTMSG.pack(socket.AF_INET, 32, 32, 0, 0, 0, 0, 0, 0)
        body += attribute(_RTA_DST, destination) + attribute(_RTA_SRC, local.packed)
        if mark:
            body += attribute(_RTA_MARK, _INT.pack(mark))
        header = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, NLM_F_REQUEST, self._sequence, 0)
        try:
            self._asking.send(header + body)
            while True:
                answer = self._asking.recv(_BUFFER_SIZE)
                _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if sequence == self._sequence:
                    break
        except OSError:
            return False
        if kind != _RTM_NEWROUTE:
            return False
        route = dict(attributes(answer[_HEADER.size + _RTMSG.size :]))
        return route.get(_RTA_OIF) == _INT.pack(local.interface)

    def close(self) -> None:
        """Let go of netlink. Again does nothing."""
        self._monitor.close()
        self._asking.close()


def _netlink(groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.bind((0, groups))
    return sock
