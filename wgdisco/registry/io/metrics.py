"""What a registry tells Prometheus, gathered when it asks; and `GET /metrics` of the API, for admins."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from wgdisco.dnssd import metrics as dns
from wgdisco.dnssd.io.connections import Became
from wgdisco.dnssd.io.process import ZoneProcess
from wgdisco.metrics import Family
from wgdisco.registry import metrics
from wgdisco.registry.facts import Role
from wgdisco.registry.io.feed import Feed
from wgdisco.registry.io.gate import Gate, RefusedError
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.publisher import Publisher
from wgdisco.registry.io.relay import Relaying
from wgdisco.registry.io.stun import StunServer
from wgdisco.registry.orders import Orders
from wgdisco.tunnel.io.exposition import PATH, Source, Told
from wgdisco.tunnel.metrics import DROPS, device_drops


def of_zone(
    publisher: Publisher,
    server: ZoneProcess,
    enrolled: int | None = None,
    drops: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Family]:
    """What every registry tells; `drops` by who else refused something."""
    status, tally = publisher.status(), server.tally()
    by_component = {"dns": dns.drops(tally), **(drops or {})}
    dropped = {(who, why): count for who, reasons in by_component.items() for why, count in reasons.items()}
    return [
        *publisher.metrics(status),
        DROPS.by_all(device_drops(status) | dropped),
        metrics.members(publisher.directory.entries(), enrolled),
        metrics.SERIAL.of(publisher.serial),
        *dns.families(tally, server.restarts, Became),
    ]


@dataclass(frozen=True, slots=True)
class Counted:
    """What of a registry of its own members there is to look at."""

    publisher: Publisher
    server: ZoneProcess
    ledger: Ledger
    feed: Feed
    relaying: Relaying
    stun: StunServer
    orders: Orders

    def families(self) -> list[Family]:
        """All that it tells."""
        membership, relay, stun = self.ledger.membership, self.relaying.relay, self.stun.responder
        enrolled = sum(not member.proven for member in membership.members.values())
        drops = {"relay": metrics.relay_drops(relay), "stun": metrics.stun_drops(stun)}
        pending = sum(invitation.uses > 0 for invitation in membership.invitations.values())
        return [
            *of_zone(self.publisher, self.server, enrolled, drops),
            metrics.INVITATIONS.of(pending),
            metrics.orders(self.orders.asked),
            *metrics.relayed(relay),
            metrics.STUN_ANSWERS.of(stun.answers),
            metrics.STREAMS.of(self.feed.streams),
            metrics.CUT.of(self.feed.cut),
            metrics.COMMITS.of(self.ledger.commits),
            metrics.FAILURES.of(self.ledger.failures),
        ]


class MetricsApi:
    """Adds its route to `router`."""

    def __init__(self, gate: Gate, router: web.UrlDispatcher, source: Source) -> None:
        self._gate = gate
        self._told = Told(source)
        router.add_get(PATH, self._get, allow_head=False)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        member = await self._gate.member(request)
        if member.role is not Role.ADMIN:
            raise RefusedError(403, "only admins may ask: `wgdisco registry set NAME role admin` makes one")
        body, content_type = await self._told.expose(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
