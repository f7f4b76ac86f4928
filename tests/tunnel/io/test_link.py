import asyncio
import json
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.errors import LocalError
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.tun import Tun

FOUR = [ip_interface("10.77.0.1/24")]
BOTH = [*FOUR, ip_interface("fd77::1/64")]


def networks(*texts: str):
    return [ip_network(text) for text in texts]


def addresses() -> set[str]:
    found = json.loads(ip("-j", "addr", "show", "dev", "tt0"))[0]["addr_info"]
    return {f"{address['local']}/{address['prefixlen']}" for address in found if address["scope"] == "global"}


def routes(family: str = "-4") -> set[str]:
    """Routes into tt0, but for those the kernel made for its addresses."""
    found = json.loads(ip("-j", family, "route", "show", "dev", "tt0"))
    return {route["dst"] for route in found if route["protocol"] != "kernel"}


@in_namespace
def test_configure_and_remove():
    async def scenario():
        link = await Link.open("tt0")
        wanted = networks("10.77.0.2/32", "10.1.0.0/16", "10.1.0.0/16", "fd77::2/128", "fd78::/64", "192.0.2.1/32")
        await link.configure(BOTH, None, wanted)
        state = json.loads(ip("-j", "link", "show", "tt0"))[0]
        assert state["mtu"] == 1420
        assert "UP" in state["flags"]
        assert addresses() == {"10.77.0.1/24", "fd77::1/64"}
        assert (routes(), routes("-6")) == ({"10.1.0.0/16", "192.0.2.1"}, {"fd78::/64"})
        await link.set_routes(networks("10.2.0.0/16", "192.0.2.1/32"))
        assert (routes(), routes("-6")) == ({"10.2.0.0/16", "192.0.2.1"}, set())
        await link.remove()
        assert (addresses(), routes()) == (set(), set())
        await link.remove()

    tun = Tun.open("tt0")
    asyncio.run(scenario())
    tun.close()


@in_namespace
def test_remove_when_the_interface_is_gone():
    async def scenario():
        link = await Link.open("tt0")
        await link.configure(BOTH, 1400, networks("10.1.0.0/16"))
        tun.close()
        await link.remove()
        with pytest.raises(LocalError, match="there is no interface tt0"):
            await Link.open("tt0")

    tun = Tun.open("tt0")
    asyncio.run(scenario())


@in_namespace
def test_routes_refused():
    async def scenario():
        ip("link", "add", "lan", "type", "veth")
        ip("addr", "add", "10.1.0.5/16", "dev", "lan", "metric", "100")
        ip("-6", "addr", "add", "fd78::1/64", "dev", "lan")
        ip("link", "set", "lan", "up")
        link = await Link.open("tt0")
        for taken in ("10.1.0.0/16", "fd78::/64"):
            with pytest.raises(LocalError, match=f"cannot route {taken} into tt0: lan has that route already"):
                await link.configure(FOUR, None, networks(taken))
        ip("route", "add", "blackhole", "10.5.0.0/16")
        with pytest.raises(LocalError, match="another route has that route already"):
            await link.set_routes(networks("10.5.0.0/16"))
        await link.remove()

    tun = Tun.open("tt0")
    asyncio.run(scenario())
    tun.close()


@in_namespace
def test_without_ipv6():
    async def scenario():
        link = await Link.open("tt0")
        await link.configure(FOUR, None, networks("10.1.0.0/16"))
        assert routes() == {"10.1.0.0/16"}
        with pytest.raises(LocalError, match="give tt0 the address fd77::1/64: IPv6 is switched off here"):
            await link.configure(BOTH, None, [])
        with pytest.raises(LocalError, match="route fd78::/64 into tt0: IPv6 is switched off here"):
            await link.set_routes(networks("fd78::/64"))
        await link.remove()

    tun = Tun.open("tt0")
    Path("/proc/sys/net/ipv6/conf/tt0/disable_ipv6").write_text("1")
    asyncio.run(scenario())
    tun.close()
