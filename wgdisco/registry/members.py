"""The members of a network, to be found by key, by host number and by group."""

from collections.abc import Collection, Iterable

from wgdisco.keys import PublicKey
from wgdisco.registry.facts import Member


class Members:
    """`by_key` and `by_number` are for looking only."""

    def __init__(self) -> None:
        self.by_key: dict[PublicKey, Member] = {}  # in the order they came
        self.by_number: dict[int, Member] = {}
        self._by_group: dict[str, dict[int, Member]] = {}

    def add(self, member: Member) -> None:
        """In place of whoever has its number, or its key; who is there keeps its place in the order."""
        former, before = self.by_number.get(member.number), self.by_key.get(member.public_key)
        if former is before and before is not None:
            self._ungroup(before, kept=member.groups)
        else:
            self.remove(former)
            self.remove(before)
        self.by_key[member.public_key] = self.by_number[member.number] = member
        for group in member.groups:
            self._by_group.setdefault(group, {})[member.number] = member

    def remove(self, member: Member | None) -> None:
        """Forget one of them, or (None) nobody."""
        if member is None:
            return
        del self.by_key[member.public_key], self.by_number[member.number]
        self._ungroup(member)

    def in_groups(self, groups: Iterable[str]) -> Iterable[Member]:
        """All of these groups, each once; those of the first group first."""
        return {number: one for group in groups for number, one in self._by_group.get(group, {}).items()}.values()

    def _ungroup(self, member: Member, kept: Collection[str] = ()) -> None:
        for group in set(member.groups).difference(kept):
            theirs = self._by_group[group]
            del theirs[member.number]
            if not theirs:
                del self._by_group[group]
