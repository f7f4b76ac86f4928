"""How the NAT in front of us behaves (RFC 4787), found out in one round trip from the registry's STUN responders.

Everything leaves in one burst. Four plain requests, to two ports of two addresses, show how the mapping depends on the
destination. A request to change the port is answered, where the filter is open enough, from a port nobody has sent to.
A request to change the address is too, from an address nobody has sent to; but the tunnel's own socket has sent there
already, so this one leaves from a spare socket that has sent to nobody else.

::

    tunnel's socket ── plain ──────────► A:3478  A:3479  B:3478  B:3479     mapping
                    ── change port ────► A:3478    ◄── A:third              let in: not APDF
    spare socket    ── change address ─► A:3478    ◄── B:third              let in: EIF

What is not let in is not answered, and neither is what was lost: such requests are sent twice at once, and count as
filtered when everything else has been answered and a little time has passed. What cannot be told is None. With one
address, endpoint-independent looks like address-dependent, in mapping and in filtering.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint
from wgdisco.nat import MAX_DELTA, FilteringBehavior, MappingBehavior, NatProfile
from wgdisco.stun import TRANSACTION_ID_SIZE, Change, Kind, Message

# RFC 8489 section 6.2.1's RTO; there is one retransmission, and as long again to wait for its answer
RETRANSMISSION = 0.5
MAX_DATAGRAMS = 12
MAX_ADDRESSES = 2
MAX_PORTS = 2
# How long after the last plain answer a filtered one may still come, beside a quarter of the round trip
GRACE = 0.02
# A single step may be chance where ports are drawn from a block; then only the smallest tell
MAX_LONE_STEP = 2
MAX_BLOCK = 1100


class Drop(Enum):
    """Why a datagram did not count."""

    NOT_STUN = "not stun"
    NOT_ASKED = "not asked"
    NOT_AUTHENTIC = "not authentic"


@dataclass(frozen=True, slots=True)
class Probe:
    """A datagram to send, from the tunnel's own socket or from a spare one that nothing else was sent from."""

    data: bytes
    destination: Endpoint
    spare: bool


@dataclass(frozen=True, slots=True)
class NatReport:
    """What was found out.

    `reflexive` are the endpoints the tunnel's socket was seen at, each once, in the order it asked. `preserved` says
    whether they have its own port. `block` is the lowest and highest of ports that seem drawn from a subscriber's
    block. `rtt` is the round-trip time to the registry in seconds; `sent` how many datagrams it took.
    """

    profile: NatProfile
    reflexive: tuple[Endpoint, ...] = ()
    preserved: bool | None = None
    block: tuple[int, int] | None = None
    rtt: float | None = None
    sent: int = 0


def merged(reports: Mapping[int, NatReport]) -> NatReport | None:
    """By IP version to one: what all saw, and the behaviour over IPv4 where anything was seen over it."""
    ranked = sorted(reports.items(), key=lambda item: (not item[1].reflexive, item[0]))
    if not ranked:
        return None
    seen = tuple(endpoint for _, report in sorted(reports.items()) for endpoint in report.reflexive)
    return replace(ranked[0][1], reflexive=seen)


@dataclass(slots=True)
class _Test:
    """One request, and what came of it. `late`: only after it had been sent again."""

    data: bytes
    server: Endpoint
    change: Change | None = None
    mapped: Endpoint | None = None
    refused: bool = False
    late: bool = False

    @property
    def is_answered(self) -> bool:
        return self.refused or self.mapped is not None

    def probe(self) -> Probe:
        return Probe(self.data, self.server, self.change is not None and self.change.address)


