"""The host's own addresses, over netlink."""

from pyroute2 import AsyncIPRoute

from wgdisco.endpoint import IPAddress, parse_address


async def local_addresses() -> frozenset[IPAddress]:
    """Every address on every interface of this host's network namespace."""
    found: set[IPAddress] = set()
    async with AsyncIPRoute() as netlink:
        async for message in await netlink.addr("dump"):
            text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
            if text:
                found.add(parse_address(text))
    return frozenset(found)
