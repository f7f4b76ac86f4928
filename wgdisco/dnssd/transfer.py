"""The zone for its secondaries: AXFR (RFC 5936), IXFR (RFC 1995) and NOTIFY (RFC 1996), signed or not (RFC 8945).

::

    primary                         secondary
       │── NOTIFY, SOA 7 ──── UDP ─────►│      the zone changed
       │◄───────────────────── answer ──│
       │◄── SOA? ───────── UDP or TCP ──│      is that so
       │◄── IXFR, I have 5 ─── TCP ─────│
       │── SOA 7, SOA 5, what went, ───►│      or SOA 7, everything, SOA 7, where 5 is not remembered
       │   SOA 7, what came, SOA 7      │

Only who is asked to call here as a secondary is answered: whoever holds a `Primary` sees to that.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain, dropwhile

import dns.exception
import dns.message
from dns.rcode import BADKEY, BADSIG, BADTIME, FORMERR, NOERROR, NOTAUTH, REFUSED, Rcode
from dns.rdataclass import IN
from dns.rdatatype import AXFR, IXFR, SOA

from wgdisco.dnssd.export import Difference, difference, merged, records
from wgdisco.dnssd.records import Record
from wgdisco.dnssd.responder import EDNS_SIZE, Transport
from wgdisco.dnssd.secondaries import TsigKey
from wgdisco.dnssd.tsig import TSIG_MAX_SIZE, Signer, unsigned, verify
from wgdisco.dnssd.wire import AA, HEADER_SIZE, QR, RD, Opt, Question, Reply, pack_messages, pack_reply
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import IPAddress
from wgdisco.keys import PublicKey

# of one message: to pack it holds up others for a millisecond or two; a record has to fit
TRANSFER_SIZE = 20_000
# how many changes, and changed parts in them, are remembered for secondaries that were away
JOURNAL_MAX = 4096
JOURNAL_PARTS_MAX = 16_384

_SERIALS = 1 << 32


class Request(Enum):
    """What became of a secondary's query."""

    SOA = "soa"
    AXFR = "axfr"
    IXFR = "ixfr"
    UP_TO_DATE = "up to date"
    NOT_OURS = "not a transfer"
    REFUSED = "refused"
    BAD_SIGNATURE = "bad signature"


def is_newer(serial: int, than: int) -> bool:
    """Compare serials by RFC 1982 section 3.2: 0 follows 4294967295. Half the numbers away is not newer."""
    return 0 < (serial - than) % _SERIALS < _SERIALS // 2


@dataclass(frozen=True, slots=True)
class _Step:
    """One change: from the serial before it to that after it."""

    before: int
    after: int
    difference: Difference


class Journal:
    """The latest snapshot, and how it came to be that; bounded, the oldest steps go first."""

    def __init__(self) -> None:
        self.zone: Zone | None = None
        self._steps: deque[_Step] = deque()
        self._parts = 0

    def add(self, zone: Zone, touched: Iterable[PublicKey] | None = None) -> bool:
        """Take the next snapshot; false when others see no difference, and keep the serial they have.

        With `touched`, instances of these keys alone differ from the last one given, and no member.
        """
        before = self.zone
        if before is None:
            self.zone = zone
            return True
        step = _Step(before.serial, zone.serial, difference(before, zone, touched))
        if not step.difference:
            return False
        self.zone = zone
        if not is_newer(zone.serial, before.serial):
            self._steps.clear()
            self._parts = 0
            return True
        self._steps.append(step)
        self._parts += len(step.difference)
        while len(self._steps) > JOURNAL_MAX or self._parts > JOURNAL_PARTS_MAX:
            self._parts -= len(self._steps.popleft().difference)
        return True

    def since(self, serial: int) -> Difference | None:
        """From the snapshot of `serial` to the latest; None where that is not remembered."""
        after = list(dropwhile(lambda step: step.before != serial, self._steps))
        return merged(step.difference for step in after) if after else None


