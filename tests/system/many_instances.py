"""Serve a zone of many peers with all extensions there are, until it is ended.

usage: python -m tests.system.many_instances ZONE PORT COUNT     (prints each peer's key and endpoint, then "serving")
"""

import asyncio
import sys
from ipaddress import IPv4Address, IPv4Network, ip_address

from wgdisco.api import CandidateRecord
from wgdisco.dnssd.feed import Audience, Delta, Setup
from wgdisco.dnssd.instance import ServiceInstance
from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.roster import ZoneMember
from wgdisco.dnssd.service import Service
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey


def instance(number: int) -> ServiceInstance:
    candidates = tuple(CandidateRecord("host", f"192.168.{n}.7:5{n}", 2**31 - n) for n in range(1, 9))
    endpoint = Endpoint(IPv4Address("203.0.113.0") + number % 250, 1024 + number)
    allowed = (IPv4Network((int(IPv4Address("10.9.0.0")) + number, 32)),)
    key = PublicKey(b"\1" + number.to_bytes(31, "big"))
    return ServiceInstance(key, endpoint, allowed, candidates, "eim/apdf/0", f"member-{number}")


async def serve(zone: str, port: int, count: int) -> None:
    instances = tuple(instance(number) for number in range(1, count + 1))
    service = Service(Setup(zone, Profile.STRICT, ()), bytes(16), lambda: 0.0, asyncio.get_running_loop().time)
    members = tuple(ZoneMember(one.name or "", (ip_address("10.9.0.1"),), ("all",)) for one in instances)
    service.apply(Delta(1, instances, members=members, whole=True))
    await DnsServer().start(service.answerer(Audience.ALL), [(ip_address("127.0.0.1"), port)])
    for one in instances:
        print(one.key.to_text(), one.endpoint)
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
