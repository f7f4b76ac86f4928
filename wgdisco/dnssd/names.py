"""The names in a zone. No other module builds one.

::

    example.com.                                        the origin: SOA, NS
    ns1.example.com.                                    the name server; ns2 to ns9, where there are more
    _wireguard._udp.example.com.                        the service: browse (PTR)
    <base32 key>._wireguard._udp.example.com.           an instance: SRV, TXT, A or AAAA
    <base32 key, no padding>.example.com.               its host, where the SRV points: A or AAAA
    _<group>._sub._wireguard._udp.example.com.          a sub-type: browse one group (RFC 6763 section 7.1)
    <member>.example.com. and registry.                 a member by name: its addresses inside the tunnel
    _services._dns-sd._udp.example.com.                 service types (RFC 6763 section 9)
    b._dns-sd._udp.example.com. and db., lb.            browse domains (RFC 6763 section 11)

Names compare without case; the text of a name keeps the case it came in.
"""

import re
from dataclasses import dataclass
from typing import Self

import dns.exception
import dns.name

from wgdisco.keys import PublicKey

SERVICE_TYPE = "_wireguard._udp"

_SERVICE_LABELS = tuple(label.encode() for label in SERVICE_TYPE.split("."))
_KEY_LABEL_SIZE = 56
_PADDING = "===="
_LABEL_MAX_SIZE = 63
# an SRV answer holds the instance name twice and must have room for its host record in 512 bytes, whoever asks
_ORIGIN_MAX_SIZE = 120
_ZONE_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")

Labels = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ZoneNames:
    """The fixed names of one zone, lower case and absolute; `from_text` makes it.

    `empty` holds the names with nothing of their own but names below them (empty non-terminals, RFC 8020): they exist.
    """

    origin: dns.name.Name
    service: dns.name.Name
    service_types: dns.name.Name
    browse_domains: tuple[dns.name.Name, ...]
    name_server: dns.name.Name
    hostmaster: dns.name.Name
    sub: dns.name.Name
    empty: tuple[dns.name.Name, ...]

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a zone such as `example.com.`, final dot or not, any case; ValueError says what is wrong."""
        labels = text.removesuffix(".").lower().split(".")
        if not all(_ZONE_LABEL.fullmatch(label) for label in labels):
            raise ValueError(f"{text!r} is not a zone: write a domain name such as wg.example.com")
        try:
            origin = dns.name.from_text(".".join(labels) + ".")
        except dns.exception.DNSException as error:
            raise ValueError(f"{text!r} is not a zone: a label has at most 63 characters") from error
        if sum(1 + len(label) for label in origin.labels) > _ORIGIN_MAX_SIZE:
            raise ValueError(f"{text!r} is too long for a zone: {_ORIGIN_MAX_SIZE} bytes at most")
        discovery = _below(origin, b"_dns-sd", b"_udp")
        return cls(
            origin=origin,
            service=_below(origin, *_SERVICE_LABELS),
            service_types=_below(discovery, b"_services"),
            browse_domains=tuple(_below(discovery, label) for label in (b"b", b"db", b"lb")),
            name_server=_below(origin, b"ns1"),
            hostmaster=_below(origin, b"hostmaster"),
            sub=_below(origin, b"_sub", *_SERVICE_LABELS),
            empty=(_below(origin, b"_udp"), discovery),
        )

    def to_text(self) -> str:
        """The origin with its final dot."""
        return self.origin.to_text()

    def instance(self, key: PublicKey) -> dns.name.Name:
        """The name of the instance of `key`: lower-case base32 with its padding, as wgsd has it."""
        return _below(self.service, key.to_label().encode())

    def key_of(self, name: dns.name.Name) -> PublicKey | None:
        """The key of an instance name in any case, or None when the name is not one of this zone's."""
        if len(name.labels) != len(self.service.labels) + 1 or not name.is_subdomain(self.service):
            return None
        return _parse_key(name.labels[0])

    def server(self, number: int) -> dns.name.Name:
        """The name server of that number, from 1."""
        return _below(self.origin, f"ns{number}".encode())

    def host(self, key: PublicKey) -> dns.name.Name:
        """The name of the host of `key`: base32 without padding, which every resolver takes for a host's (RFC 1123)."""
        return _below(self.origin, key.to_label().removesuffix(_PADDING).encode())

    def host_key_of(self, name: dns.name.Name) -> PublicKey | None:
        """The key of a host name in any case, or None when it is not one of this zone's."""
        label = self.label_of(name)
        return None if label is None else _parse_key(label.encode() + _PADDING.encode())

    def member(self, name: str) -> dns.name.Name:
        """The name of a member."""
        return _below(self.origin, name.encode())

    def label_of(self, name: dns.name.Name) -> str | None:
        """The label, lower case, of a name right below the origin; None for other names."""
        if len(name.labels) != len(self.origin.labels) + 1 or not self.holds(name):
            return None
        return name.labels[0].lower().decode("latin-1")

    def subtype(self, group: str) -> dns.name.Name | None:
        """The sub-type of a group; None where its name is too long for one."""
        label = b"_" + group.encode()
        return _below(self.sub, label) if len(label) <= _LABEL_MAX_SIZE else None

    def group_of(self, name: dns.name.Name) -> str | None:
        """The group of a sub-type's name, or None when it is none."""
        if len(name.labels) != len(self.sub.labels) + 1 or not name.is_subdomain(self.sub):
            return None
        label = name.labels[0].lower().decode("latin-1")
        return label[1:] if label.startswith("_") else None

    def key_by_length(self, name: dns.name.Name) -> PublicKey | None:
        """The key that wgsd sees in a name of its zone: it looks at the length and the first 56 characters alone."""
        relative = b".".join(self.labels_below(name)) + b"."
        expected = _KEY_LABEL_SIZE + 1 + len(SERVICE_TYPE) + 1
        return _parse_key(relative[:_KEY_LABEL_SIZE]) if len(relative) == expected else None

    def labels_below(self, name: dns.name.Name) -> Labels:
        """The lower-case labels of a name of this zone, the origin's own left out."""
        return tuple(label.lower() for label in name.labels[: -len(self.origin.labels)])

    def holds(self, name: dns.name.Name) -> bool:
        """Whether the name is the origin or below it."""
        return name.is_subdomain(self.origin)

    def wgsd_postmaster(self) -> dns.name.Name:
        """The mailbox in wgsd's SOA."""
        return _below(self.origin, b"postmaster")


def _below(parent: dns.name.Name, *labels: bytes) -> dns.name.Name:
    return dns.name.Name((*labels, *parent.labels))


def _parse_key(label: bytes) -> PublicKey | None:
    try:
        return PublicKey.from_label(label.decode("ascii"))
    except ValueError:
        return None
