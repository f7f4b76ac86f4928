"""Follow peers in a registry's zone from a program of one's own.

`python examples/browse.py SERVER:PORT ZONE KEY…` prints a line whenever one of the keys (base64) comes, moves or goes.
"""

import asyncio
import sys

from wgdisco.dnssd.browser import InstanceFound, InstanceGone
from wgdisco.dnssd.io.client import ZoneFollower
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey


async def main(server: str, zone: str, *keys: str) -> None:
    """Follow until interrupted."""
    follower = ZoneFollower(Endpoint.from_text(server), zone, [PublicKey.from_text(key) for key in keys])
    running = asyncio.create_task(follower.run())
    async for event in follower.events():
        match event:
            case InstanceFound(instance, _):
                print(f"{instance.key} is at {instance.endpoint}, for {', '.join(map(str, instance.allowed_ips))}")
            case InstanceGone(key, _):
                print(f"{key} is gone")
            case _:
                print(event)
    await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
