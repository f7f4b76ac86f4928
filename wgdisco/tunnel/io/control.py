"""The control socket `/run/wgdisco/IFACE.sock`: HTTP for root and the group `wgdisco`, and the client that asks it.

Commands, `POST /v1/command/NAME`, are for root alone, and for the user that the daemon runs as.
"""

import asyncio
import grp
import importlib
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wgdisco.api import SCHEMA, StatusReport
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError, NotRunningError, RemoteError
from wgdisco.tunnel.io.exposition import PATH, MetricsListener, Source, expose

LOG = logging.getLogger(__name__)

DIRECTORY = Path("/run/wgdisco")
GROUP = "wgdisco"
# How long an answer is waited for
TIMEOUT = 10.0

# A command takes and returns a JSON object; LocalError and RemoteError are told to whoever asked.
Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
_CREDENTIALS = struct.Struct("=3i")


async def refuse_second_daemon(interface: str) -> None:
    """LocalError when a daemon already answers on the control socket of `interface`; that of one killed goes."""
    path = socket_path(interface)
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except ConnectionRefusedError:
        with suppress(OSError):
            path.unlink()
        return
    except OSError:
        return
    writer.close()
    raise LocalError(f"another daemon already serves {path}: stop it first")


def socket_path(interface: str) -> Path:
    """Where the daemon of `interface` is asked."""
    return DIRECTORY / f"{interface}.sock"


class ControlServer:
    """Serves `GET /v1/status`, `GET /metrics`, and `commands` by name; metrics at an endpoint too, where one is given.

    aiohttp is imported aside, since a tunnel must not wait for it to come up.
    """

    def __init__(
        self,
        interface: str,
        status: Callable[[], StatusReport],
        commands: Mapping[str, Command] | None = None,
        metrics: Source = tuple,
        metrics_at: Endpoint | None = None,
    ) -> None:
        self.path = socket_path(interface)
        self._interface = interface
        self._status = status
        self._commands = dict(commands or {})
        self._metrics = metrics
        self._listener_for_metrics = None if metrics_at is None else MetricsListener(metrics_at, metrics)
        self._runner: Any = None
        self._listener: socket.socket | None = None

    async def start(self) -> None:
        """Make the socket; LocalError when another daemon answers there or it cannot be made."""
        await refuse_second_daemon(self._interface)
        web = await asyncio.to_thread(importlib.import_module, "aiohttp.web")

        async def status(_request: Any) -> Any:
            return web.json_response(self._status().to_json())

        async def metrics(request: Any) -> Any:
            body, content_type = await expose(self._metrics, request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type})

        async def command(request: Any) -> Any:
            if _caller(request) not in (0, os.geteuid()):
                return web.json_response({"schema": SCHEMA, "error": "only root may do this: use sudo"}, status=403)
            try:
                asked = self._commands[request.match_info["name"]]
                return web.json_response({"schema": SCHEMA, **await asked(json.loads(await request.text()))})
            except KeyError:
                error = "the daemon that runs knows no such command: restart it"
                return web.json_response({"schema": SCHEMA, "error": error}, status=404)
            except (LocalError, RemoteError) as refusal:
                return web.json_response({"schema": SCHEMA, "error": str(refusal)}, status=409)

        application = web.Application()
        application.router.add_post("/v1/command/{name}", command)
        application.router.add_get("/v1/status", status)
        application.router.add_get(PATH, metrics)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            self._listener = self._bind()
            await web.SockSite(self._runner, self._listener).start()
        except OSError as error:
            raise LocalError(f"cannot make the control socket {self.path}: {error.strerror or error}") from error
        if self._listener_for_metrics is not None:
            await self._listener_for_metrics.start()

    def _bind(self) -> socket.socket:
        """The listening socket, never for a moment open to others than root and the group."""
        make_directory(self.path.parent)
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
            group = grp.getgrnam(GROUP).gr_gid
            if self.path.stat().st_gid != group:
                os.chown(self.path, -1, group, follow_symlinks=False)
        except (KeyError, PermissionError):
            LOG.debug("the control socket is for root alone: no group %s, or no right to give it away", GROUP)
        return listener

    async def close(self) -> None:
        """Take the socket away. Again does nothing."""
        listener, self._listener = self._listener, None
        runner, self._runner = self._runner, None
        if self._listener_for_metrics is not None:
            await self._listener_for_metrics.close()
        if listener is not None:
            self.path.unlink(missing_ok=True)
        try:
            if runner is not None:
                await runner.cleanup()
        finally:
            if listener is not None:
                if listener.fileno() >= 0:  # told to stop as it began to serve: nobody but the loop knows of it
                    asyncio.get_running_loop().remove_reader(listener)
                listener.close()


def make_directory(directory: Path) -> None:
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
    try:
        return StatusReport.from_json(json.loads(await _ask(interface, "GET", "/v1/status", None)))
    except ValueError as error:
        raise LocalError(str(error)) from error


async def fetch_metrics(interface: str) -> str:
    """What the daemon of `interface` counts, as Prometheus reads it; NotRunningError when none answers."""
    return (await _ask(interface, "GET", PATH, None, content_type="text/plain")).decode()


async def send_command(interface: str, name: str, arguments: dict[str, Any], within: float = TIMEOUT) -> dict[str, Any]:
    """Have the daemon of `interface` do something; NotRunningError when none answers, LocalError when it refuses."""
    answer: dict[str, Any] = json.loads(await _ask(interface, "POST", f"/v1/command/{name}", arguments, within))
    if "error" in answer:
        raise LocalError(str(answer["error"]))
    return answer


async def _ask(
    interface: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    within: float = TIMEOUT,
    content_type: str = "application/json",
) -> bytes:
    import aiohttp  # noqa: PLC0415  a sixth of a second that only this command pays

    where = socket_path(interface)
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(where)), timeout=aiohttp.ClientTimeout(total=within)
            ) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            if response.content_type != content_type:
                raise aiohttp.ClientError("whatever answers there, it is no daemon of ours")
            return await response.read()
    except PermissionError as error:
        raise LocalError(f"no access to {where}: use sudo, or join the group {GROUP}") from error
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        if isinstance(getattr(error, "os_error", error), PermissionError):
            raise LocalError(f"no access to {where}: use sudo, or join the group {GROUP}") from error
        raise NotRunningError(
            f"no wgdisco daemon answers for {interface}: start `wgdisco join` or `registry run`"
        ) from error


def _caller(request: Any) -> int:
    """The user at the other end of the socket."""
    connection = request.transport.get_extra_info("socket")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
