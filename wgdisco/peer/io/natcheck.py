"""Running a NatCheck: the tunnel's own socket is the device's, the spare one is made here."""

import asyncio
import socket
from collections.abc import Callable

from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.machine import boot_time
from wgdisco.peer.natcheck import NatCheck, NatReport

# More than a check sends: what strangers add to it is dropped
_QUEUE_MAX = 64


class NatChecker:
    """Runs checks, one at a time. `receive` takes what the device hears that looks like STUN."""

    def __init__(self, send: Callable[[bytes, Endpoint], None], fwmark: int = 0) -> None:
        """`send` is the device's `send_raw`; `fwmark` what its packets are marked with, so that they bypass it."""
        self._send = send
        self._fwmark = fwmark
        self._heard: asyncio.Queue[tuple[bytes, Endpoint]] | None = None

    def receive(self, data: bytes, source: Endpoint) -> None:
        """A datagram that came to the tunnel's socket; nothing happens while no check runs."""
        if self._heard is not None and not self._heard.full():
            self._heard.put_nowait((data, source))

    async def run(self, check: NatCheck, version: int) -> NatReport:
        """Run a check made for IP `version`; it takes a second at most. Without that IP version it finds nothing."""
        heard = self._heard = asyncio.Queue(_QUEUE_MAX)
        spare = self._open(version)
        loop = asyncio.get_running_loop()
        try:
            if spare is not None:
                loop.add_reader(spare, self._drain, spare)
            check.start(boot_time())
            while True:
                self._flush(check, spare)
                for report in check.events():
                    return report
                try:
                    async with asyncio.timeout((check.get_timer() or 0.0) - boot_time()):
                        data, source = await heard.get()
                except TimeoutError:
                    check.handle_timer(boot_time())
                else:
                    check.receive_datagram(data, source, boot_time())
        finally:
            self._heard = None
            if spare is not None:
                loop.remove_reader(spare)
                spare.close()

    def _flush(self, check: NatCheck, spare: socket.socket | None) -> None:
        for probe in check.datagrams_to_send():
            if not probe.spare:
                self._send(probe.data, probe.destination)
            elif spare is not None:
                try:
                    spare.sendto(probe.data, (str(probe.destination.address), probe.destination.port))
                except OSError:
                    continue  # as if it were lost

    def _drain(self, spare: socket.socket) -> None:
        try:
            data, source = spare.recvfrom(2048)
        except OSError:
            return
        if source[1]:
            self.receive(data, Endpoint(parse_address(source[0]), source[1]))

    def _open(self, version: int) -> socket.socket | None:
        try:
            spare = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        except OSError:
            return None
        spare.setblocking(False)
        if self._fwmark:
            spare.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._fwmark)
        return spare
