"""Garbage to a zone's server: `python -m tests.system.dns_garbage ADDRESS NAME SEED COUNT`.

COUNT datagrams, each awaited for a moment, then an eighth as many connections: framed garbage, frames that say they are
longer or shorter than they are, and some that are cut. Prints as JSON how many of each were answered, and what is wrong
with an answer: not to what was asked, more than it may be, or long for something that is no question.
"""

import json
import random
import socket
import struct
import sys
from contextlib import suppress

import dns.exception
import dns.message
import dns.rcode

from tests.system.dns_flood import garbage

PLAIN_SIZE, EDNS_SIZE = 512, 1232
REFUSALS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.REFUSED)


def mutated(chance: random.Random, query: bytes) -> bytes:
    """The question with a few bytes changed."""
    data = bytearray(query)
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def complaint(query: bytes, reply: bytes, most: int) -> str | None:
    """What is wrong with a reply that may have `most` bytes."""
    try:
        parsed = dns.message.from_wire(reply)
    except dns.exception.DNSException as error:
        return f"no message: {error!r}"
    if reply[:2] != query[:2] or not reply[2] & 0x80:
        return "another's"
    if len(reply) > most:
        return f"{len(reply)} bytes"
    if parsed.rcode() in REFUSALS and len(reply) > max(len(query), 12):
        return f"{parsed.rcode()} of {len(reply)} bytes to {len(query)}"
    return None


def by_udp(address: str, chance: random.Random, query: bytes, count: int) -> tuple[int, list[str]]:
    answered, wrong = 0, []
    for number in range(count):
        data = mutated(chance, query) if number % 2 else garbage(chance, query)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.01)
            sock.connect((address, 53))
            sock.send(data)
            with suppress(TimeoutError):
                reply = sock.recv(65535)
                answered += 1
                said = complaint(data, reply, EDNS_SIZE if data[10:12] != b"\0\0" else PLAIN_SIZE)
                wrong += [] if said is None else [f"{said}: {data.hex()}"]
    return answered, wrong


def by_tcp(address: str, chance: random.Random, query: bytes, count: int) -> tuple[int, list[str]]:
    answered, wrong = 0, []
    for number in range(count):
        data = mutated(chance, query) if number % 2 else garbage(chance, query)
        size = len(data) if number % 4 < 2 else chance.randrange(65536)
        with socket.create_connection((address, 53), 2) as sock:
            sock.settimeout(0.1)
            with suppress(OSError):  # it may have had enough
                sock.sendall(struct.pack("!H", size) + data)
                if number % 3:
                    sock.shutdown(socket.SHUT_WR)
                stream = sock.makefile("rb")
                head = stream.read(2)
                if len(head) == 2:
                    reply = stream.read(struct.unpack("!H", head)[0])
                    answered += 1
                    said = complaint(data, reply, 65535)
                    wrong += [] if said is None else [f"tcp, {said}: {data.hex()}"]
    return answered, wrong


def main(address: str, name: str, seed: str, count: str) -> None:
    chance = random.Random(int(seed))
    query = dns.message.make_query(name, "SRV").to_wire()
    udp, wrong = by_udp(address, chance, query, int(count))
    tcp, also_wrong = by_tcp(address, chance, query, int(count) // 8)
    print(json.dumps({"udp": udp, "tcp": tcp, "wrong": wrong + also_wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
