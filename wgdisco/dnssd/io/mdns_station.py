"""One interface on which we announce ourselves and listen, with the zeroconf package.

There is one zeroconf an interface, bound to it: what is asked on other interfaces (a café's) is not answered. Port 5353
is shared with other responders of this host (avahi). Where mDNS does not work, that is one line in the log.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

from zeroconf import Error, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from wgdisco.dnssd.mdns import SERVICE_TYPE, Announcement, Announcer, Neighbours, parse_announcement
from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time

LOG = logging.getLogger(__name__)
# what it tells is told here, in one line; packets that a network does not take are daily bread where networks change
logging.getLogger("zeroconf").setLevel(logging.CRITICAL)

RETRY_INTERVAL = 30.0
# Records of a host that went without goodbye are forgotten after these times (seconds); the longer is zeroconf's least
_HOST_TTL = 120
_SERVICE_TTL = 1200
_LOOKUP_TIMEOUT_MS = 3000
_LOOKUPS_MAX = 16


class Station:
    """One interface: runs from when it is made until it is closed."""

    def __init__(
        self,
        interface: str,
        addresses: tuple[IPAddress, ...],
        identity: tuple[PublicKey, int],
        neighbours: Neighbours,
        settle: Callable[[], None],
    ) -> None:
        """`addresses` are ours there; `identity` our key and listen port. `settle` is called after each news."""
        self.interface = interface
        self.addresses = addresses
        self._neighbours = neighbours
        self._settle = settle
        self._announcer = Announcer(*identity, secrets.token_bytes, boot_time())
        self._changed = asyncio.Event()
        self._lookups: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run())

    def set_identity(self, key: PublicKey, port: int) -> None:
        """Announce this from now on."""
        self._announcer.set_identity(key, port, boot_time())
        self._changed.set()

    async def close(self) -> None:
        """Say goodbye and forget what was heard here."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._neighbours.interface_gone(self.interface, boot_time())
        self._settle()

    async def _run(self) -> None:
        told = None
        while True:
            try:
                zeroconf = AsyncZeroconf(interfaces=[str(address) for address in self.addresses])
                try:
                    await self._speak(zeroconf)
                finally:
                    await self._hang_up(zeroconf)
            except (OSError, RuntimeError, Error) as error:
                # RuntimeError: an address went away meanwhile
                if str(error) != told:
                    told = str(error)
                    LOG.warning("no mDNS on %s: %s", self.interface, error or type(error).__name__)
            await asyncio.sleep(RETRY_INTERVAL)

    async def _speak(self, zeroconf: AsyncZeroconf) -> None:
        await zeroconf.zeroconf.async_wait_for_start()
        self._confine(zeroconf.zeroconf)
        async with AsyncServiceBrowser(zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._heard]):
            announced = None
            while True:
                self._changed.clear()
                self._announcer.handle_timer(boot_time())
                announced = await self._announce(zeroconf, announced)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._announcer.get_timer() - boot_time()):
                        await self._changed.wait()

    async def _announce(self, zeroconf: AsyncZeroconf, announced: AsyncServiceInfo | None) -> AsyncServiceInfo:
        """Announce what is to be announced now, then take back what was before."""
        service = self._service(self._announcer.announcement)
        if announced is not None and announced.name == service.name:
            return announced
        # labels are random: there is no conflict to probe for
        await zeroconf.async_register_service(service, cooperating_responders=True)
        if announced is not None:
            await zeroconf.async_unregister_service(announced)
        return service

    async def _hang_up(self, zeroconf: AsyncZeroconf) -> None:
        for task in self._lookups:
            task.cancel()
        await zeroconf.async_close()

    def _confine(self, zeroconf: Zeroconf) -> None:
        """Hear only what comes by our interface: a socket hears of all groups that anybody of this host has joined."""
        if not zeroconf.engine.senders:
            raise OSError("it has no multicast")
        for reader in zeroconf.engine.readers:
            reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())

    def _service(self, announcement: Announcement) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{announcement.label}.{SERVICE_TYPE}",
            port=announcement.port,
            properties=announcement.pairs(),
            server=f"{announcement.label}.local.",
            host_ttl=_HOST_TTL,
            other_ttl=_SERVICE_TTL,
            addresses=[address.packed for address in self.addresses],
        )

    # What is heard

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        label = name.removesuffix(f".{SERVICE_TYPE}")
        if label == self._announcer.announcement.label:
            return
        if state_change is ServiceStateChange.Removed:
            self._neighbours.instance_gone(self.interface, label, boot_time())
            self._settle()
            return
        try:
            service = AsyncServiceInfo(service_type, name)
        except Error:
            self._neighbours.malformed()
            return
        if service.load_from_cache(zeroconf):
            self._take(label, service)
        elif len(self._lookups) < _LOOKUPS_MAX:
            task = asyncio.create_task(self._look_up(zeroconf, label, service))
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)

    async def _look_up(self, zeroconf: Zeroconf, label: str, service: AsyncServiceInfo) -> None:
        with suppress(Error):  # it was closed meanwhile
            if await service.async_request(zeroconf, _LOOKUP_TIMEOUT_MS):
                self._take(label, service)

    def _take(self, label: str, service: AsyncServiceInfo) -> None:
        announcement = parse_announcement(label, service.port or 0, service.properties)
        if announcement is None:
            self._neighbours.malformed()
            return
        addresses = [parse_address(text) for text in service.parsed_addresses()]
        self._neighbours.instance_seen(self.interface, announcement, addresses, boot_time())
        self._settle()
