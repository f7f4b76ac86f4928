"""Resource records as values: what this zone has of RFC 1035, RFC 2782 and RFC 3596, all of class IN."""

from dataclasses import dataclass
from typing import ClassVar

import dns.name
from dns.rdatatype import RdataType

from wgdisco.endpoint import IPAddress


@dataclass(frozen=True, slots=True)
class HostData:
    """A or AAAA, as the address is."""

    address: IPAddress

    @property
    def rdtype(self) -> RdataType:
        """The record type of the address's family."""
        return RdataType.A if self.address.version == 4 else RdataType.AAAA


@dataclass(frozen=True, slots=True)
class SrvData:
    """Priority and weight are 0: an instance has one SRV."""

    port: int
    target: dns.name.Name
    rdtype: ClassVar[RdataType] = RdataType.SRV


@dataclass(frozen=True, slots=True)
class TxtData:
    """A string above 255 bytes has no wire form; only the wgsd-exact profile lets one come this far."""

    strings: tuple[bytes, ...]
    rdtype: ClassVar[RdataType] = RdataType.TXT


@dataclass(frozen=True, slots=True)
class PtrData:
    """Points at an instance, a service type or a domain."""

    target: dns.name.Name
    rdtype: ClassVar[RdataType] = RdataType.PTR


@dataclass(frozen=True, slots=True)
class NsData:
    """A name server of the zone."""

    target: dns.name.Name
    rdtype: ClassVar[RdataType] = RdataType.NS


@dataclass(frozen=True, slots=True)
class SoaData:
    """Start of authority; times in seconds, `minimum` is the negative TTL (RFC 2308)."""

    primary: dns.name.Name
    mailbox: dns.name.Name
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int
    rdtype: ClassVar[RdataType] = RdataType.SOA


@dataclass(frozen=True, slots=True)
class HinfoData:
    """Stands for all records of a name (RFC 8482 section 4.2)."""

    cpu: bytes = b"RFC8482"
    system: bytes = b""
    rdtype: ClassVar[RdataType] = RdataType.HINFO


Data = HostData | SrvData | TxtData | PtrData | NsData | SoaData | HinfoData


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record; `ttl` in seconds."""

    name: dns.name.Name
    ttl: int
    data: Data
