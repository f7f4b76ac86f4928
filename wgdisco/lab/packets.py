"""IP packets as bytes, as far as the lab's core looks into them: addresses, ports, TTL, and what kind of message."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.tunnel import messages

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
HEAD_SIZE = 24
_IPV4_SIZE, _IPV6_SIZE, _UDP_SIZE = 20, 40, 8
_TIME_EXCEEDED, _TIME_EXCEEDED_6 = 11, 3
_QUOTED_4, _QUOTED_6 = 28, 1232  # RFC 792: header and 64 bits; RFC 4443 section 3.3: what fits the minimum MTU
_STUN_COOKIE = bytes.fromhex("2112a442")  # RFC 8489 section 5
_CHECK_MAGIC = bytes.fromhex("77676401")
_STUN = {0x0001: "STUN request", 0x0101: "STUN success", 0x0111: "STUN error", 0x0011: "STUN indication"}
_CHECK = {1: "check ping", 2: "check pong"}
_WIREGUARD = {
    messages.INITIATION: "initiation",
    messages.RESPONSE: "response",
    messages.COOKIE_REPLY: "cookie reply",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What one packet says of itself. Ports are 0 where it has none; `payload` is where its UDP payload begins."""

    version: int
    ttl: int
    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int
    payload: int


def parse(packet: bytes) -> Header | None:
    """The header of an IPv4 or IPv6 packet; None for anything else. Extension headers are not looked behind."""
    if not packet:
        return None
    version = packet[0] >> 4
    if version == 4 and len(packet) >= _IPV4_SIZE:
        start = (packet[0] & 15) * 4
        is_first = int.from_bytes(packet[6:8]) & 0x1FFF == 0
        ttl, protocol, source, destination = packet[8], packet[9], packet[12:16], packet[16:20]
    elif version == 6 and len(packet) >= _IPV6_SIZE:
        start, is_first = _IPV6_SIZE, True
        ttl, protocol, source, destination = packet[7], packet[6], packet[8:24], packet[24:40]
    else:
        return None
    ports = (0, 0)
    if is_first and protocol in (UDP, TCP) and len(packet) >= start + _UDP_SIZE:
        ports = struct.unpack_from("!HH", packet, start)
    return Header(version, ttl, bytes(source), bytes(destination), protocol, *ports, start + _UDP_SIZE)


def aged(packet: bytes, hops: int) -> bytes:
    """The packet `hops` routers later (RFC 1624: the checksum follows the TTL). Its TTL must be more than that."""
    later = bytearray(packet)
    if packet[0] >> 4 == 6:
        later[7] -= hops
        return bytes(later)
    later[8] -= hops
    total = int.from_bytes(packet[10:12]) + (hops << 8)
    later[10:12] = (total + (total >> 16) & 0xFFFF).to_bytes(2)
    return bytes(later)


def time_exceeded(packet: bytes, router: IPAddress) -> bytes:
    """What `router` tells the sender of a packet whose TTL was used up (RFC 792, RFC 4443 section 3.3)."""
    if isinstance(router, IPv4Address):
        quoted = packet[: (packet[0] & 15) * 4 + _QUOTED_4 - _IPV4_SIZE]
        body = bytearray(struct.pack("!BBHI", _TIME_EXCEEDED, 0, 0, 0) + quoted)
        body[2:4] = _checksum(bytes(body)).to_bytes(2)
        header = bytearray(
            struct.pack("!BBHIBBH", 0x45, 0, _IPV4_SIZE + len(body), 0, 64, ICMP, 0) + router.packed + packet[12:16]
        )
        header[10:12] = _checksum(bytes(header)).to_bytes(2)
        return bytes(header + body)
    body = bytearray(struct.pack("!BBHI", _TIME_EXCEEDED_6, 0, 0, 0) + packet[:_QUOTED_6])
    pseudo = router.packed + packet[8:24] + struct.pack("!II", len(body), ICMP6)
    body[2:4] = _checksum(pseudo + bytes(body)).to_bytes(2)
    return struct.pack("!IHBB", 6 << 28, len(body), ICMP6, 64) + router.packed + packet[8:24] + bytes(body)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class Crossing:
    """One packet that came to the core, at `at` (boot-time clock, seconds), and what became of it.

    `fate` is `sent`, or why it was not: `lost`, `ttl`, `blocked`, `unroutable`. `ttl` is what it came with; `length`
    is that of the IP packet in bytes, `head` the first bytes of a UDP payload.
    """

    at: float
    fate: str
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    protocol: int
    ttl: int
    length: int
    head: bytes

    @classmethod
    def of(cls, packet: bytes, header: Header, at: float, fate: str) -> "Crossing":
        """As the core records it."""
        head = packet[header.payload : header.payload + HEAD_SIZE] if header.protocol == UDP else b""
        source, destination = _address(header.source), _address(header.destination)
        ports = header.source_port, header.destination_port
        return cls(
            at, fate, source, ports[0], destination, ports[1], header.protocol, header.ttl, len(packet), bytes(head)
        )

    @classmethod
    def from_text(cls, line: str) -> "Crossing":
        """Parse what `to_text` gives; ValueError otherwise."""
        at, fate, source, source_port, destination, destination_port, protocol, ttl, length, head = line.split()
        return cls(
            at=float(at),
            fate=fate,
            source=ip_address(source),
            source_port=int(source_port),
            destination=ip_address(destination),
            destination_port=int(destination_port),
            protocol=int(protocol),
            ttl=int(ttl),
            length=int(length),
            head=bytes.fromhex(head.removeprefix("-")),
        )

    def to_text(self) -> str:
        """One line of ten words."""
        return (
            f"{self.at:.6f} {self.fate} {self.source} {self.source_port} {self.destination} {self.destination_port} "
            f"{self.protocol} {self.ttl} {self.length} {self.head.hex() or '-'}"
        )

    @property
    def is_udp(self) -> bool:
        """Whether it is a UDP datagram."""
        return self.protocol == UDP

    @property
    def payload_size(self) -> int:
        """Bytes of UDP payload."""
        return self.length - _UDP_SIZE - (_IPV4_SIZE if self.source.version == 4 else _IPV6_SIZE)

    @property
    def sender(self) -> Endpoint | None:
        """Where it came from; None where it has no port."""
        return Endpoint(self.source, self.source_port) if self.source_port else None

    @property
    def receiver(self) -> Endpoint | None:
        """Where it goes; None where it has no port."""
        return Endpoint(self.destination, self.destination_port) if self.destination_port else None

    def kind(self) -> str:
        """In a word or two, for people."""
        if self.protocol in (ICMP, ICMP6):
            return "ICMP"
        if self.protocol == TCP:
            return "TCP"
        if self.protocol != UDP:
            return f"protocol {self.protocol}"
        return _datagram_kind(self.head, self.payload_size)


def _datagram_kind(head: bytes, size: int) -> str:
    if head[:4] == _CHECK_MAGIC and len(head) > len(_CHECK_MAGIC):
        return _CHECK.get(head[4], "check")
    if head[4:8] == _STUN_COOKIE:
        return _STUN.get(int.from_bytes(head[:2]), "STUN")
    kind = messages.message_type(head + bytes(max(0, size - len(head))))
    if kind == messages.TRANSPORT:
        return "keepalive" if size == messages.MINIMUM_TRANSPORT_SIZE else f"data {size}"
    return _WIREGUARD.get(kind or 0, f"datagram {size}")


def _address(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
