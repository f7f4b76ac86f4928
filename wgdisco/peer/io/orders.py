"""Orders between agent and registry: asked for, given, refused."""

import asyncio
import logging

from wgdisco.api import Order
from wgdisco.errors import RemoteError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.nat import NatProfile
from wgdisco.peer.candidate import parse_candidates
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.io.registry_client import RegistryClient

LOG = logging.getLogger(__name__)


class OrderDesk:
    """`stream_up` says whether the registry can be heard: an order that cannot be heard is not asked for."""

    def __init__(self, driver: AgentDriver, client: RegistryClient, stream_up: asyncio.Event) -> None:
        self._driver = driver
        self._client = client
        self._stream_up = stream_up
        self._asking: set[asyncio.Task[None]] = set()

    def given(self, order: Order) -> None:
        """The registry orders a member and us to punch."""
        now = boot_time()
        candidates, nat = parse_candidates(order.candidates, now), parse_nat(order.nat)
        peer, initiator = PublicKey.from_text(order.peer), PublicKey.from_text(order.initiator)
        self._driver.agent.ordered(peer, initiator, candidates, nat, now)

    def ask(self, key: PublicKey) -> None:
        """Ask for an order; the agent is told when there will be none."""
        task = asyncio.ensure_future(self._ask(key))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def leave(self, key: PublicKey) -> None:
        """Tell that nothing needs to go over the relay; if that gets lost, it is told again when something does."""
        task = asyncio.ensure_future(self._leave(key))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def close(self) -> None:
        """Ask no more."""
        for task in self._asking:
            task.cancel()

    async def _leave(self, key: PublicKey) -> None:
        try:
            await self._client.punch(key, leave=True)
        except RemoteError as error:
            LOG.debug("relay not left: %s", error.reason)

    async def _ask(self, key: PublicKey) -> None:
        try:
            if not self._stream_up.is_set():
                raise RemoteError("the registry is unreachable")
            if await self._client.punch(key):
                return
            is_offline = True
        except RemoteError as error:
            LOG.debug("no order for %s: %s", key, error.reason)
            is_offline = False
        self._driver.agent.order_refused(key, boot_time(), is_offline=is_offline)
        self._driver.settle()


def parse_nat(text: str | None) -> NatProfile | None:
    """What a peer says of its NAT; what cannot be understood says nothing."""
    try:
        return None if text is None else NatProfile.from_text(text)
    except ValueError:
        return None
