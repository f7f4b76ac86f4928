"""One NAT check on a device's own socket, and a spare one beside it."""

import asyncio
import os
import socket

from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.machine import boot_time
from wgdisco.nat import NatProfile
from wgdisco.peer.natcheck import NatCheck, NatReport, Probe
from wgdisco.tunnel.io.backend import Backend

_DATAGRAM_MAX_SIZE = 2048


class NatProber:
    """Checks the NAT when asked; give `receive` what comes to the device and is not WireGuard's."""

    def __init__(self, device: Backend) -> None:
        self._device = device
        self._checks: dict[NatCheck, asyncio.Event] = {}  # and when there is something for it to do

    def receive(self, data: bytes, source: Endpoint) -> None:
        """A datagram came to the device's own socket."""
        for check, woken in self._checks.items():
            check.receive_datagram(data, source, boot_time())
            woken.set()

    async def check(self, service: StunRecord, version: int) -> NatReport:
        """Ask the registry's responders over IPv4 or IPv6 (`version`); about a round trip, 1 s at the most.

        Both may be asked at once.
        """
        status = self._device.status()
        check = NatCheck(service, version, status.listen_port, os.urandom)
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as spare:
                if status.fwmark:
                    # past the tunnel, as the device's own: inside it nothing is filtered
                    spare.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, status.fwmark)
                self._checks[check] = woken
                loop.add_reader(spare, self._spare_readable, spare, check)
                try:
                    check.start(boot_time())
                    while not (reports := check.events()):
                        self._send(check.datagrams_to_send(), spare)
                        await _wait(woken, check.get_timer())
                        check.handle_timer(boot_time())
                    return reports[0]
                finally:
                    loop.remove_reader(spare)
        except OSError:
            return NatReport(NatProfile(None, None))  # this machine does not have that version
        finally:
            self._checks.pop(check, None)

    def _send(self, probes: list[Probe], spare: socket.socket) -> None:
        for probe in probes:
            if not probe.spare:
                self._device.send_raw(probe.data, probe.destination)
                continue
            try:
                spare.sendto(probe.data, (str(probe.destination.address), probe.destination.port))
            except OSError:
                continue  # no way there now: as good as lost

    def _spare_readable(self, spare: socket.socket, check: NatCheck) -> None:
        try:
            data, address = spare.recvfrom(_DATAGRAM_MAX_SIZE)
        except OSError:
            return
        if address[1]:
            check.receive_datagram(data, Endpoint(parse_address(address[0]), address[1]), boot_time())
            self._checks[check].set()


async def _wait(woken: asyncio.Event, deadline: float | None) -> None:
    """Until something came, or the deadline."""
    woken.clear()
    try:
        async with asyncio.timeout(None if deadline is None else max(0.0, deadline - boot_time())):
            await woken.wait()
    except TimeoutError:
        pass
