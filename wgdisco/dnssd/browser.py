"""Follows wanted peers in a registry's zone: what to ask and when, without waiting or sockets.

A round asks the SOA, and then the SRV of every wanted key that was not yet answered under that serial. A server whose
SOA tells nothing (wgsd answers NXDOMAIN) is asked for missing keys every round and for the others at the pace alone.
A key that is denied is gone from the zone; a query that fails changes nothing that was known.

Drive it as every core: after each call send `queries_to_send()`, take `events()`, and wake it at `get_timer()`.
Loopback and tunnel addresses are not judged here: whoever applies an endpoint knows what it may not be.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from math import inf

import dns.message
import dns.name
from dns.rcode import FORMERR, NOTAUTH, NOTIMP, REFUSED
from dns.rdatatype import AAAA, SOA, SRV, A, RdataType

from wgdisco.dnssd.instance import ServiceInstance, from_records
from wgdisco.dnssd.messages import (
    HEADER_SIZE,
    Drop,
    Question,
    address_of,
    is_negative,
    is_truncated,
    pack_query,
    read_reply,
    serial_of,
    srv_of,
    strings_of,
)
from wgdisco.dnssd.names import ZoneNames
from wgdisco.keys import PublicKey

SEARCH_INTERVAL = 1.0
QUERY_TIMEOUT = 1.0
QUERY_TIMEOUT_MAX = 5.0
# over before the next round that would ask the same again
TCP_TIMEOUT = 4.0
# a silent SOA is asked on without end; a silent key waits for the next round
KEY_ATTEMPTS = 3
# the last attempt is without EDNS: wgsd may be unable to pack a long TXT, and then drops it only from 512 bytes
_EDNS_ATTEMPTS = 2
UNREACHABLE_AFTER = 3
IN_FLIGHT_MAX = 32


class Pace(Enum):
    """How often to ask, in seconds, once all wanted peers are found."""

    PATH_MISSING = 5.0
    SETTLED = 60.0


@dataclass(frozen=True, slots=True)
class InstanceFound:
    """A wanted peer is in the zone, for the first time or with something changed."""

    instance: ServiceInstance
    at: float


@dataclass(frozen=True, slots=True)
class InstanceGone:
    """A peer that was in the zone is so no more; one that is followed beside the wanted still is not."""

    key: PublicKey
    at: float


@dataclass(frozen=True, slots=True)
class RegistryReachable:
    """The server answers: the first reply of all, or the first after RegistryUnreachable."""

    at: float


@dataclass(frozen=True, slots=True)
class RegistryUnreachable:
    """The server has not answered what was sent at `since` or later."""

    since: float


@dataclass(frozen=True, slots=True)
class ZoneRefused:
    """The server answers that it does not serve the zone."""

    at: float


BrowserEvent = ZoneRefused | InstanceFound | InstanceGone | RegistryReachable | RegistryUnreachable


@dataclass(frozen=True, slots=True)
class Query:
    """A message to send; over TCP without its length prefix. `id` is for `query_failed`."""

    id: int
    data: bytes
    tcp: bool


@dataclass(slots=True)
class _Wanted:
    """What is known of one wanted key: the serial and the start of the round it was last answered in.

    `edns` turns false when only a plain query was answered.
    """

    answered_serial: int | None = None
    answered_round: float = -inf
    edns: bool = True


@dataclass(frozen=True, slots=True)
class _Service:
    """An SRV whose target's address may still be to be asked for; `serial` is the one it was asked under."""

    serial: int | None
    port: int
    target: dns.name.Name
    strings: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query on its way. `key` is None for the SOA; `serial` is the one the answer will be good for."""

    question: Question
    key: PublicKey | None
    serial: int | None
    sent_at: float
    deadline: float
    attempt: int = 0
    tcp: bool = False
    service: _Service | None = None
    is_counted: bool = False


class Browser:
    """The state of following one zone. `found` has the wanted instances now known; `drops` what was not used."""

    def __init__(
        self,
        zone: str,
        wanted: Iterable[PublicKey],
        random_bytes: Callable[[int], bytes],
        also: Iterable[PublicKey] = (),
    ) -> None:
        """`zone` as in `ZoneNames.from_text`, which may raise ValueError; `random_bytes(n)` must not be guessable.

        Keys in `also` are followed like the wanted, but nothing is asked more often for want of them.
        """
        self.names = ZoneNames.from_text(zone)
        self.found: dict[PublicKey, ServiceInstance] = {}
        self.drops: Counter[Drop] = Counter()
        self._also = frozenset(also)
        self._wanted = {key: _Wanted() for key in (*wanted, *self._also)}
        self._random_bytes = random_bytes
        self._pace = Pace.PATH_MISSING
        self._polled_at = -inf
        self._asks_all = False
        self._serial: int | None = None
        self._asked: dict[int, _Asked] = {}
        self._waiting: dict[PublicKey, None] = {}
        self._silent_soas = 0
        self._silent_since = 0.0
        self._is_reachable: bool | None = None
        self._queries: list[Query] = []
        self._events: list[BrowserEvent] = []

    def set_wanted(self, keys: Iterable[PublicKey]) -> None:
        """Follow these keys; those already followed keep what is known of them."""
        self._wanted = {key: self._wanted.get(key) or _Wanted() for key in (*keys, *self._also)}
        self.found = {key: instance for key, instance in self.found.items() if key in self._wanted}

    def set_pace(self, pace: Pace) -> None:
        """Ask this often once all are found."""
        self._pace = pace

    def poll_now(self, now: float) -> None:
        """Begin a round at once, and ask everything where there is no serial to go by."""
        self._asks_all = True
        soas = [asked for asked in self._asked.values() if asked.key is None]
        if not any(now - asked.sent_at < QUERY_TIMEOUT and not asked.is_counted for asked in soas):
            self._start_round(now)

    def handle_timer(self, now: float) -> None:
        """Repeat what was not answered in time, and begin the round that is due."""
        expired = [message_id for message_id, asked in self._asked.items() if asked.deadline <= now]
        for message_id in expired:
            self._repeat(self._asked.pop(message_id), now)
        if self._next_round_at() <= now:
            self._start_round(now)
        self._ask_waiting(now)

    def get_timer(self) -> float:
        """When to call `handle_timer`; -inf before the first call."""
        return min(self._next_round_at(), *(asked.deadline for asked in self._asked.values()), inf)

    def queries_to_send(self) -> list[Query]:
        """Messages to send now, each returned once."""
        queries, self._queries = self._queries, []
        return queries

    def events(self) -> list[BrowserEvent]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def receive_reply(self, data: bytes, now: float) -> None:
        """Take a message from the server, UDP or TCP (without its length prefix). Raises nothing, whatever it is."""
        if len(data) < HEADER_SIZE:
            self.drops[Drop.SHORT] += 1
            return
        message_id = int.from_bytes(data[:2], "big")
        asked = self._asked.get(message_id)
        if asked is None:
            self.drops[Drop.UNKNOWN_ID] += 1
            return
        message = read_reply(data, asked.question)
        if isinstance(message, Drop):
            self.drops[message] += 1
            return
        del self._asked[message_id]
        self._note_reply(now)
        if asked.key is None:
            self._receive_soa(message, asked, now)
        elif asked.key in self._wanted:
            self._receive_key(message, asked, asked.key, now)
        self._ask_waiting(now)

    def query_failed(self, query_id: int | None, now: float) -> None:
        """A query could not be sent or was refused (ICMP, TCP); None stands for all that went by UDP."""
        for message_id, asked in list(self._asked.items()):
            if message_id != query_id and (query_id is not None or asked.tcp):
                continue
            if asked.tcp and asked.key is not None:
                del self._asked[message_id]
            elif not asked.is_counted:
                # repeated when its time is over, so that a refusing server is not asked any faster
                self._asked[message_id] = replace(asked, is_counted=True)
                self._note_silence(asked)
        self._ask_waiting(now)

    # rounds

    def _next_round_at(self) -> float:
        if any(asked.key is None for asked in self._asked.values()):
            return inf
        is_missing = any(key not in self.found for key in self._wanted if key not in self._also)
        interval = SEARCH_INTERVAL if is_missing else self._pace.value
        return self._polled_at + interval

    def _start_round(self, now: float) -> None:
        self._polled_at = now
        self._asked = {message_id: asked for message_id, asked in self._asked.items() if asked.key is not None}
        self._ask(Question(self.names.origin, SOA, edns=False), None, now)

    def _receive_soa(self, message: dns.message.Message, asked: _Asked, now: float) -> None:
        if is_truncated(message) and not asked.tcp:
            self._ask(asked.question, None, now, tcp=True)
            return
        if message.rcode() in (REFUSED, NOTAUTH):
            self._events.append(ZoneRefused(now))
            return
        self._serial = serial_of(message, self.names.origin)
        in_flight = {asked.key for asked in self._asked.values()}
        for key, wanted in self._wanted.items():
            if key not in in_flight and self._is_due(key, wanted):
                self._waiting[key] = None
        self._asks_all = False

    def _is_due(self, key: PublicKey, wanted: _Wanted) -> bool:
        if self._serial is not None:
            return wanted.answered_serial != self._serial
        return self._asks_all or key not in self.found or self._polled_at - wanted.answered_round >= self._pace.value

    def _ask_waiting(self, now: float) -> None:
        while self._waiting and len(self._asked) < IN_FLIGHT_MAX:
            key = next(iter(self._waiting))
            del self._waiting[key]
            if (wanted := self._wanted.get(key)) is not None:
                self._ask(Question(self.names.instance(key), SRV, wanted.edns), key, now)

    # one query

    def _ask(
        self,
        question: Question,
        key: PublicKey | None,
        now: float,
        *,
        attempt: int = 0,
        tcp: bool = False,
        service: _Service | None = None,
    ) -> None:
        timeout = TCP_TIMEOUT if tcp else min(QUERY_TIMEOUT * 2 ** min(attempt, 8), QUERY_TIMEOUT_MAX)
        message_id = int.from_bytes(self._random_bytes(2), "big")
        while message_id in self._asked:
            message_id = (message_id + 1) & 0xFFFF
        self._asked[message_id] = _Asked(question, key, self._serial, now, now + timeout, attempt, tcp, service)
        self._queries.append(Query(message_id, pack_query(message_id, question), tcp))

    def _repeat(self, asked: _Asked, now: float) -> None:
        """Ask again what was not answered, under a new id."""
        attempt = asked.attempt + 1
        if not asked.is_counted:
            self._note_silence(asked)
        if asked.key is None:
            self._ask(asked.question, None, now, attempt=attempt)
        elif asked.key in self._wanted and attempt < KEY_ATTEMPTS and not asked.tcp:
            question = replace(asked.question, edns=asked.question.edns and attempt < _EDNS_ATTEMPTS)
            self._ask(question, asked.key, now, attempt=attempt, service=asked.service)

    def _note_silence(self, asked: _Asked) -> None:
        if asked.key is not None:
            return
        if not self._silent_soas:
            self._silent_since = asked.sent_at
        self._silent_soas += 1
        if self._silent_soas >= UNREACHABLE_AFTER and self._is_reachable is not False:
            self._is_reachable = False
            self._events.append(RegistryUnreachable(self._silent_since))

    def _note_reply(self, now: float) -> None:
        self._silent_soas = 0
        if not self._is_reachable:
            self._is_reachable = True
            self._events.append(RegistryReachable(now))

    # one key

    def _receive_key(self, message: dns.message.Message, asked: _Asked, key: PublicKey, now: float) -> None:
        wanted = self._wanted[key]
        if message.rcode() in (FORMERR, NOTIMP) and asked.question.edns:
            wanted.edns = False
            self._ask(replace(asked.question, edns=False), key, now, service=asked.service)
            return
        if asked.attempt >= _EDNS_ATTEMPTS:
            wanted.edns = asked.question.edns
        is_whole = asked.tcp or not is_truncated(message)
        if not is_whole:
            self._ask(asked.question, key, now, tcp=True, service=asked.service)
        if asked.service is None:
            self._receive_srv(message, asked, key, is_whole, now)
        else:
            self._receive_host(message, asked, key, asked.service, is_whole, now)

    def _receive_srv(
        self, message: dns.message.Message, asked: _Asked, key: PublicKey, is_whole: bool, now: float
    ) -> None:
        srv = srv_of(message, asked.question.name)
        if srv is not None and self.names.holds(srv.target):
            service = _Service(asked.serial, srv.port, srv.target, strings_of(message, asked.question.name))
            address = address_of(message, srv.target)
            if address is not None:
                self._found(key, service, address, now)
            elif is_whole:
                self._ask_host(asked, key, service, A, now)
        elif srv is not None:
            self._reject(key, asked.serial)
        elif is_whole and is_negative(message):
            # between two rounds it may have come and gone again
            is_still_gone = key in self._also and -inf < self._wanted[key].answered_round < self._polled_at
            self._note_answer(key, asked.serial)
            if self.found.pop(key, None) is not None or is_still_gone:
                self._events.append(InstanceGone(key, now))

    def _receive_host(
        self,
        message: dns.message.Message,
        asked: _Asked,
        key: PublicKey,
        service: _Service,
        is_whole: bool,
        now: float,
    ) -> None:
        address = address_of(message, service.target)
        if address is not None:
            self._found(key, service, address, now)
        elif is_whole and is_negative(message):
            if asked.question.rdtype == A:
                self._ask_host(asked, key, service, AAAA, now)
            else:
                self._reject(key, service.serial)

    def _ask_host(self, asked: _Asked, key: PublicKey, service: _Service, rdtype: RdataType, now: float) -> None:
        self._ask(Question(service.target, rdtype, asked.question.edns), key, now, service=service)

    def _found(self, key: PublicKey, service: _Service, address: str, now: float) -> None:
        try:
            instance = from_records(key, service.port, address, service.strings)
        except ValueError:
            self._reject(key, service.serial)
            return
        self._note_answer(key, service.serial)
        known = self.found.get(key)
        if known is not None and service.strings is None:
            # a TXT left out for want of room says nothing against the one we had
            instance = replace(instance, allowed_ips=known.allowed_ips)
        if instance != known:
            self.found[key] = instance
            self._events.append(InstanceFound(instance, now))

    def _reject(self, key: PublicKey, serial: int | None) -> None:
        self.drops[Drop.INVALID] += 1
        self._note_answer(key, serial)

    def _note_answer(self, key: PublicKey, serial: int | None) -> None:
        wanted = self._wanted[key]
        wanted.answered_serial = serial
        wanted.answered_round = self._polled_at
        if serial != self._serial:
            # the zone changed while this was on its way
            self._waiting[key] = None