class Primary:
    """Answers secondaries from the snapshots it was given; `counts` only grow.

    `servers` are the addresses of the name servers that the zone names. With a `key` everything has to be signed.
    """

    def __init__(self, servers: tuple[IPAddress, ...] = (), key: TsigKey | None = None) -> None:
        self.journal = Journal()
        self.counts: Counter[Request] = Counter()
        self._servers = servers
        self._key = key

    @property
    def transferred(self) -> int:
        """How often somebody was given the latest snapshot, or had it."""
        return self.counts[Request.AXFR] + self.counts[Request.IXFR] + self.counts[Request.UP_TO_DATE]

    def respond(self, query: bytes, transport: Transport, unix_time: int) -> Iterator[bytes] | None:
        """The messages of the reply; None when it is no business of a secondary's, and anybody may ask it."""
        zone = self.journal.zone
        if zone is None or len(query) < HEADER_SIZE or query[2] & 0xF8:  # a reply, or not a query
            return None
        try:
            message = dns.message.from_wire(query, keyring=False)  # the signature is checked below
        except (dns.exception.DNSException, ValueError):
            return None
        if len(message.question) != 1 or message.question[0].rdclass != IN:
            return None
        rdtype = message.question[0].rdtype
        if message.tsig is None and (rdtype not in (SOA, AXFR, IXFR) or (rdtype == SOA and self._key is not None)):
            return None
        if message.tsig is not None and (error := self._verify(query, message, unix_time)) != NOERROR:
            return iter((self._deny(message, error, unix_time),))
        if message.tsig is None and self._key is not None:
            return self._reply(message, REFUSED, (), unix_time)
        return self._answer(zone, message, transport, unix_time)

    def _answer(
        self, zone: Zone, message: dns.message.Message, transport: Transport, unix_time: int
    ) -> Iterator[bytes]:
        question = message.question[0]
        if question.name != zone.names.origin:
            return self._reply(message, NOTAUTH, (), unix_time)
        soa = zone.soa()
        if question.rdtype == SOA:
            self.counts[Request.SOA] += 1
            return self._reply(message, NOERROR, (soa,), unix_time)
        if question.rdtype == IXFR:
            return self._increment(zone, message, transport, unix_time)
        if question.rdtype != AXFR or transport is Transport.UDP:
            return self._reply(message, REFUSED, (), unix_time)
        self.counts[Request.AXFR] += 1
        return self._reply(message, NOERROR, self._whole(zone), unix_time)

    def _increment(
        self, zone: Zone, message: dns.message.Message, transport: Transport, unix_time: int
    ) -> Iterator[bytes]:
        known = [record.serial for rrset in message.authority if rrset.rdtype == SOA for record in rrset]
        if len(known) != 1:
            return self._reply(message, FORMERR, (), unix_time)
        if not is_newer(zone.serial, known[0]):
            self.counts[Request.UP_TO_DATE] += 1
            return self._reply(message, NOERROR, (zone.soa(),), unix_time)
        if transport is Transport.UDP:
            # which means: come by TCP (RFC 1995 section 2)
            self.counts[Request.SOA] += 1
            return self._reply(message, NOERROR, (zone.soa(),), unix_time)
        changes = self.journal.since(known[0])
        if changes is None or len(changes) > len(zone.instances) + len(zone.roster.members) + 1:
            self.counts[Request.AXFR] += 1
            return self._reply(message, NOERROR, self._whole(zone), unix_time)
        self.counts[Request.IXFR] += 1
        gone, new = changes.records(zone.names)
        soa, old = zone.soa(), zone.soa(known[0])
        return self._reply(message, NOERROR, (soa, old, *gone, soa, *new, soa), unix_time)

    def _whole(self, zone: Zone) -> Iterable[Record]:
        soa = zone.soa()
        return chain((soa,), records(zone, self._servers), (soa,))

    def _reply(
        self, message: dns.message.Message, rcode: Rcode, answer: Iterable[Record], unix_time: int
    ) -> Iterator[bytes]:
        if rcode != NOERROR:
            self.counts[Request.REFUSED] += 1
        asked = message.question[0]
        reply = Reply(
            id=message.id,
            flags=QR | (AA if rcode == NOERROR else 0) | (message.flags & RD),
            rcode=rcode,
            question=Question(asked.name, asked.rdtype, asked.rdclass),
            opt=None if message.edns < 0 else Opt(EDNS_SIZE),
        )
        messages = pack_messages(reply, answer, TRANSFER_SIZE - TSIG_MAX_SIZE)
        if self._key is None or message.tsig is None:
            return messages
        signer = Signer(self._key, message.tsig[0].mac, multi=True)
        return (signer.sign(one, unix_time) for one in messages)

    def _verify(self, query: bytes, message: dns.message.Message, unix_time: int) -> Rcode:
        return BADKEY if self._key is None else verify(query, message, self._key, unix_time)

    def _deny(self, message: dns.message.Message, error: Rcode, unix_time: int) -> bytes:
        """NOTAUTH, and in TSIG why; signed where the key is right and the clock is not."""
        self.counts[Request.BAD_SIGNATURE] += 1
        asked = message.question[0]
        question = Question(asked.name, asked.rdtype, asked.rdclass)
        reply = pack_reply(Reply(message.id, QR | (message.flags & RD), NOTAUTH, question), TRANSFER_SIZE)
        if error == BADTIME and self._key is not None and message.tsig is not None:
            return Signer(self._key, message.tsig[0].mac).sign(reply, unix_time, BADTIME)
        return unsigned(reply, message, error if error in (BADKEY, BADSIG) else BADSIG, unix_time)
