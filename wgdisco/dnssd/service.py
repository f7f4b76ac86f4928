"""The zone as it is served: one snapshot, and an answerer for each audience."""

from collections import Counter

from wgdisco.dnssd.feed import Audience, Delta, Setup, applied, empty_zone
from wgdisco.dnssd.responder import Responder, Transport
from wgdisco.dnssd.roster import Groups
from wgdisco.dnssd.zone import Zone, public_zone
from wgdisco.endpoint import IPAddress, parse_address


class Service:
    """Holds the latest snapshot that `apply` was given."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._zone = empty_zone(setup)
        self._whole = Responder(self._zone, setup.profile)
        self._public = Responder(self._zone, setup.profile)
        self._members = _Members(self._whole)
        self._show_public()

    def answerer(self, audience: Audience) -> "Responder | _Members":
        """Who answers it."""
        match audience:
            case Audience.MEMBERS:
                return self._members
            case Audience.ALL | Audience.ALL_STRANGERS:
                return self._whole
            case Audience.STRANGERS:
                return self._public

    def apply(self, delta: Delta) -> None:
        """The next snapshot."""
        roster = self._zone.roster
        self._zone = self._whole.zone = applied(self._zone, delta)
        if self._zone.roster is not roster:
            self._members.forget()
        self._show_public()

    def transferred(self) -> Zone:
        """The snapshot that secondaries are to have: they may tell it to everybody."""
        told = self._setup.secondaries
        return self._zone if told is not None and told.is_full else self._public.zone

    def counts(self) -> Counter[str]:
        """What became of all queries, by outcome."""
        total: Counter[str] = Counter()
        for responder in (self._whole, self._public):
            total.update({outcome.value: count for outcome, count in responder.counts.items()})
        return total

    def _show_public(self) -> None:
        self._public.zone = public_zone(self._zone, self._setup.published)


class _Members:
    """Answers each with what its groups may see."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._groups: dict[str, Groups] = {}

    def forget(self) -> None:
        """Who is in which group may be another now."""
        self._groups = {}

    def answer(self, query: bytes, source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """As the groups of who is at `source`."""
        try:
            groups = self._groups[source]
        except KeyError:
            groups = self._responder.zone.roster.groups_at(parse_address(source))
            # a member or nobody: there are no more than addresses inside the tunnel that may speak
            self._groups[source] = groups
        return self._responder.respond(query, local_address, transport, groups)
