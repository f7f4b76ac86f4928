"""What only this machine knows of a `.conf`: the ports of services, and the endpoints given by name.

Both come from where `wg` has them, glibc's resolver. A lookup that may yet succeed is made again, as `wg` does it
(rule F5): 15 times, after 1 s and then a fifth longer each time up to 20 s.
"""

import math
import socket
import sys
import time
from collections.abc import Callable

from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.errors import ConfigError, LocalError
from wgdisco.keys import PublicKey
from wgdisco.tunnel.conf import TunnelConf

DEFAULT_RETRIES = 15
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 1.0, 20.0, 1.2
# https://sourceware.org/glibc/wiki/NameResolver: no use asking again
_FINAL = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_NODATA})


def service_port(name: str) -> int | None:
    """The UDP port of a service of /etc/services; None when it has none."""
    if "\0" in name:
        return None
    try:
        return socket.getservbyname(name, "udp")
    except (OSError, UnicodeError):
        return None


def parse_retries(text: str | None) -> float:
    """How often to try again, of `WG_ENDPOINT_RESOLUTION_RETRIES`: a number, or `infinity`; None for the default."""
    if text is None:
        return DEFAULT_RETRIES
    if text == "infinity":
        return math.inf
    if text == "":
        return 0  # as strtoul has it
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > 2**31 - 1:
        raise ConfigError(f"WG_ENDPOINT_RESOLUTION_RETRIES: {text!r} is neither a number nor infinity")
    return int(text)


def resolve_endpoints(
    conf: TunnelConf, path: str, retries: float, pause: Callable[[float], None] = time.sleep
) -> TunnelConf:
    """`conf` with its named endpoints looked up. ConfigError for no such host, LocalError when nobody can tell."""
    found: dict[PublicKey, Endpoint | None] = {}
    for key, (host, port) in conf.endpoint_names.items():
        where = f"Endpoint {host}:{port} of peer {key}"
        try:
            found[key] = _lookup(host, port, where, retries, pause)
        except UnicodeError as error:  # a label that is empty or too long never gets as far as the resolver
            raise ConfigError(f"{where}: this is no host name", path) from error
        except socket.gaierror as error:
            if error.errno in _FINAL:
                raise ConfigError(f"{where}: there is no such host", path) from error
            raise LocalError(f"{path}: cannot look up {where}: {error.strerror}") from error
    return conf.with_endpoints(found)


def _lookup(host: str, port: int, where: str, retries: float, pause: Callable[[float], None]) -> Endpoint | None:
    """The first address the resolver gives; None for port 0, where nothing can be sent."""
    seconds = _FIRST_PAUSE
    while True:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)
            break
        except socket.gaierror as error:
            if error.errno in _FINAL or retries <= 0:
                raise
            print(f"{where}: {error.strerror}. Trying again in {seconds:.2f} seconds...", file=sys.stderr)
        pause(seconds)
        retries -= 1
        seconds = min(_LONGEST_PAUSE, seconds * _GROWTH)
    # getnameinfo, since the address alone comes without its zone.
    address, _ = socket.getnameinfo(answers[0][4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return Endpoint(parse_address(address), port) if port else None
