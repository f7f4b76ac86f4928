"""Datagrams from and to the port of a WireGuard that is not ours: as IP packets, and the filters to see them by.

Classic BPF (bpf(4), linux/filter.h) over a packet from its IP header on, as a cooked packet socket has it. Whoever sees
a packet so sees it before any firewall of the host, and nobody has looked at its checksums.
"""

import struct
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address

from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.tunnel.device import CHECK_MAGIC, STUN_COOKIE
from wgdisco.tunnel.messages import (
    COOKIE_REPLY,
    INITIATION,
    INITIATION_SIZE,
    MINIMUM_TRANSPORT_SIZE,
    RESPONSE,
    RESPONSE_SIZE,
    TRANSPORT,
)
from wgdisco.tunnel.segment import checksum

DEFAULT_TTL = 64
# Receivers that a filter tells apart: BPF_MAXINSNS is 4096
MAX_INDICES = 1024
_NEAR = 128
_UDP = 17
_V4 = struct.Struct("!BBHHHBBH4s4s")
_V6 = struct.Struct("!IHBB16s16s")
_PORTS = struct.Struct("!HHHH")

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_AT_X, _LOAD_WORD_AT_X = 0x20, 0x28, 0x30, 0x48, 0x40
_LOAD_X, _LOAD_X_HEADER = 0x01, 0xB1
_IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x15, 0x45, 0x06
_KIND = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE: for whom the packet is
_TO_US = 0
_ALL = 0xFFFF


def pack_datagram(source: IPAddress, port: int, destination: Endpoint, ttl: int, data: bytes) -> bytes:
    """A UDP datagram from the IP header on (RFC 791, RFC 8200), not to be fragmented by us; addresses of one family.

    The identification is left to who sends it, zero being none.
    """
    to = destination.address
    size = _PORTS.size + len(data)
    udp = _PORTS.pack(port, destination.port, size, 0) + data
    covered = source.packed + to.packed + struct.pack("!HH", _UDP, size) + udp
    udp = udp[:6] + (checksum(covered) or _ALL).to_bytes(2, "big") + udp[8:]
    if to.version == 6:
        return _V6.pack(6 << 28, size, _UDP, ttl, source.packed, to.packed) + udp
    header = _V4.pack(0x45, 0, _V4.size + size, 0, 0, ttl, _UDP, 0, source.packed, to.packed)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + udp


def parse_datagram(packet: bytes, interface: str) -> tuple[Endpoint, bytes] | None:
    """Where a UDP datagram came from, and what is in it; None for anything else, and for fragments.

    `interface` is where it arrived: the zone of a link-local address.
    """
    source: IPAddress
    if len(packet) >= _V4.size and packet[0] >> 4 == 4:
        at = (packet[0] & 15) * 4
        if packet[9] != _UDP or at < _V4.size or int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return None
        source = IPv4Address(packet[12:16])
    elif len(packet) >= _V6.size and packet[0] >> 4 == 6 and packet[6] == _UDP:
        at = _V6.size
        source = IPv6Address(packet[8:24])
        if source.is_link_local:
            source = IPv6Address(f"{source}%{interface}")
    else:
        return None
    if len(packet) < at + _PORTS.size:
        return None
    port, _, size, _ = _PORTS.unpack_from(packet, at)
    if not port or not _PORTS.size <= size <= len(packet) - at:
        return None
    return Endpoint(source, port), packet[at + _PORTS.size : at + size]


def handshake_filter(port: int, version: int) -> bytes:
    """Lets through what looks like a handshake initiation or response to that UDP port, of that IP version."""
    return _filter(
        version,
        [port],
        [
            (_LOAD_HALF_AT_X, "", "", 4),
            (_IF_EQUAL, "initiation", "", _PORTS.size + INITIATION_SIZE),
            (_IF_EQUAL, "response", "no", _PORTS.size + RESPONSE_SIZE),
            "initiation",
            (_LOAD_WORD_AT_X, "", "", 8),
            (_IF_EQUAL, "yes", "no", INITIATION << 24),
            "response",
            (_LOAD_WORD_AT_X, "", "", 8),
            (_IF_EQUAL, "yes", "no", RESPONSE << 24),
        ],
    )


def other_filter(port: int, version: int) -> bytes:
    """Lets through what comes to that UDP port and is a check datagram, or STUN's; never WireGuard's."""
    return _filter(
        version,
        [port],
        [
            (_LOAD_WORD_AT_X, "", "", 8),
            (_IF_EQUAL, "yes", "", int.from_bytes(CHECK_MAGIC, "big")),
            (_LOAD_WORD_AT_X, "", "", 12),
            (_IF_EQUAL, "yes", "no", int.from_bytes(STUN_COOKIE, "big")),
        ],
    )


