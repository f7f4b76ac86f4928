"""Where the registry is: all its addresses tried together, then TLS; and whether this host's firewall is to blame."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.peer.io.driver import AgentDriver
from wgdisco.peer.io.resolve import resolve
from wgdisco.peer.io.websocket import UDP_TIMEOUT, TlsFallback
from wgdisco.tunnel.firewall import Facts, Need, findings
from wgdisco.tunnel.io.nft import list_ruleset
from wgdisco.tunnel.managed import MAX_FAN_OUT

LOG = logging.getLogger(__name__)

RESOLVE_INTERVAL = 5.0


class RegistryFinder:
    """`registries` and `tls` give HOST:PORT as they are now; `firewalled` hears what the host's firewall does."""

    def __init__(
        self,
        driver: AgentDriver,
        key: PublicKey,
        registries: Callable[[], Sequence[str]],
        tls: Callable[[], Sequence[str]],
        firewalled: Callable[[bool], None],
    ) -> None:
        self._driver = driver
        self._key = key
        self._registries = registries
        self._tls = tls
        self._firewalled = firewalled

    async def run(self) -> None:
        """While no registry answers, look up where it is, and try every address; then by TLS until UDP answers."""
        agent, device = self._driver.agent, self._driver.device
        unanswered = 0
        async with TlsFallback(lambda: device.status().fwmark) as tls:
            while True:
                at = self.endpoint()
                if at is None:
                    endpoints = await resolve(self._registries())
                    port = device.status().listen_port
                    agent.ourselves.stand_ins = await tls.unanswered(self._tls(), port)
                    agent.set_alternatives(self._key, (*endpoints, *agent.ourselves.stand_ins), boot_time())
                    self._driver.settle()
                    if unanswered:
                        await self._look_at_firewall(port)
                    unanswered += 1
                elif at not in agent.ourselves.stand_ins:
                    agent.ourselves.stand_ins = await tls.answered()
                elif tls.wants_udp():
                    device.initiate(self._key, (await resolve(self._registries()))[:MAX_FAN_OUT])
                unanswered = unanswered if at is None else 0
                await asyncio.sleep(UDP_TIMEOUT if at is None and not tls.is_open else RESOLVE_INTERVAL)

    def endpoint(self) -> Endpoint | None:
        """Where the registry is heard from now."""
        if not self._driver.agent.is_live(self._key):
            return None
        peers = self._driver.device.status().peers
        return next((peer.endpoint for peer in peers if peer.key == self._key), None)

    async def _look_at_firewall(self, port: int) -> None:
        """Answers to what we send come in wherever anything does; a chain that drops them drops everything of ours."""
        try:
            rules = await list_ruleset()
        except LocalError as error:
            LOG.debug("the firewall was not looked at: %s", error)
            return
        self._firewalled(bool(findings(Need(self._driver.device.interface, port), Facts(rules))))
