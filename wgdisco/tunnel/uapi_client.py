"""The cross-platform protocol from the other side: what we say to another engine's socket, and what it answers."""

import errno
from collections.abc import Iterable, Iterator

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import KEY_SIZE, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PeerStatus
from wgdisco.tunnel.notation import parse_prefix

GET = "get=1\n\n"


def format_set_peer(key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> str:
    """Change endpoint (None: as it is) and keepalive (seconds) of a peer that is there, in one step."""
    lines = ["set=1", f"public_key={key.raw.hex()}", "update_only=true"]
    if endpoint is not None:
        lines.append(f"endpoint={endpoint}")
    lines.append(f"persistent_keepalive_interval={keepalive}")
    return "\n".join((*lines, "", ""))


def format_set_device(config: DeviceConfig, gone: Iterable[PublicKey] = ()) -> str:
    """Make the device as `config` says but for peers it does not name, of which those `gone` go. It holds keys.

    Port 0 and an endpoint of None leave what is there.
    """
    key = bytes(KEY_SIZE) if config.private_key is None else config.private_key.raw
    lines = ["set=1", f"private_key={key.hex()}", f"fwmark={config.fwmark}"]
    if config.listen_port:
        lines.append(f"listen_port={config.listen_port}")
    for public_key in gone:
        lines += [f"public_key={public_key.raw.hex()}", "update_only=true", "remove=true"]
    for peer in config.peers:
        lines += _peer_lines(peer)
    return "\n".join((*lines, "", ""))


def _peer_lines(peer: PeerConfig) -> list[str]:
    shared = bytes(KEY_SIZE) if peer.preshared_key is None else peer.preshared_key.raw
    lines = [f"public_key={peer.public_key.raw.hex()}", f"preshared_key={shared.hex()}"]
    if peer.endpoint is not None:
        lines.append(f"endpoint={peer.endpoint}")
    lines += [f"persistent_keepalive_interval={peer.persistent_keepalive}", "replace_allowed_ips=true"]
    return [*lines, *(f"allowed_ip={network}" for network in peer.allowed_ips)]


def check_answer(text: str) -> None:
    """LocalError when an answer says that it was refused, or does not say that it was not."""
    last = text.strip().rpartition("\n")[2]
    if last == "errno=0":
        return
    name, _, value = last.partition("=")
    number = int(value) if name == "errno" and value.removeprefix("-").isdecimal() else errno.EPROTO
    raise LocalError(f"the engine refuses it: {errno.errorcode.get(abs(number), number)}")


class StatusReader:
    """Reads answers to GET. A peer of which one says what the last one said is the same object again."""

    def __init__(self) -> None:
        self._last: dict[str, PeerStatus] = {}

    def read(self, text: str, boot_offset: float) -> DeviceStatus:
        """The device that an answer describes; LocalError when it cannot be read.

        `boot_offset` is the boot-time clock less unix time. Lines that nobody here knows are passed over.
        """
        check_answer(text)
        head, *peers = ("\n" + text.rpartition("errno=")[0]).split("\npublic_key=")
        own = dict(_fields(head))
        if "own_public_key" in own:  # boringtun's word: it panics when a peer that is there is changed
            raise LocalError("this engine (boringtun?) cannot change a peer that it has: use wireguard-go")
        known, self._last = self._last, {}
        try:
            for peer in peers:
                self._last[peer] = known.get(peer) or _peer(f"public_key={peer}", boot_offset)
            private = bytes.fromhex(own.get("private_key", ""))
            return DeviceStatus(
                PrivateKey(private).public_key() if any(private) else None,
                int(own.get("listen_port", "0")),
                int(own.get("fwmark", "0")),
                tuple(self._last.values()),
                {},
            )
        except (ValueError, OverflowError):
            raise LocalError("the engine's answer cannot be read") from None


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            yield name, value


def _peer(text: str, boot_offset: float) -> PeerStatus:
    prefixes = [value for name, value in _fields(text) if name == "allowed_ip"]
    fields = dict(_fields(text))
    seconds, nanoseconds = (int(fields.get(f"last_handshake_time_{unit}", "0")) for unit in ("sec", "nsec"))
    handshake = seconds + nanoseconds / 1e9 if seconds or nanoseconds else None
    endpoint = fields.get("endpoint")
    return PeerStatus(
        key=PublicKey(bytes.fromhex(fields["public_key"])),
        endpoint=None if endpoint is None or endpoint.endswith(":0") else Endpoint.from_text(endpoint),
        allowed_ips=tuple(map(parse_prefix, prefixes)),
        has_preshared_key=any(bytes.fromhex(fields.get("preshared_key", ""))),
        persistent_keepalive=int(fields.get("persistent_keepalive_interval", "0")),
        handshake_at=None if handshake is None else handshake + boot_offset,
        handshake_unix=handshake,
        received_at=None,
        unanswered_since=None,
        rx_bytes=int(fields.get("rx_bytes", "0")),
        tx_bytes=int(fields.get("tx_bytes", "0")),
    )
