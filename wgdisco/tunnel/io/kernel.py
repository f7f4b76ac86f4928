"""WireGuard in the kernel: an interface of its own, or one that is there already, set and read by netlink.

Nothing is told when something happens, and every call waits for the kernel (a dump of 5,000 peers takes milliseconds):
not for the event loop's thread.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io import netlink
from wgdisco.tunnel.io.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST
from wgdisco.tunnel.io.wireguard_netlink import StatusReader, get_device, set_device, set_peer

_NETLINK_GENERIC = 16
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 16, 3
_CTRL_FAMILY_ID, _CTRL_FAMILY_NAME = 1, 2
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_GROUP, _IFLA_INFO_KIND = 3, 18, 27, 1
# Of the interfaces that we make, from the moment they are there: a number that nothing else bears (ip link show group)
GROUP = 119
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_GENERIC = struct.Struct("=BBH")
_U32 = struct.Struct("=I")
_RECEIVE_SIZE = 1 << 16
_DUMP_ATTEMPTS = 8


class _InvalidError(LocalError):
    """The kernel does not understand something: it is older."""


class KernelWireGuard:
    """One interface. `is_ours` says whether `close` deletes it; one that was there before is left as it is."""

    renews = False

    def __init__(self, interface: str, index: int, family: int, sock: socket.socket, *, is_ours: bool) -> None:
        self.interface = interface
        self.is_ours = is_ours
        self._index = index
        self._family = family
        self._socket = sock
        self._reader = StatusReader()
        self._one_by_one = True  # until the kernel says that it cannot

    @staticmethod
    def is_there() -> bool:
        """Whether this kernel has WireGuard."""
        with netlink.opened(protocol=_NETLINK_GENERIC) as sock, suppress(LocalError):
            _family_id(sock)  # which loads its module, where there is one
            return True
        return False

    @classmethod
    def attach(cls, interface: str) -> Self:
        """Take the WireGuard interface of that name; LocalError where there is none."""
        if interface not in (name for _, name in socket.if_nameindex()):
            raise LocalError(f"there is no interface {interface}: bring it up first, for example with wg-quick")
        return cls.open(interface)

    @classmethod
    def open(cls, interface: str) -> Self:
        """Make the interface, or take the WireGuard interface of that name; LocalError where neither can be."""
        sock = netlink.opened(protocol=_NETLINK_GENERIC)
        try:
            is_ours = _create_link(interface)
            family = _family_id(sock)
            device = cls(interface, socket.if_nametoindex(interface), family, sock, is_ours=is_ours)
            try:
                device.status()  # EOPNOTSUPP: another kind of interface
            except LocalError:
                device.close()
                raise
            return device
        except BaseException:
            sock.close()
            raise

    def apply(self, config: DeviceConfig) -> None:
        """Make the device as `config` says; sessions of peers that stay are kept."""
        stay = {peer.public_key for peer in config.peers}
        self.change(config, [peer.key for peer in self.status().peers if peer.key not in stay])

    def change(self, config: DeviceConfig, gone: Iterable[PublicKey] = ()) -> None:
        """The same but for peers it does not name, of which those `gone` go."""
        gone = tuple(gone)
        there = {peer.key: peer.allowed_ips for peer in self.status().peers}
        if self._one_by_one:
            try:
                self._send(set_device(self._index, config, gone, there, one_by_one=True))
            except _InvalidError:
                self._one_by_one = False
            else:
                self._one_by_one = self._has_no_more_than(config)
        if not self._one_by_one:
            self._send(set_device(self._index, config, gone, there))

    def _has_no_more_than(self, config: DeviceConfig) -> bool:
        """Whether allowed IPs that were to go are gone: old modules pass over what they do not know."""
        told = {peer.public_key: set(peer.allowed_ips) for peer in config.peers}
        return all(told[peer.key].issuperset(peer.allowed_ips) for peer in self.status().peers if peer.key in told)

    def _send(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self._request(body)

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Endpoint (None: as it is) and keepalive in one step: from 0 to more, a keepalive goes out at once."""
        self._request(set_peer(self._index, key, endpoint, keepalive))

    def status(self) -> DeviceStatus:
        """The device now."""
        offset = boot_time() - time.time()
        for _ in range(_DUMP_ATTEMPTS):
            bodies = self._dump()
            if bodies is not None:
                return self._reader.read(bodies, offset)
        raise LocalError(f"{self.interface} changes faster than it can be read")

    def was_made_by_us(self) -> bool:
        """Whether one like this made the interface, here or in a process that was killed."""
        with netlink.opened() as sock:
            body = _LINK.pack(socket.AF_UNSPEC, 0, self._index, 0, 0)
            number, answer = _ask(sock, netlink.message(_RTM_GETLINK, body, NLM_F_REQUEST | NLM_F_ACK))
        group = dict(netlink.attributes(answer[_LINK.size :])).get(_IFLA_GROUP)
        return not number and group == _U32.pack(GROUP)

    def close(self) -> None:
        """Delete the interface if it was made here. Again does nothing."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        if self.is_ours:
            _change_link(_RTM_DELLINK, NLM_F_ACK, self._index)

    def _dump(self) -> list[bytes] | None:
        """The messages of a dump; None when the device changed meanwhile."""
        self._socket.send(netlink.message(self._family, get_device(self._index), NLM_F_REQUEST | NLM_F_DUMP))
        bodies: list[bytes] = []
        is_whole = True
        while True:
            data = self._socket.recv(_RECEIVE_SIZE)
            is_whole = is_whole and not netlink.was_interrupted(data)
            for kind, body in netlink.messages(data):
                if kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                    self._refuse(_error(body))
                    return bodies if is_whole else None
                bodies.append(body)

    def _request(self, body: bytes) -> None:
        self._refuse(_ask(self._socket, netlink.message(self._family, body, NLM_F_REQUEST | NLM_F_ACK))[0])

    def _refuse(self, number: int) -> None:
        """LocalError for what the kernel says, in words."""
        match number:
            case 0:
                return
            case errno.EPERM:
                raise LocalError(f"no permission to use {self.interface}: run as root, or with CAP_NET_ADMIN")
            case errno.ENODEV:
                raise LocalError(f"{self.interface} is gone")
            case errno.EOPNOTSUPP:
                raise LocalError(f"{self.interface} is no WireGuard interface: give another name with --interface NAME")
            case errno.EINVAL:
                raise _InvalidError(f"{self.interface}: the kernel does not know how to do that")
            case errno.EADDRINUSE:
                raise LocalError(f"{self.interface}: its UDP port is taken; give another ListenPort")
            case _:
                raise LocalError(f"{self.interface}: the kernel refuses it: {os.strerror(number)}")


def _create_link(interface: str) -> bool:
    """Make a WireGuard interface; whether there was none of that name."""
    number = _change_link(_RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 0, interface)
    match number:
        case 0 | errno.EEXIST:
            return number == 0
        case errno.EOPNOTSUPP:
            raise LocalError("this kernel has no WireGuard: use the integrated engine, or `modprobe wireguard`")
        case errno.EPERM:
            raise LocalError(f"no permission to create {interface}: run as root, or with CAP_NET_ADMIN")
        case _:
            raise LocalError(f"cannot create {interface}: {os.strerror(number)}")


def _change_link(kind: int, flags: int, index: int, interface: str = "") -> int:
    """Make or delete a link; the error's number, 0 for none."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    if interface:
        body += netlink.attribute(_IFLA_IFNAME, interface.encode() + b"\0")
        body += netlink.attribute(_IFLA_GROUP, _U32.pack(GROUP))
        body += netlink.attribute(_IFLA_LINKINFO, netlink.attribute(_IFLA_INFO_KIND, b"wireguard"))
    with netlink.opened() as sock:
        return _ask(sock, netlink.message(kind, body, NLM_F_REQUEST | flags))[0]


def _family_id(sock: socket.socket) -> int:
    """The number that generic netlink gave the family `wireguard`; LocalError where there is none."""
    body = _GENERIC.pack(_CTRL_CMD_GETFAMILY, 1, 0) + netlink.attribute(_CTRL_FAMILY_NAME, b"wireguard\0")
    number, answer = _ask(sock, netlink.message(_GENL_ID_CTRL, body, NLM_F_REQUEST | NLM_F_ACK))
    identifier = dict(netlink.attributes(answer[_GENERIC.size :])).get(_CTRL_FAMILY_ID)
    if number or identifier is None:
        raise LocalError("this kernel has no WireGuard: use the integrated engine, or `modprobe wireguard`")
    return int.from_bytes(identifier, "little") if struct.pack("=H", 1)[0] else int.from_bytes(identifier, "big")


def _ask(sock: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Send a request that is acknowledged; the error's number, 0 for none, and what was answered besides."""
    sock.send(request)
    answer = b""
    while True:
        for kind, body in netlink.messages(sock.recv(_RECEIVE_SIZE)):
            if kind == netlink.NLMSG_ERROR:
                return _error(body), answer
            answer = body


def _error(body: bytes) -> int:
    return -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
