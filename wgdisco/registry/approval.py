"""Subnets behind members, and members as exits: what they offer becomes a fact when an administrator approves of it."""

from dataclasses import replace
from itertools import filterfalse

from wgdisco.endpoint import IPNetwork
from wgdisco.errors import LocalError
from wgdisco.invitation import ENROL_NETWORK
from wgdisco.keys import PublicKey
from wgdisco.offers import OFFERS_MAX, is_default, overlaps, refuse, to_texts
from wgdisco.registry.facts import Change, Kind, Member, Put
from wgdisco.registry.membership import Membership


def offer(membership: Membership, key: PublicKey, offers: tuple[IPNetwork, ...]) -> list[Change]:
    """A member says what is behind it, all of it: nothing follows from that before somebody approves."""
    member = membership.members.get(key)
    return [] if member is None or offers == member.offers else [Put(replace(member, offers=offers))]


def approve(membership: Membership, name: str, networks: tuple[IPNetwork, ...]) -> list[Change]:
    """Have `networks` routed to a member that offers them; LocalError says why not. Again does nothing."""
    member = membership.by_name(name)
    added = [network for network in dict.fromkeys(networks) if network not in member.approved]
    for number, network in enumerate(added):
        _check(membership, member, network, (*member.approved, *added[:number]))
    return [Put(replace(member, approved=(*member.approved, *added)))] if added else []


def disapprove(membership: Membership, name: str, networks: tuple[IPNetwork, ...]) -> list[Change]:
    """Take approvals back; LocalError for what was not approved."""
    member = membership.by_name(name)
    for network in networks:
        if network not in member.approved:
            raise LocalError(f"{network} is not approved for {name}: `wgdisco registry show {name}` shows what is")
    return [Put(replace(member, approved=tuple(one for one in member.approved if one not in networks)))]


def _check(membership: Membership, member: Member, network: IPNetwork, approved: tuple[IPNetwork, ...]) -> None:
    """LocalError unless `network` may be behind `member`, besides what is `approved` there already."""
    name = member.name
    if member.kind is Kind.DEVICE and is_default(network):
        raise LocalError(f"{name} is a stock device: only members can be an exit")
    if member.kind is Kind.MEMBER and network not in member.offers:
        offers = ", ".join(to_texts(member.offers)) or "nothing"
        raise LocalError(f"{name} offers {offers}: have it offer {network} first, with `wgdisco up --offer` there")
    why = refuse(network, (membership.network.prefix4, membership.network.prefix6, ENROL_NETWORK))
    if why is not None:
        raise LocalError(f"{network} cannot be behind {name}: {why}")
    if len(approved) >= OFFERS_MAX:
        raise LocalError(f"at most {OFFERS_MAX} subnets of one member: take some back with --not")
    if is_default(network):
        return
    held = [(member.name, approved), *((one.name, one.approved) for one in membership.members.values())]
    for holder, networks in held:
        taken = overlaps(network, filterfalse(is_default, networks))
        if taken is not None:
            raise LocalError(
                f"{network} overlaps {taken}, which is behind {holder}: take that back first, with"
                f" `wgdisco registry approve {holder} {taken} --not`"
            )
