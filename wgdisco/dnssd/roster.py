"""Who is in the network by name: where members are inside the tunnel, and who may know of whom.

Two know of each other when they share a group; the registry's own host, and who is asked where nobody is told apart,
knows of all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from wgdisco.endpoint import IPAddress

REGISTRY_NAME = "registry"

Groups = frozenset[str] | None
EVERYBODY: Groups = None


@dataclass(frozen=True, slots=True)
class ZoneMember:
    """A member by name: its own addresses inside the tunnel, and its groups."""

    name: str
    addresses: tuple[IPAddress, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Roster:
    """All members, and the registry's own addresses; `create` makes it. `groups` are all that a member is in.

    When it `forwards`, members' questions about other zones are passed on to the host's resolvers.
    """

    members: Mapping[str, ZoneMember] = field(default_factory=dict)
    registry: tuple[IPAddress, ...] = ()
    groups: frozenset[str] = frozenset()
    by_address: Mapping[IPAddress, ZoneMember] = field(default_factory=dict, repr=False)
    forwards: bool = False

    @classmethod
    def create(
        cls, members: Iterable[ZoneMember], registry: tuple[IPAddress, ...] = (), *, forwards: bool = False
    ) -> Self:
        """From the members, each name once."""
        by_name = {member.name: member for member in members}
        groups = frozenset(group for member in by_name.values() for group in member.groups)
        by_address = {address: member for member in by_name.values() for address in member.addresses}
        return cls(by_name, registry, groups, by_address, forwards)

    def groups_at(self, source: IPAddress) -> Groups:
        """The groups of who asks from `source`; none for who is no member."""
        if source in self.registry:
            return EVERYBODY
        member = self.by_address.get(source)
        return frozenset() if member is None else frozenset(member.groups)

    def forwards_for(self, source: IPAddress) -> bool:
        """Whether questions about other zones are passed on for who asks from `source`: a member, not we ourselves."""
        return self.forwards and source in self.by_address

    def may_know(self, groups: Groups, name: str | None) -> bool:
        """Whether who is in `groups` may know of the member of that name."""
        if groups is None:
            return True
        member = None if name is None else self.members.get(name)
        return member is not None and not groups.isdisjoint(member.groups)

    def visible_groups(self, groups: Groups) -> frozenset[str]:
        """Those of the network's groups that who is in `groups` may browse."""
        return self.groups if groups is None else self.groups & groups


NOBODY = Roster()
