"""The event loop that lets packets take their lanes while it waits (`lanes.py`).

Every verb imports it, and so it imports nothing of the tunnel.
"""

import asyncio
import math
import select
import selectors
from collections.abc import Callable
from typing import Protocol

from wgdisco.machine import SleepWatch


class Carrier(Protocol):
    """What `lanes.Lanes` is to who waits."""

    def wait(self, epoll: int, milliseconds: int, slept: float) -> list[tuple[int, int]]:
        """As epoll_wait, -1 for ever: descriptors and what is with them.

        `slept` is how far the clock may be ahead of the one that stands still, in seconds.
        """

    @property
    def has_news(self) -> bool:
        """Whether packets went since the last time, or were left."""


class LaneSelector(SleepWatch):
    """Waits as any selector does; `lanes`, when somebody sets them, are used meanwhile.

    `carried` is called first thing after packets went, or were left; `slept` says how far the clock may be ahead of the
    one that stands still, in seconds, before somebody has to know that the machine was suspended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Carrier | None = None
        self.carried: Callable[[], None] = lambda: None
        self.slept: Callable[[], float] = lambda: 0.0

    def _wait(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        lanes = self.lanes
        if lanes is None:
            return super()._wait(timeout)
        milliseconds = -1 if timeout is None else max(0, math.ceil(timeout * 1e3))
        ready = []
        keys = self.get_map()
        for fd, events in lanes.wait(self.fileno(), milliseconds, self.slept()):
            key = keys.get(fd)
            if key is not None:
                mask = (selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0) | (
                    selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
                )
                ready.append((key, mask & key.events))
        if lanes.has_news:
            self.carried()
        return ready


class LaneLoop(asyncio.SelectorEventLoop):
    """An event loop that shows what it waits in."""

    def __init__(self, selector: LaneSelector | None = None) -> None:
        self.waits_in = selector or LaneSelector()
        super().__init__(self.waits_in)
