"""The interface's MTU, whether it is up, and MTUs of routes into it, as they change: wherever it was moved to.

Our sockets stay where we were started (rule E7), so netlink is asked from there. A socket or a descriptor over there
would keep that namespace alive after everybody else has left it; instead, what happens there is told to us by the
number it has here (NETLINK_LISTEN_ALL_NSID; rtnetlink(7), ip-netns(8) "set"). The TUN descriptor says where that is.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from types import TracebackType
from typing import Self

from wgdisco.endpoint import IPNetwork
from wgdisco.errors import LocalError
from wgdisco.tunnel.io import netlink
from wgdisco.tunnel.io.tun import InterfaceGoneError, Tun

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h, linux/if.h: the socket module names none
_SOL_NETLINK = 270
_NETLINK_LISTEN_ALL_NSID = 8
_RTMGRP_LINK, _RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 1, 0x40, 0x400
_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_IFLA_IFNAME, _IFLA_MTU, _IFLA_TARGET_NETNSID = 3, 4, 46
_RTA_DST, _RTA_OIF, _RTA_METRICS, _RTAX_MTU = 1, 4, 8, 2
_NETNSA_NSID, _NETNSA_FD = 1, 3
_IFF_UP = 1
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ROUTE = struct.Struct("=BB10x")  # family, prefix length, and what is of no interest
_INT = struct.Struct("=i")
_RTGENMSG = bytes(4)  # family, and its padding
_ANCILLARY_SIZE = socket.CMSG_SPACE(_INT.size)
_BUFFER_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class LinkState:
    """The link changed, was renamed or moved; `mtu` in bytes."""

    name: str
    mtu: int
    up: bool


@dataclass(frozen=True, slots=True)
class RouteMtu:
    """A route into the link has an MTU of its own, in bytes, or has none any more. All go when the link goes down."""

    network: IPNetwork
    mtu: int | None


@dataclass(frozen=True, slots=True)
class LinkGone:
    """The link was deleted."""


LinkEvent = LinkState | RouteMtu | LinkGone


async def watch(tun: Tun, tell: Callable[[LinkEvent], None]) -> None:
    """Tell what happens to the link from now on, beginning with its state now; returns after LinkGone.

    In the loop's turn in which it is known, so that packets of after a change are not handled as before it. Raises
    LocalError when the link was moved to where we may not look.
    """
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    last: LinkState | LinkGone | None = None
    monitor = _Monitor(tun)

    def note(event: LinkEvent) -> None:
        nonlocal last
        if event == last or gone.done():
            return
        if not isinstance(event, RouteMtu):
            last = event
        tell(event)
        if isinstance(event, LinkGone):
            gone.set_result(None)

    def readable() -> None:
        try:
            for event in monitor.events():
                note(event)
        except LocalError as error:
            loop.remove_reader(monitor.told)
            gone.set_exception(error)

    with monitor:
        note(monitor.look())
        loop.add_reader(monitor.told, readable)
        try:
            await gone
        finally:
            loop.remove_reader(monitor.told)


class _Monitor:
    """Two netlink sockets of our own namespace: one is `told` of changes, the other asks."""

    def __init__(self, tun: Tun) -> None:
        self._tun = tun
        self._place: tuple[int | None, int] | None = (
            None  # the namespace's number here, None for ours; the link's index
        )
        self._routes: dict[IPNetwork, int] = {}
        self.told = netlink.opened(_RTMGRP_LINK | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE)
        self.told.setblocking(False)
        self._asking = netlink.opened()
        with suppress(PermissionError):  # without CAP_NET_BROADCAST we hear of our own namespace alone
            self.told.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.told.close()
        self._asking.close()

    def look(self) -> LinkState | LinkGone:
        """Where the link is, and its state."""
        for _ in range(3):  # it may move meanwhile
            try:
                name, namespace = self._tun.place()
            except InterfaceGoneError:
                return LinkGone()
            try:
                number = None if is_ours(namespace) else self._number(namespace)
                target = b"" if number is None else netlink.attribute(_IFLA_TARGET_NETNSID, _INT.pack(number))
                wanted = netlink.attribute(_IFLA_IFNAME, name.encode() + b"\0")
                link = self._ask(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + wanted + target)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise LocalError(f"cannot follow interface {name} to where it is now: {error.strerror}") from error
            else:
                self._place = (number, _index(link))
                return _state(link)
            finally:
                os.close(namespace)
        return LinkGone()

    def events(self) -> list[LinkEvent]:
        """What of the next that netlink has told concerns our link."""
        events: list[LinkEvent] = []
        try:
            data, ancillary, _flags, _address = self.told.recvmsg(_BUFFER_SIZE, _ANCILLARY_SIZE)
        except BlockingIOError:
            return []
        except OSError:  # ENOBUFS: more than we could be told
            return [self.look()]
        number = next((_INT.unpack(value)[0] for _level, _kind, value in ancillary), None)
        for kind, body in netlink.messages(data):
            if kind in (_RTM_NEWLINK, _RTM_DELLINK) and (number, _index(body)) == self._place:
                state = _state(body) if kind == _RTM_NEWLINK else self.look()
                if not (isinstance(state, LinkState) and state.up):
                    self._routes.clear()  # the kernel does not say so of each
                events.append(state)
            elif kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
                index, network, mtu = _route(body)
                if (number, index) == self._place:
                    events.extend(self._changed(network, mtu if kind == _RTM_NEWROUTE else None))
        return events

    def _changed(self, network: IPNetwork, mtu: int | None) -> list[RouteMtu]:
        """Nothing about a route that never had an MTU of its own."""
        if self._routes.get(network) == mtu:
            return []
        if mtu is None:
            del self._routes[network]
        else:
            self._routes[network] = mtu
        return [RouteMtu(network, mtu)]

    def _number(self, namespace: int) -> int:
        """What a namespace is called in ours; it gets a number when it has none."""
        which = _RTGENMSG + netlink.attribute(_NETNSA_FD, _INT.pack(namespace))
        with suppress(FileExistsError):
            self._ask(_RTM_NEWNSID, which + netlink.attribute(_NETNSA_NSID, _INT.pack(-1)))
        answer = self._ask(_RTM_GETNSID, which)
        return int(_INT.unpack(dict(netlink.attributes(answer[len(_RTGENMSG) :]))[_NETNSA_NSID])[0])

    def _ask(self, kind: int, body: bytes) -> bytes:
        """The body of the answer, empty for a mere yes; OSError for a no."""
        flags = netlink.NLM_F_REQUEST if kind != _RTM_NEWNSID else netlink.NLM_F_REQUEST | 4  # NLM_F_ACK
        self._asking.sendto(netlink.message(kind, body, flags), (0, 0))
        answered, answer = next(netlink.messages(self._asking.recv(_BUFFER_SIZE)))
        if answered != _NLMSG_ERROR:
            return answer
        number = -_INT.unpack_from(answer)[0]
        if number:
            raise OSError(number, os.strerror(number))
        return b""


def is_ours(namespace: int) -> bool:
    """Whether an open network namespace is the one of this process."""
    theirs, ours = os.stat(namespace), os.stat("/proc/self/ns/net")
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _route(body: bytes) -> tuple[int | None, IPNetwork, int | None]:
    """The index of the link a route leads into, where it goes, and its MTU; a default route carries no address."""
    family, prefix = _ROUTE.unpack_from(body)
    attributes = dict(netlink.attributes(body[_ROUTE.size :]))
    metrics = dict(netlink.attributes(attributes.get(_RTA_METRICS, b"")))
    index, mtu = attributes.get(_RTA_OIF), metrics.get(_RTAX_MTU)
    address = attributes.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16))
    return (
        None if index is None else _INT.unpack(index)[0],
        ip_network((address, prefix)),
        None if mtu is None else _INT.unpack(mtu)[0],
    )


def _index(link: bytes) -> int:
    return int(_LINK.unpack_from(link)[2])


def _state(link: bytes) -> LinkState:
    """From the body of an RTM_NEWLINK."""
    attributes = dict(netlink.attributes(link[_LINK.size :]))
    flags = _LINK.unpack_from(link)[3]
    name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")
    return LinkState(name, int(_INT.unpack(attributes[_IFLA_MTU])[0]), bool(flags & _IFF_UP))
