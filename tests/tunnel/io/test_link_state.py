"""The interface's state, in our network namespace and in others."""

import asyncio
import os
import subprocess
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.tunnel.io.link_state import LinkGone, LinkState, RouteMtu, watch
from wgdisco.tunnel.io.tun import Tun

HOLD = ["unshare", "--net", "sh", "-c", "echo; exec cat"]


@contextmanager
def elsewhere():
    """Another network namespace, by the process that holds it."""
    with subprocess.Popen(HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        yield holder


def there(holder, *arguments):
    subprocess.run(["nsenter", f"--target={holder.pid}", "--net", "ip", *arguments], check=True)


def watching(scenario):
    """Run `scenario(following)` with a TUN tt0; `following()` is the next event, None after the last."""

    async def main():
        tun, events = Tun.open("tt0"), asyncio.Queue()
        watched = asyncio.create_task(watch(tun, events.put_nowait))
        watched.add_done_callback(lambda _task: events.put_nowait(None))

        async def following():
            return await asyncio.wait_for(events.get(), 5)

        await scenario(following)
        watched.cancel()
        await asyncio.gather(watched, return_exceptions=True)
        tun.close()

    asyncio.run(main())


async def ends(following):
    while (event := await following()) != LinkGone():
        assert isinstance(event, LinkState)
    assert await following() is None


@pytest.mark.rule("D4")
@in_namespace
def test_mtus_of_routes_are_told_here_and_elsewhere():
    network, default, v6 = map(ip_network, ("10.9.1.0/24", "0.0.0.0/0", "fd09:1::/64"))

    async def routes(following, run):
        async def told():
            while isinstance(event := await following(), LinkState):
                pass
            return event

        run("link", "set", "tt0", "up")
        run("route", "add", "10.9.1.0/24", "dev", "tt0", "mtu", "1299")
        assert await told() == RouteMtu(network, 1299)
        run("-6", "route", "add", str(v6), "dev", "tt0", "mtu", "1289")
        assert await told() == RouteMtu(v6, 1289)
        run("route", "add", "10.9.2.0/24", "dev", "tt0")
        run("route", "add", "10.9.3.0/24", "dev", "lo", "mtu", "1200")
        run("route", "add", "default", "dev", "tt0", "mtu", "1298", "table", "77")
        assert await told() == RouteMtu(default, 1298)
        run("route", "replace", "10.9.1.0/24", "dev", "tt0")
        assert await told() == RouteMtu(network, None)
        run("-6", "route", "del", str(v6), "dev", "tt0")
        assert await told() == RouteMtu(v6, None)
        run("link", "set", "tt0", "down")
        while (await following()).up:
            pass

    async def scenario(following):
        await following()
        ip("link", "set", "lo", "up")
        await routes(following, ip)
        with elsewhere() as holder:
            ip("link", "set", "tt0", "netns", str(holder.pid))
            there(holder, "link", "set", "lo", "up")
            await routes(following, partial(there, holder))
            there(holder, "link", "del", "tt0")
            await ends(following)

    watching(scenario)


@in_namespace
def test_changes_in_order_until_it_is_deleted():
    async def scenario(following):
        assert await following() == LinkState("tt0", 1500, up=False)
        ip("link", "add", "other", "type", "veth")
        ip("link", "set", "tt0", "mtu", "1300")
        assert await following() == LinkState("tt0", 1300, up=False)
        ip("link", "set", "tt0", "up")
        ip("link", "set", "tt0", "down")
        ip("link", "set", "tt0", "name", "tt1")
        assert await following() == LinkState("tt0", 1300, up=True)
        assert await following() == LinkState("tt0", 1300, up=False)
        assert await following() == LinkState("tt1", 1300, up=False)
        ip("link", "del", "tt1")
        await ends(following)

    watching(scenario)


@pytest.mark.rule("E7", "M1")
@in_namespace
def test_in_other_namespaces_and_back():
    async def scenario(following):
        async def until(state):
            while await following() != state:
                pass

        with elsewhere() as one, elsewhere() as two:
            ip("link", "set", "tt0", "netns", str(one.pid), "name", "moved")
            await until(LinkState("moved", 1500, up=False))
            there(one, "link", "set", "moved", "mtu", "1300")
            await until(LinkState("moved", 1300, up=False))
            there(one, "link", "set", "moved", "up")
            await until(LinkState("moved", 1300, up=True))
            there(one, "link", "set", "moved", "netns", str(two.pid))
            await until(LinkState("moved", 1300, up=False))
            there(two, "link", "set", "moved", "mtu", "1301")
            await until(LinkState("moved", 1301, up=False))
            there(two, "link", "set", "moved", "netns", str(os.getpid()))
            ip("link", "set", "moved", "mtu", "1302")
            await until(LinkState("moved", 1302, up=False))
            ip("link", "set", "moved", "netns", str(one.pid))
            there(one, "link", "del", "moved")
            await ends(following)

    watching(scenario)


@pytest.mark.rule("E7")
@in_namespace
def test_it_does_not_keep_a_namespace_alive():
    async def main():
        tun, events = Tun.open("tt0"), asyncio.Queue()
        watched = asyncio.create_task(watch(tun, events.put_nowait))
        await events.get()
        with elsewhere() as one:
            ip("link", "set", "tt0", "mtu", "1300", "netns", str(one.pid))
            assert await asyncio.wait_for(events.get(), 5) == LinkState("tt0", 1300, up=False)
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(tun.fd, gone.set)
            one.stdin.close()
        await asyncio.wait_for(gone.wait(), 10)  # the namespace went with its last process, and the interface with that
        watched.cancel()
        await asyncio.gather(watched, return_exceptions=True)
        tun.close()

    asyncio.run(main())
