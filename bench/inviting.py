"""Many join links at once, asked for at a running registry's control socket.

usage, in the registry's host: python -m bench.inviting COUNT
"""

import asyncio
import json
import sys

from bench.population import NAME
from wgdisco.tunnel.io import control


async def main(count: int) -> None:
    """Print them as one list in JSON."""
    links = []
    for number in range(count):
        wish = {"name": f"new{number}", "groups": ["new"], "admin": False, "uses": 1, "lifetime": 3600}
        links.append((await control.send_command(NAME, "invite", wish))["link"])
    print(json.dumps(links))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
