"""What is said to WireGuard in the kernel, as bytes: generic netlink's family `wireguard` (linux/wireguard.h).

pyroute2's messages take one peer a call, cut nothing that is too long for an attribute (64 KiB), and do not join what a
dump splits; hence our own.
"""

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import MappingProxyType

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import KEY_SIZE, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PeerStatus
from wgdisco.tunnel.io.netlink import NESTED, attribute, attributes

GET_DEVICE, SET_DEVICE = 0, 1
# How long a message may be, in bytes: far from what an attribute can hold, and from what a socket takes
MESSAGE_SIZE = 1 << 14
_VERSION = 1
_IFINDEX, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _FWMARK, _PEERS = 1, 3, 4, 6, 7, 8
_PEER_KEY, _PEER_PSK, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 2, 3, 4, 5
_PEER_HANDSHAKE, _PEER_RX, _PEER_TX, _PEER_ALLOWED_IPS = 6, 7, 8, 9
_REMOVE_ME, _REPLACE_ALLOWED_IPS, _UPDATE_ONLY = 1, 2, 4
_IP_FAMILY, _IP_ADDRESS, _IP_LENGTH, _IP_FLAGS = 1, 2, 3, 4
_IP_REMOVE_ME = 1
_KEY_HEADER, _KEY_AT = attribute(_PEER_KEY, bytes(KEY_SIZE))[:4], slice(4, 4 + KEY_SIZE)
_GENERIC = struct.Struct("=BBH")
_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")
_TIME = struct.Struct("=qq")


def get_device(index: int) -> bytes:
    """Ask for the interface of that index and its peers; to be sent as a dump."""
    return _GENERIC.pack(GET_DEVICE, _VERSION, 0) + attribute(_IFINDEX, _U32.pack(index))


def set_device(
    index: int,
    config: DeviceConfig,
    gone: Iterable[PublicKey] = (),
    there: Mapping[PublicKey, Iterable[IPNetwork]] = MappingProxyType({}),
    *,
    one_by_one: bool = False,
) -> Iterator[bytes]:
    """Messages that make the device as `config` says but for peers it does not name, of which those `gone` go.

    Port 0 and an endpoint of None leave what is there. `there` are the allowed IPs of peers as they are: one that loses
    none keeps them all the while, one that loses some has none for a moment. Not so where the kernel takes them away
    `one_by_one` (Linux 6.16).
    """
    key = bytes(KEY_SIZE) if config.private_key is None else config.private_key.raw
    device = attribute(_PRIVATE_KEY, key) + attribute(_FWMARK, _U32.pack(config.fwmark))
    if config.listen_port:
        device += attribute(_LISTEN_PORT, _U16.pack(config.listen_port))
    parts = [_removal(public_key) for public_key in gone]
    for peer in config.peers:
        had = there.get(peer.public_key)
        kept, lost = set(peer.allowed_ips), set() if had is None else set(had) - set(peer.allowed_ips)
        if had is None or (lost and not one_by_one):
            parts.extend(_peer_parts(peer, _REPLACE_ALLOWED_IPS, map(_allowed_ip, peer.allowed_ips)))
        else:
            changes = (*(_allowed_ip(network, _IP_REMOVE_ME) for network in lost), *map(_allowed_ip, kept - set(had)))
            parts.extend(_peer_parts(peer, 0, changes))
    return _in_messages(index, device, parts)


