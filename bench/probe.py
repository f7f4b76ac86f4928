"""How long a daemon takes to answer: asks it time and again, and prints milliseconds as JSON. Run inside a host.

usage: python -m bench.probe status SOCKET SECONDS | dns ADDRESS ZONE SECONDS | echo SECONDS
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable

import dns.message

PAUSE = 0.02
PATIENCE = 5.0


def status(path: str) -> Callable[[], None]:
    """Asks `GET /v1/status` on a control socket, over one connection."""
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(PATIENCE)
    control.connect(path)
    received = control.makefile("rb")

    def ask() -> None:
        control.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in received.readline()
        size = 0
        while (line := received.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        received.read(size)

    return ask


def lookup(address: str, zone: str) -> Callable[[], None]:
    """Asks the registry's DNS server for the instances of the zone."""
    query = dns.message.make_query(f"_wireguard._udp.{zone}", "PTR").to_wire()
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    client.connect((address, 53))

    def ask() -> None:
        client.send(query)
        client.recv(4096)

    return ask


def echo() -> Callable[[], None]:
    """Asks a process that does nothing but answer: what the machine alone takes."""
    client, server = socket.socketpair()
    if os.fork() == 0:
        client.close()
        while data := server.recv(4096):
            server.send(data)
        os._exit(0)
    server.close()

    def ask() -> None:
        client.send(b"?")
        client.recv(4096)

    return ask


def main() -> None:
    """See the module's docstring."""
    kind, *words, seconds = sys.argv[1:]
    kinds: dict[str, Callable[..., Callable[[], None]]] = {"status": status, "dns": lookup, "echo": echo}
    ask = kinds[kind](*words)
    times = []
    ask()
    until = time.monotonic() + float(seconds)
    while (began := time.monotonic()) < until:
        ask()
        times.append(1000 * (time.monotonic() - began))
        time.sleep(PAUSE)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
