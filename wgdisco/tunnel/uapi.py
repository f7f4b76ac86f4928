"""The cross-platform configuration protocol (https://www.wireguard.com/xplatform/): what `wg` says to a userspace
engine, and what it hears back. Rules U1 to U16 of the engine's facts.

A `set` is carried out line by line, so the lines before a faulty one stay in force (rule U8), and a large one needs no
memory of its own. What may take long is an iterator: wherever it yields, other work may be done.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import PeerStatus
from wgdisco.tunnel.notation import parse_prefix
from wgdisco.tunnel.peer import Peer

GET = "get=1"
SET = "set=1"
MAX_PEERS = 1 << 16  # rule U14; a managed network's are the registry's affair

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_ZEROS = bytes(KEY_SIZE)
_CHUNK = 256  # prefixes told at once


class Sockets(Protocol):
    """What a `set` asks of the machine; LocalError, caused by an OSError, when the machine does not let us."""

    def set_listen_port(self, port: int) -> None:
        """Listen on `port`, 0 for any that is free."""

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent, 0 for no mark."""


class RefusedError(Exception):
    """A line that cannot be carried out. `errno` is positive; the text holds no value, which may be a key."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


@dataclass(slots=True)
class _Block:
    """The peer that lines are about, None when they are passed over (rule U9). None leaves a thing as it is."""

    peer: Peer | None
    is_new: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    keepalive: int | None = None


class SetOperation:
    """A `set` under way: `take` its lines in order, then `finish`, also after a fault.

    Prefixes change as their lines come; the rest of a peer with the end of its block, in the kernel's order (rule U11):
    preshared key, endpoint, keepalive, and then what waits to be sent. A new peer is at rest until then (rule U9).
    """

    def __init__(self, device: Device, sockets: Sockets, clock: Callable[[], float]) -> None:
        self.device = device
        self.sockets = sockets
        self.clock = clock
        self._block: _Block | None = None

    def take(self, line: str) -> Iterable[None]:
        """Carry out one line; it is done at the iterator's end. Raises RefusedError."""
        key, equals, value = line.partition("=")
        if not equals:
            raise RefusedError(errno.EPROTO, "a line without '='")
        try:
            return self._take(key, value) or ()
        except ValueError as error:
            raise RefusedError(errno.EINVAL, f"{key}: {error}") from None
        except LocalError as error:
            cause = error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            raise RefusedError(number or errno.EIO, str(error)) from error

    def finish(self) -> None:
        """No line follows."""
        block, self._block = self._block, None
        if block is not None and block.peer is not None:
            now = self.clock()
            self.device.configure_peer(block.peer, block.preshared_key, block.endpoint, block.keepalive, now)

    def _take(self, key: str, value: str) -> Iterator[None] | None:
        if key == "public_key":
            self._begin(PublicKey(_raw_key(value)))
            return None
        if self._block is not None and key in _PEER_KEYS:
            return _PEER_KEYS[key](self, self._block, value)
        if self._block is None and key in _DEVICE_KEYS:
            return _DEVICE_KEYS[key](self, value)
        # Not shown: it may be anything.
        raise RefusedError(errno.EINVAL, f"no such key of {'the interface' if self._block is None else 'a peer'}")

    def _begin(self, key: PublicKey) -> None:
        self.finish()
        peer = self.device.peers.get(key)
        if peer is not None:
            self._block = _Block(peer)
        elif key == self.device.public_key:
            self._block = _Block(None)  # our own is no peer, and no error (rule U9)
        elif len(self.device.peers) >= MAX_PEERS:
            raise ValueError(f"there are {MAX_PEERS} peers, and no more are taken")
        else:
            self._block = _Block(self.device.add_peer(key), is_new=True)


def format_get(device: Device) -> Iterator[str]:
    """The answer to `get=1` in the order of rule U4, in parts, without its `errno` line.

    Holds secrets: only ever for the socket. Peers that go while it is made are left out.
    """
    private_key = "" if device.private_key is None else f"private_key={device.private_key.raw.hex()}\n"
    fwmark = f"fwmark={device.fwmark}\n" if device.fwmark else ""
    yield f"{private_key}listen_port={device.listen_port}\n{fwmark}"
    for peer in list(device.peers.values()):
        if peer.key in device.peers:
            status = device.peer_status(peer)
            yield "".join(f"{line}\n" for line in _peer_lines(status, peer.preshared_key))
            prefixes = iter(status.allowed_ips)
            while chunk := list(islice(prefixes, _CHUNK)):
                yield "".join(f"allowed_ip={network}\n" for network in chunk)


