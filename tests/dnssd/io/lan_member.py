"""Run in a host of a lab: `lan_member.py SEED PORT KNOWN,… INTERFACE=ADDRESS,…` speaks mDNS as a member does.

Keys are bytes of one value each. What it finds is printed, one JSON line each. A line on standard input sets another
port (`port 40001`) or other interfaces (`on eth1=…`, `off`); SIGTERM ends it, with a goodbye.
"""

import asyncio
import json
import logging
import signal
import sys
from ipaddress import ip_address

from wgdisco.dnssd.io.mdns import Lan
from wgdisco.dnssd.mdns import LanPeer
from wgdisco.keys import PublicKey


def key(seed: str) -> PublicKey:
    return PublicKey(bytes([int(seed)]) * 32)


def interfaces(texts: list[str]) -> dict:
    pairs = [text.split("=") for text in texts]
    return {name: tuple(ip_address(one) for one in addresses.split(",")) for name, addresses in pairs}


async def obey(lan: Lan, seed: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        match line:
            case ["port", port]:
                lan.set_identity(key(seed), int(port))
            case ["on", *on]:
                lan.set_interfaces(interfaces(on))
            case ["off"]:
                lan.set_interfaces({})
                print(json.dumps({"says": "off"}), flush=True)


async def main(seed: str, port: str, known: str, *on: str) -> None:
    lan = Lan(key(seed), int(port))
    lan.set_known(key(one) for one in known.split(","))
    lan.set_interfaces(interfaces(list(on)))
    running = asyncio.create_task(lan.run())
    obeying = asyncio.create_task(obey(lan, seed))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    print(json.dumps({"says": "started"}), flush=True)
    async for event in lan.events():
        told = {"says": "gone", "key": event.key.raw[0]}
        if isinstance(event, LanPeer):
            told |= {"says": "found", "endpoints": [str(endpoint) for endpoint in event.endpoints]}
        print(json.dumps(told), flush=True)
    obeying.cancel()
    drops = {reason.value: count for reason, count in lan.neighbours.drops.items()}
    print(json.dumps({"says": "ended", "drops": drops}), flush=True)


logging.basicConfig(level=logging.INFO)
asyncio.run(main(*sys.argv[1:]))
