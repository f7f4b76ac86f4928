"""The registry as a hub: what membership means for the packets it forwards."""

from wgdisco.invitation import ENROL_NETWORK, ENROL_REGISTRY_ADDRESS
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.nft import Enrolment, HubHost, HubRules

ENROLMENT = Enrolment(ENROL_NETWORK, ENROL_REGISTRY_ADDRESS, 80)


def hub_rules(membership: Membership, interface: str, uplinks: dict[int, tuple[str, ...]]) -> HubRules:
    """The rules that hold until membership changes; `uplinks` as in `HubRules`."""
    network = membership.network
    hosts = tuple(
        HubHost(network.addresses(member.number), member.groups, member.full_tunnel)
        for member in membership.members.values()
        if member.proven
    )
    ports = network.listen_port, network.also_ports
    return HubRules(interface, hosts, network.registry_addresses, ENROLMENT, uplinks, *ports)
