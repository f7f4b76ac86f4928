"""How `wg` reads the values in a file: numbers as C's strtoul, ports as getaddrinfo, prefixes as inet_pton.

White space is gone before anything gets here. Whatever is no value raises ValueError, whose text is for the user and
holds nothing that might be a key put in the wrong place.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface, ip_network

from wgdisco.endpoint import Endpoint, IPNetwork, parse_address

IPInterface = IPv4Interface | IPv6Interface
# The UDP port of a service name, such as `domain`; None when this machine knows no such service.
ServicePorts = Callable[[str], int | None]

_DECIMAL = re.compile(r"[0-9]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_SIGNED = re.compile(r"[+-]?[0-9]+")
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_ZONED = re.compile(r"[0-9A-Fa-f:.]+%[A-Za-z0-9_=+.@-]{1,15}")
_MOST_DIGITS = 20  # of 2^64 - 1


def parse_number(what: str, text: str, low: int, high: int, or_else: str = "") -> int:
    """Decimal digits, any number of zeros before them. `what` and `or_else` are for the message."""
    number = _unsigned(text, 10) if _DECIMAL.fullmatch(text) else None
    if number is None or not low <= number <= high:
        raise ValueError(f"{what} is not a number from {low} to {high}{or_else}")
    return number


def parse_mark(text: str) -> int:
    """A firewall mark of 32 bits: decimal, or hexadecimal after a lower-case `0x`, or `off`."""
    if text.lower() == "off":
        return 0
    if _HEX.fullmatch(text):
        number = _unsigned(text[2:], 16)
        if number is not None and number < 2**32:
            return number
    return parse_number("FwMark", text, 0, 2**32 - 1, ", 0x and hexadecimal digits, or off")


def parse_port(what: str, text: str, services: ServicePorts) -> int:
    """A port as glibc's getaddrinfo reads it: a number, of which it keeps 16 bits, or else the name of a service.

    So 65536 is port 0. What is not a whole number within C's `int` is looked up by name.
    """
    if _SIGNED.fullmatch(text):
        number = _unsigned(text.lstrip("+-"), 10)
        if number is None:
            number = 2**64 - 1  # what strtoul gives on overflow, whatever the sign
        elif text.startswith("-"):
            number = -number % 2**64
        if number & 2**31 == 0:
            return number & 0xFFFF
    port = services(text)
    if port is None:
        raise ValueError(f"{what} is not a number from 0 to 65535, nor the name of a service on UDP")
    return port


def parse_endpoint(text: str, services: ServicePorts) -> Endpoint | tuple[str, int] | None:
    """`HOST:PORT`, parted at the last colon, or `[HOST]:PORT`. None for an address and port 0: nothing gets there.

    A plain address gives an Endpoint. What only a resolver can judge (host names, addresses with a zone, IPv4 in other
    notations than four decimals) comes back as host and port.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port_text = rest[:1], rest[1:]
    else:
        bracket = "]"
        host, colon, port_text = text.rpartition(":")
    if not (host and bracket and colon == ":" and port_text) or host == port_text == "*":
        raise ValueError(f"Endpoint {shown(text)} is not HOST:PORT or [IPV6]:PORT")
    # A star is for getaddrinfo as if nothing were given: port 0, and for the host loopback.
    port = 0 if port_text == "*" else parse_port("the port of Endpoint", port_text, services)
    if is_address(host) and "%" not in host:
        return Endpoint(parse_address(host), port) if port else None
    if host == "*" or _HOST_NAME.fullmatch(host) or (_ZONED.fullmatch(host) and is_address(host.partition("%")[0])):
        return host, port
    raise ValueError(f"Endpoint {shown(text)} names neither an address nor a host")


def parse_prefix(text: str) -> IPNetwork:
    """`ADDRESS` or `ADDRESS/LENGTH` as inet_pton and `wg` take them; host bits are cleared."""
    address, length = _address_and_length(text)
    return ip_network((address.packed, length), strict=False)


def parse_interface_address(text: str) -> IPInterface:
    """wg-quick's `Address`: a prefix that keeps its host bits."""
    try:
        address, length = _address_and_length(text)
    except ValueError as error:
        raise ValueError(f"Address {error}") from None
    return ip_interface((address.packed, length))


def is_address(text: str) -> bool:
    """Whether it is an IP address in its common notation; an IPv6 one may carry a zone."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def shown(value: str) -> str:
    """A value for a message: short, and nothing that might be a key put in the wrong place."""
    return repr(value) if len(repr(value)) < 40 else f"of {len(value)} characters"


def _address_and_length(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    host, slash, length = text.partition("/")
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IP address or prefix") from None
    if "%" in host:
        raise ValueError(f"{shown(text)}: a prefix has no zone")
    if not slash:
        return address, address.max_prefixlen
    return address, parse_number(f"the length of prefix {shown(text)}", length, 0, address.max_prefixlen)


def _unsigned(digits: str, base: int) -> int | None:
    """The number, None when it passes 64 bits."""
    digits = digits.lstrip("0")
    number = int(digits or "0", base) if len(digits) <= _MOST_DIGITS else 2**64
    return number if number < 2**64 else None
