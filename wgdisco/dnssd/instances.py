"""The instances of a snapshot: an immutable mapping whose successor costs what changed, and not all there is.

It is what a number of snapshots ago there was, and what has changed since. A copy of all for every peer that moves
would cost little by itself, but touches so much memory that everything else is slow after it.
"""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView

from wgdisco.dnssd.instance import ServiceInstance
from wgdisco.keys import PublicKey

# so many changes are kept apart
_CHANGES_MAX = 128


class Instances(Mapping[PublicKey, ServiceInstance]):
    """In the order in which they came; one that takes the place of another with its key keeps that place."""

    __slots__ = ("_base", "_changed", "_size")

    def __init__(self, instances: Mapping[PublicKey, ServiceInstance]) -> None:
        self._base: Mapping[PublicKey, ServiceInstance] = dict(instances)
        # None: not there any more
        self._changed: dict[PublicKey, ServiceInstance | None] = {}
        self._size = len(self._base)

    def following(self, put: Iterable[ServiceInstance], gone: Iterable[PublicKey]) -> "Instances":
        """The next: without `gone`, and with `put`."""
        found = Instances({})
        found._base, found._changed, found._size = self._base, dict(self._changed), self._size
        for key in gone:
            found._remove(key)
        for instance in put:
            found._put(instance)
        if len(found._changed) > _CHANGES_MAX:
            found._join()
        return found

    def _remove(self, key: PublicKey) -> None:
        if key not in self:
            return
        self._size -= 1
        if key in self._base:
            self._changed[key] = None
        else:
            del self._changed[key]

    def _put(self, instance: ServiceInstance) -> None:
        if instance.key not in self:
            self._size += 1
            if instance.key in self._base:
                # it was gone, and is the last now
                self._join()
        self._changed[instance.key] = instance

    def _join(self) -> None:
        self._base, self._changed = _joined(self._base, self._changed), {}

    def __getitem__(self, key: PublicKey) -> ServiceInstance:
        instance = self._changed[key] if key in self._changed else self._base[key]
        if instance is None:
            raise KeyError(key)
        return instance

    def __contains__(self, key: object) -> bool:
        return self._changed[key] is not None if key in self._changed else key in self._base

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(_joined(self._base, self._changed))

    def __len__(self) -> int:
        return self._size

    def items(self) -> ItemsView[PublicKey, ServiceInstance]:
        """All at once, faster than one by one."""
        return _joined(self._base, self._changed).items()

    def values(self) -> ValuesView[ServiceInstance]:
        """All at once, faster than one by one."""
        return _joined(self._base, self._changed).values()


def _joined(
    base: Mapping[PublicKey, ServiceInstance], changed: Mapping[PublicKey, ServiceInstance | None]
) -> dict[PublicKey, ServiceInstance]:
    joined = dict(base)
    for key, instance in changed.items():
        if instance is None:
            joined.pop(key, None)
        else:
            joined[key] = instance
    return joined
