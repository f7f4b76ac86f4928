"""The zone's secondaries, as they are told to us, and the key that both sides have."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Self

import dns.exception
import dns.name

from wgdisco.endpoint import Endpoint, IPAddress

_ALGORITHMS = {name: dns.name.from_text(name) for name in ("hmac-sha256", "hmac-sha384", "hmac-sha512")}
_SECRET_MIN_SIZE = 16
_KEY_STATEMENT = re.compile(r'\bkey\s+"?([^\s"{]+)"?\s*\{([^}]*)\}')
_OPTION = re.compile(r'(algorithm|secret)\s+"?([^\s";]+)"?\s*;')


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A name, an algorithm of the HMAC-SHA-2 kind, and the secret that both sides have."""

    name: dns.name.Name
    algorithm: dns.name.Name
    secret: bytes = field(repr=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The first key of a file as `tsig-keygen` and `ddns-confgen` write it, and BIND reads it; else ValueError."""
        statement = _KEY_STATEMENT.search(text)
        if statement is None:
            raise ValueError("there is no key in it: make one with `tsig-keygen`")
        options = dict(_OPTION.findall(statement[2]))
        algorithm = _ALGORITHMS.get(options.get("algorithm", "hmac-sha256").lower().rstrip("."))
        if algorithm is None:
            raise ValueError(f"the algorithm must be one of {', '.join(_ALGORITHMS)}")
        try:
            secret = base64.b64decode(options.get("secret", ""), validate=True)
            name = dns.name.from_text(statement[1].lower())
        except (binascii.Error, dns.exception.DNSException) as error:
            raise ValueError("its name or its secret cannot be read") from error
        if len(secret) < _SECRET_MIN_SIZE:
            raise ValueError(f"the secret is too short: {_SECRET_MIN_SIZE} bytes at least")
        return cls(name, algorithm, secret)


@dataclass(frozen=True, slots=True)
class Secondaries:
    """Where they are and are told of changes, the key, and the addresses of the zone's name servers, ns1 first.

    `is_full`: they get all of the zone, else what of it is published.
    """

    endpoints: tuple[Endpoint, ...]
    key: TsigKey | None = None
    servers: tuple[IPAddress, ...] = ()
    is_full: bool = True
