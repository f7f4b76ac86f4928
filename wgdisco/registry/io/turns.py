"""Whose turn it is to have a large snapshot.

A registry that was restarted has all its members ask at once. Given to all of them at once, snapshots of a large
network would fill what memory and what way out there is, and none would come to its end before it is given up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LARGE = 128  # members in a snapshot: some 50 kB
AT_ONCE = 32
PATIENCE = 1.0
_LOOK_INTERVAL = 0.01


class Turn:
    """To give something to somebody, while others wait for it."""

    async def heard(self, is_through: Callable[[], bool]) -> None:
        """Until it has arrived, or has taken too long for the others."""


class _Large(Turn):
    async def heard(self, is_through: Callable[[], bool]) -> None:
        for _ in range(int(PATIENCE / _LOOK_INTERVAL)):
            if is_through():
                return
            await asyncio.sleep(_LOOK_INTERVAL)


class Turns:
    """AT_ONCE large ones at a time; small ones at once."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def turn(self, members: int) -> AsyncIterator[Turn]:
        """For a snapshot of so many members."""
        if members < LARGE:
            yield Turn()
            return
        async with self._free:
            yield _Large()