def port_filter(port: int, version: int) -> bytes:
    """Lets through all that comes to that UDP port."""
    return _filter(version, [port], [(_IF_EQUAL, "yes", "yes", 0)])


def together(data: bytes) -> int:
    """The size of each WireGuard message but the last, where several came as one datagram.

    The kernel puts them together for a port whose socket wants that (UDP_GRO), and nobody has cut them where no wire is
    between (UDP_SEGMENT). All are of one source, and data of one session.
    """
    if data[:4] != TRANSPORT.to_bytes(4, "little"):
        return len(data)
    again = data.find(data[:8], MINIMUM_TRANSPORT_SIZE)  # by chance once in 2^64
    return len(data) if again < 0 else again


def relay_filter(ports: Sequence[int], version: int, indices: Collection[int]) -> bytes:
    """Lets through what comes to those UDP ports and is an initiation, or another message to one of these receivers.

    More receivers than MAX_INDICES are not told apart: then it is every message.
    """
    words = [int.from_bytes(index.to_bytes(4, "little"), "big") for index in sorted(indices)]
    chain: list[_Line] = []
    # What a jump reaches is near, and forward
    for number, at in enumerate(range(0, len(words) if len(words) <= MAX_INDICES else 0, _NEAR)):
        *others, last = words[at : at + _NEAR]
        chain += [(_IF_EQUAL, f"yes {number}", "", word) for word in others]
        chain += [(_IF_EQUAL, "", f"next {number}", last), f"yes {number}", (_RETURN, "", "", _ALL), f"next {number}"]
    end = (_RETURN, "", "", 0 if len(words) <= MAX_INDICES else _ALL)
    lines: list[_Line] = [
        (_LOAD_WORD_AT_X, "", "", 8),
        (_IF_EQUAL, "yes", "", INITIATION << 24),
        (_IF_EQUAL, "response", "", RESPONSE << 24),
        (_IF_EQUAL, "other", "", COOKIE_REPLY << 24),
        (_IF_EQUAL, "other", "no", TRANSPORT << 24),
    ]
    receiver: list[_Line] = [
        "response",
        (_LOAD_WORD_AT_X, "", "", 16),
        (_IF_EQUAL, "receiver", "receiver", 0),
        "other",
        (_LOAD_WORD_AT_X, "", "", 12),
        "receiver",
        *chain,
        end,
    ]
    return _filter(version, ports, lines, receiver)


_Line = str | tuple[int, str, str, int]


def _filter(version: int, ports: Sequence[int], lines: list[_Line], more: Sequence[_Line] = ()) -> bytes:
    """`lines` over an unfragmented datagram to a port, its UDP header at X: instructions, and labels they jump to.

    `more` they may jump to.
    """
    if version == 4:
        protocol, start = 9, [(_LOAD_HALF, "", "", 6), (_IF_ANY_BIT, "no", "", 0x3FFF), (_LOAD_X_HEADER, "", "", 0)]
    else:
        protocol, start = 6, [(_LOAD_X, "", "", _V6.size)]
    return _assembled(
        [
            (_LOAD_WORD, "", "", _KIND),
            (_IF_EQUAL, "", "no", _TO_US),
            (_LOAD_BYTE, "", "", protocol),
            (_IF_EQUAL, "", "no", _UDP),
            *start,
            (_LOAD_HALF_AT_X, "", "", 2),
            *((_IF_EQUAL, "ours", "", port) for port in ports[:-1]),
            (_IF_EQUAL, "", "no", ports[-1]),
            "ours",
            *lines,
            "no",
            (_RETURN, "", "", 0),
            "yes",
            (_RETURN, "", "", _ALL),
            *more,
        ]
    )


def _assembled(lines: list[_Line]) -> bytes:
    """An empty label is the next instruction; jumps go forward only."""
    places: dict[str, int] = {}
    count = 0
    for line in lines:
        if isinstance(line, str):
            places[line] = count
        else:
            count += 1
    instructions = [line for line in lines if not isinstance(line, str)]
    return b"".join(
        _INSTRUCTION.pack(code, *(places[label] - at - 1 if label else 0 for label in (yes, no)), value)
        for at, (code, yes, no, value) in enumerate(instructions)
    )
