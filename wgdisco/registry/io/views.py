"""The zone as each member may see it: instances of others in a common group."""

from dataclasses import replace

from wgdisco.dnssd.responder import Responder
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import IPAddress
from wgdisco.registry.membership import Membership


class ZoneViews:
    """A responder for each set of groups, made and brought up to date when it is asked."""

    def __init__(self, membership: Membership, whole: Responder) -> None:
        self._membership = membership
        self._whole = whole
        self._views: dict[tuple[str, ...], Responder] = {}

    def of(self, source: IPAddress) -> Responder:
        """For who asks from `source`; who is no member sees an empty zone."""
        member = self._membership.by_address(source)
        groups = () if member is None else tuple(sorted(member.groups))
        zone = self._whole.zone
        view = self._views.get(groups)
        if view is None:
            view = self._views[groups] = Responder(self._seen(zone, groups))
        elif view.zone.serial != zone.serial:
            view.zone = self._seen(zone, groups)
        return view

    def _seen(self, zone: Zone, groups: tuple[str, ...]) -> Zone:
        members, wanted = self._membership.members, set(groups)
        return replace(
            zone,
            instances={
                key: instance
                for key, instance in zone.instances.items()
                if key in members and wanted.intersection(members[key].groups)
            },
        )
