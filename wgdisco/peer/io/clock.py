"""A member's clock on this host's: what `peer.clock` knows, asked now."""

import logging
import time
from dataclasses import replace

from wgdisco.errors import LocalError
from wgdisco.machine import boot_time
from wgdisco.peer.clock import Clock
from wgdisco.peer.io.state import MemberState, StateStore

LOG = logging.getLogger(__name__)


class HostClock:
    """`reserve` before the first handshake; then `to_keep` goes into what is saved, and `kept` says that it was."""

    def __init__(self, state: MemberState) -> None:
        self._clock = Clock(state.handshake_time, state.memory.confirmed_at, boot_time())

    def reserve(self, state: MemberState, store: StateStore) -> MemberState:
        """Keep ahead on disk what handshakes may use from now on; a disk that refuses is told of, and we go on."""
        reserved = replace(state, handshake_time=self.to_keep())
        try:
            store.save(reserved)
        except LocalError as error:
            LOG.warning("%s", error)
        self.kept(reserved)
        return reserved

    def kept(self, state: MemberState) -> None:
        """What is on disk now."""
        self._clock.kept = state.handshake_time

    def registry_said(self, unix: float) -> None:
        """What the registry's clock says."""
        self._clock.registry_said(unix, boot_time())

    def time(self) -> float:
        """Unix time, as well as it is known."""
        return self._clock.time(time.time(), boot_time())

    def handshake_time(self) -> float:
        """For the timestamps of initiations."""
        return self._clock.handshake_time(time.time(), boot_time())

    def to_keep(self) -> float:
        """What has to be on disk from now on."""
        return self._clock.to_keep(time.time(), boot_time())

    def is_due(self) -> bool:
        """Whether to save that now."""
        return self._clock.is_due(time.time(), boot_time())

    def note(self) -> str | None:
        """What is wrong with the clock, and what to do."""
        return self._clock.note(time.time(), boot_time())
