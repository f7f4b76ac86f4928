"""Two stand-ins run in the lab: a server on two addresses with two ports each, and a probe that finds its own NAT out.

python nat_probe.py serve ADDRESS ADDRESS      prints "serving", answers until killed
python nat_probe.py probe ADDRESS ADDRESS      prints one JSON object: what a NatProfile is judged by
"""

import json
import select
import socket
import sys
import time

PORTS = (3478, 3479)
WAIT = 0.3


def serve(first: str, second: str) -> None:
    sockets = {}
    for address in (first, second):
        for port in PORTS:
            sockets[address, port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets[address, port].bind((address, port))
    print("serving", flush=True)
    other_port, other_address = sockets[first, PORTS[1]], sockets[second, PORTS[0]]
    while True:
        for ready in select.select(list(sockets.values()), [], [])[0]:
            data, source = ready.recvfrom(100)
            if data == b"who":
                ready.sendto(f"{source[0]} {source[1]}".encode(), source)
            elif data == b"filter":
                other_port.sendto(b"port", source)
                other_address.sendto(b"address", source)
            elif data == b"knock":
                other_address.sendto(b"knock", source)


def ask(endpoint: tuple[str, int], probe: socket.socket) -> tuple[str, int]:
    probe.sendto(b"who", endpoint)
    while True:
        data, source = probe.recvfrom(100)
        if source == endpoint and data != b"knock":
            address, port = data.decode().split()
            return address, int(port)


def probe_socket() -> socket.socket:
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind(("", 0))
    probe.settimeout(2)
    return probe


def probe(first: str, second: str) -> None:
    mapping = probe_socket()
    seen = [ask(endpoint, mapping) for endpoint in ((first, PORTS[0]), (first, PORTS[1]), (second, PORTS[0]))]

    filtering = probe_socket()
    filtering.sendto(b"filter", (first, PORTS[0]))
    passed = []
    end = time.monotonic() + WAIT
    while (left := end - time.monotonic()) > 0 and select.select([filtering], [], [], left)[0]:
        passed.append(filtering.recv(100).decode())

    # another address knocks before the host has spoken to it: does the host still have the same port there?
    burnt = probe_socket()
    before = ask((first, PORTS[0]), burnt)
    burnt.sendto(b"knock", (first, PORTS[0]))
    time.sleep(0.05)
    after = ask((second, PORTS[0]), burnt)
    print(
        json.dumps(
            {
                "local_port": mapping.getsockname()[1],
                "addresses": sorted({address for address, _ in seen}),
                "ports": [port for _, port in seen],
                "passed": sorted(passed),
                "burnt": before != after,
            }
        )
    )


if __name__ == "__main__":
    {"serve": serve, "probe": probe}[sys.argv[1]](*sys.argv[2:])
