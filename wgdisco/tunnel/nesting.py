"""How deep tunnels may lie in one another, so that a loop of them comes to an end.

Routes can lead what one tunnel sends into another, and what that one sends into the first. Each round adds a header,
and when the packet outgrows an MTU it is cut into two, which both go on. No tunnel sees that it has had the packet
before: it is sealed. So a packet that is WireGuard's own does not get a fresh hop limit when it is sealed again, but
what it has left, less a fee. (The tunnel encapsulation limit of RFC 2473, 4.1.1, in a field that every header has.)
"""

from wgdisco.tunnel.messages import INITIATION, TRANSPORT

INITIAL_HOPS = 64  # what systems give a datagram, within a few
FEE = 8  # so there are eight levels, and paths of dozens of hops below the first few

_UDP = 17
_FRAGMENT = 44


def is_nested(packet: bytes | memoryview) -> bool:
    """Whether an IP packet is WireGuard's own, or may be a part of such a one."""
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    return (version == 4 and _is_nested_v4(packet)) or (version == 6 and _is_nested_v6(packet))


def outer_hops(packet: bytes | memoryview) -> int | None:
    """The hop limit of the datagram that is to carry an IP packet: 0 for the system's own, None when it is used up."""
    if not is_nested(packet):
        return 0
    hops = packet[8] if packet[0] >> 4 == 4 else packet[7]
    if hops <= FEE:
        return None
    return min(hops, INITIAL_HOPS) - FEE


def _is_nested_v4(packet: bytes | memoryview) -> bool:
    if packet[9] != _UDP:
        return False
    is_later_fragment = bool(int.from_bytes(packet[6:8], "big") & 0x1FFF)
    return is_later_fragment or _is_wireguard(packet, (packet[0] & 15) * 4)


def _is_nested_v6(packet: bytes | memoryview) -> bool:
    if len(packet) < 48:
        return False
    if packet[6] == _UDP:
        return _is_wireguard(packet, 40)
    if packet[6] != _FRAGMENT or packet[40] != _UDP:
        return False
    is_later_fragment = bool(int.from_bytes(packet[42:44], "big") & 0xFFF8)
    return is_later_fragment or _is_wireguard(packet, 48)


def _is_wireguard(packet: bytes | memoryview, udp: int) -> bool:
    """Whether the UDP datagram at `udp` begins as a message does: a type, and three bytes of zero."""
    kind = packet[udp + 8 : udp + 12]
    return len(kind) == 4 and INITIATION <= kind[0] <= TRANSPORT and not any(kind[1:])
