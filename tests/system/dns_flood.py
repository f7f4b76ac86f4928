"""Flood a zone's server by forged addresses: `python -m tests.system.dns_flood ADDRESS NAME RATE SECONDS`, as root.

Of the datagrams to port 53 half ask for NAME's SRV from the few prefixes of VICTIMS; a quarter ask the same
from all over 16.0.0.0/4; a quarter are garbage, from there too. "ready", a line on standard input, and what was sent at
the end, as `flood.py`; with it how many bytes and packets for each victim, headers included.
"""

import json
import random
import struct
import sys

import dns.message

from tests.system.flood import anywhere, flood, forged

VICTIMS = ("45.0.0", "45.0.1", "45.0.2", "198.18.3")  # carol's is the last
_HEADER = struct.Struct("!6H")


def garbage(chance: random.Random, query: bytes) -> bytes:
    """What no asker would send."""
    name = query[12:-4]
    tail = query[-4:]
    return chance.choice(
        (
            b"",
            query[: chance.randrange(1, 12)],
            query[: chance.randrange(12, len(query))],
            query + chance.randbytes(chance.randrange(1, 40)),
            _HEADER.pack(chance.getrandbits(16), 0x8000, 1, 0, 0, 0) + query[12:],  # a response
            _HEADER.pack(chance.getrandbits(16), 0, chance.choice((0, 2, 7, 0xFFFF)), 0, 0, 0) + query[12:],
            _HEADER.pack(chance.getrandbits(16), chance.randrange(1, 16) << 11, 1, 0, 0, 0) + query[12:],
            _HEADER.pack(1, 0, 1, *(chance.choice((0, 1, 0xFFFF)) for _ in range(3))) + query[12:],
            _HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0\x0c" + tail,  # a name that is itself
            _HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x01a\xc0\x0c" + tail,  # one that comes back to its beginning
            _HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0\x0e\xc0\x0c" + tail,  # two that are each other
            _HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xff\xff" + tail,
            _HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x3f" + chance.randbytes(63) + name + tail,
            _HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x01x" * 130 + b"\0" + tail,  # longer than a name may be
            _HEADER.pack(1, 0, 1, 0, 0, 1) + query[12:] + b"\0\0\x29" + chance.randbytes(chance.randrange(20)),
            chance.randbytes(chance.randrange(1, 1400)),
        )
    )


def forge(target: str, name: str, count: int) -> tuple[list[bytes], dict[str, tuple[int, int]]]:
    """`count` packets, and of the victims' how many and how many bytes."""
    chance = random.Random(53)
    asked = dns.message.make_query(name, "SRV")
    asked.flags = 0
    query = asked.to_wire()
    packets, victims = [], dict.fromkeys(VICTIMS, (0, 0))
    for number in range(count):
        port = chance.randrange(1024, 65536)
        if number % 4 == 0:
            packets.append(forged(anywhere(chance), port, target, 53, garbage(chance, query)))
            continue
        question = chance.randbytes(2) + query[2:]
        if number % 4 == 1:
            packets.append(forged(anywhere(chance), port, target, 53, question))
            continue
        victim = chance.choice((*VICTIMS, VICTIMS[-1], VICTIMS[-1]))
        source = bytes((*map(int, victim.split(".")), chance.randrange(20, 250)))
        packets.append(forged(source, port, target, 53, question))
        sent, size = victims[victim]
        victims[victim] = (sent + 1, size + len(packets[-1]))
    return packets, victims


def main(target: str, name: str, rate: str, seconds: str) -> None:
    packets, victims = forge(target, name, int(rate) * int(seconds))
    took = flood(target, packets, int(rate))
    print(json.dumps({"sent": len(packets), "seconds": took, "victims": victims}))


if __name__ == "__main__":
    main(*sys.argv[1:])
