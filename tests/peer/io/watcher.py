"""Run in a host of a lab: prints what `watch` tells, one JSON line each, with the boot-time clock."""

import asyncio
import json

from wgdisco.machine import boot_time
from wgdisco.peer.io.interfaces import watch


async def main() -> None:
    async for local in watch("mesh"):
        gateway = local.default_gateway()
        told = {
            "at": boot_time(),
            "usable": [str(address.address) for address in local.usable()],
            "gateway": None if gateway is None else f"{gateway.gateway} {gateway.interface}",
            "links": [link.name for link in local.links],
        }
        print(json.dumps(told), flush=True)


asyncio.run(main())
