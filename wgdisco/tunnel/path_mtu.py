"""The MTU of a tunnel from those of the ways its datagrams take: as wg-quick(8) has it, but the smallest counts."""

from collections.abc import Iterable

from wgdisco.tunnel.messages import DEFAULT_MTU

OVERHEAD = 80  # IPv6's header and UDP's, a transport message's header and tag, and what padding adds
FLOOR = 1280  # below it an interface has no IPv6 (RFC 8200 section 5); larger datagrams go in fragments
MAX_MTU = 65535 - 32  # the largest packet that still fits a transport message in one datagram (rule M1)


def mtu_for(ways: Iterable[int]) -> int:
    """The interface's, in bytes, for ways of these MTUs; without any, for Ethernet's.

    wg-quick takes the largest: the others' packets would come in fragments, or not at all.
    """
    smallest = min(ways, default=DEFAULT_MTU + OVERHEAD)
    return max(FLOOR, min(smallest - OVERHEAD, MAX_MTU))
