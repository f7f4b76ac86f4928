"""The control socket `/run/wgdisco/IFACE.sock`: HTTP for root and the group `wgdisco`, and the client that asks it."""

import asyncio
import grp
import importlib
import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from wgdisco.api import StatusReport
from wgdisco.errors import LocalError, NotRunningError

LOG = logging.getLogger(__name__)

DIRECTORY = Path("/run/wgdisco")
GROUP = "wgdisco"


async def refuse_second_daemon(interface: str) -> None:
    """LocalError when a daemon already answers on the control socket of `interface`."""
    path = socket_path(interface)
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    writer.close()
    raise LocalError(f"another daemon already serves {path}: stop it first")


def socket_path(interface: str) -> Path:
    """Where the daemon of `interface` is asked."""
    return DIRECTORY / f"{interface}.sock"


class ControlServer:
    """Serves `GET /v1/status`. aiohttp is imported aside, since a tunnel must not wait for it to come up."""

    def __init__(self, interface: str, status: Callable[[], StatusReport]) -> None:
        self.path = socket_path(interface)
        self._interface = interface
        self._status = status
        self._runner: Any = None
        self._listener: socket.socket | None = None

    async def start(self) -> None:
        """Make the socket; LocalError when another daemon answers there or it cannot be made."""
        await refuse_second_daemon(self._interface)
        web = await asyncio.to_thread(importlib.import_module, "aiohttp.web")

        async def status(_request: Any) -> Any:
            return web.json_response(self._status().to_json())

        application = web.Application()
        application.router.add_get("/v1/status", status)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            self._listener = self._bind()
            await web.SockSite(self._runner, self._listener).start()
        except OSError as error:
            raise LocalError(f"cannot make the control socket {self.path}: {error.strerror or error}") from error

    def _bind(self) -> socket.socket:
        """The listening socket, never for a moment open to others than root and the group."""
        _make_directory(self.path.parent)
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o117)
        try:
            listener.bind(str(self.path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(previous)
        try:
            os.chown(self.path, -1, grp.getgrnam(GROUP).gr_gid)
        except (KeyError, PermissionError):
            LOG.debug("the control socket is for root alone: no group %s, or no right to give it away", GROUP)
        return listener

    async def close(self) -> None:
        """Take the socket away. Again does nothing."""
        listener, self._listener = self._listener, None
        runner, self._runner = self._runner, None
        if listener is not None:
            self.path.unlink(missing_ok=True)
        try:
            if runner is not None:
                await runner.cleanup()
        finally:
            if listener is not None:
                listener.close()


def _make_directory(directory: Path) -> None:
    """Made by us it is open to all whatever the umask, for the sockets in it are not; made by others it stays."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        return
    directory.chmod(0o755)


def running_interfaces() -> list[str]:
    """Interfaces whose daemon has a control socket here, in order."""
    with suppress(OSError):
        return sorted(p.stem for p in DIRECTORY.iterdir() if p.suffix == ".sock" and stat.S_ISSOCK(p.stat().st_mode))
    return []


async def fetch_status(interface: str) -> StatusReport:
    """Ask the daemon of `interface`; NotRunningError when none answers."""
    import aiohttp  # noqa: PLC0415  a sixth of a second that only this command pays

    path = socket_path(interface)
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(path)), timeout=aiohttp.ClientTimeout(total=5)
            ) as session,
            session.get("http://localhost/v1/status") as response,
        ):
            return StatusReport.from_json(await response.json())
    except PermissionError as error:
        raise LocalError(f"no access to {path}: use sudo, or join the group {GROUP}") from error
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        if isinstance(getattr(error, "os_error", error), PermissionError):
            raise LocalError(f"no access to {path}: use sudo, or join the group {GROUP}") from error
        raise NotRunningError(
            f"no wgdisco daemon answers for {interface}: start `wgdisco join` or `registry run`"
        ) from error
    except ValueError as error:
        raise LocalError(str(error)) from error
