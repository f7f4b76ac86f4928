"""Many members with keys that anybody can compute, put into a registry's store before it runs.

usage, in the registry's host: python -m bench.population MEMBERS GROUP_SIZE
"""

import asyncio
import hashlib
import sys
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.registry.facts import REGISTRY_HOST_NUMBER, Member, Network, Put
from wgdisco.registry.io.store import PATH, Store

NAME = "mesh"
PORT = 51820
OUTSIDE = IPv4Address("198.18.0.1")  # the registry
PREFIX4, PREFIX6 = IPv4Network("10.64.0.0/16"), IPv6Network("fd64::/64")
OUTER = IPv4Network("198.19.0.0/16")  # where members are; who moves does so by half of it
FIRST = REGISTRY_HOST_NUMBER + 1
MEMBERS_MAX = OUTER.num_addresses // 2 - FIRST


def private_key(number: int) -> PrivateKey:
    """Of a host number; the registry's is the first."""
    return PrivateKey(_derived("key", number))


def preshared_key(number: int) -> PresharedKey:
    """What that member shares with the registry."""
    return PresharedKey(_derived("preshared", number))


def inner(number: int) -> IPv4Address:
    """Its address in the network."""
    return PREFIX4[number]


def network() -> Network:
    """The network of all of them."""
    return Network(
        NAME,
        "wg.internal.",
        private_key(REGISTRY_HOST_NUMBER),
        PORT,
        (f"{OUTSIDE}:{PORT}",),
        PREFIX4,
        PREFIX6,
    )


def members(count: int, group_size: int) -> list[Member]:
    """Proven ones, in groups of that size."""
    now = time.time()
    return [
        Member(
            f"m{number}",
            private_key(number).public_key(),
            number,
            (f"g{(number - FIRST) // group_size}",),
            now,
            preshared_key=preshared_key(number),
            proven=True,
        )
        for number in range(FIRST, FIRST + count)
    ]


async def fill(path: Path, count: int, group_size: int) -> None:
    """A new store with the network and its members."""
    store = Store.open(path)
    try:
        facts: list[Network | Member] = [network(), *members(count, group_size)]
        await store.commit([Put(fact) for fact in facts])
    finally:
        store.close()


def _derived(what: str, number: int) -> bytes:
    return hashlib.blake2s(f"bench {what} {number}".encode()).digest()


if __name__ == "__main__":
    asyncio.run(fill(PATH, *map(int, sys.argv[1:])))
