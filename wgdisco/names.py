"""Names of members and networks: one DNS label, so that `alice.ZONE` is a host name (RFC 1123 section 2.1)."""

import re
from collections.abc import Container
from itertools import count

from wgdisco.errors import LocalError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED = frozenset({"registry", *(f"ns{number}" for number in range(1, 10))})


def check_member_name(name: str) -> None:
    """LocalError unless `name` may be a member's."""
    if not _LABEL.fullmatch(name):
        raise LocalError(f"{name[:70]!r} cannot be a name: use up to 63 lower-case letters, digits and inner hyphens")
    if name in _RESERVED:
        raise LocalError(f"{name!r} is the registry's own name: choose another")


def free_name(wanted: str, taken: Container[str | None]) -> str:
    """`wanted` or, where that is taken, the first of `wanted-2`, `wanted-3` … that is not."""
    numbered = (f"{wanted[: 62 - len(str(number))].rstrip('-')}-{number}" for number in count(2))
    return wanted if wanted not in taken else next(name for name in numbered if name not in taken)


def check_network_name(name: str) -> None:
    """LocalError unless `name` may be a network's: it names the interface too."""
    if not _LABEL.fullmatch(name) or len(name) > 15:
        raise LocalError(f"{name[:70]!r} cannot name a network: use up to 15 lower-case letters, digits, inner hyphens")


def label_of(host_name: str) -> str:
    """A host's name as a member's: its first label, lower case, everything else a hyphen; may be empty."""
    first = re.sub(r"[^a-z0-9]+", "-", host_name.partition(".")[0].lower())
    return first[:63].strip("-")
