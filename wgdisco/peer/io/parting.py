"""A member gives its membership up, at the registry: on `wgdisco leave`, and an ephemeral one whenever it ends.

Or it was forgotten, while its container was paused, and nobody is left who would tell it so.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wgdisco.errors import LocalError, RemoteError
from wgdisco.invitation import JoinLink
from wgdisco.keys import PublicKey
from wgdisco.peer.io.enrol import enrol
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.roster import Roster
from wgdisco.proof import LeaveRequest, leaving_proof

LOOK_INTERVAL = 5.0
# After how long without the registry it is asked, by the link, whether we are members still; and how often, in seconds
ASK_AFTER, ASK_INTERVAL = 30.0, 300.0


class Parting:
    """`shared` is the Diffie-Hellman of our static key and another's. `is_for_good` once an ephemeral one has gone."""

    def __init__(
        self, roster: Roster, client: RegistryClient, shared: Callable[[PublicKey], bytes | None], registry: PublicKey
    ) -> None:
        self.is_for_good = False
        self._has_gone = False
        self._roster = roster
        self._client = client
        self._shared = shared
        self._registry = registry

    async def go(self, _told: dict[str, Any]) -> dict[str, Any]:
        """Go now; RemoteError when the registry does not hear of it."""
        shared = self._shared(self._registry)
        if not self._has_gone and shared is not None:
            await self._client.leave(LeaveRequest(leaving_proof(shared, self._roster.own_key)))
            self._has_gone, self.is_for_good = True, self._roster.is_ephemeral
        return {}

    async def watch(self, link: JoinLink | None, stream_up: asyncio.Event) -> None:
        """Of an ephemeral member with the link it came by: LocalError once the registry had forgotten it."""
        silent = 0.0
        while link is not None and self._roster.is_ephemeral:
            await asyncio.sleep(LOOK_INTERVAL)
            silent = 0.0 if stream_up.is_set() else silent + LOOK_INTERVAL
            if silent < ASK_AFTER:
                continue
            silent = ASK_AFTER - ASK_INTERVAL
            with suppress(RemoteError):
                told = await enrol(link, self._roster.own_key, self._roster.own_name)
                if set(told.member.addresses) != set(map(str, self._roster.own_addresses())):
                    self._has_gone = True  # under the address we have
                    raise LocalError("the registry had forgotten this member, and has made it one anew: start it again")

    async def end(self) -> None:
        """The daemon ends. Of one that is not heard the registry will know when it was not heard for long enough."""
        if self._roster.is_ephemeral:
            with suppress(RemoteError):
                await self.go({})
