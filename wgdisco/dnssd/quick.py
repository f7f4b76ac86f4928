"""Answers from the rendered zone, in about a microsecond: what is usually asked, the way it is usually asked.

Anything else, and whatever is not well formed, is left to the responder, which parses; the two agree to the byte.
"""

from collections import Counter

from dns.flags import DO
from dns.rcode import NXDOMAIN
from dns.rdatatype import OPT

from wgdisco.dnssd.cookies import COOKIE, Cookies
from wgdisco.dnssd.rendered import RenderedZone, heads
from wgdisco.dnssd.responder import EDNS_SIZE, PLAIN_SIZE, PTR_SIZE, Outcome, Responder, Transport
from wgdisco.dnssd.roster import Groups
from wgdisco.dnssd.wire import EXTRA_MAX_SIZE, HEADER_SIZE, MESSAGE_MAX_SIZE, TC, Opt
from wgdisco.dnssd.zone import BROWSE_MAX

# OPT records and what is answered to them; each is forgotten with all others when there are more
_OPTS_MAX = 16_384
_OPT_SIZE = 11
# types above are of questions that are not about records of that type, or of none of ours
_PLAIN_TYPES = 128
_ONE_QUESTION = bytes((0, 1, 0, 0, 0, 0, 0))
_TYPE_SIZE = 4
_CLASS_IN = b"\x00\x01"

_ONE_ANSWER = heads(1, 0, 0, 0)
_NODATA = heads(0, 1, 0, 0)
_NXDOMAIN = heads(0, 1, 0, NXDOMAIN)
_CUT = heads(0, 0, 0, TC)


