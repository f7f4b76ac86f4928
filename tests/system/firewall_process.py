"""Run in a lab's host: `open`, `print` or `close` the host's firewall for a hub; prints what is done or to be done."""

import asyncio
import sys

from wgdisco.tunnel.firewall import Mode, Need, Service
from wgdisco.tunnel.io.firewall import close_firewall, open_firewall

NEED = Need("mesh", 51820, (Service("tcp", 80),), forward=True, full_tunnel=True)


async def main(what: str) -> None:
    if what == "close":
        for command in await close_firewall(NEED, permanent=True):
            print("closed", *command)
        return
    outcome = await open_firewall(NEED, {"open": Mode.AUTO, "print": Mode.PRINT}[what])
    for finding in outcome.opened:
        print("opened", finding.tool.value)
    for finding in outcome.closed:
        print(finding.to_text())


asyncio.run(main(sys.argv[1]))
