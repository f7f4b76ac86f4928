"""Daemons as commands."""

import asyncio
import signal

import pytest

from wgdisco.errors import LocalError
from wgdisco.process import run_daemon


@pytest.fixture(autouse=True)
def own_signals():
    """A daemon that has ended ignores them for good."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def _fail() -> None:
    raise LocalError("the interface is gone")


async def _fail_in_a_task() -> None:
    async with asyncio.TaskGroup() as outer:

        async def inner() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_fail())
                await asyncio.Event().wait()

        outer.create_task(inner())
        outer.create_task(asyncio.Event().wait())


@pytest.mark.parametrize("daemon", [_fail, _fail_in_a_task])
def test_what_a_task_fails_with_is_one_plain_error(daemon):
    with pytest.raises(LocalError, match="the interface is gone"):
        run_daemon(daemon)


def test_a_daemon_that_ends_is_no_error():
    assert run_daemon(lambda: asyncio.sleep(0)) == 0
