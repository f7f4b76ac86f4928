"""Cryptokey routing: which peer an inner address belongs to, by longest prefix (white paper section 2).

One dictionary a prefix length, tried from the longest that is in use. Real tables use a handful of lengths, so a lookup
is a handful of dictionary reads, whatever the number of peers.
"""

from itertools import islice
from typing import Generic, TypeVar

from wgdisco.endpoint import IPNetwork

P = TypeVar("P")


class _Family(Generic[P]):
    """The prefixes of one address family; `bits` is 32 or 128."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.tables: dict[int, dict[int, P]] = {}
        self.levels: tuple[tuple[int, dict[int, P]], ...] = ()

    def insert(self, prefix: int, length: int, peer: P) -> P | None:
        """Set the owner; the former one, if there was."""
        table = self.tables.get(length)
        if table is None:
            table = self.tables[length] = {}
            self._order()
        former = table.get(prefix)
        table[prefix] = peer
        return former

    def remove(self, prefix: int, length: int) -> None:
        table = self.tables[length]
        del table[prefix]
        if not table:
            del self.tables[length]
            self._order()

    def lookup(self, address: int) -> P | None:
        for shift, table in self.levels:
            peer = table.get(address >> shift)
            if peer is not None:
                return peer
        return None

    def _order(self) -> None:
        self.levels = tuple((self.bits - n, self.tables[n]) for n in sorted(self.tables, reverse=True))


class AllowedIPs(Generic[P]):
    """The table of a whole device. Owners are compared by identity, and must be hashable. `changes` counts them."""

    def __init__(self) -> None:
        self._v4: _Family[P] = _Family(32)
        self._v6: _Family[P] = _Family(128)
        self._owned: dict[P, dict[IPNetwork, None]] = {}
        self.changes = 0

    def insert(self, network: IPNetwork, peer: P) -> None:
        """Give `network` to `peer`, taking it from whoever had it."""
        self.changes += 1
        former = self._family(network).insert(*_prefix(network), peer)
        if former is not None and former is not peer:
            self._disown(former, network)
        self._owned.setdefault(peer, {})[network] = None

    def remove(self, network: IPNetwork, peer: P) -> bool:
        """Take `network` from `peer`; False, and nothing done, when it belongs to another or to none."""
        if network not in self._owned.get(peer, {}):
            return False
        self.changes += 1
        self._family(network).remove(*_prefix(network))
        self._disown(peer, network)
        return True

    def remove_peer(self, peer: P) -> None:
        """Take everything `peer` has."""
        self.changes += 1
        for network in self._owned.pop(peer, {}):
            self._family(network).remove(*_prefix(network))

    def remove_some(self, peer: P, most: int) -> bool:
        """Take at most so many of `peer`; whether it has more."""
        for network in list(islice(self._owned.get(peer, ()), most)):
            self.remove(network, peer)
        return peer in self._owned

    def networks(self, peer: P) -> tuple[IPNetwork, ...]:
        """What `peer` has, in the order it was given."""
        return tuple(self._owned.get(peer, ()))

    def lookup(self, packed: bytes | memoryview) -> P | None:
        """The owner of an address of 4 or 16 bytes."""
        family = self._v4 if len(packed) == 4 else self._v6
        return family.lookup(int.from_bytes(packed, "big"))

    def _family(self, network: IPNetwork) -> _Family[P]:
        return self._v4 if network.version == 4 else self._v6

    def _disown(self, peer: P, network: IPNetwork) -> None:
        owned = self._owned[peer]
        del owned[network]
        if not owned:
            del self._owned[peer]


def _prefix(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen), network.prefixlen