def set_peer(index: int, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> bytes:
    """Change endpoint (None: as it is) and keepalive of a peer that is there, in one step."""
    part = attribute(_PEER_KEY, key.raw) + attribute(_PEER_FLAGS, _U32.pack(_UPDATE_ONLY))
    if endpoint is not None:
        part += attribute(_PEER_ENDPOINT, _socket_address(endpoint))
    part += attribute(_PEER_KEEPALIVE, _U16.pack(keepalive))
    (message,) = _in_messages(index, b"", [part])
    return message


class StatusReader:
    """Reads dumps. A peer of which a dump says what the last one said is the same object again."""

    def __init__(self) -> None:
        self._last: dict[bytes, PeerStatus] = {}

    def read(self, bodies: Iterable[bytes], boot_offset: float) -> DeviceStatus:
        """What a dump says, its messages in order; a peer may go on in the next one.

        `boot_offset` is the boot-time clock less unix time. What the kernel does not tell is None.
        """
        own: PublicKey | None = None
        port = fwmark = 0
        told: dict[bytes, bytes] = {}
        for body in bodies:
            for kind, value in attributes(body[_GENERIC.size :]):
                if kind == _PUBLIC_KEY and len(value) == KEY_SIZE:
                    own = PublicKey(value) if any(value) else None
                elif kind == _LISTEN_PORT:
                    port = _number(value)
                elif kind == _FWMARK:
                    fwmark = _number(value)
                elif kind == _PEERS:
                    for _, part in attributes(value):
                        key = part[_KEY_AT] if part.startswith(_KEY_HEADER) else _key(part)
                        if len(key) == KEY_SIZE:
                            told[key] = told[key] + part if key in told else part
        known, self._last = self._last, {}
        for part in told.values():
            self._last[part] = known.get(part) or _peer_status(part, boot_offset)
        return DeviceStatus(own, port, fwmark, tuple(self._last.values()), {})


def _in_messages(index: int, device: bytes, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Parts of peers, as many a message as fit; what is said of the device goes into the first."""
    head = _GENERIC.pack(SET_DEVICE, _VERSION, 0) + attribute(_IFINDEX, _U32.pack(index))
    fixed, peers = head + device, b""
    for part in parts:
        packed = attribute(NESTED, part)
        if peers and len(fixed) + len(peers) + len(packed) > MESSAGE_SIZE:
            yield fixed + attribute(_PEERS | NESTED, peers)
            fixed, peers = head, b""
        peers += packed
    yield fixed + (attribute(_PEERS | NESTED, peers) if peers else b"")


def _removal(key: PublicKey) -> bytes:
    return attribute(_PEER_KEY, key.raw) + attribute(_PEER_FLAGS, _U32.pack(_REMOVE_ME | _UPDATE_ONLY))


def _peer_parts(peer: PeerConfig, flags: int, allowed_ips: Iterable[bytes]) -> Iterator[bytes]:
    """All of a peer; prefixes that do not fit go on in parts with nothing but its key before them."""
    key = attribute(_PEER_KEY, peer.public_key.raw)
    shared = bytes(KEY_SIZE) if peer.preshared_key is None else peer.preshared_key.raw
    head = key + attribute(_PEER_FLAGS, _U32.pack(flags)) + attribute(_PEER_PSK, shared)
    if peer.endpoint is not None:
        head += attribute(_PEER_ENDPOINT, _socket_address(peer.endpoint))
    head += attribute(_PEER_KEEPALIVE, _U16.pack(peer.persistent_keepalive))
    prefixes: list[bytes] = []
    size = 0
    for packed in allowed_ips:
        if size + len(packed) > MESSAGE_SIZE // 2:
            yield head + attribute(_PEER_ALLOWED_IPS | NESTED, b"".join(prefixes))
            head, prefixes, size = key, [], 0
        prefixes.append(packed)
        size += len(packed)
    yield head + attribute(_PEER_ALLOWED_IPS | NESTED, b"".join(prefixes))


def _allowed_ip(network: IPNetwork, flags: int = 0) -> bytes:
    family = attribute(_IP_FAMILY, _U16.pack(socket.AF_INET if network.version == 4 else socket.AF_INET6))
    address = attribute(_IP_ADDRESS, network.network_address.packed)
    told = family + address + attribute(_IP_LENGTH, bytes([network.prefixlen]))
    return attribute(NESTED, told + attribute(_IP_FLAGS, _U32.pack(flags)) if flags else told)


def _socket_address(endpoint: Endpoint) -> bytes:
    """A sockaddr_in or sockaddr_in6; the zone, an interface's number, is in the machine's own byte order."""
    port, address = endpoint.port.to_bytes(2, "big"), endpoint.address
    if isinstance(address, IPv4Address):
        return _U16.pack(socket.AF_INET) + port + address.packed + bytes(8)
    scope = 0
    if address.scope_id is not None:
        with suppress(OSError):  # no such interface here: nothing can be sent there, and nothing is
            scope = int(address.scope_id) if address.scope_id.isdecimal() else socket.if_nametoindex(address.scope_id)
    if scope >= 1 << 32:
        scope = 0  # likewise
    return _U16.pack(socket.AF_INET6) + port + bytes(4) + address.packed + _U32.pack(scope)


def _endpoint(value: bytes) -> Endpoint | None:
    """The endpoint in a socket address; None where it is none."""
    port = int.from_bytes(value[2:4], "big")
    if not port or len(value) < 16:
        return None
    if _number(value[:2]) == socket.AF_INET:
        return Endpoint(IPv4Address(value[4:8]), port)
    if len(value) < 28:
        return None
    address, scope = IPv6Address(value[8:24]), _number(value[24:28])
    if not scope:
        return Endpoint(address, port)
    zone = str(scope)
    with suppress(OSError):
        zone = socket.if_indextoname(scope)
    return Endpoint(IPv6Address(f"{address}%{zone}"), port)


def _networks(value: bytes) -> Iterator[IPNetwork]:
    for _, part in attributes(value):
        fields = dict(attributes(part))
        packed, length = fields.get(_IP_ADDRESS, b""), _number(fields.get(_IP_LENGTH, b""))
        if len(packed) in (4, 16) and length <= 8 * len(packed):
            yield ip_network((ip_address(packed), length), strict=False)


def _key(part: bytes) -> bytes:
    return dict(attributes(part)).get(_PEER_KEY, b"")


def _peer_status(part: bytes, boot_offset: float) -> PeerStatus:
    fields: dict[int, bytes] = {}
    networks: list[IPNetwork] = []
    for kind, value in attributes(part):
        if kind == _PEER_ALLOWED_IPS:
            networks.extend(_networks(value))
        else:
            fields.setdefault(kind, value)
    time = fields.get(_PEER_HANDSHAKE, b"")
    seconds, nanoseconds = _TIME.unpack(time) if len(time) == _TIME.size else (0, 0)
    handshake = seconds + nanoseconds / 1e9 if seconds or nanoseconds else None
    return PeerStatus(
        key=PublicKey(fields[_PEER_KEY]),
        endpoint=_endpoint(fields.get(_PEER_ENDPOINT, b"")),
        allowed_ips=tuple(networks),
        has_preshared_key=any(fields.get(_PEER_PSK, b"")),
        persistent_keepalive=_number(fields.get(_PEER_KEEPALIVE, b"")),
        handshake_at=None if handshake is None else handshake + boot_offset,
        handshake_unix=handshake,
        received_at=None,
        unanswered_since=None,
        rx_bytes=_number(fields.get(_PEER_RX, b"")),
        tx_bytes=_number(fields.get(_PEER_TX, b"")),
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little" if _LITTLE else "big")


_LITTLE = _U16.pack(1)[0] == 1
