"""The control socket `/run/wgdisco/IFACE.sock`: HTTP for root and the group `wgdisco`, and the client that asks it."""

import asyncio
import grp
import importlib
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wgdisco.api import SCHEMA, StatusReport
from wgdisco.errors import LocalError, NotRunningError, WgdiscoError

DIRECTORY = Path("/run/wgdisco")
GROUP = "wgdisco"

# What a daemon does when asked by `POST /v1/NAME`; WgdiscoError becomes the asker's error.
Command = Callable[[Mapping[str, Any]], Awaitable[None]]


class ControlServer:
    """Serves `GET /v1/status` and the daemon's commands.

    aiohttp is imported aside, since a tunnel must not wait for it to come up.
    """

    def __init__(
        self, interface: str, status: Callable[[], StatusReport], commands: Mapping[str, Command] | None = None
    ) -> None:
        self.path = DIRECTORY / f"{interface}.sock"
        self._commands = commands or {}
        self._status = status
        self._runner: Any = None

    async def start(self) -> None:
        """Make the socket; LocalError when another daemon answers there or the directory cannot be made."""
        if await _answers(self.path):
            raise LocalError(f"another daemon already serves {self.path}: stop it first")
        web = await asyncio.to_thread(importlib.import_module, "aiohttp.web")

        async def status(_request: Any) -> Any:
            return web.json_response(self._status().to_json())

        application = web.Application()
        application.router.add_get("/v1/status", status)
        for name, command in self._commands.items():
            application.router.add_post(f"/v1/{name}", _handler(web, command))
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            _clear_the_way(self.path)
            previous = os.umask(0o117)
            try:
                await web.UnixSite(self._runner, str(self.path)).start()
            finally:
                os.umask(previous)
            with suppress(KeyError):
                os.chown(self.path, -1, grp.getgrnam(GROUP).gr_gid)
        except OSError as error:
            raise LocalError(f"cannot make the control socket {self.path}: {error.strerror}") from error

    async def close(self) -> None:
        """Take the socket away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self.path.unlink(missing_ok=True)


def _handler(web: Any, command: Command) -> Callable[[Any], Awaitable[Any]]:
    async def handle(request: Any) -> Any:
        try:
            told = await request.json()
        except ValueError:
            told = None
        if not isinstance(told, dict) or told.get("schema") != SCHEMA:
            return web.json_response({"error": "not a request this daemon knows: restart it"}, status=400)
        try:
            await command(told)
        except WgdiscoError as error:
            return web.json_response({"error": str(error)}, status=409)
        return web.json_response({"schema": SCHEMA})

    return handle


def _clear_the_way(path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


def running_interfaces() -> list[str]:
    """Interfaces whose daemon has a control socket here, in order."""
    with suppress(OSError):
        return sorted(p.stem for p in DIRECTORY.iterdir() if p.suffix == ".sock" and stat.S_ISSOCK(p.stat().st_mode))
    return []


async def fetch_status(interface: str) -> StatusReport:
    """Ask the daemon of `interface`; NotRunningError when none answers."""
    _, said = await _ask(interface, "GET", "/v1/status", None)
    try:
        return StatusReport.from_json(said)
    except ValueError as error:
        raise LocalError(str(error)) from error


async def command(interface: str, name: str, **told: Any) -> None:
    """Have the daemon of `interface` do something; NotRunningError when none answers, LocalError when it refuses."""
    status, said = await _ask(interface, "POST", f"/v1/{name}", {"schema": SCHEMA, **told})
    if status != 200:
        reason = said.get("error") if isinstance(said, dict) else None
        raise LocalError(str(reason or f"the daemon of {interface} does not know {name}"))


async def _ask(interface: str, method: str, url: str, body: Any) -> tuple[int, Any]:
    import aiohttp  # noqa: PLC0415  a sixth of a second that only this command pays

    path = DIRECTORY / f"{interface}.sock"
    connector = aiohttp.UnixConnector(str(path))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.request(method, f"http://localhost{url}", json=body) as response,
        ):
            return response.status, await response.json(content_type=None)
    except PermissionError as error:
        raise LocalError(f"no access to {path}: use sudo, or join the group {GROUP}") from error
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        if isinstance(getattr(error, "os_error", error), PermissionError):
            raise LocalError(f"no access to {path}: use sudo, or join the group {GROUP}") from error
        raise NotRunningError(
            f"no wgdisco daemon answers for {interface}: start `wgdisco join` or `registry run`"
        ) from error
    except ValueError as error:
        raise LocalError(f"the daemon of {interface} cannot be understood: restart it") from error
