"""Send a known stream over TCP, or receive it and print its SHA-256: `send|receive ADDRESS PORT MEGABYTES`."""

import hashlib
import random
import socket
import sys

MEGABYTE = 1 << 20


def digest(megabytes: int) -> str:
    """SHA-256 of the stream, hex."""
    hasher = hashlib.sha256()
    for chunk in chunks(megabytes):
        hasher.update(chunk)
    return hasher.hexdigest()


def chunks(megabytes: int):
    """The stream, a megabyte at a time; no two are alike."""
    block = random.Random(7).randbytes(MEGABYTE - 8)
    for number in range(megabytes):
        yield number.to_bytes(8, "big") + block


def send(address: str, port: int, megabytes: int) -> None:
    with socket.create_connection((address, port), timeout=30) as connection:
        for chunk in chunks(megabytes):
            connection.sendall(chunk)


def receive(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:
        print("listening", flush=True)
        server.settimeout(30)
        connection, _ = server.accept()
        connection.settimeout(30)
        hasher = hashlib.sha256()
        with connection:
            while data := connection.recv(MEGABYTE):
                hasher.update(data)
        return hasher.hexdigest()


if __name__ == "__main__":
    verb, address, port, megabytes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if verb == "send":
        send(address, port, megabytes)
    else:
        print(receive(address, port))
