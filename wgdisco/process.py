"""What every verb that stays needs: to run until it is asked to end."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wgdisco.errors import WgdiscoError


def program_version() -> str:
    """The installed version, or "source" when run from a checkout that is not installed."""
    try:
        return version("wgdisco")
    except PackageNotFoundError:
        return "source"


def run_daemon(daemon: Coroutine[Any, Any, None]) -> int:
    """Run until it ends or SIGINT or SIGTERM asks it to; what it set up, it takes down.

    The WgdiscoError of any of its tasks is raised bare.
    """

    async def supervise() -> None:
        task = asyncio.ensure_future(daemon)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(supervise())
    except* WgdiscoError as group:
        failure = group
    else:
        return 0
    raise _first(failure)


def _first(group: BaseExceptionGroup[WgdiscoError]) -> WgdiscoError:
    """The error of the task that failed first: the others were cancelled for it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
