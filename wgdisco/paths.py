"""What a member reports of its paths to others, so that whoever administers the network sees them."""

import re
import sys
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Self

from wgdisco.api import PathWord, Reason, parse_body, parse_key
from wgdisco.endpoint import Endpoint

PATHS_MAX = 1024
RTT_MAX = 60_000.0
UNIX_MAX = 253_402_300_799  # the end of the year 9999: clocks of programs that show it go not much further
_TEXT_MAX_SIZE = 255
_COUNT_MAX = (1 << 63) - 1
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")
# One text each, so that what thousands report takes little room
_WORDS = {word.value: word.value for word in PathWord}
_REASONS: dict[str | None, str | None] = {None: None, **{reason.value: reason.value for reason in Reason}}


@dataclass(frozen=True, slots=True)
class PathRecord:
    """One member's path to `peer`, a public key: PathWord, Reason and endpoint, all as text.

    `rtt_ms` is the round trip in milliseconds where it is known, `handshake_at` unix time in seconds; sizes are bytes,
    as the member counts them.
    """

    peer: str
    path: str
    reason: str | None = None
    endpoint: str | None = None
    rtt_ms: float | None = None
    handshake_at: int | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read one; ValueError says what is wrong with it."""
        if not isinstance(data, dict):
            raise ValueError("a path is a JSON object")
        path, reason, endpoint = (data.get(name) for name in ("path", "reason", "endpoint"))
        if not isinstance(path, str) or path not in _WORDS:
            raise ValueError(f"path: one of {', '.join(_WORDS)}")
        if not isinstance(reason, str | None) or reason not in _REASONS:
            raise ValueError("reason: one of the closed list, or null")
        if endpoint is not None:
            if not isinstance(endpoint, str) or len(endpoint) > _TEXT_MAX_SIZE:
                raise ValueError("endpoint: ADDRESS:PORT")
            endpoint = _plain(Endpoint.from_text(endpoint)).to_text()
        return cls(
            sys.intern(parse_key(data, "peer")),  # one text for all that report of this peer
            _WORDS[path],
            _REASONS[reason],
            endpoint,
            _milliseconds(data.get("rtt_ms")),
            None if data.get("handshake_at") is None else _count(data, "handshake_at", UNIX_MAX),
            _count(data, "rx_bytes"),
            _count(data, "tx_bytes"),
        )


@dataclass(frozen=True, slots=True)
class PathsRequest:
    """All paths of a member that are worth a word: the body of `PUT /v1/self/paths`. At most 1024.

    One that is not in it is idle, and was never tried.
    """

    paths: list[PathRecord]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        told = parse_body(data).get("paths")
        if not isinstance(told, list) or len(told) > PATHS_MAX:
            raise ValueError(f"paths: a list of up to {PATHS_MAX}")
        return cls([PathRecord.from_json(one) for one in told])


def _milliseconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= RTT_MAX:
        raise ValueError(f"rtt_ms: milliseconds, up to {RTT_MAX:g}, or null")
    return round(float(value), 3)


def _plain(endpoint: Endpoint) -> Endpoint:
    """Without a zone that does not look like a link's name: anything at all may stand there (RFC 4007 section 11)."""
    address = endpoint.address
    if not isinstance(address, IPv6Address) or address.scope_id is None or _ZONE.fullmatch(address.scope_id):
        return endpoint
    return Endpoint(IPv6Address(int(address)), endpoint.port)


def _count(data: dict[str, Any], name: str, most: int = _COUNT_MAX) -> int:
    value = data.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name}: a number from 0 to {most}")
    return value
