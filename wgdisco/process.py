"""What every verb that stays needs: to run until it is asked to end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wgdisco.errors import WgdiscoError
from wgdisco.machine import allow_files, give_back_memory, guard_memory
from wgdisco.tunnel.io.lane_loop import LaneLoop, LaneSelector

STOPS = (signal.SIGINT, signal.SIGTERM)


def program_version() -> str:
    """The installed version, or "source" when run from a checkout that is not installed."""
    try:
        return version("wgdisco")
    except PackageNotFoundError:
        return "source"


def run_daemon(daemon: Callable[[], Coroutine[Any, Any, None]], selector: LaneSelector | None = None) -> int:
    """Run until it ends or SIGINT or SIGTERM asks it to; what it set up, it takes down. Its loop waits in `selector`.

    A second signal does not interrupt the taking down. What fails in a task of the daemon is raised as if there were
    no task group around it.
    """

    async def supervise() -> None:
        task = asyncio.ensure_future(daemon())

        def stop() -> None:
            if not task.cancelling():
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, stop)
        heed_signals()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    give_back_memory()
    guard_memory()
    allow_files()
    try:
        with asyncio.Runner(loop_factory=lambda: LaneLoop(selector)) as runner:
            runner.run(supervise())
    except BaseExceptionGroup as group:
        expected = _first_expected(group)
        if expected is None:
            raise
        raise expected from None
    finally:
        ignore_signals()
    return 0


def ignore_signals() -> None:
    """All is down, and who asks once more would only make the interpreter complain on its way out."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def hold_signals() -> None:
    """Let those wait that ask to end, until `run_daemon` heeds them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def heed_signals() -> None:
    """Let those through that `__main__` made wait: a daemon once it can take down what it sets up, all else at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _first_expected(group: BaseExceptionGroup[BaseException]) -> WgdiscoError | None:
    """The error of ours in a group that holds nothing else; None when there is a bug among them."""
    ours, others = group.split(WgdiscoError)
    if ours is None or others is not None:
        return None
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, WgdiscoError)
    return error
