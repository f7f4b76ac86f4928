"""What every verb that stays needs: to run until it is asked to end."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def program_version() -> str:
    """The installed version, or "source" when run from a checkout that is not installed."""
    try:
        return version("wgdisco")
    except PackageNotFoundError:
        return "source"


def run_daemon(daemon: Coroutine[Any, Any, None]) -> int:
    """Run until it ends or SIGINT or SIGTERM asks it to; what it set up, it takes down."""

    async def supervise() -> None:
        task = asyncio.ensure_future(daemon)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(supervise())
    return 0