class NatCheck:
    """One check, over one IP version. `start` it, and it ends with one NatReport among its events."""

    def __init__(
        self, service: StunRecord, version: int, local_port: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        """`local_port` is the tunnel's own; `version` 4 or 6 says which of the service's addresses are asked."""
        self.drops: Counter[Drop] = Counter()
        self._sent = 0
        self._service = service
        self._version = version
        self._local_port = local_port
        self._random_bytes = random_bytes
        self._tests: dict[bytes, _Test] = {}
        self._out: list[Probe] = []
        self._events: list[NatReport] = []
        self._started_at = 0.0
        self._rtt: float | None = None
        self._retransmitted = False
        self._deadline: float | None = None

    def start(self, now: float) -> None:
        """Ask everything at once."""
        servers = _servers(self._service.endpoints, self._version)
        filters = []
        if servers:
            filters.append(self._add(servers[0], Change(address=False, port=True)))
        if len({server.address for server in servers}) > 1:
            filters.insert(0, self._add(servers[0], Change(address=True, port=True)))
        plain = [self._add(server, None) for server in servers]
        self._started_at, self._deadline = now, now + RETRANSMISSION
        self._send([*filters, *plain, *filters])
        if not servers:
            self._finish()

    def receive_datagram(self, data: bytes, source: Endpoint, now: float) -> None:
        """Take what came to either socket; what is no answer to us is dropped and counted."""
        try:
            message = Message.parse(data)
        except ValueError:
            self.drops[Drop.NOT_STUN] += 1
            return
        test = self._tests.get(message.transaction_id)
        if test is None or test.is_answered or message.kind not in (Kind.SUCCESS, Kind.ERROR):
            self.drops[Drop.NOT_ASKED] += 1
        elif not message.verify(self._service.password):
            self.drops[Drop.NOT_AUTHENTIC] += 1
        elif self._deadline is not None:
            self._take(test, message, source, now)

    def handle_timer(self, now: float) -> None:
        """Ask again for what is missing, once; then be content with what there is."""
        if self._deadline is None or now < self._deadline:
            return
        missing = [test for test in self._plain() if not test.is_answered]
        if missing and not self._retransmitted:
            self._retransmitted = True
            self._deadline = now + RETRANSMISSION
            self._send(missing)
        else:
            self._finish()

    def get_timer(self) -> float | None:
        """When `handle_timer` is due; None before the start and after the end."""
        return self._deadline

    def datagrams_to_send(self) -> list[Probe]:
        """What is to be sent now, in this order."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[NatReport]:
        """The report, once."""
        events, self._events = self._events, []
        return events

    def _add(self, server: Endpoint, change: Change | None) -> _Test:
        transaction_id = self._random_bytes(TRANSACTION_ID_SIZE)
        request = Message(Kind.REQUEST, transaction_id, username=self._service.username, change=change)
        test = self._tests[transaction_id] = _Test(request.pack(self._service.password), server, change)
        return test

    def _send(self, tests: Iterable[_Test]) -> None:
        self._out += [test.probe() for test in tests][: MAX_DATAGRAMS - self._sent]
        self._sent += len(self._out)

    def _take(self, test: _Test, message: Message, source: Endpoint, now: float) -> None:
        test.late = self._retransmitted
        if message.mapped is None or not _came_from(test, source):
            test.refused = True
        else:
            test.mapped = message.mapped
        if test.change is None and not test.late:
            self._rtt = now - self._started_at if self._rtt is None else self._rtt
        if all(test.is_answered for test in self._tests.values()):
            self._finish()
        elif all(test.is_answered for test in self._plain()) and self._deadline is not None:
            grace = max(GRACE, (now - self._started_at) / 4)
            self._deadline = min(self._deadline, now + grace)

    def _plain(self) -> list[_Test]:
        return [test for test in self._tests.values() if test.change is None]

    def _finish(self) -> None:
        self._deadline = None
        seen = [(test.server, test.mapped) for test in self._plain() if test.mapped is not None]
        ports = [mapped.port for _, mapped in seen]
        mapping = _mapping(seen)
        delta = None if mapping is MappingBehavior.ENDPOINT_INDEPENDENT else _delta(ports)
        self._events.append(
            NatReport(
                NatProfile(mapping, self._filtering(), delta=delta),
                tuple(dict.fromkeys(mapped for _, mapped in seen)),
                None if not ports else all(port == self._local_port for port in ports),
                None if delta is not None else _block(ports),
                self._rtt,
                self._sent,
            )
        )

    def _filtering(self) -> FilteringBehavior | None:
        """What was let in, where it is known that the answer was sent."""
        passed: dict[bool, bool | None] = {}
        answering = {test.server.address for test in self._plain() if test.mapped is not None and not test.late}
        for test in self._tests.values():
            if test.change is not None:
                asked = test.server.address in answering
                reached = asked and (not test.change.address or len(answering) > 1)
                silent = None if test.refused or not reached else False
                passed[test.change.address] = True if test.mapped is not None else silent
        other_address, other_port = passed.get(True), passed.get(False)
        if other_address:
            return FilteringBehavior.ENDPOINT_INDEPENDENT
        if other_port:
            return None if other_address is None else FilteringBehavior.ADDRESS_DEPENDENT
        return None if other_port is None else FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT


def _servers(endpoints: Sequence[str], version: int) -> list[Endpoint]:
    """Up to two ports of up to two addresses of one IP version, address by address."""
    found: dict[object, list[Endpoint]] = {}
    for endpoint in map(Endpoint.from_text, endpoints):
        if endpoint.address.version == version:
            found.setdefault(endpoint.address, []).append(endpoint)
    return [endpoint for site in list(found.values())[:MAX_ADDRESSES] for endpoint in site[:MAX_PORTS]]


def _came_from(test: _Test, source: Endpoint) -> bool:
    """Whether the answer came from where it was asked to come from."""
    if test.change is None:
        return source == test.server
    if test.change.address:
        return source.address != test.server.address
    return source.address == test.server.address and source.port != test.server.port


def _mapping(seen: Sequence[tuple[Endpoint, Endpoint]]) -> MappingBehavior | None:
    """RFC 5780 section 4.3, from pairs of the server and the endpoint it saw."""
    by_address: dict[object, set[Endpoint]] = {}
    for server, mapped in seen:
        by_address.setdefault(server.address, set()).add(mapped)
    if any(len(mapped) > 1 for mapped in by_address.values()):
        return MappingBehavior.ADDRESS_AND_PORT_DEPENDENT
    if len(by_address) < 2:
        return None
    if len(set.union(*by_address.values())) == 1:
        return MappingBehavior.ENDPOINT_INDEPENDENT
    # two ports at one address that agree, or it might as well be the port
    return MappingBehavior.ADDRESS_DEPENDENT if len(seen) > len(by_address) else None


def _delta(ports: Sequence[int]) -> int | None:
    """The step between ports given out one after another; None where there is none to count on."""
    steps = [after - before for before, after in pairwise(ports) if after != before]
    limit = MAX_DELTA if len(steps) > 1 else MAX_LONE_STEP
    if not steps or any(abs(step) > limit or step * steps[0] < 0 for step in steps):
        return None
    return min(steps, key=abs)


def _block(ports: Sequence[int]) -> tuple[int, int] | None:
    """The lowest and highest of three ports or more that would hardly lie so close together by chance."""
    found = set(ports)
    return (min(found), max(found)) if len(found) > 2 and max(found) - min(found) < MAX_BLOCK else None
