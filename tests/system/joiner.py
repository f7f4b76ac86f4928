"""A bare member for tests of the registry: `joiner.py LINK PRIVATE_KEY enrol [NAME]` enrols, `… stay [RECORD]` stays.

With the RECORD of before it does not enrol again.

Each line on standard output is a JSON object: `{"enrolled": …}`, `{"refused": …}`, then `{"id", "event", "data"}`.
On standard input: `get PATH`, `post PATH BODY`.
"""

import asyncio
import json
import sys
from ipaddress import IPv4Interface, ip_interface, ip_network

import aiohttp

from wgdisco.endpoint import Endpoint
from wgdisco.invitation import (
    ENROL_REGISTRY_ADDRESS,
    JoinLink,
    enrol_address,
    enrol_private_key,
    member_preshared_key,
)
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.io.interface import tunnel_interface


def say(what):
    print(json.dumps(what), flush=True)


def conf(link, private, addresses, allowed, psk=None):
    peer = PeerConfig(link.registry_key, psk, Endpoint.from_text(link.registries[0]), tuple(allowed), 25)
    return TunnelConf(DeviceConfig(private, 0, 0, (peer,)), tuple(addresses), 1280)


async def enrol(link, key, name=None):
    addresses = [IPv4Interface((enrol_address(link.secret), 32))]
    allowed = [ip_network(ENROL_REGISTRY_ADDRESS)]
    async with tunnel_interface("enrol", conf(link, enrol_private_key(link.secret), addresses, allowed)):
        body = {"schema": 1, "public_key": key.public_key().to_text(), "name": name}
        url = f"http://{ENROL_REGISTRY_ADDRESS}/v1/enrol"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            return response.status, await response.json()


async def listen(session, base):
    async with session.get(f"{base}/v1/events", timeout=aiohttp.ClientTimeout(total=None)) as response:
        event = {}
        async for line in response.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field in ("id", "event"):
                event[field] = value
            elif field == "data":
                event["data"] = json.loads(value)
            elif not field and "event" in event:
                say(event)
                event = {}


async def obey(session, base):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        verb, path, *rest = line.rstrip("\n").split(" ", 2)
        data = rest[0].encode() if rest else None
        headers = {"Content-Type": "application/json"} if rest else {}
        async with session.request(verb, base + path, data=data, headers=headers) as response:
            say({"status": response.status, "body": await response.json(content_type=None)})


async def main():
    link, key = JoinLink.from_text(sys.argv[1]), PrivateKey.from_text(sys.argv[2])
    more = sys.argv[4] if len(sys.argv) > 4 else None
    if sys.argv[3] == "stay" and more:
        answer = json.loads(more)
    else:
        status, answer = await enrol(link, key, more)
        say({"enrolled" if status == 200 else "refused": answer})
        if status != 200 or sys.argv[3] == "enrol":
            return
    network = answer["network"]
    addresses = [ip_interface(a) for a in answer["member"]["addresses"]]
    allowed = [ip_network(p) for p in network["prefixes"]]
    base = f"http://{network['registry_addresses'][0]}"
    psk = member_preshared_key(link.secret)
    async with (
        tunnel_interface("mesh", conf(link, key, addresses, allowed, psk)),
        aiohttp.ClientSession() as session,
    ):
        await asyncio.gather(listen(session, base), obey(session, base), return_exceptions=False)


asyncio.run(main())
