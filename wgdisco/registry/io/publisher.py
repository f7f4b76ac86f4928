"""Device event → directory → zone snapshot → answer, for a registry of either kind.

Nothing between them waits, so an endpoint is answerable as soon as the packet that proved it has been handled.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from wgdisco.api import StatusReport
from wgdisco.dnssd.instance import OwnInstance, ServiceInstance
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.roster import NOBODY, Roster
from wgdisco.dnssd.zone import Zone
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.metrics import Family
from wgdisco.registry.directory import Directory, Handshaken, Published, Withdrawn
from wgdisco.tunnel import burst
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, Event, Foreign, PeerHandshake
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.metrics import DeviceCounts, about

LOG = logging.getLogger(__name__)

# How often the device's counters are looked at, in seconds: what they tell (silence) is a matter of minutes.
STATUS_INTERVAL = 1.0


class Publisher:
    """Holds the directory, and its latest snapshot, `zone`.

    `next_serial()` gives the zone's serial, ever higher. `heard` is called with each event the directory has taken, and
    `moved` with the keys whose entry may be another now. `foreign` gets the datagrams that are for others. `named`
    gives the name of a peer that has one, and `roster` all who have names, for the zone. `follow` is called with each
    new snapshot and the keys whose instances alone may differ from the last. `in_order`: the zone keeps the device's
    order. `engine` says whose the device is, where it is not ours.
    """

    def __init__(
        self,
        device: Backend,
        directory: Directory,
        names: ZoneNames,
        next_serial: Callable[[], int],
        version: str,
        own: OwnInstance | None = None,
        engine: str | None = None,
        *,
        in_order: bool = False,
    ) -> None:
        self.directory = directory
        self.serial = 0
        self.heard: Callable[[Event], None] | None = None
        self.named: Callable[[PublicKey], str | None] = lambda _key: None
        self.roster: Callable[[], Roster] = lambda: NOBODY
        self.follow: Callable[[Zone, Iterable[PublicKey]], None] = lambda _zone, _keys: None
        self.moved: Callable[[Iterable[PublicKey]], None] | None = None
        self.foreign: Callable[[Foreign], None] | None = None
        self._device = device
        self._engine = burst.engine_name() if engine is None else engine
        self._names = names
        self._next_serial = next_serial
        self._version = version
        self._in_order = in_order
        self._counts = DeviceCounts()
        self._refreshing: asyncio.Handle | None = None
        # whose instance may be another than in `zone`, and whether the members are others
        self._touched: dict[PublicKey, None] = {}
        self._is_roster_new = True
        self.zone = Zone(names, 0, {}, own)
        self._touched.update(dict.fromkeys(key for key, _, _ in directory.published()))
        self._refresh()

    async def follow_device(self) -> None:
        """Fold every device event into the zone at once."""
        async for event in self._device.events():
            if isinstance(event, Foreign):
                if self.foreign is not None:
                    self.foreign(event)
                continue
            if isinstance(event, DeviceGone):
                raise LocalError(f"{self._device.interface} is gone: {event.reason}")
            self._counts.handshakes += isinstance(event, PeerHandshake)
            self.directory.observe_event(event)
            self.publish()
            if self.heard is not None:
                self.heard(event)

    async def watch_silence(self) -> None:
        """Take what went silent out of the zone."""
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            now = boot_time()
            deadline = self.directory.get_timer()
            if deadline is not None and now >= deadline:
                silent = self.directory.observe_status(self._device.status(), now)
                self.publish()
                if silent and self.moved is not None:
                    self.moved(silent)

    def status(self) -> DeviceStatus:
        """The device now."""
        return self._device.status()

    def metrics(self, status: DeviceStatus) -> list[Family]:
        """Who this is, and what its device does."""
        interface = self._device.interface
        known = about(self._version, self._engine, interface, "registry", self._names.to_text())
        return [*known, *self._counts.families(status)]

    def report(self) -> StatusReport:
        """For the control socket."""
        status = self._device.status()
        return StatusReport(
            role="registry",
            interface=self._device.interface,
            public_key=None if status.public_key is None else status.public_key.to_text(),
            listen_port=status.listen_port,
            zone=self._names.to_text(),
            engine=self._engine,
            version=self._version,
            peers=[self.directory.report(peer) for peer in status.peers if self.directory.entry(peer.key) is not None],
            drops={reason.value: count for reason, count in status.drops.items()},
        )

    def publish(self, *, changed: bool = False) -> None:
        """Make what the directory says the zone; a new serial when that, or (`changed`) a member's facts changed."""
        events = self.directory.events()
        self._touched.update(dict.fromkeys(one.key for one in events if isinstance(one, Published | Withdrawn)))
        if changed:
            self._is_roster_new = True
            self._touched.update(dict.fromkeys(self.zone.instances))
            # and of peers that came with an endpoint no event told of
            self._touched.update(dict.fromkeys(key for key, _, _ in self.directory.published()))
            self._refresh()
        elif self._touched:
            self._refresh_soon()
        for event in events:
            match event:
                case Handshaken(key, endpoint, at):
                    LOG.info("handshake", extra={"fields": {"at": at, "peer": str(key), "endpoint": str(endpoint)}})
                case Published(key, endpoint, at):
                    LOG.info("published", extra={"fields": {"at": at, "peer": str(key), "endpoint": str(endpoint)}})
                case Withdrawn(key, why, at):
                    LOG.info("stale", extra={"fields": {"at": at, "peer": str(key), "reason": why}})

    def told(self, key: PublicKey) -> None:
        """What a peer says of itself may be other than before."""
        self._touched[key] = None
        self._refresh_soon()

    def _refresh_soon(self) -> None:
        """One snapshot, and one serial, for all that one turn of the loop brings: members return by the thousand."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None
        touched, self._touched = self._touched, {}
        put, gone = [], []
        for key in touched:
            instance = self._instance(key)
            if instance is None:
                gone.append(key)
            else:
                put.append(instance)
        roster = self.roster() if self._is_roster_new else None
        self._is_roster_new = False
        self.serial = self._next_serial()
        zone = self.zone.following(self.serial, put, gone, roster)
        if self._in_order:
            ordered = {key: zone.instances[key] for key, _, _ in self.directory.published()}
            zone = replace(zone, instances=ordered)
        self.zone = zone
        self.follow(self.zone, touched)

    def _instance(self, key: PublicKey) -> ServiceInstance | None:
        endpoint, entry = self.directory.published_endpoint(key), self.directory.entry(key)
        if endpoint is None or entry is None:
            return None
        return ServiceInstance(key, endpoint, entry.allowed_ips, entry.candidates, entry.nat, self.named(key))