def _peer_lines(peer: PeerStatus, preshared_key: PresharedKey | None) -> Iterator[str]:
    yield f"public_key={peer.key.raw.hex()}"
    yield f"preshared_key={(_ZEROS if preshared_key is None else preshared_key.raw).hex()}"
    yield "protocol_version=1"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    seconds, fraction = divmod(peer.handshake_unix or 0.0, 1)
    yield f"last_handshake_time_sec={int(seconds)}"
    yield f"last_handshake_time_nsec={int(fraction * 1_000_000_000)}"
    yield f"tx_bytes={peer.tx_bytes}"
    yield f"rx_bytes={peer.rx_bytes}"
    yield f"persistent_keepalive_interval={peer.persistent_keepalive}"


# Values. What is none raises ValueError.


def _raw_key(value: str) -> bytes:
    if not _HEX_KEY.fullmatch(value):
        raise ValueError("a key is 64 hexadecimal digits")
    return bytes.fromhex(value)


def _number(value: str, high: int) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > high:
        raise ValueError(f"not a number from 0 to {high}")
    return int(value)


def _check_true(value: str) -> None:
    if value != "true":
        raise ValueError("only 'true' is a value")


# One line. Who returns an iterator is done at its end.


def _private_key(operation: SetOperation, value: str) -> None:
    raw = _raw_key(value)
    operation.device.set_private_key(None if raw == _ZEROS else PrivateKey(raw), operation.clock())


def _listen_port(operation: SetOperation, value: str) -> None:
    operation.sockets.set_listen_port(_number(value, 65535))


def _fwmark(operation: SetOperation, value: str) -> None:
    operation.sockets.set_fwmark(_number(value, 2**32 - 1))


def _replace_peers(operation: SetOperation, value: str) -> Iterator[None]:
    _check_true(value)
    return operation.device.remove_peers(list(operation.device.peers.values()))


def _remove(operation: SetOperation, block: _Block, value: str) -> Iterator[None] | None:
    _check_true(value)
    peer, block.peer = block.peer, None
    return None if peer is None else operation.device.remove_peers([peer])


def _update_only(operation: SetOperation, block: _Block, value: str) -> Iterator[None] | None:
    _check_true(value)
    return _remove(operation, block, value) if block.is_new else None


def _preshared_key(_operation: SetOperation, block: _Block, value: str) -> None:
    block.preshared_key = PresharedKey(_raw_key(value))


def _endpoint(_operation: SetOperation, block: _Block, value: str) -> None:
    """Port 0 is taken, as in a file, but nothing can be sent there: the endpoint stays as it is."""
    address, _, port = value.rpartition(":")
    try:
        if port == "0":
            Endpoint.from_text(f"{address}:1")
        else:
            block.endpoint = Endpoint.from_text(value)
    except ValueError:
        raise ValueError("neither ADDRESS:PORT nor [IPV6]:PORT") from None


def _keepalive(_operation: SetOperation, block: _Block, value: str) -> None:
    block.keepalive = _number(value, 65535)


def _replace_allowed_ips(operation: SetOperation, block: _Block, value: str) -> Iterator[None] | None:
    _check_true(value)
    return None if block.peer is None else operation.device.clear_allowed_ips(block.peer)


def _allowed_ip(operation: SetOperation, block: _Block, value: str) -> None:
    prefix = value.removeprefix("-")
    if "/" not in prefix:
        raise ValueError("a prefix has a length")
    network = parse_prefix(prefix)
    if block.peer is None:
        return
    if prefix == value:
        operation.device.allowed_ips.insert(network, block.peer)
    else:
        operation.device.allowed_ips.remove(network, block.peer)


def _protocol_version(_operation: SetOperation, _block: _Block, value: str) -> None:
    if value != "1":
        raise ValueError("there is only version 1")


_DEVICE_KEYS: dict[str, Callable[[SetOperation, str], Iterator[None] | None]] = {
    "private_key": _private_key,
    "listen_port": _listen_port,
    "fwmark": _fwmark,
    "replace_peers": _replace_peers,
}
_PEER_KEYS: dict[str, Callable[[SetOperation, _Block, str], Iterator[None] | None]] = {
    "remove": _remove,
    "update_only": _update_only,
    "preshared_key": _preshared_key,
    "endpoint": _endpoint,
    "persistent_keepalive_interval": _keepalive,
    "replace_allowed_ips": _replace_allowed_ips,
    "allowed_ip": _allowed_ip,
    "protocol_version": _protocol_version,
}
