"""What the kernel knows of a connection of the API."""

import asyncio
import fcntl
import socket
import termios

STREAM_TIMEOUT_MS = 10_000


def is_acknowledged(transport: asyncio.Transport | None) -> bool:
    """Whether the far end's kernel has all that was written (tcp(7), SIOCOUTQ)."""
    if transport is None or transport.is_closing() or transport.get_write_buffer_size():
        return False
    left = bytearray(4)
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, left)
    return not any(left)


def give_up_soon(transport: asyncio.BaseTransport | None) -> None:
    """Who does not acknowledge what it is told is offline: TCP alone would try for a quarter of an hour (RFC 5482)."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STREAM_TIMEOUT_MS)
