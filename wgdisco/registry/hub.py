"""The registry as a hub: what membership means for the packets it forwards."""

from wgdisco.endpoint import IPNetwork
from wgdisco.invitation import ENROL_NETWORK, ENROL_REGISTRY_ADDRESS
from wgdisco.offers import is_default
from wgdisco.registry.facts import Kind, Network
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.firewall import Need, Service
from wgdisco.tunnel.nft import Enrolment, HubHost, HubRules

ENROLMENT = Enrolment(ENROL_NETWORK, ENROL_REGISTRY_ADDRESS, 80)


def hub_rules(
    membership: Membership, interface: str, uplinks: dict[int, tuple[str, ...]], beside: str | None = None
) -> HubRules:
    """The rules that hold until membership changes; `uplinks` and `beside` as in `HubRules`."""
    network = membership.network
    hosts = tuple(
        HubHost(
            network.addresses(member.number),
            member.groups,
            member.full_tunnel,
            tuple(subnet for subnet in member.subnets if not is_default(subnet)),
        )
        for member in membership.members.values()
        if member.proven
    )
    ports = network.listen_port, network.also_ports
    return HubRules(interface, hosts, network.registry_addresses, ENROLMENT, uplinks, *ports, beside)


def hub_subnets(membership: Membership) -> tuple[IPNetwork, ...]:
    """What is behind members or devices and reached through the registry: by devices, or on one of them."""
    members = membership.members.values()
    return tuple(
        subnet
        for member in members
        if member.proven
        and member.subnets
        and (member.kind is Kind.DEVICE or any(d.kind is Kind.DEVICE and membership.sees(d, member) for d in members))
        for subnet in member.subnets
        if not is_default(subnet)
    )


def firewall_need(network: Network, *, full_tunnel: bool) -> Need:
    """What has to come through the host's own firewall; with `full_tunnel` devices, to the Internet and back too."""
    inside = (Service("tcp", 80), Service("udp", 53), Service("tcp", 53))
    outside = () if network.tls_port is None else (Service("tcp", network.tls_port),)
    return Need(network.name, network.listen_port, inside, True, full_tunnel, outside)
