"""The way down from the root, where others' servers do not help."""

import asyncio
import socket
from contextlib import ExitStack
from ipaddress import ip_address

import dns.name

from wgdisco.endpoint import Endpoint
from wgdisco.registry.io import delegation
from wgdisco.registry.io.delegation import Walker


def test_servers_that_say_nothing_are_not_waited_for_one_by_one_for_ever(monkeypatch):
    monkeypatch.setattr(delegation, "WALK_MAX", 0.3)
    with ExitStack() as silent:
        roots = []
        for _ in range(5):
            bound = silent.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            bound.bind(("127.0.0.1", 0))
            roots.append(Endpoint(ip_address("127.0.0.1"), bound.getsockname()[1]))

        async def main():
            async with asyncio.timeout(5):
                return await Walker(roots).delegation(dns.name.from_text("wg.example."))

        found = asyncio.run(main())
    assert found.said == "no answer within 0.3 s; the last asked were the servers of ."
    assert not found.servers
