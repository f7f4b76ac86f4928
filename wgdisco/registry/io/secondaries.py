"""What a registry of either kind says of its zone and of who serves it to others."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from wgdisco.dnssd.export import server_addresses
from wgdisco.dnssd.secondaries import Secondaries
from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.tunnel.io.control import Command


def with_servers(
    told: Secondaries | None, own: Iterable[IPAddress]
) -> tuple[Secondaries | None, tuple[IPAddress, ...]]:
    """The secondaries with the zone's name servers: they, or we where they are on this host or there are none."""
    servers = () if told is None else server_addresses(*(endpoint.address for endpoint in told.endpoints))
    servers = servers or server_addresses(*own)[:1]
    return None if told is None else replace(told, servers=servers), servers


def addresses_of(hosts: Iterable[str]) -> list[IPAddress]:
    """Of those hosts that are told by address."""
    found = []
    for host in hosts:
        with suppress(ValueError):
            found.append(parse_address(host.removeprefix("[").removesuffix("]")))
    return found


def zone_command(told: Callable[[], dict[str, Any]]) -> Command:
    """The command that tells of the zone. It is much to write: aside, for datagrams do not wait."""

    async def tell(_asked: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(told)

    return tell
