"""A registry's device and relay, without the registry: run in a lab's host with its private key and members' keys.

Arguments: PRIVATE NAME=PUBLIC…. Prints "up" once it stands; the members' addresses are 10.9.0.1, .2, … in this order.
On its input: `admit A B`, `revoke A`, `report`; it answers each with a line of JSON.
"""

import asyncio
import json
import sys
from ipaddress import ip_interface, ip_network

from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.registry.io.relay import Relaying
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import Foreign, PathSeen, PeerHandshake
from wgdisco.tunnel.io.interface import tunnel_device


async def follow_device(engine, relaying):
    async for event in engine.events():
        match event:
            case Foreign():
                relaying.pass_on(event)
            case PeerHandshake() | PathSeen():
                relaying.relay.locate(event.key, event.endpoint)


async def obey(engine, relaying, keys):
    print("up", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = None
        match line.split():
            case ["admit", a, b]:
                answer = relaying.admit(keys[a], keys[b])
            case ["revoke", name]:
                relaying.relay.revoke(keys[name])
            case ["report"]:
                status = {peer.key: peer for peer in engine.status().peers}
                traffic = relaying.relay.traffic()
                answer = {
                    "drops": relaying.drops(),
                    "endpoints": {name: str(status[key].endpoint) for name, key in keys.items()},
                    "device_rx": {name: status[key].rx_bytes for name, key in keys.items()},
                    "relayed_tx": {name: traffic[key].tx_bytes for name, key in keys.items() if key in traffic},
                }
        print(json.dumps(answer), flush=True)


async def main():
    private = PrivateKey.from_text(sys.argv[1])
    keys = {name: PublicKey.from_text(key) for name, key in (argument.split("=", 1) for argument in sys.argv[2:])}
    peers = tuple(
        PeerConfig(key, allowed_ips=(ip_network(f"10.9.0.{number}/32"),)) for number, key in enumerate(keys.values(), 1)
    )
    conf = TunnelConf(DeviceConfig(private, 51820, 0, peers), (ip_interface("10.9.0.254/24"),), 1280)
    async with tunnel_device("relay", conf, relays=True) as (engine, _link):
        relaying = Relaying(engine.send_burst)
        following = asyncio.create_task(follow_device(engine, relaying))
        await obey(engine, relaying, keys)
        following.cancel()


asyncio.run(main())
