"""The one way facts change: a command looks at them, what it wants is stored, and only then is it so."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

from wgdisco.errors import ConfigError, LocalError
from wgdisco.registry.facts import Change
from wgdisco.registry.io.store import PATH, Store, is_there
from wgdisco.registry.membership import Membership

_T = TypeVar("_T")

NO_NETWORK = "there is no network here yet: make one with `wgdisco registry init`, or give --conf FILE"


class NotStoredError(LocalError):
    """The rules allowed it, and the disk did not."""


class Ledger:
    """Membership and its store. `follow` is called with changes that have been stored and taken over.

    `commits` were stored, `failures` could not be.
    """

    def __init__(self, store: Store, membership: Membership) -> None:
        self.store = store
        self.membership = membership
        self.follow: Callable[[list[Change]], Awaitable[None]] | None = None
        self.commits = self.failures = 0
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[object]] = set()

    @classmethod
    def open(cls, path: Path = PATH) -> Self:
        """From the store at `path`; ConfigError when there is no network in it, LocalError as `Store.open`."""
        if not is_there(path):
            raise ConfigError(NO_NETWORK)
        store = Store.open(path)
        try:
            return cls(store, Membership(store.load()))
        except ValueError as error:
            store.close()
            raise ConfigError(NO_NETWORK) from error
        except BaseException:
            store.close()
            raise

    async def change(self, command: Callable[[], tuple[list[Change], _T]]) -> _T:
        """Run `command` alone, store what it wants, and return what else it says. Whoever asked may go meanwhile."""
        task = asyncio.ensure_future(self._change(command))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _change(self, command: Callable[[], tuple[list[Change], _T]]) -> _T:
        async with self._turn:
            changes, result = command()
            if changes:
                try:
                    await self.store.commit(changes)
                except LocalError as error:
                    self.failures += 1
                    raise NotStoredError(str(error)) from error
                self.commits += 1
                self.membership.apply(changes)
                if self.follow is not None:
                    await self.follow(changes)
            return result

    async def close(self) -> None:
        """Let what has begun end, and close the store."""
        await asyncio.gather(*self._running, return_exceptions=True)
        self.store.close()
