"""What is behind members, and behind us: routes into the tunnel, forwarding out of it, what the registry is told."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from wgdisco.api import OffersRequest
from wgdisco.errors import LocalError, RemoteError
from wgdisco.peer.behind import behind_notes
from wgdisco.peer.interfaces import LocalNetwork
from wgdisco.peer.io.member_interface import interface_addresses
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.io.state import MemberState
from wgdisco.peer.roster import Roster
from wgdisco.tunnel.io.gateway import Gateway, gateway
from wgdisco.tunnel.io.nft import nft_table
from wgdisco.tunnel.io.subnets import SubnetRoutes
from wgdisco.tunnel.nft import block_incoming_rules

LOG = logging.getLogger(__name__)

# What leads to the subnets, and to the Internet, may be another interface by now
LOOK_INTERVAL = 60.0
RETRY_INTERVAL = 5.0


class Behind:
    """`gateway` is there where we offer something; `marked` is called when the device's datagrams must bear `mark`."""

    def __init__(
        self,
        interface: str,
        state: MemberState,
        roster: Roster,
        client: RegistryClient,
        gateway: Gateway | None,
        marked: Callable[[], None],
    ) -> None:
        self.mark = 0
        self.troubles: list[str] = []
        self._offers = state.offers
        self._roster = roster
        self._client = client
        self._gateway = gateway
        self._marked = marked
        self._routes = SubnetRoutes(interface, interface_addresses(roster))
        self._due = asyncio.Event()
        self._is_up = False

    def changed(self) -> None:
        """The roster is another, or this host's networks are."""
        self._due.set()

    def registry_up(self, is_up: bool) -> None:
        """Whether the registry can be told."""
        self._is_up = is_up

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            self._due.clear()
            steps = (
                (self.route, "what is behind members is not all reached"),
                (self._forward, "what is offered here is not all reached"),
                (self._tell, "the registry was not told what is offered here"),
            )
            troubles = [f"{what}: {why}" for step, what in steps if (why := await _why_not(step)) is not None]
            for trouble in troubles:
                if trouble not in self.troubles:
                    LOG.warning("%s", trouble)
            self.troubles = troubles
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_INTERVAL if troubles else LOOK_INTERVAL):
                    await self._due.wait()

    def notes(self, local: LocalNetwork) -> list[str]:
        """What is not as it should be, and what to do."""
        return [*self.troubles, *behind_notes(self._roster, self._offers, local)]

    async def route(self) -> None:
        """Have what is behind members lead into the tunnel; LocalError when the system refuses."""
        networks = self._roster.routes()
        if networks and not self.mark:
            self.mark = await self._routes.mark()
            self._marked()
        await self._routes.set(networks)

    async def close(self) -> None:
        """Take the routes back."""
        await self._routes.close()

    async def _forward(self) -> None:
        if self._gateway is not None:
            approved = self._roster.own_subnets()
            await self._gateway.apply([network for network in self._offers if network in approved])

    async def _tell(self) -> None:
        if self._is_up and self._roster.own_offers() != self._offers:
            await self._client.tell_offers(OffersRequest([str(network) for network in self._offers]))


async def _why_not(step: Callable[[], Awaitable[None]]) -> str | None:
    """What went wrong with it."""
    try:
        await step()
    except LocalError as error:
        return str(error)
    except RemoteError as error:
        return error.reason
    return None


@asynccontextmanager
async def let_in(state: MemberState, interface: str) -> AsyncIterator[Gateway | None]:
    """What may come out of the tunnel here: our nft table while this lasts, and the gateway where we offer one."""
    if state.offers:
        async with gateway(interface) as it:
            yield it
        return
    if state.block_incoming:
        async with nft_table(interface, block_incoming_rules(interface)):
            yield None
    else:
        yield None
