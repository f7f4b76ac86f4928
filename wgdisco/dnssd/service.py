"""The zone as it is served: one snapshot, and an answerer for each audience.

The rendered zone answers what it can, the responder everything else; strangers are limited before either.
"""

from collections import Counter
from collections.abc import Callable

from wgdisco.dnssd.cookies import Cookies
from wgdisco.dnssd.feed import Audience, Delta, Setup, applied, empty_zone, whole
from wgdisco.dnssd.limits import ResponseLimits, Verdict
from wgdisco.dnssd.quick import Quick
from wgdisco.dnssd.rendered import ALL, RenderedZone
from wgdisco.dnssd.responder import DROPPED, Answerer, Outcome, Profile, Responder, Transport
from wgdisco.dnssd.roster import EVERYBODY, Groups
from wgdisco.dnssd.tally import Kind, Tally
from wgdisco.dnssd.wire import HEADER_SIZE, QR, RD, TC
from wgdisco.dnssd.zone import Zone, public_instance, public_zone
from wgdisco.endpoint import IPAddress, parse_address

# who asks from a member's subnets has an address of its own each
_SOURCES_MAX = 65_536
_LABEL_MAX_SIZE, _NAME_MAX_SIZE = 63, 255  # RFC 1035 section 2.3.4


class Service:
    """Holds the latest snapshot that `apply` was given.

    `secret` is of 16 random bytes, for cookies; `clock` goes on steadily, in seconds, as `unix_time` does.
    """

    def __init__(self, setup: Setup, secret: bytes, unix_time: Callable[[], float], clock: Callable[[], float]) -> None:
        self._setup = setup
        self._clock = clock
        self._zone = empty_zone(setup)
        self._is_exact = setup.profile is Profile.WGSD_EXACT
        self._cookies = None if self._is_exact else Cookies(secret, unix_time)
        self._whole = _View(self._zone, setup.profile, self._cookies)
        self._public: _View | None = None
        self._members = _Members(self._whole)
        self._limited: list[_Limited] = []

    def answerer(self, audience: Audience) -> Answerer:
        """Who answers it."""
        match audience:
            case Audience.MEMBERS:
                return self._members
            case Audience.ALL:
                return self._whole
            case Audience.ALL_STRANGERS:
                view = self._whole
            case Audience.STRANGERS:
                shown = public_zone(self._zone, self._setup.published)
                view = self._public = self._public or _View(shown, self._setup.profile, self._cookies)
        self._limited.append(_Limited(view, self._cookies, self._clock))
        return self._limited[-1]

    def apply(self, delta: Delta) -> None:
        """The next snapshot."""
        self._zone = applied(self._zone, delta)
        self._whole.update(self._zone, delta)
        if delta.members is not None:
            self._members.forget()
        if self._public is not None:
            self._apply_public(self._public, delta)

    def _apply_public(self, view: "_View", delta: Delta) -> None:
        """Only what is published makes a new serial, which else would tell when any member comes, moves or goes."""
        before = view.responder.zone
        if delta.whole or delta.members is not None:
            shown = public_zone(self._zone, self._setup.published)
            if not before.serial or shown.instances != before.instances:
                view.update(shown, whole(shown))
            return
        put, gone = [], list(delta.gone)
        for instance in (*delta.put, *(self._zone.instances[key] for key, _ in delta.moved)):
            public = public_instance(instance, self._setup.published)
            if public is None:
                gone.append(instance.key)
            elif public != before.instances.get(public.key):
                put.append(public)
        gone = [key for key in gone if key in before.instances]
        if not put and not gone:
            return
        shown = before.following(delta.serial, put, gone)
        view.update(shown, Delta(delta.serial, tuple(put), tuple(gone)))

    def forwards_for(self, source: str) -> bool:
        """Whether a member's question about another zone, from `source`, is to be passed on."""
        return self._zone.roster.forwards_for(parse_address(source))

    def forget_cookies(self) -> None:
        """To be called every few minutes."""
        for view in (self._whole, self._public):
            if view is not None:
                view.quick.forget_cookies()

    def transferred(self) -> Zone:
        """The snapshot that secondaries are to have: they may tell it to everybody."""
        told = self._setup.secondaries
        if told is None or told.is_full:
            return self._zone
        if self._public is None:
            self._public = _View(public_zone(self._zone, self._setup.published), self._setup.profile, self._cookies)
        return self._public.responder.zone

    def public_serial(self) -> int | None:
        """That which strangers see, where they are not told all."""
        return None if self._public is None else self._public.responder.zone.serial

    def tally(self) -> Tally:
        """What became of all queries."""
        total: Counter[Outcome] = Counter()
        for view in (self._whole, self._public):
            if view is not None:
                total.update(view.quick.counts())
                total.update(view.responder.counts)
        for limited in self._limited:
            total.update(limited.counts)
        found: Tally = {Kind.ANSWERS: Counter(), Kind.DROPS: Counter()}
        for what, count in total.items():
            if count:
                found[Kind.DROPS if what in DROPPED else Kind.ANSWERS][what.value] = count
        return found


