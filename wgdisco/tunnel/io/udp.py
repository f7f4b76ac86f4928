"""The device's UDP sockets: one for IPv4 and one for IPv6 on the same port, in bursts where the kernel can.

Receiving, UDP_GRO lets one call return many datagrams of one source, of equal size but for the last (rule S8); sending,
UDP_SEGMENT takes as many (rule S6). Neither is needed: a kernel, device or path that refuses gets plain datagrams.

A datagram leaves from the address its burst names, for as long as the way there leads out where it led in (rule E3).

Sending never raises for what the network or a remote address does: such datagrams are dropped and counted.
"""

import errno
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.errors import LocalError
from wgdisco.tunnel.burst import Burst, OwnAddress
from wgdisco.tunnel.ecn import ECT_0, ECT_1, NOT_ECT
from wgdisco.tunnel.io.ancillary import (
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    Ancillary,
    ancillary_for,
    ttl_message,
)
from wgdisco.tunnel.io.port import bind
from wgdisco.tunnel.io.routes import Routes
from wgdisco.tunnel.io.syscalls import DatagramReceiver, name_of, pack_control, parse_name, send_datagrams

LOG = logging.getLogger(__name__)

_MARK = struct.Struct("=I")

_MAX_SEGMENTS = 64  # what every kernel with UDP_SEGMENT takes
A_CALL = 8  # bursts that one `receive` returns at most
_MAX_PAYLOAD = {socket.AF_INET: 65507, socket.AF_INET6: 65527}
_CACHE_SIZE = 1024
# What sending from an address says that is not ours any more
_NO_SUCH_SOURCE = frozenset({errno.EINVAL, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH})
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.EINVAL})
# Ordinary where a peer is tried at an address of the other family, or the network is not there yet
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})


@dataclass(slots=True)
class _Family:
    """One family's socket, and what was learnt about it. `gso` goes off for good at the first EIO (rule S7)."""

    socket: socket.socket
    number: int
    max_payload: int
    gso: bool


@dataclass(slots=True)
class _Way:
    """How to get to an endpoint: by which socket, its socket address, and from which address of ours.

    That is the one that was `asked` for, if it may be used.
    """

    family: _Family
    endpoint: Endpoint
    name: bytes
    asked: OwnAddress | None
    local: OwnAddress | None


@dataclass(frozen=True, slots=True)
class Way:
    """How datagrams get to an endpoint: by which descriptor, to which socket address, with which control messages.

    Those are by the ECN field, of `NOT_ECT`, `ECT_1` and `ECT_0`. In one call go at most `segments` bytes of
    datagrams, where not 0: then they go one by one.
    """

    fd: int
    name: bytes
    control: list[bytes]
    segments: int


