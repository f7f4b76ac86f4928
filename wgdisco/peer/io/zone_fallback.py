"""The zone, polled for members' endpoints while the registry's stream of events is down."""

import asyncio

from wgdisco.dnssd.browser import InstanceFound, InstanceGone, RegistryReachable, RegistryUnreachable
from wgdisco.dnssd.io.client import ZoneFollower
from wgdisco.endpoint import Endpoint
from wgdisco.machine import boot_time
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.roster import Roster

DNS_PORT = 53
# How long the stream may take to come back
PATIENCE = 3.0


class ZoneFallback:
    """`stream_up` says whether the stream is there."""

    def __init__(self, driver: AgentDriver, roster: Roster, stream_up: asyncio.Event) -> None:
        self._driver = driver
        self._roster = roster
        self._stream_up = stream_up
        self._server = Endpoint(roster.network.registry_addresses[0], DNS_PORT)

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(PATIENCE)
            if self._stream_up.is_set():
                continue
            wanted = [member.key for member in self._roster.members.values() if not member.is_device]
            zone = self._roster.network.zone.origin.to_text()
            follower = ZoneFollower(self._server, zone, wanted, also=[self._roster.own_key])
            polling = asyncio.gather(follower.run(), self._poll(follower))
            try:
                await self._stream_up.wait()
            finally:
                polling.cancel()
                await asyncio.gather(polling, return_exceptions=True)

    async def _poll(self, follower: ZoneFollower) -> None:
        agent = self._driver.agent
        async for event in follower.events():
            now = boot_time()
            match event:
                case InstanceFound(instance, _):
                    agent.instance_found(instance.key, instance.endpoint, now)
                case InstanceGone(key, _):
                    agent.instance_gone(key, now)
                case RegistryReachable():
                    agent.registry_reachable(True, now)
                case RegistryUnreachable():
                    agent.registry_reachable(False, now)
                case _:
                    pass
            self._driver.settle()
