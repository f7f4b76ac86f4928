"""All that members, admins and their browsers ask of a registry inside the tunnel, put together."""

from collections.abc import Callable, Sequence

from wgdisco.endpoint import IPAddress
from wgdisco.machine import boot_time
from wgdisco.registry.directory import Directory
from wgdisco.registry.io.administration import Administration
from wgdisco.registry.io.commands import Commands
from wgdisco.registry.io.feed import Feed
from wgdisco.registry.io.http import ApiServer
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.metrics import MetricsApi
from wgdisco.registry.io.page import Page
from wgdisco.registry.io.publisher import Publisher
from wgdisco.registry.io.relay import Relaying
from wgdisco.registry.io.stun import StunServer
from wgdisco.registry.io.view import ViewApi
from wgdisco.registry.orders import Orders
from wgdisco.registry.view import View
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io.exposition import Source


class Inside:
    """The API, the view and the page, of a network whose zone is `zone`. `drops` counts all that is refused."""

    def __init__(
        self,
        ledger: Ledger,
        directory: Directory,
        publisher: Publisher,
        feed: Feed,
        relaying: Relaying,
        stun: StunServer,
        commands: Commands,
        zone: str,
        status: Callable[[], DeviceStatus],
        drops: Callable[[DeviceStatus], dict[str, int]],
    ) -> None:
        self._api = api = ApiServer(ledger, directory, feed, [zone, f"registry.{zone}", f"ns1.{zone}"])
        api.stun = stun.responder.issue
        api.proven = lambda key: stun.responder.proven(key, boot_time())
        api.admit = relaying.admit
        api.leave = relaying.leave
        api.told = publisher.told
        seen = {one.key: one.at for one in ledger.store.observations()}
        self._view = view = ViewApi(ledger, api.gate, api.router, View(ledger.membership, directory, seen))
        view.status = status
        view.serial = lambda: publisher.serial
        view.rest = lambda now: {"drops": drops(now), "relay": relaying.counted()}
        Page(api.gate, api.router)
        Administration(ledger, api.gate, api.router, commands)

    @property
    def orders(self) -> Orders:
        """What members asked for."""
        return self._api.orders

    @property
    def drops(self) -> dict[str, int]:
        """What was no request."""
        return dict(self._api.log.drops)

    def add_metrics(self, source: Source) -> None:
        """Admins are told of them too. Before the first `start`."""
        MetricsApi(self._api.gate, self._api.router, source)

    async def start(self, addresses: Sequence[IPAddress], interface: str) -> None:
        """Listen there; may be called again, for more. LocalError when it cannot be."""
        await self._api.start(addresses, interface)

    async def run(self) -> None:
        """Look at the device for the view, until cancelled."""
        await self._view.run()

    def follow(self) -> None:
        """Membership has changed."""
        self._view.follow()

    async def close(self) -> None:
        """End every stream and connection."""
        self._view.close()
        await self._api.close()
