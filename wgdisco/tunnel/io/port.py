"""A UDP port of ours: bound for both families, or a line that says who has it."""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from wgdisco.errors import LocalError
from wgdisco.machine import port_in_use, port_owner
from wgdisco.tunnel.io.ancillary import IP_PKTINFO, IP_RECVTOS

# linux/in.h, asm-generic/socket.h: what the socket module does not name
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DONT = 0
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_BUFFER_SIZE = 7 << 20  # rule E6
_ATTEMPTS = 100
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})


def bind(port: int, owner_of: Callable[[int], str | None] = port_owner) -> list[socket.socket]:
    """The IPv4 socket and, where there is IPv6, the IPv6 one, non-blocking and bound to the same port (rule E2).

    0 takes a free one. Raises LocalError when the port is taken, saying by whom, which `owner_of` knows.
    """
    for _ in range(_ATTEMPTS):
        try:
            v4 = _bound(socket.AF_INET, port)
        except OSError as error:
            raise _bind_failure(error, port, owner_of) from error
        try:
            v6 = _bound(socket.AF_INET6, v4.getsockname()[1])
        except OSError as error:
            if error.errno in _NO_IPV6:
                return [v4]
            v4.close()
            if error.errno != errno.EADDRINUSE or port != 0:
                raise _bind_failure(error, port, owner_of) from error
        else:
            return [v4, v6]
    raise LocalError(f"no UDP port found that is free for IPv4 and IPv6, in {_ATTEMPTS} attempts")


def free_port() -> int:
    """A UDP port that nobody has, for IPv4 and IPv6; LocalError when there is none."""
    for _ in range(_ATTEMPTS):
        try:
            with _bound(socket.AF_INET, 0) as v4:
                port: int = v4.getsockname()[1]
            if not port_in_use(port):
                return port
        except OSError as error:
            raise _bind_failure(error, 0, port_owner) from error
    raise LocalError(f"no UDP port found that is free, in {_ATTEMPTS} attempts")


def _bound(family: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
            # Routers on a narrow path are to fragment, not to drop and complain to nobody who hears (rule D14).
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        for option, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_SIZE)
            with suppress(PermissionError):  # past the system's limit only with CAP_NET_ADMIN
                sock.setsockopt(socket.SOL_SOCKET, force, _BUFFER_SIZE)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


def _bind_failure(error: OSError, port: int, owner_of: Callable[[int], str | None]) -> LocalError:
    if error.errno == errno.EADDRINUSE:
        owner = owner_of(port)
        by = f" by {owner}" if owner else ""
        return LocalError(f"UDP port {port} is in use{by}: stop it, or choose another ListenPort")
    if error.errno in (errno.EACCES, errno.EPERM):
        return LocalError(f"no permission to use UDP port {port}: ports below 1024 need root")
    return LocalError(f"cannot use UDP port {port}: {os.strerror(error.errno or 0)}")
