"""What became of one pair, judged by what the core saw and the pings that came back; the daemons' word is compared.

Pings of a size nothing else has are the payload. Where they went at the end of the trial is the outcome.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from wgdisco.api import PathWord
from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.packets import TCP, UDP, Crossing
from wgdisco.lab.timeline import Said

PING_SIZE = 700
# With the headers of ICMP and IPv4, padded, in a transport message (white paper section 5.4.6)
_SEALED_SIZE = -(-(PING_SIZE + 28) // 16) * 16 + 32
_ENOUGH = 3
_WORDS = frozenset(word.value for word in PathWord)
_REPLY = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from .* icmp_seq=(\d+) .*time=([\d.]+) ms", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reply:
    """A ping's answer: its number, when it came (boot-time clock) and after how many milliseconds."""

    number: int
    at: float
    milliseconds: float


def parse_replies(output: str, boot_minus_unix: float) -> tuple[Reply, ...]:
    """What `ping -D` printed, in order of arrival; the offset takes unix time to the boot-time clock."""
    return tuple(
        Reply(int(number), float(at) + boot_minus_unix, float(took)) for at, number, took in _REPLY.findall(output)
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One host of the pair: its addresses at the Internet, and what its daemon said."""

    host: str
    outside: tuple[IPAddress, ...]
    said: tuple[Said, ...]
    registry_key: str

    def has_said(self, event: str) -> bool:
        """Whether it has said this at all."""
        return any(said.event == event for said in self.said)

    def first(self, *events: str) -> float | None:
        """When it first said one of these of the other member."""
        return next((said.at for said in self._of_peer() if said.event in events), None)

    def asked_at(self) -> float | None:
        """When it first wanted a path to the other: the order it asked for, or what it did of its own."""
        for said in self._of_peer():
            if said.event == "ordered" or (said.event == "punching" and said.fields.get("endpoints")):
                return said.at
        return None

    def registered_at(self) -> float | None:
        """When it first heard from the registry what it needs."""
        return next((said.at for said in self.said if said.event == "registry reachable"), None)

    def claims(self) -> PathWord | None:
        """The path to the other in its own word, as of the last it said."""
        words = [said for said in self._of_peer() if said.event in _WORDS]
        return PathWord(words[-1].event) if words else None

    def reason(self) -> str | None:
        """The reason it gave last."""
        told = [said.fields.get("reason") for said in self._of_peer() if said.event in _WORDS]
        return None if not told or told[-1] is None else str(told[-1])

    def _of_peer(self) -> list[Said]:
        return [said for said in self.said if "peer" in said.fields and not said.about(self.registry_key)]


@dataclass(frozen=True, slots=True)
class At:
    """Where the registry is: its addresses, and its ports where others have the same address (None: all of them)."""

    addresses: frozenset[IPAddress]
    ports: frozenset[int] | None = None

    def sent(self, crossing: Crossing) -> bool:
        """Whether it sent that."""
        return self._is(crossing.source, crossing.source_port)

    def gets(self, crossing: Crossing) -> bool:
        """Whether that is for it."""
        return self._is(crossing.destination, crossing.destination_port)

    def _is(self, address: IPAddress, port: int) -> bool:
        return address in self.addresses and (self.ports is None or port in self.ports)


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of one trial. `asker` pinged the other until `until`; the last `window` seconds decide.

    `follows_for`: for how long an engine that is not ours may yet follow what comes over the relay, seconds.
    """

    asker: Side
    other: Side
    registry: At
    crossings: Sequence[Crossing]
    replies: tuple[Reply, ...]
    until: float
    window: float
    rtt: float
    event_at: float | None = None
    follows_for: float = 0.0


@dataclass(slots=True)
class Verdict:
    """The outcome, and its figures; times are milliseconds from the moment a path was asked for.

    `packets` are the datagrams each side sent towards the other before it was direct. `lost_pings` are those between
    the first and the last answered; `relayed_after` the payload the registry saw once both sides were direct. `gap_ms`
    is how long no answer came after something happened to the pair.
    """

    outcome: Outcome | None
    claims: tuple[PathWord | None, PathWord | None]
    technique: str | None = None
    asked_at: float | None = None
    time_to_direct_ms: float | None = None
    time_to_relay_ms: float | None = None
    first_reply_ms: float | None = None
    packets: tuple[int, int] | None = None
    lost_pings: int = 0
    relayed_after: int = 0
    gap_ms: float | None = None
    reasons: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As part of schema 1."""
        return {
            "outcome": None if self.outcome is None else self.outcome.value,
            "claims": [None if word is None else word.value for word in self.claims],
            "technique": self.technique,
            "time_to_direct_ms": self.time_to_direct_ms,
            "time_to_relay_ms": self.time_to_relay_ms,
            "first_reply_ms": self.first_reply_ms,
            "packets": self.packets,
            "lost_pings": self.lost_pings,
            "relayed_after_direct": self.relayed_after,
            "gap_ms": self.gap_ms,
            "reasons": self.reasons,
            "faults": self.faults,
        }


def judge(observed: Observed, expected: Outcome, or_else: Outcome | None = None) -> Verdict:
    """What happened, and (`faults`) in what it differs from what theory expects, or allows."""
    asker, other = observed.asker, observed.other
    verdict = Verdict(_outcome(observed), (asker.claims(), other.claims()))
    verdict.reasons = [reason for reason in (asker.reason(), other.reason()) if reason is not None]
    verdict.technique = _technique(observed, verdict.outcome)
    _measure(observed, verdict)
    if or_else is not None and verdict.outcome is or_else:
        expected = or_else
    if verdict.outcome is not expected:
        got = "nothing" if verdict.outcome is None else verdict.outcome.value
        verdict.faults.append(f"{got} instead of {expected.value}")
    elif any(word is None or word.value != expected.value for word in verdict.claims):
        claims = " and ".join("nothing" if word is None else word.value for word in verdict.claims)
        verdict.faults.append(f"the daemons say {claims}, the core saw {expected.value}")
    if verdict.relayed_after:
        verdict.faults.append(f"{verdict.relayed_after} packets of payload at the registry after both were direct")
    return verdict


def is_payload(crossing: Crossing) -> bool:
    """Whether it is a ping: of just that size in UDP, or what may hold one in a TLS stream."""
    if crossing.protocol == TCP:
        return crossing.length > _SEALED_SIZE
    return crossing.protocol == UDP and crossing.payload_size == _SEALED_SIZE


def _payload(observed: Observed, since: float) -> tuple[list[Crossing], list[Crossing]]:
    """The pair's pings since then: those between the two, and those the registry passed on.

    What registry and members tell each other may be of that size too. It is no ping unless it came in and went out
    again, as its header and counter say; where one of the two cannot be seen, or is in a TLS stream, all of it counts.
    """
    registry, both = observed.registry, {*observed.asker.outside, *observed.other.outside}
    ends = both | registry.addresses
    pings = [one for one in observed.crossings if is_payload(one) and {one.source, one.destination} <= ends]
    come = {one.head for one in pings if registry.gets(one)}
    gone = {one.head for one in pings if registry.sent(one)}
    is_all_seen = registry.ports is None and all(one.is_udp for one in pings)
    late = [one for one in pings if since <= one.at <= observed.until]
    direct = [one for one in late if not registry.gets(one) and not registry.sent(one)]
    relayed = [one for one in late if registry.gets(one) or registry.sent(one)]
    return direct, [one for one in relayed if not is_all_seen or one.head in come & gone]


def _outcome(observed: Observed) -> Outcome | None:
    """Where the payload of the last `window` seconds went."""
    since = observed.until - observed.window
    if sum(reply.at >= since for reply in observed.replies) < _ENOUGH:
        return None
    direct, relayed = _payload(observed, since)
    a, b = observed.asker.outside, observed.other.outside
    ways = [sum(one.source in here and one.destination in there for one in direct) for here, there in ((a, b), (b, a))]
    if min(ways) >= _ENOUGH and not relayed:
        return Outcome.DIRECT
    if len(relayed) >= 2 * _ENOUGH and not any(ways):
        return Outcome.RELAY
    if not direct and not relayed:  # it went where the core cannot see it
        return Outcome.LAN if PathWord.LAN in (observed.asker.claims(), observed.other.claims()) else Outcome.DIRECT
    return None


def _technique(observed: Observed, outcome: Outcome | None) -> str | None:
    """How the pair is connected: over which endpoints, as the core saw them."""
    if outcome is not Outcome.DIRECT:
        return None if outcome is None else outcome.value
    direct, _ = _payload(observed, observed.until - observed.window)
    sides = (observed.asker, observed.other)
    crossed = [one for one in direct if one.source in sides[0].outside and one.destination in sides[1].outside]
    if not crossed:
        return "hairpin"
    used = (crossed[-1].sender, crossed[-1].receiver)
    known = tuple(_mapped(observed, side, end) for side, end in zip(sides, used, strict=True))
    return "published" if used == known else "peer-reflexive"


def _mapped(observed: Observed, side: Side, like: Endpoint | None) -> Endpoint | None:
    """Where the registry sees a side's WireGuard: what it publishes."""
    seen = [
        one.sender
        for one in observed.crossings
        if one.is_udp and one.source in side.outside and observed.registry.gets(one)
    ]
    return like if like in seen else None


def _measure(observed: Observed, verdict: Verdict) -> None:
    asker, other = observed.asker, observed.other
    asked = [at for at in (asker.asked_at(), other.asked_at()) if at is not None]
    registered = [side.registered_at() for side in (asker, other)]
    if not asked or None in registered:
        return
    verdict.asked_at = max(min(asked), *(at for at in registered if at is not None))
    relayed_at = asker.first("relay")
    if relayed_at is not None:
        verdict.time_to_relay_ms = _milliseconds(relayed_at - verdict.asked_at)
    if observed.replies:
        verdict.first_reply_ms = _milliseconds(observed.replies[0].at - verdict.asked_at)
        numbers = [reply.number for reply in observed.replies]
        verdict.gap_ms = _gap(observed)
        verdict.lost_pings = max(numbers) - numbers[0] + 1 - len({n for n in numbers if n >= numbers[0]})
    directs = [side.first("direct", "lan") for side in (asker, other)]
    if verdict.outcome not in (Outcome.DIRECT, Outcome.LAN) or directs[0] is None or directs[1] is None:
        return
    verdict.time_to_direct_ms = _milliseconds(directs[0] - verdict.asked_at)
    both = max(directs[0], directs[1])
    packets = [
        sum(
            one.source in here.outside and one.destination in there.outside and not observed.registry.gets(one)
            for one in observed.crossings
            if verdict.asked_at - observed.rtt <= one.at <= both and one.is_udp and not is_payload(one)
        )
        for here, there in ((asker, other), (other, asker))
    ]
    verdict.packets = (packets[0], packets[1])
    if observed.event_at is not None:
        return  # what the relay carries meanwhile is what it is for
    _, relayed = _payload(observed, both + 1.5 * observed.rtt + 0.05 + observed.follows_for)
    verdict.relayed_after = len(relayed)


def _gap(observed: Observed) -> float | None:
    """The longest silence since the event."""
    if observed.event_at is None:
        return None
    times = [*(reply.at for reply in observed.replies), observed.until]
    return _milliseconds(max(after - before for before, after in pairwise(times) if after > observed.event_at))


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)
