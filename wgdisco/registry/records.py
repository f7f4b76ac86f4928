"""Facts and observations as the API tells them: who may know what is decided by `Membership.visible_to`."""

from wgdisco.api import MemberRecord, NetworkRecord, Order, SelfRecord, Snapshot
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.endpoint import LOOPBACK, in_any
from wgdisco.keys import PublicKey
from wgdisco.registry.candidates import with_seen
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Member
from wgdisco.registry.membership import Membership
from wgdisco.registry.orders import ORDER_LIFETIME, Punch


def roster(membership: Membership) -> Roster:
    """Who is to be in the zone by name: all that have shown that they hold their key."""
    network = membership.network
    return Roster.create(
        (
            ZoneMember(member.name, network.addresses(member.number), member.groups)
            for member in membership.members.values()
            if member.proven
        ),
        network.registry_addresses,
        forwards=network.forward_dns,
    )


def network_record(membership: Membership) -> NetworkRecord:
    """The network, the same for all members."""
    network = membership.network
    return NetworkRecord(
        network.name,
        network.zone,
        network.epoch,
        [str(network.prefix4), str(network.prefix6)],
        list(network.reached_at),
        network.private_key.public_key().to_text(),
        [str(address) for address in network.registry_addresses],
        list(network.tls_at),
    )


def member_record(membership: Membership, directory: Directory, member: Member, viewer: Member) -> MemberRecord:
    """One member as `viewer` sees it, with where it is: of its groups those that they share."""
    entry = directory.entry(member.public_key)
    endpoint = member.endpoint or (None if entry is None else entry.endpoint)
    if endpoint is not None and in_any(endpoint.address, LOOPBACK):
        endpoint = None  # it comes by TLS: that end of it is nobody else's business
    return MemberRecord(
        name=member.name,
        public_key=member.public_key.to_text(),
        addresses=[str(address) for address in membership.network.addresses(member.number)],
        kind=member.kind.value,
        role=member.role.value,
        groups=[group for group in member.groups if group in viewer.groups],
        endpoint=None if endpoint is None else endpoint.to_text(),
        live=entry is not None and entry.live,
        epoch=membership.network.epoch,
        next_key=None if member.next_key is None else member.next_key.to_text(),
        direct=viewer.name in member.direct_to,
        candidates=[] if entry is None else list(entry.candidates),
        nat=None if entry is None else entry.nat,
        subnets=[str(network) for network in member.subnets],
        offers=[str(network) for network in member.offers] if viewer.number == member.number else [],
        ephemeral=member.ephemeral is not None,
    )


def self_record(membership: Membership, directory: Directory, member: Member) -> SelfRecord:
    """What `member` is told of itself."""
    return SelfRecord(network_record(membership), member_record(membership, directory, member, member))


def member_records(membership: Membership, directory: Directory, member: Member) -> list[MemberRecord]:
    """All that `member` may see."""
    return [member_record(membership, directory, other, member) for other in membership.visible_to(member)]


def snapshot(membership: Membership, directory: Directory, member: Member) -> Snapshot:
    """Network, itself and all that `member` may see."""
    own = self_record(membership, directory, member)
    return Snapshot(own.network, own.member, member_records(membership, directory, member))


def order_record(directory: Directory, punch: Punch, peer: PublicKey, is_relayed: bool) -> Order:
    """The order as it is told to the side that is not `peer`."""
    entry = directory.entry(peer)
    known = [] if entry is None else with_seen(entry.candidates, entry.endpoint)
    return Order(
        order=punch.number,
        peer=peer.to_text(),
        initiator=punch.initiator.to_text(),
        candidates=known,
        nat=None if entry is None else entry.nat,
        relay=is_relayed,
        expires_ms=int(ORDER_LIFETIME * 1000),
    )
