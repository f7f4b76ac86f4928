"""Where registries are now: their names looked up by the host's own resolver, never by one inside the tunnel."""

import asyncio
import socket
from collections.abc import Iterable
from itertools import chain, zip_longest

from wgdisco.endpoint import Endpoint, parse_address

LOOKUP_TIMEOUT = 5.0


async def resolve(registries: Iterable[str]) -> tuple[Endpoint, ...]:
    """Every address of every HOST:PORT, the first of each before the second of any; those not found are left out."""
    answers = await asyncio.gather(*(_lookup(registry) for registry in registries))
    mixed = chain.from_iterable(zip_longest(*answers))
    return tuple(dict.fromkeys(endpoint for endpoint in mixed if endpoint is not None))


async def _lookup(registry: str) -> list[Endpoint]:
    host, _, port = registry.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT):
            answers = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    return [Endpoint(parse_address(str(answer[4][0])), int(port)) for answer in answers]
