"""The zone's serial as the members of groups see it: higher than before only when what they may know of has changed.

Else it would tell a member when anybody of another group comes, moves or goes, and have it ask for nothing.
"""

from collections.abc import Iterable

from wgdisco.dnssd.roster import Roster


class Serials:
    """Follows the snapshots of a zone. In the first, of `serial`, all is new to everybody."""

    def __init__(self, serial: int) -> None:
        self._everybodys = serial
        self._by_group: dict[str, int] = {}

    def changed(self, serial: int, *groups: Iterable[str]) -> None:
        """In the snapshot of `serial` something is another that these saw, or see now."""
        for some in groups:
            for group in some:
                self._by_group[group] = serial

    def changed_members(self, serial: int, before: Roster, now: Roster, names: Iterable[str]) -> None:
        """In the snapshot of `serial`, members of these names are others, come or go."""
        if before.registry != now.registry:
            self._everybodys = serial
        for name in names:
            was, member = before.members.get(name), now.members.get(name)
            old, new = () if was is None else was.groups, () if member is None else member.groups
            if was is not None and member is not None and was.addresses == member.addresses:
                # in groups that it stays in it is as it was
                self.changed(serial, frozenset(old) ^ frozenset(new))
            else:
                self.changed(serial, old, new)

    def seen_in(self, groups: Iterable[str]) -> int:
        """That of the latest snapshot in which something was new to a member of these groups."""
        return max((self._everybodys, *(self._by_group.get(group, 0) for group in groups)))
