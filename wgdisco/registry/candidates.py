"""Which candidates of a member the registry tells others: those that cannot aim packets at somebody else.

A global address counts only where a packet of that member came from it, over WireGuard or STUN; a private one leads
nowhere but into the listener's own network, where it may well be the member.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address

from wgdisco.api import MAX_CANDIDATES, CandidateKind, CandidateRecord
from wgdisco.endpoint import SITE_LOCAL, Endpoint, IPAddress, IPNetwork, in_any, is_beyond_link

# RFC 8445 section 5.1.2.1 with the type preferences of server-reflexive and host, and local preference at its most
SEEN_PRIORITY = (100 << 24) + (65535 << 8) + 255
SEEN_HOST_PRIORITY = (126 << 24) + (65535 << 8) + 255


def validate(
    records: Iterable[CandidateRecord],
    seen: Endpoint | None,
    proven: Iterable[IPAddress],
    tunnel: tuple[IPNetwork, ...],
) -> list[CandidateRecord]:
    """What of a member's `records` others are told, in its order, an endpoint once, at most MAX_CANDIDATES.

    `seen` is where the registry's device has the member, `proven` where else a packet of it came from (STUN).
    `tunnel` are the prefixes inside it: never a member's.
    """
    known = {*proven, *(() if seen is None else (seen.address,))}
    told: dict[Endpoint, CandidateRecord] = {}
    for record in records:
        try:
            kind, endpoint = CandidateKind(record.kind), Endpoint.from_text(record.endpoint)
        except ValueError:
            continue
        address = endpoint.address
        if in_any(address, tunnel) or not _is_beyond_link(address):
            continue
        if _may_claim(kind, address, known):
            told.setdefault(endpoint, record)
    return list(told.values())[:MAX_CANDIDATES]


def with_seen(records: Iterable[CandidateRecord], seen: Endpoint | None) -> list[CandidateRecord]:
    """`records` with where the registry sees the member before all others, at most MAX_CANDIDATES.

    A private source is a member on the registry's own network: a host candidate. One on its own link, or itself, is of
    no use to others. What it said to be reflexive at another address is from before it moved.
    """
    told = [record for record in records if not _is_outdated(record, seen)]
    is_told = seen is None or seen.to_text() in {record.endpoint for record in told}
    if seen is not None and not is_told and _is_beyond_link(seen.address):
        if seen.is_private:
            first = CandidateRecord(CandidateKind.HOST.value, seen.to_text(), SEEN_HOST_PRIORITY)
        else:
            first = CandidateRecord(CandidateKind.SERVER_REFLEXIVE.value, seen.to_text(), SEEN_PRIORITY)
        told.insert(0, first)
    return told[:MAX_CANDIDATES]


def _is_outdated(record: CandidateRecord, seen: Endpoint | None) -> bool:
    if seen is None or seen.is_private or record.kind != CandidateKind.SERVER_REFLEXIVE.value:
        return False
    address = Endpoint.from_text(record.endpoint).address
    return address.version == seen.address.version and address != seen.address


def _may_claim(kind: CandidateKind, address: IPAddress, known: set[IPAddress]) -> bool:
    match kind:
        case CandidateKind.HOST | CandidateKind.PORT_MAPPED:
            # behind two NATs the inner one maps a private address: others behind the outer one reach it
            return address in known or in_any(address, SITE_LOCAL)
        case CandidateKind.SERVER_REFLEXIVE:
            return address in known
        case CandidateKind.PEER_REFLEXIVE | CandidateKind.RELAYED:
            # the first is for the peer that learnt it, the second for the registry to tell
            return False


def _is_beyond_link(address: IPAddress) -> bool:
    """A unicast address that does not stop at a host or a link, nor says (by a zone) that it does."""
    return is_beyond_link(address) and not (isinstance(address, IPv6Address) and address.scope_id is not None)
