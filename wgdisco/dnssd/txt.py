"""The strings of a TXT record as key/value pairs (RFC 6763 section 6).

A pair is a key, printable ASCII without `=`, and a value of any bytes, or None for a key that stands alone.
"""

from collections.abc import Iterable

STRING_MAX_SIZE = 255

Pair = tuple[str, bytes | None]


def pack_pairs(pairs: Iterable[Pair]) -> tuple[bytes, ...]:
    """One string a pair, in order. ValueError for a key or a length that RFC 6763 sections 6.1 and 6.4 do not allow."""
    strings = tuple(_pack_pair(key, value) for key, value in pairs)
    # a TXT record holds at least one string; an empty one says "no pairs" (section 6.1)
    return strings or (b"",)


def parse_strings(strings: Iterable[bytes]) -> tuple[Pair, ...]:
    """The pairs in order, keys in lower case; the first of a repeated key counts, strings without a key are skipped.

    Raises nothing: whatever bytes the strings hold (section 6.4).
    """
    pairs: dict[str, bytes | None] = {}
    for string in strings:
        name, separator, value = string.partition(b"=")
        key = name.decode("latin-1").lower()
        if _is_key(key):
            pairs.setdefault(key, value if separator else None)
    return tuple(pairs.items())


def _pack_pair(key: str, value: bytes | None) -> bytes:
    if not _is_key(key):
        raise ValueError(f"{key!r} is not a TXT key: printable ASCII without '='")
    string = key.encode("ascii") if value is None else key.encode("ascii") + b"=" + value
    if len(string) > STRING_MAX_SIZE:
        raise ValueError(f"TXT string for {key!r} is {len(string)} bytes, more than {STRING_MAX_SIZE}")
    return string


def _is_key(text: str) -> bool:
    return bool(text) and "=" not in text and all(" " <= character <= "~" for character in text)
