"""How many packets a large frame may stand for: as many as leave in one send.

The kernel makes frames of up to 64 KiB. Sealed that is more than a datagram may have in all, so that of each a few
packets would be left for a second send, a second receive at the other end, and a second write.
"""

import os
import socket
import struct
from contextlib import suppress

from wgdisco.tunnel.io import netlink
from wgdisco.tunnel.io.link_state import is_ours
from wgdisco.tunnel.io.tun import InterfaceGoneError, Tun
from wgdisco.tunnel.messages import MINIMUM_TRANSPORT_SIZE

MAX_SEGMENTS = 64  # what every kernel with UDP_SEGMENT takes
MAX_PAYLOAD4, MAX_PAYLOAD6 = 65507, 65527  # bytes of UDP

# linux/rtnetlink.h, linux/if_link.h
_RTM_SETLINK = 19
_IFLA_GSO_MAX_SEGS = 40
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_U32 = struct.Struct("=I")


def most_segments(mtu: int) -> int:
    """How many packets of `mtu` bytes, sealed, one send takes over either family."""
    return max(1, min(MAX_SEGMENTS, MAX_PAYLOAD4 // (mtu + MINIMUM_TRANSPORT_SIZE)))


def limit_segments(tun: Tun, mtu: int) -> None:
    """Ask the kernel for frames of no more packets than one send takes. It need not: what is refused costs but speed.

    So is it of an interface that was moved to another network namespace, where we may not look.
    """
    with suppress(OSError, InterfaceGoneError):
        name, namespace = tun.place()
        try:
            if not is_ours(namespace):
                return
        finally:
            os.close(namespace)
        body = _LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(name), 0, 0)
        body += netlink.attribute(_IFLA_GSO_MAX_SEGS, _U32.pack(most_segments(mtu)))
        with netlink.opened() as asking:
            asking.send(netlink.message(_RTM_SETLINK, body))
