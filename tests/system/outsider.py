"""What somebody without a key tries. `scan ADDRESS` from outside; `ask SOURCE ADDRESS` over HTTP and DNS on a LAN.

Prints one line of JSON: the ports that answered; or whether each of the two did.
"""

import json
import os
import select
import socket
import struct
import sys
import time

BATCH = 500
PROBES = (
    # a DNS query, a STUN Binding request (RFC 8489), a WireGuard initiation of nobody's, an empty datagram
    struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\2wg\x08internal\0" + struct.pack("!2H", 2, 1),
    struct.pack("!HHI", 1, 0, 0x2112A442) + os.urandom(12),
    struct.pack("<I", 1) + os.urandom(144),
    b"",
)


def scan_tcp(address):
    found = []
    for first in range(1, 65536, BATCH):
        waiting = {}
        poll = select.poll()
        for port in range(first, min(first + BATCH, 65536)):
            probe = socket.socket()
            probe.setblocking(False)
            if probe.connect_ex((address, port)) == 0:
                found.append(port)
            waiting[probe.fileno()] = (probe, port)
            poll.register(probe, select.POLLOUT)
        deadline = time.monotonic() + 2
        while waiting and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(1000 * left):
                probe, port = waiting.pop(fd)
                poll.unregister(fd)
                if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(port)
                probe.close()
        for probe, _ in waiting.values():
            probe.close()
    return found


def scan_udp(address):
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        for port in range(1, 65536):
            for data in PROBES:
                probe.sendto(data, (address, port))
            found |= answers(probe, 0)
        return sorted(found | answers(probe, 1))


def answers(probe, seconds):
    found = set()
    while select.select([probe], [], [], seconds)[0]:
        found.add(probe.recvfrom(2048)[1][1])
    return found


def ask_http(source, address):
    try:
        with socket.create_connection((address, 80), 1, (source, 0)) as connection:
            connection.sendall(f"GET /v1/self HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            return bool(connection.recv(100))
    except OSError:
        return False


def ask_dns(source, address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((source, 0))
        probe.sendto(PROBES[0], (address, 53))
        return bool(answers(probe, 1))


if sys.argv[1] == "scan":
    print(json.dumps({"tcp": scan_tcp(sys.argv[2]), "udp": scan_udp(sys.argv[2])}))
else:
    print(json.dumps({"http": ask_http(*sys.argv[2:]), "dns": ask_dns(*sys.argv[2:])}))
