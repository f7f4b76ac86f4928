"""What time brings for a registry's facts: observations are written, invitations expire, ephemeral members go."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from wgdisco.errors import LocalError, RemoteError
from wgdisco.machine import boot_time
from wgdisco.registry.ephemeral import Absence, vanish
from wgdisco.registry.facts import Change, Member
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.store import OBSERVATIONS_INTERVAL
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.events import DeviceStatus

LOG = logging.getLogger(__name__)

EXPIRY_INTERVAL = 30.0
ABSENCE_INTERVAL = 5.0


class Upkeep:
    """Of `ledger`; `status()` tells when the device heard from whom."""

    def __init__(self, ledger: Ledger, status: Callable[[], DeviceStatus]) -> None:
        self._ledger = ledger
        self._status = status
        self._absence = Absence()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_every(OBSERVATIONS_INTERVAL, self._ledger.store.flush))
            tasks.create_task(_every(EXPIRY_INTERVAL, self.expire))
            tasks.create_task(_every(ABSENCE_INTERVAL, self._vanish))

    async def expire(self) -> None:
        """Forget invitations whose time is over."""
        await self._ledger.change(lambda: (self._ledger.membership.expire(time.time()), None))

    async def _vanish(self) -> None:
        """Forget ephemeral members that were not heard for too long."""
        membership = self._ledger.membership
        ephemeral = [member for member in membership.members.values() if member.ephemeral is not None]
        if not ephemeral:
            return  # what all peers are doing is much to ask
        received_at = {peer.key: peer.received_at for peer in self._status().peers}
        for member in self._absence.look(ephemeral, received_at, boot_time()):
            if await self._ledger.change(partial(_vanish, membership, member)):
                LOG.info("vanished", extra={"fields": {"name": member.name, "peer": str(member.public_key)}})


def _vanish(membership: Membership, member: Member) -> tuple[list[Change], bool]:
    changes = vanish(membership, member)
    return changes, bool(changes)


async def _every(interval: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do it each `interval` seconds; a store that fails is reported once, until it works again."""
    failing = False
    while True:
        await asyncio.sleep(interval)
        try:
            await work()
            failing = False
        except (LocalError, RemoteError) as error:
            if not failing:
                LOG.error("%s", error)
            failing = True