class _View:
    """All of one zone, for everybody."""

    def __init__(self, zone: Zone, profile: Profile, cookies: Cookies | None) -> None:
        self.responder = Responder(zone, profile, cookies)
        self.rendered = RenderedZone(zone)
        self.quick = Quick(self.rendered, self.responder, cookies)
        self._is_exact = profile is Profile.WGSD_EXACT

    def update(self, zone: Zone, delta: Delta) -> None:
        """The next snapshot, to which `delta` has led."""
        self.responder.zone = zone
        if not self._is_exact:
            self.rendered.update(zone, delta)

    def answer(self, query: bytes, source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """The same to everybody."""
        if not self._is_exact and (reply := self.quick.answer(query, source, transport, ALL, EVERYBODY)) is not None:
            return reply
        return self.responder.respond(query, local_address, transport, EVERYBODY, source)

    def answer_as(
        self,
        query: bytes,
        source: str,
        local_address: IPAddress | None,
        transport: Transport,
        mask: int,
        groups: Groups,
    ) -> bytes | None:
        """What who is in `groups`, whose bits are `mask`, may see."""
        reply = None if self._is_exact else self.quick.answer(query, source, transport, mask, groups)
        if reply is None:
            serial = None if self._is_exact else self.rendered.serial(mask, groups)
            reply = self.responder.respond(query, local_address, transport, groups, source, serial)
        return reply


class _Members:
    """Answers each with what its groups may see."""

    def __init__(self, view: _View) -> None:
        self._view = view
        self._known: dict[str, tuple[int, Groups]] = {}

    def forget(self) -> None:
        """Who is in which group may be another now."""
        self._known.clear()

    def answer(self, query: bytes, source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """As the groups of who is at `source`."""
        known = self._known.get(source)
        if known is None:
            groups = self._view.rendered.zone.roster.groups_at(parse_address(source))
            if len(self._known) >= _SOURCES_MAX:
                self._known.clear()
            known = self._known[source] = (self._view.rendered.mask(groups), groups)
        return self._view.answer_as(query, source, local_address, transport, *known)


class _Limited:
    """Answers strangers: fully only so often by UDP, unless their cookie shows that they are where they say."""

    def __init__(self, view: _View, cookies: Cookies | None, clock: Callable[[], float]) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._view = view
        self._cookies = cookies
        self._limits = ResponseLimits()
        self._clock = clock

    def answer(self, query: bytes, source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """All, or that there is more, or nothing."""
        if transport is Transport.UDP:
            verdict = self._limits.take(source, self._clock())
            if verdict is not Verdict.FULL and not self._is_known(query, source):
                reply = None if verdict is Verdict.NOTHING else _truncated(query)
                self.counts[_outcome_of(verdict, reply)] += 1
                return reply
        return self._view.answer(query, source, local_address, transport)

    def _is_known(self, query: bytes, source: str) -> bool:
        cookie = self._view.quick.cookie_of(query)
        return self._cookies is not None and cookie is not None and self._cookies.is_ours(cookie, source)


def _outcome_of(verdict: Verdict, reply: bytes | None) -> Outcome:
    if verdict is Verdict.NOTHING:
        return Outcome.DROPPED_LIMIT
    return Outcome.DROPPED_NO_QUESTION if reply is None else Outcome.TRUNCATED


def _truncated(query: bytes) -> bytes | None:
    """The header and question of `query` as a reply without anything; None when there is no question to be seen."""
    if len(query) < HEADER_SIZE or query[2] & 0xF8 or query[4:6] != b"\x00\x01":
        return None
    # the name's last byte, which type and class follow
    end, most = HEADER_SIZE, min(len(query) - 5, HEADER_SIZE + _NAME_MAX_SIZE - 1)
    while end <= most and (size := query[end]):
        if size > _LABEL_MAX_SIZE:
            return None
        end += size + 1
    if end > most:
        return None
    flags = QR | TC | (RD if query[2] & 1 else 0)
    return query[:2] + flags.to_bytes(2, "big") + b"\x00\x01" + bytes(6) + query[HEADER_SIZE : end + 5]
