"""The cross-platform protocol from the other side: what we say to another engine's socket, and what it answers.

boringtun (0.7.1) speaks a dialect. It panics when a peer that is there is changed, so one is taken away and given anew
in the same request, which ends its session. What a request says of one peer holds for the next one too, unless it says
otherwise: there is one peer a request. It knows no `update_only`, tells its public key and not the private one, and
tells how long ago a handshake was instead of when.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PeerStatus
from wgdisco.tunnel.notation import parse_prefix

GET = "get=1\n\n"
# What boringtun alone says
_OWN_PUBLIC_KEY = "own_public_key"
# How far a handshake's time, told as an age, may be off from one answer to the next, in seconds
_AGES_AGREE = 1.0
_NO_KEY = PrivateKey(bytes(KEY_SIZE)).public_key()


def format_set_peer(key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> str:
    """Change endpoint (None: as it is) and keepalive (seconds) of a peer that is there, in one step."""
    lines = ["set=1", f"public_key={key.raw.hex()}", "update_only=true"]
    if endpoint is not None:
        lines.append(f"endpoint={endpoint}")
    lines.append(f"persistent_keepalive_interval={keepalive}")
    return "\n".join((*lines, "", ""))


def format_renew_peer(peer: PeerConfig) -> str:
    """Have boringtun make a peer anew. It holds a key."""
    named, *rest = _peer_lines(peer)
    return "\n".join(("set=1", named, "remove=true", named, "remove=false", *rest, "", ""))


def format_remove_peer(key: PublicKey) -> str:
    """Have boringtun forget a peer."""
    return f"set=1\npublic_key={key.raw.hex()}\nremove=true\n\n"


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
    """Reads answers to GET. A peer of which one says what the last one said is the same object again.

    `renews`: it is boringtun that answers. `shared` are the preshared keys it told, which it has to be given again.
    """

    def __init__(self) -> None:
        self.renews = False
        self.shared: dict[PublicKey, PresharedKey] = {}
        self._last: dict[str, PeerStatus] = {}
        self._renewed: dict[PublicKey, PeerStatus] = {}

    def read(self, text: str, boot_offset: float, unix_time: float = 0.0) -> DeviceStatus:
        """The device that an answer describes; LocalError when it cannot be read.

        `boot_offset` is the boot-time clock less unix time. Lines that nobody here knows are passed over.
        """
        check_answer(text)
        head, *peers = ("\n" + text.rpartition("errno=")[0]).split("\npublic_key=")
        own = dict(_fields(head))
        known, self._last = self._last, {}
        self.renews = self.renews or _OWN_PUBLIC_KEY in own
        try:
            for peer in peers:
                self._last[peer] = known.get(peer) or _peer(f"public_key={peer}", boot_offset)
            seen = tuple(self._last.values())
            if self.renews:
                self.shared = dict(filter(None, map(_shared, self._last)))
                seen = tuple(self._since(peer, unix_time, boot_offset) for peer in seen)
                self._renewed = {peer.key: peer for peer in seen}
            return DeviceStatus(
                _public_key(own), int(own.get("listen_port", "0")), int(own.get("fwmark", "0")), seen, {}
            )
        except (ValueError, OverflowError):
            raise LocalError("the engine's answer cannot be read") from None

    def _since(self, peer: PeerStatus, unix_time: float, boot_offset: float) -> PeerStatus:
        """Of boringtun: with the time of a handshake that was told as an age, which is never told alike twice."""
        before = self._renewed.get(peer.key)
        if peer.handshake_unix is not None:
            shaken = unix_time - peer.handshake_unix
            if before is not None and before.handshake_unix is not None:
                known = before.handshake_unix
                shaken = known if abs(shaken - known) < _AGES_AGREE else shaken
            peer = replace(peer, handshake_unix=shaken, handshake_at=shaken + boot_offset)
            if before is not None and shaken == before.handshake_unix:
                peer = replace(peer, handshake_at=before.handshake_at)
        return before if before == peer else peer


def _public_key(own: dict[str, str]) -> PublicKey | None:
    """The device's, None before it has a key; what is left of one of ours with boringtun is a key of zeros."""
    if _OWN_PUBLIC_KEY in own:
        public = PublicKey(bytes.fromhex(own[_OWN_PUBLIC_KEY]))
        return None if public == _NO_KEY else public
    private = bytes.fromhex(own.get("private_key", ""))
    return PrivateKey(private).public_key() if any(private) else None


def _shared(peer: str) -> tuple[PublicKey, PresharedKey] | None:
    """The preshared key in what is told of a peer, whose public key comes first, if there is one."""
    key, _, rest = peer.partition("\n")
    shared = bytes.fromhex(dict(_fields(rest)).get("preshared_key", ""))
    return (PublicKey(bytes.fromhex(key)), PresharedKey(shared)) if any(shared) else None


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
