"""Run in a host of a lab: `lan_noise.py SEED COUNT ADDRESS` multicasts so many damaged and foreign announcements."""

import random
import socket
import sys

from zeroconf import DNSOutgoing
from zeroconf.asyncio import AsyncServiceInfo
from zeroconf.const import _FLAGS_AA, _FLAGS_QR_RESPONSE

from wgdisco.dnssd.mdns import SERVICE_TYPE


def response(dice: random.Random) -> bytes:
    """An announcement in good form, by nobody, with some of its parts as they should not be."""
    label = dice.choice([dice.randbytes(8).hex(), "a b", "ÄÖ", "x" * 60, "a.b"])
    pairs = {"n": dice.randbytes(dice.choice([16, 0, 200])), "t": dice.choice([dice.randbytes(16), None])}
    service = AsyncServiceInfo(
        SERVICE_TYPE,
        f"{label}.{SERVICE_TYPE}",
        port=dice.choice([0, 1, 65535]),
        properties=dice.choice([pairs, {}, {"n": dice.randbytes(16), "t": dice.randbytes(16)}]),
        server=f"{dice.randbytes(4).hex()}.local.",
        addresses=[dice.randbytes(size) for size in dice.choices([4, 16], k=dice.randrange(20))],
    )
    out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
    for record in [service.dns_pointer(), service.dns_service(), service.dns_text(), *service.dns_addresses()]:
        if dice.random() < 0.9:
            out.add_answer_at_time(record, 0)
    return bytearray(out.packets()[0])


def damaged(dice: random.Random) -> bytes:
    data = response(dice)
    for _ in range(dice.choice([0, 0, 1, 4])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data[: dice.choice([len(data), dice.randrange(len(data))])])


def main(seed: str, count: str, address: str) -> None:
    dice = random.Random(int(seed))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        noise.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        noise.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        noise.bind(("", 5353))
        noise.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        noise.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        for _ in range(int(count)):
            noise.sendto(damaged(dice), ("224.0.0.251", 5353))


main(*sys.argv[1:])
