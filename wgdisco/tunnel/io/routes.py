"""Whether an address of ours is still one to send from: the kernel's routes, asked for and followed by rtnetlink.

Synchronous and without a library: the answer is wanted between two datagrams, and pyroute2's synchronous classes refuse
to run inside a loop.
"""

import socket
import struct

from wgdisco.tunnel.burst import OwnAddress
from wgdisco.tunnel.io import netlink

# linux/rtnetlink.h, linux/netlink.h
_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_ IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_MARK = 1, 2, 4, 16
_RTMSG = struct.Struct("=BBBBBBBBI")
_INT = struct.Struct("=I")
_BUFFER_SIZE = 65536


class Routes:
    """Of the network namespace it was opened in. `fd` is readable when something may have changed: call `changed`."""

    def __init__(self) -> None:
        self._monitor = netlink.opened(_GROUPS)
        self._monitor.setblocking(False)
        self._asking = netlink.opened()

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
        body = _RTMSG.pack(socket.AF_INET, 32, 32, 0, 0, 0, 0, 0, 0)
        body += netlink.attribute(_RTA_DST, destination) + netlink.attribute(_RTA_SRC, local.packed)
        if mark:
            body += netlink.attribute(_RTA_MARK, _INT.pack(mark))
        try:
            self._asking.send(netlink.message(_RTM_GETROUTE, body))
            kind, answer = next(netlink.messages(self._asking.recv(_BUFFER_SIZE)))
        except OSError:
            return False
        if kind != _RTM_NEWROUTE:
            return False
        return dict(netlink.attributes(answer[_RTMSG.size :])).get(_RTA_OIF) == _INT.pack(local.interface)

    def close(self) -> None:
        """Let go of netlink. Again does nothing."""
        self._monitor.close()
        self._asking.close()
