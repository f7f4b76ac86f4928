"""What is for others and comes to the port of an engine that is not ours: seen beside it, by packet sockets."""

import asyncio
from collections.abc import Callable, Sequence

from wgdisco.registry.relay import Relay
from wgdisco.tunnel.events import Foreign
from wgdisco.tunnel.io.raw import Tap
from wgdisco.tunnel.raw import MAX_INDICES, relay_filter, together

_BUFFER = 4 << 20
_A_TURN = 64


class Beside:
    """The engine sees the same, and drops what is not its own. Of that it takes, initiations alone are seen here."""

    def __init__(self, relay: Relay, ports: Sequence[int], own_key: bytes, take: Callable[[Foreign], None]) -> None:
        """`take` gets what is for others and comes to `ports`; `own_key` is the device's `mac1_key`."""
        self._relay = relay
        self._ports = ports
        self._own_key = own_key
        self._take = take
        self._indices: set[int] = set()
        self._taps: dict[int, Tap] = {}

    def start(self) -> bool:
        """Listen; False where that is not permitted."""
        for version in (4, 6):
            tap = Tap.open(version, relay_filter(self._ports, version, self._indices), _BUFFER)
            if tap is not None:
                self._taps[version] = tap
                asyncio.get_running_loop().add_reader(tap.fileno(), self._readable, tap)
        return bool(self._taps)

    def set_ports(self, ports: Sequence[int]) -> None:
        """These ports lead to the device from now on."""
        if ports != self._ports:
            self._ports = ports
            self._set_filters()

    def learn(self) -> None:
        """Hear messages to the receivers that the relay knows now: before they are told what lets them speak."""
        indices = self._relay.indices(MAX_INDICES)
        if not indices <= self._indices:
            self._indices = indices
            self._set_filters()

    def close(self) -> None:
        """Hear nothing more."""
        for tap in self._taps.values():
            asyncio.get_running_loop().remove_reader(tap.fileno())
            tap.close()
        self._taps.clear()

    def _set_filters(self) -> None:
        for version, tap in self._taps.items():
            try:
                tap.set_filter(relay_filter(self._ports, version, self._indices))
            except OSError:  # net.core.optmem_max, 20 KiB before Linux 6.8, has to hold the one of before too
                tap.set_filter(relay_filter(self._ports, version, range(MAX_INDICES + 1)))

    def _readable(self, tap: Tap) -> None:
        for source, data in tap.receive(_A_TURN):
            seen = Foreign(data, together(data), source)
            if self._relay.concerns(seen, self._own_key):
                self._take(seen)
