"""The control socket for real, in a namespace with a /run of its own: who may ask, who may serve, what is left."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_api import REPORT
from tests.tunnel.io.namespace import in_namespace
from wgdisco.errors import LocalError, NotRunningError
from wgdisco.tunnel.io.control import ControlServer, fetch_status, refuse_second_daemon, running_interfaces

DIRECTORY = Path("/run/wgdisco")
SOCKET = DIRECTORY / "alice.sock"
STATUS = [sys.executable, "-m", "wgdisco", "status"]


PRINT_GROUP = """
import asyncio
from tests.tunnel.io.test_control import SOCKET, served
async def main():
    async with served():
        print(SOCKET.stat().st_gid)
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def served(interface: str = "alice"):
    server = ControlServer(interface, lambda: REPORT)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(*arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Exit code, output and complaint of `wgdisco status`."""
    process = await asyncio.create_subprocess_exec(
        *before, *STATUS, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, complaint = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), complaint.decode()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def stale_socket(path: Path) -> None:
    """What a daemon that was killed leaves: a socket nobody listens on."""
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@in_namespace
def test_it_is_served_to_root_and_the_group_alone_and_taken_away():
    async def scenario():
        async with served() as server:
            assert running_interfaces() == ["alice"]
            assert await fetch_status("alice") == REPORT
            assert mode(SOCKET) == 0o660
            assert stat.S_ISSOCK(SOCKET.stat().st_mode)
            assert os.umask(0o022) == 0o022
        assert not SOCKET.exists()
        assert running_interfaces() == []
        await server.close()

    asyncio.run(scenario())


@in_namespace
def test_a_strict_umask_still_lets_the_group_reach_the_socket():
    async def scenario():
        async with served():
            assert mode(DIRECTORY) == 0o755
            assert mode(SOCKET) == 0o660

    os.umask(0o077)
    asyncio.run(scenario())


@in_namespace
def test_a_directory_that_is_there_keeps_its_mode():
    async def scenario():
        async with served():
            assert mode(DIRECTORY) == 0o710

    DIRECTORY.mkdir()
    DIRECTORY.chmod(0o710)
    asyncio.run(scenario())


@in_namespace
def test_the_group_gets_it_where_there_is_one_and_its_lack_is_no_error():
    Path("/run/group").write_text("root:x:0:\nwgdisco:x:4242:\n")
    subprocess.run(["mount", "--bind", "/run/group", "/etc/group"], check=True)

    async def scenario():
        async with served():
            return SOCKET.stat().st_gid

    assert asyncio.run(scenario()) == 4242
    # A service without CAP_CHOWN keeps it for root.
    bound = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown", sys.executable, "-c", PRINT_GROUP]
    done = subprocess.run(bound, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


@in_namespace
def test_a_second_daemon_is_refused_and_the_first_goes_on():
    async def scenario():
        async with served():
            second = ControlServer("alice", lambda: REPORT)
            with pytest.raises(LocalError, match=r"another daemon already serves /run/wgdisco/alice\.sock"):
                await second.start()
            with pytest.raises(LocalError, match="another daemon"):
                await refuse_second_daemon("alice")
            await second.close()
            assert await fetch_status("alice") == REPORT
            async with served("bob"):
                assert running_interfaces() == ["alice", "bob"]
        await refuse_second_daemon("alice")

    asyncio.run(scenario())


@in_namespace
def test_what_a_killed_daemon_left_is_in_nobodys_way():
    async def scenario():
        stale_socket(DIRECTORY / "bob.sock")
        stale_socket(SOCKET)
        async with served():
            assert await fetch_status("alice") == REPORT
            code, output, complaint = await ask("-o", "json")
            assert (code, complaint) == (0, "")
            assert [interface["interface"] for interface in json.loads(output)["interfaces"]] == ["alice"]
            with pytest.raises(NotRunningError, match="for bob"):
                await fetch_status("bob")

    asyncio.run(scenario())


@in_namespace
def test_where_it_cannot_be_made_one_line_says_so_and_close_removes_nothing():
    async def scenario():
        server = ControlServer("alice", lambda: REPORT)
        with pytest.raises(LocalError, match=r"cannot make the control socket /run/wgdisco/alice\.sock: ") as caught:
            await server.start()
        assert "\n" not in str(caught.value)
        await server.close()

    DIRECTORY.write_text("a file")
    asyncio.run(scenario())
    DIRECTORY.unlink()
    SOCKET.mkdir(parents=True)
    asyncio.run(scenario())
    assert SOCKET.is_dir()


@in_namespace
def test_cancelled_while_it_starts_it_leaves_nothing():
    async def scenario():
        for steps in range(12):
            server = ControlServer("alice", lambda: REPORT)
            start = asyncio.ensure_future(server.start())
            for _ in range(steps):
                await asyncio.sleep(0)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            await server.close()
            assert not SOCKET.exists()
        server = ControlServer("alice", lambda: REPORT)
        start = asyncio.ensure_future(server.start())
        while not SOCKET.exists():  # noqa: ASYNC110  the moment to cancel at, and nobody tells
            await asyncio.sleep(0)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await server.close()
        assert not SOCKET.exists()
        async with asyncio.timeout(10):  # nor does the loop watch a descriptor that is a pipe's by now
            assert (await ask())[0] == 3

    asyncio.run(scenario())


@in_namespace
def test_exit_codes_of_status():
    async def scenario():
        code, output, complaint = await ask()
        assert (code, output, complaint.count("\n")) == (3, "", 1)
        assert complaint.startswith("wgdisco: no wgdisco daemon runs here")
        code, _, complaint = await ask("alice")
        assert (code, complaint.count("\n")) == (3, 1)
        async with served():
            for arguments in ((), ("alice",), ("-o", "json")):
                code, output, complaint = await ask(*arguments)
                assert (code, complaint) == (0, "")
                assert "alice" in output
            assert (await ask("bob"))[0] == 3
            # As somebody else would be: neither owner nor group, and without root's right to pass that over.
            os.chown(SOCKET, 65534, 65534)
            stranger = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", "--clear-groups")
            code, output, complaint = await ask("alice", before=stranger)
            assert (code, output) == (1, "")
            assert complaint == ("wgdisco: no access to /run/wgdisco/alice.sock: use sudo, or join the group wgdisco\n")

    asyncio.run(scenario())


@in_namespace
def test_whatever_else_answers_there_is_one_line():
    answers = {
        b"": 3,
        b"rubbish\r\n\r\n": 3,
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n": 3,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{]": 1,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}": 1,
    }

    DIRECTORY.mkdir()

    async def scenario():
        for answer, expected in answers.items():

            async def serve(reader, writer, answer=answer):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                writer.close()

            async with await asyncio.start_unix_server(serve, str(SOCKET)):
                code, output, complaint = await ask("alice")
            SOCKET.unlink(missing_ok=True)
            assert (code, output, complaint.count("\n")) == (expected, "", 1), answer
            assert complaint.startswith("wgdisco: ")

    asyncio.run(scenario())
