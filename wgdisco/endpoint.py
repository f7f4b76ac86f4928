"""An endpoint: IP address and UDP port, and what kind of address it is.

Which addresses are private is decided by the table here and nowhere else: the standard library calls documentation
addresses private too, and those are the lab's public ones.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

LOOPBACK: tuple[IPNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
LINK_LOCAL: tuple[IPNetwork, ...] = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))
# RFC 1918, RFC 6598 (carrier-grade NAT), RFC 4193 (ULA)
SITE_LOCAL: tuple[IPNetwork, ...] = (
    ip_network("10.0.0.0/8"),
    ip_network("172.16.0.0/12"),
    ip_network("192.168.0.0/16"),
    ip_network("100.64.0.0/10"),
    ip_network("fc00::/7"),
)


# RFC 1112 section 4, the broadcast address in it
_RESERVED: tuple[IPNetwork, ...] = (ip_network("240.0.0.0/4"),)


def in_any(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    """Whether one of `networks` holds `address`; networks of the other family never do."""
    return any(address in network for network in networks if network.version == address.version)


def is_beyond_link(address: IPAddress) -> bool:
    """Whether it is a unicast address that does not stop at this host or at a link."""
    return not (address.is_unspecified or address.is_multicast or in_any(address, LOOPBACK + LINK_LOCAL + _RESERVED))


def parse_address(text: str) -> IPAddress:
    """Parse an IP address; an IPv4-mapped IPv6 address comes back as IPv4. ValueError if it is neither."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer's datagrams go: an address (an IPv6 one may carry its zone) and a port, 1 to 65535."""

    address: IPAddress
    port: int

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"port {self.port} is not between 1 and 65535")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse `192.0.2.1:51820`, `[2001:db8::1]:51820` or `[fe80::1%eth0]:51820`; ValueError otherwise."""
        host, separator, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not separator or bracketed != (":" in host) or not (port.isascii() and port.isdigit()):
            raise ValueError(f"{text!r} is not an endpoint: write ADDRESS:PORT or [IPV6]:PORT")
        return cls(parse_address(host[1:-1] if bracketed else host), int(port))

    def to_text(self) -> str:
        """The form `from_text` reads."""
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"

    def __str__(self) -> str:
        return self.to_text()

    @property
    def is_private(self) -> bool:
        """Loopback, link-local, RFC 1918, RFC 6598 or ULA: of no use outside one host or site."""
        return in_any(self.address, LOOPBACK) or in_any(self.address, LINK_LOCAL) or in_any(self.address, SITE_LOCAL)

    @property
    def is_global(self) -> bool:
        """A unicast address that may be published: neither private, unspecified, multicast nor reserved (RFC 1112)."""
        return not (
            self.is_private
            or self.address.is_unspecified
            or self.address.is_multicast
            or in_any(self.address, _RESERVED)
        )
