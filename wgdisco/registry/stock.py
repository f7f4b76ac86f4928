"""Stock WireGuard devices (a phone, a router): what is asked for one, and the wg-quick file it is given.

A device knows the registry as its one peer and reaches members through it, so the registry decrypts that traffic. It
may have members with a fixed public endpoint as further peers (`direct_to`): those it reaches itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Self

from wgdisco.endpoint import Endpoint, IPAddress, IPNetwork
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.offers import is_default
from wgdisco.registry.facts import DEFAULT_GROUP, MTU, Change, Kind, Member
from wgdisco.registry.membership import Membership
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig

KEEPALIVE = 25
EVERYTHING: tuple[IPNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
# Refused by every app with a line that says so, rather than a device that comes up and is silent.
KEY_PLACEHOLDER = "PrivateKey = REPLACE-THIS-BY-THE-PRIVATE-KEY-OF-THE-DEVICE"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A device to add. The private key is not the registry's business, only whoever prints the file has it."""

    name: str
    public_key: PublicKey
    preshared_key: PresharedKey = field(repr=False)
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    direct_to: tuple[str, ...] = ()
    full_tunnel: bool = False

    def to_json(self) -> dict[str, Any]:
        """The object `from_json` reads, preshared key included: never for logs."""
        return {
            "name": self.name,
            "public_key": self.public_key.to_text(),
            "preshared_key": self.preshared_key.to_text(),
            "groups": [*self.groups],
            "direct_to": [*self.direct_to],
            "full_tunnel": self.full_tunnel,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a request; LocalError, which shows nothing of it, when it cannot be one."""
        try:
            key, shared = PublicKey.from_text(data["public_key"]), PresharedKey.from_text(data["preshared_key"])
            groups, direct_to = tuple(map(str, data["groups"])), tuple(map(str, data["direct_to"]))
            return cls(str(data["name"]), key, shared, groups, direct_to, bool(data["full_tunnel"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise LocalError("the request for a device is incomplete: use the registry's own version") from None


@dataclass(frozen=True, slots=True)
class DirectPeer:
    """A member that a device reaches without the registry, with what is behind it."""

    name: str
    public_key: PublicKey
    endpoint: Endpoint
    addresses: tuple[IPAddress, ...]
    subnets: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """All that goes into a device's file, but for its two secrets.

    `registries` are `HOST:PORT`, the first one is used; `zone` is the network's, with its final dot. `subnets` are
    behind members that it reaches through the registry. `forward_dns`: the registry answers for other zones as well.
    """

    name: str
    addresses: tuple[IPAddress, ...]
    registry_key: PublicKey
    registries: tuple[str, ...]
    registry_addresses: tuple[IPAddress, ...]
    prefixes: tuple[IPNetwork, ...]
    zone: str
    full_tunnel: bool
    direct: tuple[DirectPeer, ...]
    subnets: tuple[IPNetwork, ...] = ()
    forward_dns: bool = False

    def to_json(self) -> dict[str, Any]:
        """The object `from_json` reads; no secret is in it."""
        return {
            "name": self.name,
            "addresses": [str(address) for address in self.addresses],
            "registry_key": self.registry_key.to_text(),
            "registries": [*self.registries],
            "registry_addresses": [str(address) for address in self.registry_addresses],
            "prefixes": [str(prefix) for prefix in self.prefixes],
            "zone": self.zone,
            "full_tunnel": self.full_tunnel,
            "direct": [
                {
                    "name": peer.name,
                    "public_key": peer.public_key.to_text(),
                    "endpoint": peer.endpoint.to_text(),
                    "addresses": [str(address) for address in peer.addresses],
                    "subnets": [str(subnet) for subnet in peer.subnets],
                }
                for peer in self.direct
            ],
            "subnets": [str(subnet) for subnet in self.subnets],
            "forward_dns": self.forward_dns,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the object; LocalError when it is of another version."""
        try:
            direct = tuple(
                DirectPeer(
                    peer["name"],
                    PublicKey.from_text(peer["public_key"]),
                    Endpoint.from_text(peer["endpoint"]),
                    tuple(map(ip_address, peer["addresses"])),
                    tuple(map(ip_network, peer["subnets"])),
                )
                for peer in data["direct"]
            )
            return cls(
                data["name"],
                tuple(map(ip_address, data["addresses"])),
                PublicKey.from_text(data["registry_key"]),
                tuple(data["registries"]),
                tuple(map(ip_address, data["registry_addresses"])),
                tuple(map(ip_network, data["prefixes"])),
                data["zone"],
                data["full_tunnel"],
                direct,
                tuple(map(ip_network, data["subnets"])),
                data["forward_dns"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LocalError("the registry speaks another version: restart it") from error


def add_device(membership: Membership, request: DeviceRequest, now: float) -> tuple[list[Change], DeviceFacts]:
    """What to store for a new device, and what its file is made of; LocalError says why not. `now` is unix time."""
    for name in request.direct_to:
        _direct_peer(membership, membership.by_name(name), request.groups)
    changes, device = membership.add_device(
        request.name,
        request.public_key,
        request.preshared_key,
        now,
        request.groups,
        tuple(dict.fromkeys(request.direct_to)),
        request.full_tunnel,
    )
    return changes, device_facts(membership, device)


def device_facts(membership: Membership, device: Member) -> DeviceFacts:
    """What the file of a device is made of; LocalError when one of its direct peers has no fixed endpoint any more."""
    network = membership.network
    direct = (_direct_peer(membership, membership.by_name(name), device.groups) for name in device.direct_to)
    others = (member for member in membership.visible_to(device) if member.name not in device.direct_to)
    return DeviceFacts(
        device.name,
        network.addresses(device.number),
        network.private_key.public_key(),
        network.endpoints,
        network.registry_addresses,
        (network.prefix4, network.prefix6),
        network.zone,
        device.full_tunnel,
        tuple(direct),
        tuple(subnet for member in others for subnet in _subnets(member)),
        network.forward_dns,
    )


def direct_devices(membership: Membership, member: Member) -> tuple[Member, ...]:
    """The devices that have `member` as a peer of their own: it must know their keys, and their addresses are theirs.

    No preshared key is between them: a registry's is for the registry alone.
    """
    return tuple(device for device in membership.visible_to(member) if member.name in device.direct_to)


def device_conf(
    facts: DeviceFacts,
    preshared_key: PresharedKey | None,
    private_key: PrivateKey | None,
    dns: tuple[str, ...] = (),
) -> str:
    """The wg-quick file, both secrets in it: never for logs.

    Without `private_key`, which is then on the device, a line stands in its place that has to be replaced. `dns` are
    the items of a DNS line: addresses of resolvers, and search domains.
    """
    registry = facts.registry_key
    endpoint = _endpoint(facts.registries[0])
    fixed = endpoint if isinstance(endpoint, Endpoint) else None
    prefixes = EVERYTHING if facts.full_tunnel else (*facts.prefixes, *facts.subnets)
    peers = [PeerConfig(registry, preshared_key, fixed, prefixes, KEEPALIVE)]
    peers += [
        PeerConfig(peer.public_key, None, peer.endpoint, (*map(ip_network, peer.addresses), *peer.subnets), KEEPALIVE)
        for peer in facts.direct
    ]
    conf = TunnelConf(
        DeviceConfig(private_key, peers=tuple(peers)),
        tuple(ip_interface(address) for address in facts.addresses),
        MTU,
        {} if isinstance(endpoint, Endpoint) else {registry: endpoint},
    )
    more = [] if private_key is not None else [KEY_PLACEHOLDER]
    if dns:
        more.append(f"DNS = {', '.join(dns)}")
    first, *rest = conf.to_text().splitlines()
    return "\n".join([first, *more, *rest]) + "\n"


def registry_dns(facts: DeviceFacts) -> tuple[str, ...]:
    """The items of a DNS line that asks the registry, with the network's zone as search domain."""
    return (*map(str, facts.registry_addresses), facts.zone.rstrip("."))


def _direct_peer(membership: Membership, member: Member, groups: tuple[str, ...]) -> DirectPeer:
    """A member as a device's own peer; LocalError when that cannot work."""
    name = member.name
    if member.kind is not Kind.MEMBER:
        raise LocalError(f"--direct-to {name}: it is a stock device too, which only the registry knows how to reach")
    if member.endpoint is None:
        raise LocalError(
            f"--direct-to {name}: it has no fixed public endpoint: `wgdisco registry set {name} endpoint ADDRESS:PORT`"
        )
    if not set(groups).intersection(member.groups):
        raise LocalError(f"--direct-to {name}: it is in none of the groups {', '.join(groups)}: add --group")
    addresses = membership.network.addresses(member.number)
    return DirectPeer(name, member.public_key, member.endpoint, addresses, _subnets(member))


def _subnets(member: Member) -> tuple[IPNetwork, ...]:
    return tuple(subnet for subnet in member.subnets if not is_default(subnet))


def _endpoint(text: str) -> Endpoint | tuple[str, int]:
    """`HOST:PORT` as an endpoint where the host is an address."""
    try:
        return Endpoint.from_text(text)
    except ValueError:
        host, _, port = text.rpartition(":")
        return host, int(port)
