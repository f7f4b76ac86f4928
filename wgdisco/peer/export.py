"""A membership as a plain wg-quick file: the way out."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_interface

from wgdisco.endpoint import LOOPBACK, Endpoint, in_any
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.peer.roster import Roster
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig

MTU = 1280  # what every path carries (RFC 8200 section 5)
KEEPALIVE = 25  # towards each peer with an endpoint: nobody else keeps our NAT open (whitepaper 6.5)

_ABOUT = """\
# {member} of the network {network}, as of its last word from the registry. Secret.
# Endpoints are those last seen: behind NATs they change, and nothing follows them now.
# Preshared keys are with the registry alone; members have none with each other.
"""


def member_text(
    roster: Roster,
    private_key: PrivateKey,
    preshared_key: PresharedKey,
    listen_port: int,
    registries: tuple[str, ...],
    endpoints: Mapping[PublicKey, Endpoint],
    *,
    with_ipv6: bool,
) -> str:
    """The file of this member: registry and trusted members are peers, names in comments. It holds both secret keys.

    `registries` are HOST:PORT, the first one is the registry's endpoint; members have theirs in `endpoints`, or where
    the registry last saw them.
    """
    network = roster.network
    registry = network.registry_key
    at = _host_and_port(registries[0])
    told = [peer for peer in roster.peers(roster.confirmed_at, endpoints) if peer.replaces is None]
    peers = [_plain(peer, with_ipv6=with_ipv6) for peer in told]
    peers[0] = replace(  # the registry
        peers[0],
        preshared_key=preshared_key,
        endpoint=at if isinstance(at, Endpoint) else None,
        persistent_keepalive=KEEPALIVE,
    )
    addresses = tuple(
        ip_interface(f"{address}/{prefix.prefixlen}")
        for address in roster.own_addresses()
        for prefix in network.prefixes
        if address.version == prefix.version and address in prefix and (with_ipv6 or address.version == 4)
    )
    conf = TunnelConf(
        DeviceConfig(private_key, listen_port, peers=tuple(peers)),
        addresses,
        MTU,
        {} if isinstance(at, Endpoint) else {registry: at},
    )
    names = {key: member.name for key, member in roster.members.items()}
    about = _ABOUT.format(member=roster.own_name, network=network.name)
    left_out = ", ".join(one.name for one in roster.refused())
    if left_out:
        about += f"# Left out, for they are not accepted (`wgdisco accept`): {left_out}\n"
    return about + conf.to_text({**names, registry: "registry"})


def _plain(peer: PeerConfig, *, with_ipv6: bool) -> PeerConfig:
    """A peer as stock WireGuard has to be told it."""
    endpoint = peer.endpoint
    if endpoint is not None and in_any(endpoint.address, LOOPBACK):
        endpoint = None  # a TLS connection's end, which is nothing without its daemon
    allowed = tuple(network for network in peer.allowed_ips if with_ipv6 or network.version == 4)
    return replace(
        peer, endpoint=endpoint, allowed_ips=allowed, persistent_keepalive=0 if endpoint is None else KEEPALIVE
    )


def _host_and_port(text: str) -> Endpoint | tuple[str, int]:
    try:
        return Endpoint.from_text(text)
    except ValueError:
        host, _, port = text.rpartition(":")
        return host, int(port)
