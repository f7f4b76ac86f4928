"""Congestion marks across the tunnel (RFC 6040), as the kernel's WireGuard makes and takes them.

Out: the outer header gets the inner one's ECN field, and ECT(0) for CE. In: an outer CE or ECT(1) is brought to an
inner packet that is capable of it. The DSCP is never copied: it would tell what is inside.
"""

MASK = 3
NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3


def field_of(packet: bytes | memoryview) -> int:
    """The ECN field of an IP packet; NOT_ECT of anything else."""
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version == 4:
        return packet[1] & MASK
    if version == 6:
        return packet[1] >> 4 & MASK
    return NOT_ECT


def outer_for(packet: bytes | memoryview) -> int:
    """The traffic class of a datagram that carries `packet`."""
    inner = field_of(packet)
    return ECT_0 if inner == CE else inner


def decapsulated(packet: bytes, outer: int) -> bytes:
    """`packet` with what the datagram's traffic class `outer` says of congestion on the way."""
    mark, inner = outer & MASK, field_of(packet)
    if inner == NOT_ECT or (mark != CE and (mark, inner) != (ECT_1, ECT_0)):
        return packet
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[1] = packet[1] & 0xCF | mark << 4
        return bytes(changed)
    changed[1] = packet[1] & ~MASK | mark
    # RFC 1624, equation 3: the header's checksum after one of its words has changed
    total = (~int.from_bytes(packet[10:12], "big") & 0xFFFF) + (packet[1] ^ 0xFF) + 0xFF00 + changed[1]
    total = (total & 0xFFFF) + (total >> 16)
    changed[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)
