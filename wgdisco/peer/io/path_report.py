"""Tells the registry of our paths, as `peer.path_report` has it."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from wgdisco.api import PeerReport
from wgdisco.errors import RemoteError
from wgdisco.machine import boot_time
from wgdisco.peer.agent import Agent
from wgdisco.peer.io.registry_client import RegistryClient
from wgdisco.peer.path_report import LOOK_INTERVAL, PathReporter

LOG = logging.getLogger(__name__)

# By then most paths of a start are what they will be
FIRST_LOOK = 2.0


class ReportDesk:
    """`peers` are as `status` has them."""

    def __init__(self, client: RegistryClient, agent: Agent, peers: Callable[[], Iterable[PeerReport]]) -> None:
        self._client = client
        self._agent = agent
        self._peers = peers
        self._reporter = PathReporter()
        self._up = asyncio.Event()

    def registry_up(self, is_up: bool) -> None:
        """Whether the registry can be told; when it is there again it may have forgotten what it was told."""
        if is_up:
            self._reporter.begin_anew()
            self._up.set()
        else:
            self._up.clear()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            if not self._up.is_set():
                await self._up.wait()
                await asyncio.sleep(FIRST_LOOK)
            request = self._reporter.due(self._peers(), self._agent.round_trip, boot_time())
            if request is not None:
                try:
                    if not await self._client.tell_paths(request):
                        LOG.debug("the registry is of a version that takes no paths")
                    self._reporter.told(request, boot_time())
                except RemoteError as error:
                    LOG.debug("paths not told: %s", error.reason)
            await asyncio.sleep(LOOK_INTERVAL)