class Quick:
    """Answers for the zone that `rendered` has, beside `responder`, which has the same."""

    def __init__(self, rendered: RenderedZone, responder: Responder, cookies: Cookies | None) -> None:
        self._rendered = rendered
        self._responder = responder
        self._cookies = cookies
        self._opts: dict[bytes | tuple[bytes, str], tuple[int, bytes]] = {}
        # kept apart, since an enum's member is slow to hash
        self._answered = self._nodata = self._nxdomain = 0

    def counts(self) -> Counter[Outcome]:
        """What became of the queries that were answered here."""
        return Counter(
            {
                Outcome.ANSWERED: self._answered,
                Outcome.NODATA: self._nodata,
                Outcome.NXDOMAIN: self._nxdomain,
            }
        )

    def forget_cookies(self) -> None:
        """Make them anew from now on: to be called every few minutes."""
        self._opts.clear()

    def cookie_of(self, query: bytes) -> bytes | None:
        """The cookie in a query that is made as most are: one question, and an OPT record with nothing else in it."""
        opt = query[query.find(0, HEADER_SIZE) + 1 + _TYPE_SIZE :]
        return _cookie(opt) if query[4:12] == _ONE_QUESTION + b"\x01" else None

    def answer(self, query: bytes, source: str, transport: Transport, mask: int, groups: Groups) -> bytes | None:
        """The reply to who is in `groups`, whose bits are `mask`, or None: ask the responder."""
        if query[4:11] != _ONE_QUESTION or query[2] > 1 or len(query) <= HEADER_SIZE:
            return None
        # no label of a name of ours has a zero in it
        end = query.find(0, HEADER_SIZE) + 1 + _TYPE_SIZE
        opt = query[end:]
        if opt:
            if query[11] != 1:
                return None
            known = self._opts.get(opt) or self._opts.get((opt, source)) or self._read_opt(opt, source)
            if known is None:
                return None
            limit, more = known
            index = query[2] + 2
        elif query[11]:
            return None
        else:
            limit, more, index = PLAIN_SIZE, b"", query[2]
        if transport is Transport.TCP:
            limit = MESSAGE_MAX_SIZE
        question = query[HEADER_SIZE:end]
        entry = self._rendered.entries.get(question.lower())
        if entry is None or not entry[0] & mask:
            return self._answer_other(query, end, limit, more, index, mask, groups)
        _, head, tail, short_head, short_tail = entry
        if end + len(tail) + len(more) > limit:
            head, tail = short_head, short_tail
            if end + len(tail) + len(more) > limit:
                return None
        self._answered += 1
        return b"".join((query[:2], head[index], question, tail, more))

    def _answer_other(
        self, query: bytes, end: int, limit: int, more: bytes, index: int, mask: int, groups: Groups
    ) -> bytes | None:
        """A list, or a denial."""
        if end > len(query):
            return None
        question = query[HEADER_SIZE:end]
        asked = question.lower()
        rendered = self._rendered
        name = asked[:-_TYPE_SIZE]
        if asked == rendered.soa_asked:
            self._answered += 1
            tail = rendered.soa(rendered.serial(mask, groups))
            return b"".join((query[:2], _ONE_ANSWER[index], question, tail, more))
        known = rendered.names.get(name, 0)
        if known is None:
            return None
        exists = known & mask
        if exists and asked in rendered.lists:
            run = rendered.run(mask, groups, rendered.lists[asked])
            if run:
                return self._answer_list(query, end, limit, more, index, run)
        elif question[-2:] != _CLASS_IN or question[-4] or question[-3] >= _PLAIN_TYPES:
            return None
        if not _is_within(query, end, rendered.origin) or name.endswith(rendered.shared):
            return None
        if exists:
            self._nodata += 1
        else:
            self._nxdomain += 1
        head = (_NODATA if exists else _NXDOMAIN)[index]
        tail = rendered.soa(rendered.serial(mask, groups), end - _TYPE_SIZE - len(rendered.origin))
        return b"".join((query[:2], head, question, tail, more))

    def _answer_list(self, query: bytes, end: int, limit: int, more: bytes, index: int, run: bytes) -> bytes:
        """As many as fit of a run of PTR records, beginning where the last one ended, and what they point to."""
        total = len(run) // PTR_SIZE
        wanted = min(BROWSE_MAX, limit // PTR_SIZE + 1)
        listed = min(total, wanted)
        count = min(listed, (limit - end - len(more)) // PTR_SIZE)
        start = self._responder.turn % total * PTR_SIZE if total > wanted else 0
        tail = run[start : start + count * PTR_SIZE]
        if len(tail) < count * PTR_SIZE:
            tail += run[: count * PTR_SIZE - len(tail)]
        if listed > 1:
            self._responder.turn += count
        self._answered += 1
        extras, extra = 0, b""
        if count == listed and limit > PLAIN_SIZE:
            extras, extra = self._rendered.listed_records(tail, end, min(limit - len(more), EXTRA_MAX_SIZE))
        head = heads(count, 0, extras, TC if count < listed else 0)[index]
        return b"".join((query[:2], head, query[HEADER_SIZE:end], tail, extra, more))

    def _read_opt(self, opt: bytes, source: str) -> tuple[int, bytes] | None:
        """How large a reply may be, and the OPT record it gets; None for all but a plain one and one with a cookie."""
        cookie = _cookie(opt)
        if cookie is None:
            return None
        options = b""
        if cookie and self._cookies is not None:
            options = self._cookies.option(cookie, source)
        payload = int.from_bytes(opt[3:5], "big")
        flags = int.from_bytes(opt[7:9], "big") & DO
        found = min(EDNS_SIZE, max(PLAIN_SIZE, payload)), Opt(EDNS_SIZE, 0, flags, options).pack()
        if len(self._opts) >= _OPTS_MAX:
            self._opts.clear()
        self._opts[(opt, source) if cookie else opt] = found
        return found


def _cookie(opt: bytes) -> bytes | None:
    """The cookie in an OPT record of version 0, b"" for no option at all; None for anything else."""
    size = int.from_bytes(opt[9:11], "big")
    if len(opt) != _OPT_SIZE + size or opt[:3] != bytes((0, 0, OPT)) or opt[6]:
        return None
    if not size:
        return b""
    cookie = opt[15:]
    if opt[11:13] != COOKIE.to_bytes(2, "big") or len(cookie) != int.from_bytes(opt[13:15], "big"):
        return None
    return cookie if Cookies.is_cookie(cookie) else None


def _is_within(query: bytes, end: int, origin: bytes) -> bool:
    """Whether the name in the question is well formed, and the origin or below it."""
    last = end - _TYPE_SIZE - 1
    origin_at = end - _TYPE_SIZE - len(origin)
    if origin_at < HEADER_SIZE or query[origin_at : last + 1].lower() != origin or last - HEADER_SIZE > 254:
        return False
    at = HEADER_SIZE
    found = False
    while at < last:
        found = found or at == origin_at
        size = query[at]
        if size > 63:
            return False
        at += 1 + size
    return at == last and found
