"""A TCP session with ten beats a second, each echoed: `heartbeat.py serve`, or `heartbeat.py ADDRESS`.

Each line on standard input is answered with the longest time, in seconds, between two echoes since the one before.
"""

import select
import socket
import sys
import time

PORT = 7001
BEAT = b"beat\n"
INTERVAL = 0.1


def serve():
    with socket.create_server(("", PORT)) as listener:
        print("listening", flush=True)
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


def beat(address):
    with socket.create_connection((address, PORT), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        heard_at = due = time.monotonic()
        longest = 0.0
        print("connected", flush=True)
        while True:
            now = time.monotonic()
            if now >= due:
                due = now + INTERVAL
                connection.sendall(BEAT)
            ready = select.select([connection, sys.stdin], [], [], max(0.0, due - now))[0]
            now = time.monotonic()
            if connection in ready:
                if not connection.recv(4096):
                    sys.exit("the session was closed")
                longest, heard_at = max(longest, now - heard_at), now
            if sys.stdin in ready:
                if not sys.stdin.readline():
                    return
                print(f"{max(longest, now - heard_at):.2f}", flush=True)
                longest = 0.0


if sys.argv[1] == "serve":
    serve()
else:
    beat(sys.argv[1])
