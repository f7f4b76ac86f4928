import asyncio
import json
import subprocess
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.errors import LocalError
from wgdisco.tunnel.io.link import Link
from wgdisco.tunnel.io.policy import Policy
from wgdisco.tunnel.io.tun import Tun

OWN = [ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64")]
EVERYTHING = [ip_network("0.0.0.0/0"), ip_network("::/0")]
SWITCH = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
KEPT = Path("/run/wgdisco")


def switch(value: str | None = None) -> str:
    """What it is, or set to `value`."""
    if value is not None:
        SWITCH.write_text(value)
    return SWITCH.read_text().strip()


def state() -> str:
    """Whatever an interface that is gone again may have left."""
    tables = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    files = sorted(path.name for path in KEPT.glob("*"))
    return f"{ip('rule')}{ip('-6', 'rule')}{switch()}{tables}{files}"


async def opened(name: str, mark: int = 0) -> tuple[Link, Policy, int]:
    link, policy = await Link.open(name), Policy(name)
    try:
        await link.configure(OWN, None, [])
        mark = await policy.mark(mark)
        await policy.open(link, EVERYTHING, mark, OWN)
    except LocalError:
        await link.remove()
        raise
    return link, policy, mark


@in_namespace
def test_all_of_it_goes_and_nothing_of_others():
    """Others have a rule that differs from ours in its protocol alone, one before it, and the table 51820."""

    async def scenario():
        ip("rule", "add", "table", "51820", "pref", "30000")
        ip("link", "add", "lan", "type", "veth", "peer", "name", "lan2")
        ip("link", "set", "lan", "up")
        ip("route", "add", "10.5.0.0/16", "dev", "lan", "table", "51821")
        before = state()
        link, policy, mark = await opened("tt0")
        assert mark == 51822
        assert "29999:\tnot from all fwmark 0xca6e lookup 51822 proto 119\n" in ip("rule")
        assert "29998:\tfrom all lookup main suppress_prefixlength 0 proto 119\n" in ip("-6", "rule")
        assert ip("route", "show", "table", "51822").split()[:3] == ["default", "dev", "tt0"]
        assert switch() == "1"
        assert state() != before
        ip("rule", "add", "not", "fwmark", "51822", "table", "51822", "pref", "29999")
        await policy.close()
        await policy.close()
        ip("rule", "del", "not", "fwmark", "51822", "table", "51822", "pref", "29999")
        await link.remove()
        assert state() == before
        assert ip("route", "show", "table", "51822") == ""

    tun = Tun.open("tt0")
    asyncio.run(scenario())
    tun.close()


@in_namespace
def test_who_comes_after_one_that_was_killed_puts_it_back():
    async def scenario():
        before = state()
        for name in ("tt0", "tt1"):
            tun = Tun.open(name)
            link, _policy, _mark = await opened(name)
            await link.remove()
            tun.close()
        assert switch() == "1"
        await Policy("tt0").close()
        assert "lookup 51820" not in ip("rule")
        assert "lookup 51821" in ip("rule")
        assert switch() == "1", "the other needs it"
        await Policy("tt1").close()
        assert state() == before

    asyncio.run(scenario())


@in_namespace
def test_a_switch_that_was_on_stays_on():
    async def scenario():
        switch("1")
        before = state()
        link, policy, _mark = await opened("tt0", 7)
        assert "fwmark 0x7 lookup 7 " in ip("rule")
        await policy.close()
        await link.remove()
        assert state() == before

    tun = Tun.open("tt0")
    asyncio.run(scenario())
    tun.close()


@in_namespace
def test_what_is_kept_may_be_anything():
    """It is the daemon's user who wrote it, and root who reads it."""

    rules = {"rules": [[4, 9, 7, 0], [4, 0, 255, 0], "x"], "src_valid_mark": 1}
    ip("rule", "add", "table", "7", "pref", "9")
    before = ip("rule")
    asyncio.run(Policy("tt0").close())
    KEPT.mkdir()
    for text in ("", "{", "[]", "7", json.dumps(rules)):
        (KEPT / "tt0.routes").write_text(text)
        asyncio.run(Policy("tt0").close())
        assert not list(KEPT.iterdir())
    assert ip("rule") == before


@in_namespace
def test_no_room_and_what_was_begun_is_undone():
    async def scenario():
        before = state()
        ip("rule", "add", "table", "7", "pref", "2")
        with pytest.raises(LocalError, match="cannot route into tt0: there is a routing rule of priority 1 or"):
            await opened("tt0")
        ip("rule", "del", "table", "7", "pref", "2")
        # The table is taken: the switch and the nft table are there by then.
        ip("link", "add", "lan", "type", "veth", "peer", "name", "lan2")
        ip("link", "set", "lan", "up")
        ip("route", "add", "default", "dev", "lan", "table", "9")
        with pytest.raises(LocalError, match=r"cannot route 0\.0\.0\.0/0 into tt0: lan has that route already"):
            await opened("tt0", 9)
        await Policy("tt0").close()
        assert state() == before

    tun = Tun.open("tt0")
    asyncio.run(scenario())
    tun.close()
