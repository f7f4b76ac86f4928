"""Forge initiations to a device that is known by address, port and public key (hex).

`flood.py ADDRESS PORT KEY RATE SECONDS`, as root: so many a second from random sources. Half have a wrong mac1, half a
good one; the rest of all is random. They are made before the first is sent, and "ready" is printed then; sending begins
with a line on standard input. At the end, what was sent and how fast, as JSON.

`flood.py ADDRESS PORT KEY`: one with a good mac1 from an own address; prints what comes back in 0.3 s, "cookie",
"silence" or the hex of something else.
"""

import ctypes
import hashlib
import json
import os
import random
import socket
import struct
import sys
import time
from itertools import accumulate

PAUSE = 0.002  # between batches, seconds
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_IOVEC = struct.Struct("@QQ")
_MMSGHDR = struct.Struct("@QI4xQQQQi4xI4x")  # struct mmsghdr of socket.h, 64-bit


def forged(source: bytes, source_port: int, target: str, port: int, data: bytes) -> bytes:
    """A UDP datagram as an IPv4 packet. The kernel fills in id and header checksum."""
    to = socket.inet_aton(target)
    ip = _IPV4.pack(0x45, 0, 28 + len(data), 0, 0, 64, socket.IPPROTO_UDP, 0, source, to)
    return ip + _UDP.pack(source_port, port, 8 + len(data), 0) + data


def anywhere(chance: random.Random) -> bytes:
    """An address out of 16.0.0.0/4."""
    return (0x10000000 | chance.getrandbits(28)).to_bytes(4, "big")


def forge(target: str, port: int, public_key: str, count: int) -> list[bytes]:
    """`count` packets with initiations."""
    chance = random.Random(20_000)
    key = hashlib.blake2s(b"mac1----" + bytes.fromhex(public_key)).digest()
    packets = []
    for number in range(count):
        source, source_port = anywhere(chance), chance.randrange(1, 65536)
        message = b"\x01\0\0\0" + chance.randbytes(112)
        mac1 = hashlib.blake2s(message, key=key, digest_size=16).digest() if number % 2 else chance.randbytes(16)
        packets.append(forged(source, source_port, target, port, message + mac1 + bytes(16)))
    return packets


def flood(target: str, packets: list[bytes], rate: int) -> float:
    """Say "ready", await a line, then send them all at `rate` a second; how long it took, in seconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    joined = bytearray(b"".join(packets))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.connect((target, 0))
        count = len(packets)
        base = ctypes.addressof(ctypes.c_char.from_buffer(joined))
        starts = accumulate((len(packet) for packet in packets), initial=base)
        vectors = bytearray(b"".join(_IOVEC.pack(at, len(packet)) for at, packet in zip(starts, packets, strict=False)))
        base = ctypes.addressof(ctypes.c_char.from_buffer(vectors))
        headers = bytearray(b"".join(_MMSGHDR.pack(0, 0, base + 16 * n, 1, 0, 0, 0, 0) for n in range(count)))
        base = ctypes.addressof(ctypes.c_char.from_buffer(headers))
        print("ready", flush=True)
        sys.stdin.readline()
        sent, began = 0, time.monotonic()
        while sent < count:
            due = min(count, int((time.monotonic() - began) * rate))
            while sent < due:
                done = libc.sendmmsg(sock.fileno(), ctypes.c_void_p(base + _MMSGHDR.size * sent), due - sent, 0)
                if done < 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                sent += done
            time.sleep(PAUSE)
        return time.monotonic() - began


def ask(target: str, port: int, public_key: str) -> str:
    """Send one with a good mac1; what is answered."""
    key = hashlib.blake2s(b"mac1----" + bytes.fromhex(public_key)).digest()
    message = b"\x01\0\0\0" + os.urandom(112)
    mac1 = hashlib.blake2s(message, key=key, digest_size=16).digest()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.sendto(message + mac1 + bytes(16), (target, port))
        try:
            reply = sock.recv(2000)
        except TimeoutError:
            return "silence"
    is_cookie = len(reply) == 64 and reply[:8] == b"\x03\0\0\0" + message[4:8]
    return "cookie" if is_cookie else reply.hex()


if __name__ == "__main__":
    address, port, key = sys.argv[1:4]
    if len(sys.argv) == 4:
        print(ask(address, int(port), key))
        sys.exit()
    rate, seconds = map(int, sys.argv[4:])
    packets = forge(address, int(port), key, rate * seconds)
    took = flood(address, packets, rate)
    print(json.dumps({"sent": len(packets), "seconds": took}))