class UdpSockets:
    """Both sockets. `fds` are what to wait on, and change with `rebind`; `dropped` counts by the error's name."""

    def __init__(self, port: int, fwmark: int, *, udp_gso: bool, udp_gro: bool) -> None:
        self._udp_gso = udp_gso
        self._udp_gro = udp_gro
        self.fwmark = 0
        self.dropped: Counter[str] = Counter()
        self._receiver = DatagramReceiver()
        self._endpoints: dict[bytes, Endpoint] = {}
        self._names: dict[Endpoint, bytes] = {}
        self._plain_only: set[Endpoint] = set()
        self._control: dict[tuple[int, OwnAddress | None, int, int], tuple[Ancillary, bytes]] = {}
        self._usable: dict[tuple[Endpoint, OwnAddress], bool] = {}
        # The way last gone, for as long as what it was found by stands: finding one hashes addresses, which is Python
        self._latest: _Way | None = None
        self._families: dict[int, _Family] = {}
        self.port = 0
        sockets = bind(port)
        self._routes = Routes()
        self._use(sockets)
        try:
            self.set_fwmark(fwmark)
        except LocalError:
            self.close()
            raise

    @classmethod
    def open(cls, port: int = 0, fwmark: int = 0, *, udp_gso: bool = True, udp_gro: bool = True) -> "UdpSockets":
        """Bind both families to `port` on every address; 0 takes a free one. Without IPv6, IPv4 alone (rule E2).

        Raises LocalError when the port is taken, saying by whom, and when `fwmark` is not permitted.
        """
        return cls(port, fwmark, udp_gso=udp_gso, udp_gro=udp_gro)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors, non-blocking; each is readable when `receive(fd)` has something."""
        return tuple(family.socket.fileno() for family in self._families.values())

    @property
    def routes_fd(self) -> int:
        """To wait on: when it is readable, call `routes_changed`."""
        return self._routes.fd

    def routes_changed(self) -> None:
        """Find out anew what addresses of ours may be sent from, how large a path is, and which zone is where."""
        if self._routes.changed():
            self._latest = None
            self._usable.clear()
            self._plain_only.clear()
            self._endpoints.clear()
            for endpoint in [endpoint for endpoint in self._names if endpoint.address.is_link_local]:
                del self._names[endpoint]

    def receive(self, fd: int) -> list[tuple[Burst, Endpoint]]:
        """Some of what arrived on `fd`, in order: bursts, each of one source, that are good until the next call.

        There may be more unless the list is shorter than A_CALL.
        """
        for family in self._families.values():
            if family.socket.fileno() == fd:
                break
        else:
            return []  # the descriptor of before a rebind
        try:
            arrived = self._receiver.receive(family.socket)
        except OSError as error:
            self._drop(error.errno)
            return []
        return self._with_sources(arrived)

    def send(self, burst: Burst, endpoint: Endpoint) -> None:
        """Send every row as a datagram to `endpoint`, in order; what cannot be sent is dropped and counted."""
        way = self._way(endpoint, burst.local)
        if way is not None:
            self._send(way, burst, self._segments(way, burst))

    def way(self, endpoint: Endpoint, local: OwnAddress | None) -> Way | None:
        """How `send` would send there from `local`; None where it would drop it, and that is counted.

        None too where it would be the first time: then nobody looks whether `local` will do, as is done from then on.
        """
        way = self._way(endpoint, local)
        if way is None or way is not self._latest:
            return None
        is_plain = not way.family.gso or endpoint in self._plain_only
        control = [self._control_of(way, Burst(b"", 1, ecn))[1] for ecn in (NOT_ECT, ECT_1, ECT_0)]
        return Way(way.family.socket.fileno(), way.name, control, 0 if is_plain else way.family.max_payload)

    def lend(self, table: Any) -> None:
        """Let packets that take lanes be received with the same memory (`io/lanes.py`)."""
        self._receiver.lend(table)

    def left(self, count: int, first: int) -> list[tuple[Burst, Endpoint]]:
        """Of `count` bursts so received, or -errno, those from `first` on, as `receive`."""
        if count < 0:
            self._drop(-count)
            return []
        return self._with_sources(self._receiver.left(first, count))

    def _with_sources(self, arrived: Iterable[tuple[Burst, bytes]]) -> list[tuple[Burst, Endpoint]]:
        received: list[tuple[Burst, Endpoint]] = []
        for burst, name in arrived:
            source = self._endpoints.get(name) or self._endpoint(name)
            if source is None or not burst.row:
                self.dropped["empty" if source is not None else "port 0"] += 1
            else:
                received.append((burst, source))
        return received

    def _segments(self, way: _Way, burst: Burst) -> int:
        """How many rows a call may take."""
        if len(burst.data) <= burst.row or not way.family.gso or way.endpoint in self._plain_only:
            return 1
        return min(_MAX_SEGMENTS, way.family.max_payload // burst.row) or 1

    def _send(self, way: _Way, burst: Burst, segments: int, at: int = 0) -> None:
        """Send rows from byte `at` on, `segments` a call; what the kernel says decides how to go on."""
        size, row, is_suspect = len(burst.data), burst.row, False
        while True:
            messages, packed = self._control_of(way, burst)
            at, number = send_datagrams(way.family.socket, way.name, messages, packed, burst, at, segments)
            if not number:
                if is_suspect:
                    self._avoid_segments(way.endpoint)
                return
            if segments > 1 and (number in _TOO_LARGE or (way.local and number in _NO_SUCH_SOURCE)):
                segments, is_suspect = 1, True  # one by one tells which it is
            elif segments > 1 and number == errno.EIO:
                way.family.gso, segments = False, 1  # a device that cannot do the checksums
                LOG.warning("the way out cannot segment UDP: datagrams are sent one by one, which is slower")
            elif way.local and number in _NO_SUCH_SOURCE:
                self._remember(way.endpoint, way.local, False)
                way.local, segments, is_suspect = None, self._segments(way, burst), False
            else:
                self._drop(number)
                at += row * segments
                if at >= size:
                    return

    def _avoid_segments(self, endpoint: Endpoint) -> None:
        """Its path takes less than a row: plain datagrams are fragmented, segments never are (rule D14)."""
        if len(self._plain_only) >= _CACHE_SIZE:
            self._plain_only.clear()
        self._plain_only.add(endpoint)
        LOG.info("datagrams to %s go one by one, in fragments: a smaller MTU is faster", endpoint)

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """Send one datagram, with its own IP TTL (or IPv6 hop limit) when `ttl`, 1 to 255, is given."""
        way = self._way(endpoint, None)
        if way is None:
            return
        family = way.family.socket.family
        messages = () if ttl is None else (ttl_message(ttl, family),)
        _, number = send_datagrams(
            way.family.socket, way.name, messages, pack_control(messages), Burst(data, len(data) or 1), 0, 1
        )
        if number:
            self._drop(number)

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent from now on (rule E4); LocalError when refused. No change asks for no privilege (U12)."""
        if mark == self.fwmark:
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:  # is asked while there are no others
                for sock in [family.socket for family in self._families.values()] or [unbound]:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(mark))
        except PermissionError as error:
            raise LocalError("setting FwMark needs root or the capability CAP_NET_ADMIN") from error
        self.fwmark = mark
        self._latest = None
        self._usable.clear()

    def rebind(self, port: int) -> None:
        """Move to `port` (0: any free one), with the same mark; `fds` are new afterwards.

        The present port is closed and bound anew. Raises LocalError when `port` is taken; the old sockets are then
        still there, unless they had that port. It does not say by whom: packets wait while that is found out.
        Raises it too when the right to mark was lost meanwhile; then there are no sockets, as after `unbind`: what is
        not marked may go into the tunnel it comes from.
        """
        if port == self.port:
            self.unbind()
        sockets = bind(port, owner_of=lambda _port: None)
        self.unbind()
        self._use(sockets)
        mark, self.fwmark = self.fwmark, 0
        try:
            self.set_fwmark(mark)
        except LocalError as error:
            self.unbind()
            raise LocalError(f"UDP port {self.port} is closed, for its datagrams cannot be marked: {error}") from error
        finally:
            self.fwmark = mark

    def close(self) -> None:
        """Close both sockets, for good. Again does nothing."""
        self.unbind()
        self._routes.close()

    def unbind(self) -> None:
        """Close both sockets until `rebind`; `port` stays."""
        for family in self._families.values():
            family.socket.close()
        self._families.clear()
        self._latest = None

    def _use(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            gso = self._udp_gso
            if self._udp_gro:
                with suppress(OSError):  # a kernel without it: every datagram comes alone
                    sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            if gso:
                try:
                    sock.getsockopt(SOL_UDP, UDP_SEGMENT)
                except OSError:
                    gso = False
            self._families[sock.family] = _Family(sock, int(sock.family), _MAX_PAYLOAD[sock.family], gso)
        self.port = sockets[0].getsockname()[1]
        self._plain_only.clear()
        self._names.clear()

    def _drop(self, number: int | None) -> None:
        if number == errno.EBADF:
            raise OSError(number, os.strerror(number))  # used after close(): our own bug
        name = errno.errorcode.get(number or 0, "unknown")
        self.dropped[name] += 1
        if self.dropped[name] == 1:  # said once; who wants to know whether it lasts looks at the counter
            level = logging.INFO if number in _NO_WAY else logging.WARNING
            because = ": a firewall of this host forbids it" if number == errno.EPERM else ""
            LOG.log(level, "a datagram was dropped: %s%s", os.strerror(number or 0), because)

    # Addresses

    def _way(self, endpoint: Endpoint, local: OwnAddress | None) -> _Way | None:
        """How to get to `endpoint`; None, and counted, if there is no way."""
        latest = self._latest
        if latest is not None and latest.endpoint is endpoint and latest.asked is local:
            return latest
        family = self._families.get(socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6)
        if family is None:
            self.dropped["no IPv6" if self._families else "closed"] += 1
            return None
        name = self._names.get(endpoint)
        is_new = name is None
        if name is None:
            if len(self._names) >= _CACHE_SIZE:
                self._names.clear()
            try:
                name = self._names[endpoint] = name_of(_socket_address(endpoint))
            except OSError:
                self.dropped["no such zone"] += 1
                return None
        # Whoever is answered for the first time is so from where it wrote to. Asking the routes is dear, and in a flood
        # every source is new.
        is_usable = local is not None and (is_new or self._is_usable(endpoint, local))
        way = _Way(family, endpoint, name, local, local if is_usable else None)
        if not is_new:
            self._latest = way
        return way

    def _is_usable(self, endpoint: Endpoint, local: OwnAddress) -> bool:
        """Whether to leave from `local`. Of IPv6, as the kernel, only that it is ours: sending tells."""
        usable = self._usable.get((endpoint, local))
        if usable is None:
            packed = endpoint.address.packed
            usable = len(packed) == len(local.packed) and (
                len(packed) == 16 or self._routes.leads_out_by(packed, local, self.fwmark)
            )
            self._remember(endpoint, local, usable)
        return usable

    def _remember(self, endpoint: Endpoint, local: OwnAddress, usable: bool) -> None:
        if len(self._usable) >= _CACHE_SIZE:
            self._usable.clear()
        self._usable[endpoint, local] = usable

    def _control_of(self, way: _Way, burst: Burst) -> tuple[Ancillary, bytes]:
        """What the datagrams' IP headers are to say, as control messages; the same packed."""
        key = burst.tos, way.local, burst.hops, way.family.number
        control = self._control.get(key)
        if control is None:
            if len(self._control) >= _CACHE_SIZE:
                self._control.clear()
            messages = ancillary_for(*key)
            control = self._control[key] = messages, pack_control(messages)
        return control

    def _endpoint(self, name: bytes) -> Endpoint | None:
        """The endpoint of a socket address; None for port 0."""
        packed, port, scope = parse_name(name)
        if port == 0:
            return None
        if scope:
            address = parse_address(f"{IPv6Address(packed)}%{_zone(scope)}")
        else:
            address = IPv4Address(packed) if len(packed) == 4 else parse_address(str(IPv6Address(packed)))
        if len(self._endpoints) >= _CACHE_SIZE:
            self._endpoints.clear()
        endpoint = self._endpoints[name] = Endpoint(address, port)
        return endpoint


def _socket_address(endpoint: Endpoint) -> tuple[Any, ...]:
    """The address tuple the socket module takes; OSError when the zone names no interface here."""
    address = endpoint.address
    if not isinstance(address, IPv6Address):
        return str(address), endpoint.port
    scope = 0
    if address.scope_id is not None:
        scope = int(address.scope_id) if address.scope_id.isdecimal() else socket.if_nametoindex(address.scope_id)
    return str(address).partition("%")[0], endpoint.port, 0, scope


def _zone(scope: int) -> str:
    try:
        return socket.if_indextoname(scope)
    except OSError:
        return str(scope)
