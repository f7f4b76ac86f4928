"""The host's own programs: firewalls and resolvers are changed by nothing else."""

import asyncio
import os
import shutil

_TIMEOUT = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def which(program: str) -> str | None:
    """Where it is installed, links followed; None for nowhere."""
    found = shutil.which(program, path=_PATH)
    return None if found is None else os.path.realpath(found)


async def execute(command: tuple[str, ...], text: str = "") -> tuple[int, str, str]:
    """Run it with `text` as its input: exit status, output and complaint. One that is too slow is killed: status 1.

    Cancelled, this waits for it all the same: it is not to go on while what it did is undone.
    """
    work = asyncio.ensure_future(_execute(command, text))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def _execute(command: tuple[str, ...], text: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        shutil.which(command[0], path=_PATH) or command[0],
        *command[1:],
        stdin=asyncio.subprocess.PIPE if text else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": _PATH, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            output, complaint = await process.communicate(text.encode() if text else None)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, "", f"no answer in {_TIMEOUT:.0f} s"
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace"), complaint.decode(errors="replace")
