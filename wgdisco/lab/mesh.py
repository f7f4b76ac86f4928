"""The real programs in a lab: a registry made by `registry init`, members that join by its links."""

import asyncio
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Self

import aiohttp

from wgdisco.errors import LocalError
from wgdisco.lab.internet import Internet
from wgdisco.lab.timeline import Timeline
from wgdisco.lab.topologies import REGISTRY
from wgdisco.tunnel.engines import EngineKind

STATE = "/var/lib/wgdisco"
_START_TIMEOUT = 60.0  # on an emulated processor
# One interpreter for all invitations: starting one for each would take longer than what is measured
_INVITE = """
import sys
from wgdisco import cli
for group in sys.argv[1:]:
    sys.argv = ["wgdisco", "registry", "invite", "--group", group]
    code = cli.main()
    if code:
        sys.exit(code)
"""


class Registry:
    """A network of its own, from `registry init` to the end of the process; a context manager.

    Every pair of members gets a group, so that it knows of nobody else; `links` has two join links by group.
    """

    def __init__(self, net: Internet, groups: Sequence[str], endpoint: str, init: Sequence[str] = ()) -> None:
        """Make the network, start its registry, invite two members to each group. LocalError when that fails.

        `endpoint` is where members reach it, `init` more words for `registry init`.
        """
        self._host = net.hosts[REGISTRY]
        self._host.run(["sh", "-c", f"rm -rf {STATE}/*"])
        net.warm.run(self._host, ["registry", "init", "--firewall", "none", "--endpoint", endpoint, *init])
        self._timeline = Timeline({}, io.StringIO())
        self._timeline.follow(REGISTRY, net.warm.start(self._host, ["registry", "run", "--log", "json"]))
        try:
            self._invite(groups)
        except BaseException:
            self.close()
            raise

    def _invite(self, groups: Sequence[str]) -> None:
        if not self._timeline.wait(lambda: self._timeline.first(REGISTRY, "started") is not None, _START_TIMEOUT):
            raise LocalError(f"the registry has not started in {_START_TIMEOUT:.0f} s")
        twice = [group for group in groups for _ in range(2)]
        said = self._host.run(
            [sys.executable, "-c", _INVITE, *twice], timeout=_START_TIMEOUT + 2 * len(groups)
        ).stdout.split()
        self.links = dict(zip(groups, zip(said[::2], said[1::2], strict=True), strict=True))

    def check(self) -> None:
        """LocalError when it has ended."""
        self._timeline.wait(lambda: False, 0.0)

    def close(self) -> None:
        """End it."""
        self._timeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def join_words(link: str, group: str, name: str, engine: EngineKind = EngineKind.USERSPACE) -> list[str]:
    """What `wgdisco` is told to start a member: `group` is what it calls the network, and its interface.

    It waits with others until `accept`.
    """
    words = ["join", link, "--foreground", "--network", group, "--name", name, "--accept-peers", "ask"]
    words += ["--engine", engine.value]
    return [*words, "--firewall", "none", "--log", "json"]


def start_engine(net: Internet, host: str, interface: str) -> None:
    """Have `wireguard-go` make an interface on a host; `end_engine` ends it. LocalError when it does not."""
    net.hosts[host].run(["wireguard-go", interface])


def end_engine(net: Internet, host: str, interface: str) -> None:
    """Take the interface away, and the program with it; without one, nothing."""
    net.hosts[host].run(["ip", "link", "delete", interface], check=False)


def accept(net: Internet, group: str, names: Mapping[str, str]) -> None:
    """What `wgdisco accept NAME` asks a daemon, of several hosts' daemons at the same time: `names` are by host."""

    async def ask(host: str, name: str) -> None:
        connector = aiohttp.UnixConnector(str(net.file(host, f"/run/wgdisco/{group}.sock")))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post("http://localhost/v1/command/accept", json={"name": name}) as response,
        ):
            told = await response.json()
        if "error" in told:
            raise LocalError(f"{host}: {told['error']}")

    async def ask_all() -> None:
        await asyncio.gather(*(ask(host, name) for host, name in names.items()))

    try:
        asyncio.run(ask_all())
    except aiohttp.ClientError as error:
        raise LocalError(f"a member does not answer: {error}") from error
