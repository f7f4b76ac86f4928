"""The cross-platform configuration protocol (https://www.wireguard.com/xplatform/) as values: what `wg` says to a
userspace engine, and what it hears back. Rules U1 to U16 of the engine's facts.

A `set` becomes a `SetOperation`, and `apply_set` makes the new configuration of the old one. Lines before a faulty one
stay in force (rule U8), so parsing does not raise: the fault travels in the operation, as an errno.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PeerStatus
from wgdisco.tunnel.notation import parse_prefix

GET = "get=1"
SET = "set=1"

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_ZEROS = bytes(KEY_SIZE)


@dataclass(slots=True)
class PeerChange:
    """One peer's block. None leaves a thing as it is; a preshared key of zeros takes it away.

    `allowed_ips` are changes in order, True to add and False to take away; they come after `replace_allowed_ips`.
    """

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: list[tuple[IPNetwork, bool]] = field(default_factory=list)


@dataclass(slots=True)
class SetOperation:
    """A whole `set`, up to the first line at fault; `errno` is that line's, positive, or 0 when there was none.

    None leaves a thing as it is; `clear_private_key` stands for a key of zeros.
    """

    private_key: PrivateKey | None = None
    clear_private_key: bool = False
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: list[PeerChange] = field(default_factory=list)
    errno: int = 0


def parse_set(lines: Iterable[str]) -> SetOperation:
    """Read the lines between `set=1` and the blank line, neither included. Never raises."""
    operation = SetOperation()
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            operation.errno = errno.EPROTO
            break
        try:
            _set(operation, key, value)
        except ValueError:
            operation.errno = errno.EINVAL
            break
    return operation


def apply_set(operation: SetOperation, config: DeviceConfig) -> DeviceConfig:
    """The configuration after `operation`. A prefix belongs to one peer: adding it takes it from another (rule A3)."""
    private_key = None if operation.clear_private_key else operation.private_key or config.private_key
    own = None if private_key is None else private_key.public_key()
    table = _Table(() if operation.replace_peers else config.peers)
    if own is not None:
        table.remove(own)  # our own key as a peer goes, and never comes, silently (rule U9)
    for change in operation.peers:
        if change.remove:
            table.remove(change.public_key)
        elif change.public_key != own:
            table.change(change)
    return DeviceConfig(
        private_key,
        config.listen_port if operation.listen_port is None else operation.listen_port,
        config.fwmark if operation.fwmark is None else operation.fwmark,
        table.peers(),
    )


def format_get(config: DeviceConfig, status: DeviceStatus) -> str:
    """The answer to `get=1` in the order of rule U4, without its `errno` line.

    Keys come from `config`, everything else from `status`. Holds secrets: only ever for the socket.
    """
    lines: list[str] = []
    if config.private_key is not None:
        lines.append(f"private_key={config.private_key.raw.hex()}")
    lines.append(f"listen_port={status.listen_port}")
    if status.fwmark:
        lines.append(f"fwmark={status.fwmark}")
    preshared_keys = {peer.public_key: peer.preshared_key for peer in config.peers}
    for peer in status.peers:
        lines += _peer_lines(peer, preshared_keys.get(peer.key))
    return "".join(f"{line}\n" for line in lines)


def _peer_lines(peer: PeerStatus, preshared_key: PresharedKey | None) -> Iterator[str]:
    yield f"public_key={peer.key.raw.hex()}"
    if preshared_key is not None:
        yield f"preshared_key={preshared_key.raw.hex()}"
    yield "protocol_version=1"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    seconds, fraction = divmod(peer.handshake_unix or 0.0, 1)
    yield f"last_handshake_time_sec={int(seconds)}"
    yield f"last_handshake_time_nsec={int(fraction * 1_000_000_000)}"
    yield f"tx_bytes={peer.tx_bytes}"
    yield f"rx_bytes={peer.rx_bytes}"
    yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
    for network in peer.allowed_ips:
        yield f"allowed_ip={network}"


class _Table:
    """Peers and who owns which prefix, while an operation is applied."""

    def __init__(self, peers: Iterable[PeerConfig]) -> None:
        self._peers: dict[PublicKey, PeerConfig] = {}
        self._networks: dict[PublicKey, dict[IPNetwork, None]] = {}
        self._owners: dict[IPNetwork, PublicKey] = {}
        for peer in peers:
            self._peers[peer.public_key] = peer
            self._networks[peer.public_key] = {}
            for network in peer.allowed_ips:
                self._add(network, peer.public_key)

    def peers(self) -> tuple[PeerConfig, ...]:
        return tuple(replace(peer, allowed_ips=tuple(self._networks[key])) for key, peer in self._peers.items())

    def remove(self, key: PublicKey) -> None:
        if self._peers.pop(key, None) is not None:
            for network in self._networks.pop(key):
                del self._owners[network]

    def change(self, change: PeerChange) -> None:
        key = change.public_key
        peer = self._peers.get(key)
        if peer is None:
            if change.update_only:
                return
            peer = PeerConfig(key)
            self._networks[key] = {}
        preshared_key = change.preshared_key or peer.preshared_key
        self._peers[key] = replace(
            peer,
            preshared_key=None if preshared_key is None or preshared_key.raw == _ZEROS else preshared_key,
            endpoint=change.endpoint or peer.endpoint,
            persistent_keepalive=(
                peer.persistent_keepalive if change.persistent_keepalive is None else change.persistent_keepalive
            ),
        )
        if change.replace_allowed_ips:
            for network in list(self._networks[key]):
                self._take(network, key)
        for network, wanted in change.allowed_ips:
            if wanted:
                self._add(network, key)
            else:
                self._take(network, key)

    def _add(self, network: IPNetwork, key: PublicKey) -> None:
        former = self._owners.get(network)
        if former is not None and former != key:
            del self._networks[former][network]
        self._owners[network] = key
        self._networks[key][network] = None

    def _take(self, network: IPNetwork, key: PublicKey) -> None:
        """Rule A4: only from the peer that has it."""
        if self._owners.get(network) == key:
            del self._owners[network], self._networks[key][network]


# One line. Everything below raises ValueError for what is no such key or value.


def _set(operation: SetOperation, key: str, value: str) -> None:
    if key == "public_key":
        operation.peers.append(PeerChange(PublicKey(_raw_key(value))))
    elif operation.peers:
        _PEER_KEYS[_known(key, _PEER_KEYS)](operation.peers[-1], value)
    else:
        _DEVICE_KEYS[_known(key, _DEVICE_KEYS)](operation, value)


def _known(key: str, keys: Iterable[str]) -> str:
    if key not in keys:
        raise ValueError("unknown key")
    return key


def _raw_key(value: str) -> bytes:
    if not _HEX_KEY.fullmatch(value):
        raise ValueError("a key is 64 hexadecimal digits")
    return bytes.fromhex(value)


def _number(value: str, high: int) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > high:
        raise ValueError(f"not a number from 0 to {high}")
    return int(value)


def _true(value: str) -> bool:
    if value != "true":
        raise ValueError("only 'true' is a value")
    return True


def _private_key(operation: SetOperation, value: str) -> None:
    raw = _raw_key(value)
    operation.clear_private_key = raw == _ZEROS
    operation.private_key = None if operation.clear_private_key else PrivateKey(raw)


def _listen_port(operation: SetOperation, value: str) -> None:
    operation.listen_port = _number(value, 65535)


def _fwmark(operation: SetOperation, value: str) -> None:
    operation.fwmark = _number(value, 2**32 - 1)


def _replace_peers(operation: SetOperation, value: str) -> None:
    operation.replace_peers = _true(value)


def _remove(change: PeerChange, value: str) -> None:
    change.remove = _true(value)


def _update_only(change: PeerChange, value: str) -> None:
    change.update_only = _true(value)


def _preshared_key(change: PeerChange, value: str) -> None:
    change.preshared_key = PresharedKey(_raw_key(value))


def _endpoint(change: PeerChange, value: str) -> None:
    change.endpoint = Endpoint.from_text(value)


def _keepalive(change: PeerChange, value: str) -> None:
    change.persistent_keepalive = _number(value, 65535)


def _replace_allowed_ips(change: PeerChange, value: str) -> None:
    change.replace_allowed_ips = _true(value)
    change.allowed_ips.clear()  # whatever this block added before


def _allowed_ip(change: PeerChange, value: str) -> None:
    prefix = value.removeprefix("-")
    if "/" not in prefix:
        raise ValueError("a prefix has a length")
    change.allowed_ips.append((parse_prefix(prefix), prefix == value))


def _protocol_version(_change: PeerChange, value: str) -> None:
    if value != "1":
        raise ValueError("there is only version 1")


_DEVICE_KEYS: dict[str, Callable[[SetOperation, str], None]] = {
    "private_key": _private_key,
    "listen_port": _listen_port,
    "fwmark": _fwmark,
    "replace_peers": _replace_peers,
}
_PEER_KEYS: dict[str, Callable[[PeerChange, str], None]] = {
    "remove": _remove,
    "update_only": _update_only,
    "preshared_key": _preshared_key,
    "endpoint": _endpoint,
    "persistent_keepalive_interval": _keepalive,
    "replace_allowed_ips": _replace_allowed_ips,
    "allowed_ip": _allowed_ip,
    "protocol_version": _protocol_version,
}
