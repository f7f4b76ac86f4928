"""Our device on a port that another WireGuard of the same key has still: both see all, and each takes what is its own.

What is for the other has a receiver index that we do not know, and the other way round. Answers to handshakes that we
began reach both, and mean nothing to the other. So peers move to sessions with us one by one, while those of before
go on.
"""

from collections import Counter
from collections.abc import Iterator

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.tunnel.frames import Burst
from wgdisco.tunnel.io.raw import RawSender, Tap
from wgdisco.tunnel.io.routes import Routes
from wgdisco.tunnel.raw import port_filter, together

_BUFFER = 7 << 20  # as the device's own (rule E6)
_A_CALL = 64
_CALLS = 1000


class BesideSockets:
    """As `udp.UdpSockets`, by raw sockets, which is slow, until that can have the port. CAP_NET_RAW.

    Deaf until `hear`: whoever is answered sends to us from then on.
    """

    def __init__(self, port: int, sender: RawSender, taps: dict[int, Tap]) -> None:
        self.port = port
        self.fwmark = 0
        self.dropped: Counter[str] = sender.dropped
        self._sender = sender
        self._taps = taps
        self._hears = False
        self._routes = Routes()

    @classmethod
    def open(cls, port: int) -> "BesideSockets":
        """LocalError where raw sockets are not permitted."""
        sender = RawSender.open()
        taps = {version: Tap.open(version, port_filter(port, version), _BUFFER) for version in (4, 6)}
        if sender is None or taps[4] is None:
            raise LocalError("taking the place of a running server needs root or the capability CAP_NET_RAW")
        return cls(port, sender, {version: tap for version, tap in taps.items() if tap is not None})

    @property
    def fds(self) -> tuple[int, ...]:
        """To wait on; `receive` says what is there."""
        return tuple(tap.fileno() for tap in self._taps.values()) if self._hears else ()

    def hear(self) -> None:
        """From now on, and nothing of before."""
        self._hears = True
        for _ in self.rest():
            pass

    @property
    def routes_fd(self) -> int:
        """To wait on, only that it is there: each datagram asks the routes anew."""
        return self._routes.fd

    def routes_changed(self) -> None:
        """Nothing was kept that is to be forgotten."""
        self._routes.changed()

    def receive(self, fd: int) -> list[tuple[Burst, Endpoint]]:
        """Some of what arrived, each of one source."""
        tap = next((one for one in self._taps.values() if one.fileno() == fd), None)
        arrived = [] if tap is None else tap.receive(_A_CALL)
        return [(Burst(data, together(data)), source) for source, data in arrived if data]

    def rest(self) -> Iterator[tuple[Burst, Endpoint]]:
        """All that waits, but for a flood's."""
        for fd in self.fds:
            for _ in range(_CALLS):
                arrived = self.receive(fd)
                yield from arrived
                if not arrived:
                    break

    def send(self, burst: Burst, endpoint: Endpoint) -> None:
        """Send every row."""
        for row in burst.rows():
            self.send_raw(bytes(row), endpoint)

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """Send one datagram."""
        self._sender.send(data, self.port, endpoint, ttl, self.fwmark)

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent from now on."""
        self.fwmark = mark

    def rebind(self, port: int) -> None:
        """LocalError: the port is what this is about."""
        if port != self.port:
            raise LocalError(f"UDP port {self.port} is being taken over: no other until that is done")

    def unbind(self) -> None:
        """Hear no more."""
        for tap in self._taps.values():
            tap.close()
        self._taps.clear()

    def close(self) -> None:
        """Let go of all of it. Again does nothing."""
        self.unbind()
        self._sender.close()
        self._routes.close()
