"""DNS cookies (RFC 7873): an asker whose server cookie is ours has shown that it receives at its address.

Server cookies are those of RFC 9018, so that several servers that share a secret know each other's::

    version 1 | reserved, 3 bytes | unix time, 4 bytes | SipHash-2-4 of client cookie, the 8 bytes before, address
"""

import hmac
import struct
from collections.abc import Callable
from ipaddress import ip_address

from wgdisco.dnssd.siphash import KEY_SIZE, siphash24

COOKIE = 10  # the EDNS option
CLIENT_SIZE = 8
SERVER_SIZE = 16
SERVER_MIN, SERVER_MAX = 8, 32
# a cookie counts for an hour, and may be from a clock that is a little ahead (RFC 9018 section 4.3)
LIFETIME = 3600
AHEAD_MAX = 300
# and is given out anew when half of that is over
RENEWED_AFTER = 1800

_VERSION = b"\x01\x00\x00\x00"
_OPTION = struct.Struct("!HH")


class Cookies:
    """Makes and checks server cookies under `secret`, 16 random bytes."""

    def __init__(self, secret: bytes, unix_time: Callable[[], float]) -> None:
        assert len(secret) == KEY_SIZE
        self._secret = secret
        self._unix_time = unix_time

    @staticmethod
    def is_cookie(value: bytes) -> bool:
        """Whether an option's value is one: a client's, or a client's and a server's (RFC 7873 section 5.2.2)."""
        return len(value) == CLIENT_SIZE or SERVER_MIN <= len(value) - CLIENT_SIZE <= SERVER_MAX

    def option(self, cookie: bytes, source: str) -> bytes:
        """The option that answers `cookie` (client's, or client's and server's) of who asks from `source`."""
        client, server = cookie[:CLIENT_SIZE], cookie[CLIENT_SIZE:]
        age = self._age(client, server, source)
        if age is None or age > RENEWED_AFTER:
            server = self._create(client, _VERSION + int(self._unix_time()).to_bytes(4, "big"), source)
        return _OPTION.pack(COOKIE, CLIENT_SIZE + SERVER_SIZE) + client + server

    def is_ours(self, cookie: bytes, source: str) -> bool:
        """Whether `cookie` has a server cookie of ours for who asks from `source`."""
        return self._age(cookie[:CLIENT_SIZE], cookie[CLIENT_SIZE:], source) is not None

    def _age(self, client: bytes, server: bytes, source: str) -> int | None:
        """How many seconds old a server cookie is; None when it is not, or no longer, good."""
        # the reserved bytes may be anything (RFC 9018 section 4.2)
        if len(server) != SERVER_SIZE or server[:1] != _VERSION[:1]:
            return None
        age = (int(self._unix_time()) - int.from_bytes(server[4:8], "big") + (1 << 31)) % (1 << 32) - (1 << 31)
        if not -AHEAD_MAX <= age <= LIFETIME:
            return None
        return age if hmac.compare_digest(server, self._create(client, server[:8], source)) else None

    def _create(self, client: bytes, head: bytes, source: str) -> bytes:
        address = ip_address(source.partition("%")[0]).packed
        return head + siphash24(self._secret, client + head + address)
