"""The real responder and the real check, run in the lab; a plain UDP socket stands for the tunnel's own.

python nat_check.py serve            prints a list of StunRecords, one for each of four members; answers until killed
python nat_check.py check RECORD     prints what was found out over IPv4; check6: over IPv6
python nat_check.py classic RECORD   prints the classic name
python nat_check.py lifetime RECORD [FIRST LEAST ENOUGH]   prints what was found out of the NAT's lifetime
"""

import asyncio
import json
import os
import socket
import sys
import time

from wgdisco.api import StunRecord, to_json
from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.peer.io.natcheck import NatProber
from wgdisco.peer.lifetime import LifetimeSearch
from wgdisco.tunnel.events import DeviceStatus


async def serve() -> None:
    from wgdisco.registry.io.stun import StunServer  # noqa: PLC0415  takes long to import
    from wgdisco.registry.stun import StunResponder  # noqa: PLC0415

    server = StunServer(StunResponder(PrivateKey(os.urandom(32)), time.time))
    await server.start(["198.51.100.10:51820"], "lo")
    members = [PublicKey(bytes([number]) * 32) for number in range(1, 5)]
    print(json.dumps([to_json(server.responder.issue(member)) for member in members]), flush=True)
    await asyncio.Event().wait()


class Tunnel:
    """What the check asks of a device."""

    def __init__(self, version: int) -> None:
        self.socket = socket.socket(
            socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        )
        self.socket.bind(("", 0))

    def status(self) -> DeviceStatus:
        return DeviceStatus(None, self.socket.getsockname()[1], 0, (), {})

    def send_raw(self, data: bytes, endpoint: Endpoint, _ttl: int | None = None) -> None:
        self.socket.sendto(data, (str(endpoint.address), endpoint.port))


async def check(record: StunRecord, version: int) -> None:
    tunnel = Tunnel(version)
    prober = NatProber(tunnel)

    def receive() -> None:
        data, source = tunnel.socket.recvfrom(2048)
        prober.receive(data, Endpoint(parse_address(source[0]), source[1]))

    with tunnel.socket:
        asyncio.get_running_loop().add_reader(tunnel.socket, receive)
        began = time.monotonic()
        report = await prober.check(record, version)
        found = {
            "profile": report.profile.to_text(),
            "reflexive": [endpoint.to_text() for endpoint in report.reflexive],
            "preserved": report.preserved,
            "block": report.block,
            "rtt": report.rtt,
            "seconds": time.monotonic() - began,
            "sent": report.sent,
        }
        print(json.dumps(found))


async def classic(record: StunRecord) -> None:
    from wgdisco.peer.io.classic_nat import classic_name  # noqa: PLC0415

    print(json.dumps(await classic_name(record)))


async def lifetime(record: StunRecord, *bounds: float) -> None:
    from wgdisco.peer.io.lifetime import run_search  # noqa: PLC0415

    server = Endpoint.from_text(record.endpoints[0])
    named = dict(zip(("first", "least", "enough"), bounds, strict=False))
    search = LifetimeSearch(record, server, os.urandom, **named)
    found = await run_search(search, server)
    told = {"at_least": found.at_least, "below": found.below, "interval": found.interval(), "sent": search.sent}
    print(json.dumps(told))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            asyncio.run(serve())
        case ["check" | "check6" as verb, text]:
            asyncio.run(check(StunRecord.from_json(json.loads(text)), 6 if verb == "check6" else 4))
        case ["classic", text]:
            asyncio.run(classic(StunRecord.from_json(json.loads(text))))
        case ["lifetime", text, *bounds]:
            asyncio.run(lifetime(StunRecord.from_json(json.loads(text)), *map(float, bounds)))
