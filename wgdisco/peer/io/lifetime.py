"""One search for the NAT's lifetime, on spare sockets that nothing else uses."""

import asyncio
import os
import socket

from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint
from wgdisco.machine import boot_time
from wgdisco.peer.lifetime import Lifetime, LifetimeProbe, LifetimeSearch

_DATAGRAM_MAX_SIZE = 2048
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


async def measure_lifetime(service: StunRecord, server: Endpoint, fwmark: int) -> Lifetime:
    """How long the NAT towards `server` remembers; takes minutes, most of them in silence.

    Nothing is known where the responder does not answer, or not to another port. `fwmark` is the device's own.
    """
    return await run_search(LifetimeSearch(service, server, os.urandom), server, fwmark)


async def run_search(search: LifetimeSearch, server: Endpoint, fwmark: int = 0) -> Lifetime:
    """Run a search to its end."""
    sockets = _Sockets(search, server, fwmark)
    try:
        search.start(boot_time())
        while not (found := search.events()):
            sockets.send(search.datagrams_to_send())
            await sockets.wait(search.get_timer())
            search.handle_timer(boot_time())
        return found[0]
    except OSError:
        return Lifetime()  # this machine does not have that version
    finally:
        sockets.close()


class _Sockets:
    """By number; each is made when it is first sent from."""

    def __init__(self, search: LifetimeSearch, server: Endpoint, fwmark: int) -> None:
        self._search = search
        self._server = server
        self._fwmark = fwmark
        self._opened: dict[int, socket.socket] = {}
        self._woken = asyncio.Event()

    def send(self, probes: list[LifetimeProbe]) -> None:
        for probe in probes:
            opened = self._opened.get(probe.socket) or self._open(probe.socket)
            try:
                opened.sendto(probe.data, (str(probe.destination.address), probe.destination.port))
            except OSError:
                continue  # no way there now: as good as lost
        for number in [number for number in self._opened if 0 < number < self._search.silent_socket]:
            self._close(number)

    async def wait(self, deadline: float | None) -> None:
        """Until something came, or the deadline."""
        self._woken.clear()
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - boot_time())):
                await self._woken.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        for number in list(self._opened):
            self._close(number)

    def _open(self, number: int) -> socket.socket:
        opened = socket.socket(_FAMILIES[self._server.address.version], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._opened[number] = opened
        if self._fwmark:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._fwmark)
        asyncio.get_running_loop().add_reader(opened, self._readable, number)
        return opened

    def _close(self, number: int) -> None:
        opened = self._opened.pop(number)
        asyncio.get_running_loop().remove_reader(opened)
        opened.close()

    def _readable(self, number: int) -> None:
        try:
            data = self._opened[number].recv(_DATAGRAM_MAX_SIZE)
        except OSError:
            return
        self._search.receive_datagram(data, number, boot_time())
        self._woken.set()
