"""A registry as plain wg-quick files: the way out."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_interface

from wgdisco.endpoint import LOOPBACK, Endpoint, in_any
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.registry.facts import Kind, Member
from wgdisco.registry.membership import Membership
from wgdisco.registry.stock import DeviceFacts, device_conf, device_facts
from wgdisco.tunnel.conf import TunnelConf

_ABOUT = """\
# The registry of the network {network}, with all its members and devices as peers. Secret.
# It holds no private key but its own: those of members and devices never left them.
# Groups are not held to here. To pass on what one peer sends another: sysctl net.ipv4.ip_forward=1, and of IPv6.
"""
_ABOUT_MEMBER = """\
# {kind} {name} of the network {network}, with the registry as the way to all others. Secret.
# The registry never had the private key: put it in.
"""


def registry_text(membership: Membership, observed: Mapping[PublicKey, Endpoint], *, with_ipv6: bool) -> str:
    """The registry's own file: every member and device a peer, where it is fixed or was `observed` last.

    Its private key and all preshared keys are in it. Invitations are not: nobody would enrol whom they let in.
    """
    network, config = membership.network, membership.device_config()
    peers = []
    for peer in config.peers:
        if peer.public_key not in membership.members:
            continue
        endpoint = peer.endpoint or observed.get(peer.public_key)
        if endpoint is not None and in_any(endpoint.address, LOOPBACK):
            endpoint = None  # a TLS connection's end, which is nothing without its daemon
        allowed = tuple(one for one in peer.allowed_ips if with_ipv6 or one.version == 4)
        peers.append(replace(peer, endpoint=endpoint, allowed_ips=allowed))
    address4, address6 = network.registry_addresses
    addresses = [ip_interface(f"{address4}/{network.prefix4.prefixlen}")]
    if with_ipv6:
        addresses.append(ip_interface(f"{address6}/{network.prefix6.prefixlen}"))
    conf = TunnelConf(replace(config, peers=tuple(peers)), tuple(addresses), network.mtu)
    names = {member.public_key: member.name for member in membership.members.values()}
    return _ABOUT.format(network=network.name) + conf.to_text(names)


def member_texts(membership: Membership) -> dict[str, str]:
    """What is known of each member's and device's own file, by name: all but the private key."""
    return {member.name: _member_text(membership, member) for member in membership.members.values()}


def _member_text(membership: Membership, member: Member) -> str:
    about = _ABOUT_MEMBER.format(
        kind="The device" if member.kind is Kind.DEVICE else "The member",
        name=member.name,
        network=membership.network.name,
    )
    return about + device_conf(_facts(membership, member), member.preshared_key, None)


def _facts(membership: Membership, member: Member) -> DeviceFacts:
    try:
        return device_facts(membership, member)
    except LocalError:  # one of its direct peers has no fixed endpoint any more: by the registry, then
        return device_facts(membership, replace(member, direct_to=()))
