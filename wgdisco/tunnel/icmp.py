"""What is told to the sender of a packet that cannot go anywhere, as the kernel's WireGuard tells it.

Host unreachable (RFC 792, RFC 1122 3.2.2), or address unreachable (RFC 4443 3.1). The error comes from the address that
is not reached, because one of our own would be taken for forged when it enters through the tunnel. Who is behind a NAT
of this host is told otherwise (io/icmp.py).
"""

from ipaddress import IPv4Address, IPv6Address

_ICMP, _ICMPV6 = 1, 58
_HOST_UNREACHABLE = b"\x03\x01"
_ADDRESS_UNREACHABLE = b"\x01\x03"
_QUOTE_V4 = 576 - 28  # bytes of the packet that are sent back (RFC 1812 4.3.2.3)
_QUOTE_V6 = 1280 - 48
_TTL = 64
# ICMPv4 types an error may be about; of the rest many are errors themselves
_QUERIES_V4 = frozenset({0, 8, 13, 14, 15, 16, 17, 18})


def unreachable(packet: bytes | memoryview) -> bytes | None:
    """The error about `packet`, an IP packet; None where none may be sent (about errors, fragments, multicast)."""
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version == 4:
        return _unreachable_v4(bytes(packet))
    if version == 6 and len(packet) >= 40:
        return _unreachable_v6(bytes(packet))
    return None


def message_of(error: bytes) -> bytes:
    """An error without its IP header."""
    return error[20:] if error[0] >> 4 == 4 else error[40:]


def about(error: bytes) -> bytes:
    """The packet that an error of ours is about, or its beginning."""
    return message_of(error)[8:]


def with_source(packet: bytes, source: bytes) -> bytes:
    """A packet from another address, 4 or 16 bytes; no other checksum than IPv4's header's is made anew."""
    if packet[0] >> 4 == 6:
        return packet[:8] + source + packet[24:]
    size = (packet[0] & 15) * 4
    header = packet[:10] + bytes(2) + source + packet[16:size]
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + packet[size:]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = int.from_bytes(data, "big") % 0xFFFF
    return ~total & 0xFFFF if total or not any(data) else 0


def _unreachable_v4(packet: bytes) -> bytes | None:
    header = (packet[0] & 15) * 4
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    is_fragment = int.from_bytes(packet[6:8], "big") & 0x1FFF
    is_error = packet[9] == _ICMP and (len(packet) <= header or packet[header] not in _QUERIES_V4)
    if is_fragment or is_error or not _is_host(source) or not _is_host(destination):
        return None
    body = _HOST_UNREACHABLE + bytes(6) + packet[:_QUOTE_V4]
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    total = (20 + len(body)).to_bytes(2, "big")
    # 0xC0: internetwork control, as RFC 1812 4.3.2.5 wants errors marked
    start = b"\x45\xc0" + total + bytes(4) + bytes([_TTL, _ICMP])
    addresses = destination.packed + source.packed
    return start + checksum(start + bytes(2) + addresses).to_bytes(2, "big") + addresses + body


def _unreachable_v6(packet: bytes) -> bytes | None:
    source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    is_error = packet[6] == _ICMPV6 and (len(packet) <= 40 or packet[40] < 128)
    if is_error or not _is_host(source) or not _is_host(destination):
        return None
    body = _ADDRESS_UNREACHABLE + bytes(6) + packet[:_QUOTE_V6]
    size = len(body).to_bytes(2, "big")
    addresses = destination.packed + source.packed
    pseudo_header = addresses + bytes(2) + size + bytes(3) + bytes([_ICMPV6])
    body = body[:2] + checksum(pseudo_header + body).to_bytes(2, "big") + body[4:]
    return b"\x60\0\0\0" + size + bytes([_ICMPV6, _TTL]) + addresses + body


def _is_host(address: IPv4Address | IPv6Address) -> bool:
    is_broadcast = address.version == 4 and int(address) == 0xFFFFFFFF
    return not (address.is_multicast or address.is_unspecified or is_broadcast)


class Unreachables:
    """Errors, in the measure the kernel has for all of its own: 1000 a second, 50 at once."""

    RATE = 1000.0
    BURST = 50.0

    def __init__(self) -> None:
        self._tokens = self.BURST
        self._counted_at = 0.0

    def about(self, packet: bytes | memoryview, now: float) -> bytes | None:
        """The error about `packet`; None where none may be sent, or too many were."""
        self._tokens = min(self.BURST, self._tokens + (now - self._counted_at) * self.RATE)
        self._counted_at = now
        error = unreachable(packet) if self._tokens >= 1.0 else None
        if error is not None:
            self._tokens -= 1.0
        return error
