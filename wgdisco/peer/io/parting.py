"""A member gives its membership up, at the registry: on `wgdisco leave`, and an ephemeral one whenever it ends."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wgdisco.errors import RemoteError
from wgdisco.keys import PublicKey
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.roster import Roster
from wgdisco.proof import LeaveRequest, leaving_proof


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

    async def end(self) -> None:
        """The daemon ends. Of one that is not heard the registry will know when it was not heard for long enough."""
        if self._roster.is_ephemeral:
            with suppress(RemoteError):
                await self.go({})
