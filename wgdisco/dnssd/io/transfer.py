"""Secondaries of the zone, on sockets: they come to the zone's server, and are told of changes from a port of ours."""

import asyncio
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from wgdisco.dnssd.notify import Notifier
from wgdisco.dnssd.responder import Transport
from wgdisco.dnssd.secondaries import Secondaries
from wgdisco.dnssd.transfer import Primary
from wgdisco.dnssd.tsig import Signer
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint, IPAddress, parse_address
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time

_REPLY_MAX_SIZE = 4096
_REPLIES_AT_ONCE = 16


class Transfers:
    """Serves the secondaries and no one else. `unsent` counts NOTIFYs that the kernel did not take.

    `given` has the serial that was last transferred to each address: one that signs serves another, of its own.
    """

    def __init__(self, secondaries: Secondaries) -> None:
        self.primary = Primary(secondaries.servers, secondaries.key)
        self.unsent = 0
        self.given: dict[str, int] = {}
        self._key = secondaries.key
        self._addresses = frozenset(str(endpoint.address) for endpoint in secondaries.endpoints)
        self._notifier = Notifier(secondaries.endpoints, os.urandom)
        self._sockets: dict[int, socket.socket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._families = {endpoint.address.version for endpoint in secondaries.endpoints}

    @property
    def serial(self) -> int | None:
        """That which secondaries are to have."""
        zone = self.primary.journal.zone
        return None if zone is None else zone.serial

    def start(self, source: IPAddress | None = None) -> None:
        """Tell of changes from now on, from `source` where it has one."""
        for version in self._families:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            bound = socket.socket(family, socket.SOCK_DGRAM)
            bound.setblocking(False)
            if source is not None and source.version == version and not source.is_unspecified:
                # not there yet, or not ours: the kernel chooses
                with suppress(OSError):
                    bound.bind((str(source), 0))
            self._sockets[version] = bound
            asyncio.get_running_loop().add_reader(bound, self._receive, bound)
        self._arm()

    def close(self) -> None:
        """Tell nobody any more. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for bound in self._sockets.values():
            asyncio.get_running_loop().remove_reader(bound)
            bound.close()
        self._sockets = {}

    def publish(self, zone: Zone, touched: Iterable[PublicKey] | None = None) -> None:
        """The next snapshot; with `touched`, instances of these keys alone differ from the last, and no member."""
        if self.primary.journal.add(zone, touched):
            self._notifier.changed(zone, boot_time())
            self._arm()

    def respond(self, query: bytes, source: str, transport: Transport) -> Iterator[bytes] | None:
        """The messages that answer a secondary at the address `source`; None for strangers, and what all may ask."""
        if source not in self._addresses:
            return None
        before = self.primary.transferred
        replies = self.primary.respond(query, transport, int(time.time()))
        if self.primary.transferred != before and self.serial is not None:
            self.given[source] = self.serial
        return replies

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._notifier.get_timer()
        if due is not None and self._sockets:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - boot_time()), self._send)

    def _send(self) -> None:
        for message, endpoint in self._notifier.datagrams_to_send(boot_time()):
            signed = message if self._key is None else Signer(self._key).sign(message, int(time.time()))
            try:
                self._sockets[endpoint.address.version].sendto(signed, _socket_address(endpoint))
            except OSError:
                self.unsent += 1
        self._arm()

    def _receive(self, bound: socket.socket) -> None:
        for _ in range(_REPLIES_AT_ONCE):
            try:
                data, source = bound.recvfrom(_REPLY_MAX_SIZE)
            except BlockingIOError:
                break
            except OSError:
                # an ICMP error about a NOTIFY
                continue
            self._notifier.receive_datagram(data, Endpoint(parse_address(source[0]), source[1]))
        self._arm()


def _socket_address(endpoint: Endpoint) -> Any:
    return socket.getaddrinfo(str(endpoint.address), endpoint.port, flags=socket.AI_NUMERICHOST)[0][4]
