"""How much strangers are told: so many full replies a second to each prefix, and little beyond.

A source address may be anybody's: replies to it must not be worth asking for. Beyond the limit there is a reply of the
question's size that says "truncated", on which an honest asker comes by TCP, and one in two of those is left out.
"""

from collections import OrderedDict
from enum import Enum
from ipaddress import IPv4Address, ip_address

RATE = 100.0
BURST = 500.0
PREFIX4, PREFIX6 = 24, 56
# memory for as many prefixes; who was heard of longest ago is forgotten, and may have a burst again
PREFIXES_MAX = 20_000


class Verdict(Enum):
    """What the asker gets."""

    FULL = "full"
    TRUNCATED = "truncated"
    NOTHING = "nothing"


class ResponseLimits:
    """A bucket of tokens for each prefix, and whether its last question beyond them had a reply. Times in seconds."""

    def __init__(self) -> None:
        # a plain dict looks for its first item through all that were taken out before it
        self._buckets: OrderedDict[int, tuple[float, float, bool]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float) -> Verdict:
        """One reply more is to go to the asker at `source`."""
        prefix = _prefix(source)
        tokens, at, is_odd = self._buckets.pop(prefix, (BURST, now, False))
        tokens = min(BURST, tokens + (now - at) * RATE)
        is_full = tokens >= 1.0
        if len(self._buckets) >= PREFIXES_MAX:
            self._buckets.popitem(last=False)
        if is_full:
            self._buckets[prefix] = (tokens - 1.0, now, is_odd)
            return Verdict.FULL
        self._buckets[prefix] = (tokens, now, not is_odd)
        return Verdict.NOTHING if is_odd else Verdict.TRUNCATED


def _prefix(source: str) -> int:
    address = ip_address(source.partition("%")[0])
    if isinstance(address, IPv4Address):
        return int(address) >> 32 - PREFIX4
    mapped = address.ipv4_mapped
    # the upper bits of IPv6 never are those of an IPv4 prefix: it is out of 2000::/3, or of a prefix of its own
    return int(mapped) >> 32 - PREFIX4 if mapped is not None else (1 << 64) | int(address) >> 128 - PREFIX6
