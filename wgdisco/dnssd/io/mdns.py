"""Announces us by multicast DNS on some interfaces, and finds known peers there: one station an interface."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from wgdisco.dnssd.mdns import LanEvent, Neighbours
from wgdisco.endpoint import IPAddress
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time

if TYPE_CHECKING:
    from wgdisco.dnssd.io.mdns_station import Station


class Lan:
    """Announces `key` at `port`, and tells which known peers are near. Event times are on the clock of `boot_time`."""

    def __init__(self, key: PublicKey, port: int) -> None:
        """It is silent before `set_interfaces`, and knows nobody before `set_known`."""
        self.neighbours = Neighbours(boot_time())
        self._identity = key, port
        self._wanted: dict[str, tuple[IPAddress, ...]] = {}
        self._stations: dict[str, Station] = {}
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._events: asyncio.Queue[LanEvent | None] = asyncio.Queue()

    async def run(self) -> None:
        """Go on until cancelled; then goodbye is said, and `events` ends."""
        try:
            while True:
                self._changed.clear()
                await self._reconcile(self._wanted)
                await self._changed.wait()
        finally:
            await self._reconcile({})
            if self._timer is not None:
                self._timer.cancel()
            self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[LanEvent]:
        """Events in order, to one consumer; ends after `run` does."""
        while (event := await self._events.get()) is not None:
            yield event

    def set_known(self, keys: Iterable[PublicKey]) -> None:
        """Recognise these peers from now on."""
        self.neighbours.set_known(keys, boot_time())
        self._settle()

    def set_identity(self, key: PublicKey, port: int) -> None:
        """Announce this key and listen port from now on."""
        self._identity = key, port
        for station in self._stations.values():
            station.set_identity(key, port)

    def set_interfaces(self, interfaces: Mapping[str, tuple[IPAddress, ...]]) -> None:
        """Speak on these and no others, where our addresses are these."""
        self._wanted = dict(interfaces)
        self._changed.set()

    def _settle(self) -> None:
        """Hand on what the core has to tell, and arm its deadline."""
        for event in self.neighbours.events():
            self._events.put_nowait(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.neighbours.get_timer()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - boot_time()), self._timer_fired)

    def _timer_fired(self) -> None:
        self.neighbours.handle_timer(boot_time())
        self._settle()

    async def _reconcile(self, wanted: Mapping[str, tuple[IPAddress, ...]]) -> None:
        """Have a station where one is wanted, and a new one where our addresses are others."""
        ended = [station for name, station in self._stations.items() if wanted.get(name) != station.addresses]
        await asyncio.gather(*(station.close() for station in ended))
        for station in ended:
            del self._stations[station.interface]
        for name, addresses in wanted.items():
            if addresses and name not in self._stations:
                from wgdisco.dnssd.io.mdns_station import Station  # noqa: PLC0415  loads zeroconf, 44 ms

                self._stations[name] = Station(name, addresses, self._identity, self.neighbours, self._settle)
