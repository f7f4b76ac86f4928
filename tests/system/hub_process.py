"""A registry's device and hub, without the registry: run in a lab's host with a directory as argument.

Prints "up" once it stands. A line `NAME GROUP…` on its input puts that device into other groups.
"""

import asyncio
import json
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_interface
from pathlib import Path

from wgdisco.invitation import ENROL_REGISTRY_ADDRESS, enrol_address, enrol_private_key
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.registry.facts import Network, Put
from wgdisco.registry.hub import hub_rules
from wgdisco.registry.membership import Membership
from wgdisco.registry.stock import DeviceRequest, add_device, device_conf
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.io.forwarding import Hub, hub
from wgdisco.tunnel.io.interface import tunnel_interface


def membership(directory: Path) -> Membership:
    """A network of devices; writes the file of each into `directory`."""
    settings = json.loads((directory / "devices.json").read_text())
    own = PrivateKey(b"r" * 32)
    prefixes = IPv4Network("10.7.8.0/24"), IPv6Network("fd77::/64")
    it = Membership([Network("mesh", "wg.internal.", own, 51820, ("192.0.2.1:51820",), *prefixes)])
    for name, (groups, full_tunnel) in settings.items():
        key, shared = PrivateKey(name.encode().ljust(32)), PresharedKey(name.encode().rjust(32))
        request = DeviceRequest(name, key.public_key(), shared, tuple(groups), full_tunnel=full_tunnel)
        changes, facts = add_device(it, request, time.time())
        it.apply(changes)
        (directory / f"{name}.conf").write_text(device_conf(facts, shared, key))
    secret = b"s" * 16
    it.apply(it.invite(secret, time.time())[0])
    (directory / "joiner.conf").write_text(
        f"[Interface]\nPrivateKey = {enrol_private_key(secret).to_text()}\nAddress = {enrol_address(secret)}/32\n"
        f"[Peer]\nPublicKey = {own.public_key()}\nEndpoint = 203.0.113.1:51820\n"
        f"AllowedIPs = {ENROL_REGISTRY_ADDRESS}/32, 10.7.8.0/24\nPersistentKeepalive = 25\n"
    )
    return it


async def follow(it: Membership, forwarder: Hub) -> None:
    """Apply what the input says, and say so."""
    print("up", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *groups = line.split()
        it.apply([Put(replace(it.by_name(name), groups=tuple(groups)))])
        await forwarder.apply(hub_rules(it, "mesh", await forwarder.uplinks()))
        print("done", flush=True)


async def main() -> None:
    it = membership(Path(sys.argv[1]))
    addresses = [ip_interface(f"{address}/{address.max_prefixlen}") for address in it.network.registry_addresses]
    addresses.append(ip_interface(f"{ENROL_REGISTRY_ADDRESS}/32"))
    conf = TunnelConf(it.device_config(), tuple(addresses), 1280)
    async with tunnel_interface("mesh", conf), hub("mesh") as forwarder:
        await forwarder.apply(hub_rules(it, "mesh", await forwarder.uplinks()))
        await follow(it, forwarder)


asyncio.run(main())
