"""Candidates: the addresses a peer may be reached at, in the words of RFC 8445.

Whatever a candidate says is only ever tried: it is used after an authenticated reply.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from wgdisco.api import MAX_CANDIDATES, CandidateKind, CandidateRecord
from wgdisco.endpoint import Endpoint, IPAddress, IPNetwork, in_any, is_beyond_link

# RFC 8445 section 5.1.2.2; a mapped port stays open without our packets, so it comes before a reflexive one
TYPE_PREFERENCES = {
    CandidateKind.HOST: 126,
    CandidateKind.PEER_REFLEXIVE: 110,
    CandidateKind.PORT_MAPPED: 105,
    CandidateKind.SERVER_REFLEXIVE: 100,
    CandidateKind.RELAYED: 0,
}
LOCAL_PREFERENCE_MAX = 65535
_IPV4_PREFERENCE_MAX = 32767
# Every kind that is there keeps this many places of the published ones, before hosts with many addresses fill them
_PLACES = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint to try. `priority` is of 32 bits, higher is better; `seen_at` when it was last told or heard from."""

    kind: CandidateKind
    endpoint: Endpoint
    priority: int
    seen_at: float

    @classmethod
    def create(cls, kind: CandidateKind, endpoint: Endpoint, now: float, rank: int = 0) -> Self:
        """One of our own finding; `rank` is its place among those of its kind, 0 the best."""
        return cls(kind, endpoint, priority(kind, local_preference(endpoint.address, rank)), now)

    @classmethod
    def parse(cls, record: CandidateRecord, now: float) -> Self:
        """What somebody tells; ValueError when it cannot be."""
        return cls(CandidateKind(record.kind), Endpoint.from_text(record.endpoint), record.priority, now)

    def to_record(self) -> CandidateRecord:
        """The form `parse` reads."""
        return CandidateRecord(self.kind.value, self.endpoint.to_text(), self.priority)


def priority(kind: CandidateKind, local_preference: int, component: int = 1) -> int:
    """RFC 8445 section 5.1.2.1. `local_preference` is 0 to 65535, `component` 1 to 256: WireGuard has one."""
    return (TYPE_PREFERENCES[kind] << 24) + (local_preference << 8) + 256 - component


def local_preference(address: IPAddress, rank: int = 0) -> int:
    """IPv6 before IPv4 (RFC 8421 section 4), then by `rank`, 0 the best."""
    return max((LOCAL_PREFERENCE_MAX if address.version == 6 else _IPV4_PREFERENCE_MAX) - rank, 0)


def ordered(candidates: Iterable[Candidate], most: int | None = None) -> tuple[Candidate, ...]:
    """The best first, at most `most`; an endpoint once, as its best kind and as fresh as it was seen.

    An endpoint that is both our host's and what others see is a host candidate (RFC 8445 section 5.1.3).
    """
    best: dict[Endpoint, Candidate] = {}
    for candidate in candidates:
        known = best.get(candidate.endpoint)
        if known is not None:
            better = known if known.priority >= candidate.priority else candidate
            candidate = replace(better, seen_at=max(known.seen_at, candidate.seen_at))
        best[candidate.endpoint] = candidate
    return tuple(sorted(best.values(), key=lambda one: -one.priority)[:most])


def parse_candidates(records: Iterable[CandidateRecord], now: float) -> tuple[Candidate, ...]:
    """What a peer or the registry tells, ordered, at most MAX_CANDIDATES; what cannot be is left out."""
    candidates = []
    for record in records:
        try:
            candidates.append(Candidate.parse(record, now))
        except ValueError:
            continue
    return ordered(candidates, MAX_CANDIDATES)


def own_candidates(
    addresses: Iterable[IPAddress],
    port: int,
    reflexive: Iterable[Endpoint],
    mapped: Iterable[Endpoint],
    tunnel: tuple[IPNetwork, ...],
    now: float,
) -> tuple[Candidate, ...]:
    """What we publish of ourselves, at most MAX_CANDIDATES, the best first.

    `addresses` are the host's, `reflexive` what the registry and its STUN responders saw, `mapped` the ports a router
    opened for us, each in order of preference. What nobody can reach (loopback, link-local, inside the tunnel) is left
    out. Hosts may have many addresses: two places are kept for each other kind, as far as it has any.
    """

    def may_be_reached(address: IPAddress) -> bool:
        return is_beyond_link(address) and not in_any(address, tunnel)

    def of(kind: CandidateKind, endpoints: Iterable[Endpoint]) -> list[Candidate]:
        usable = [endpoint for endpoint in dict.fromkeys(endpoints) if may_be_reached(endpoint.address)]
        return [Candidate.create(kind, endpoint, now, rank) for rank, endpoint in enumerate(usable)]

    hosts = of(CandidateKind.HOST, (Endpoint(address, port) for address in addresses))
    own = {candidate.endpoint for candidate in hosts}
    others = [
        ordered(candidate for candidate in of(kind, endpoints) if candidate.endpoint not in own)
        for kind, endpoints in ((CandidateKind.PORT_MAPPED, mapped), (CandidateKind.SERVER_REFLEXIVE, reflexive))
    ]
    kept = [candidate for kind in others for candidate in kind[:_PLACES]]
    chosen = [*kept, *ordered(hosts, MAX_CANDIDATES - len(kept))]
    spare = [candidate for kind in others for candidate in kind[_PLACES:]]
    return ordered([*chosen, *spare[: MAX_CANDIDATES - len(chosen)]])
