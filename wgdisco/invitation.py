"""The join link, and what both ends derive from its secret.

``wgdisco://HOST:PORT[,HOST:PORT…]/1/<registry public key>/<secret>``, base64url without padding, secret of 128 bits.
Whoever holds the link can shake hands with the registry under a one-time key derived from the secret, from one address
that is derived too, and ask there, and only there, to be enrolled. The secret itself never crosses the network.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Self

from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey

SCHEME = "wgdisco://"
VERSION = "1"
SECRET_SIZE = 16
DEFAULT_PORT = 51820

# Both ends of an enrolment, inside the tunnel: link-local, since the joiner knows none of the network's own prefixes.
ENROL_REGISTRY_ADDRESS = IPv4Address("169.254.119.103")
# Clear of our own, and of what clouds answer on (169.254.169.254, .170.2)
ENROL_NETWORK = IPv4Network("169.254.192.0/19")

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def _derive(secret: bytes, label: str, size: int = KEY_SIZE) -> bytes:
    return hashlib.blake2s(label.encode(), key=secret, digest_size=size).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str, size: int) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size or _encode(raw) != text:
        raise ValueError("the join link is damaged: copy all of it, from wgdisco:// to its end")
    return raw


def enrol_private_key(secret: bytes) -> PrivateKey:
    """The one-time key the joiner shakes hands with."""
    return PrivateKey(_derive(secret, "wgdisco enrol key 1"))


def member_preshared_key(secret: bytes) -> PresharedKey:
    """The key the member shares with the registry from then on."""
    return PresharedKey(_derive(secret, "wgdisco member psk 1"))


def enrol_address(secret: bytes) -> IPv4Address:
    """The joiner's address during enrolment; the registry draws another secret when it is taken."""
    number = int.from_bytes(_derive(secret, "wgdisco enrol address 1", 4), "big") % ENROL_NETWORK.num_addresses
    return ENROL_NETWORK[number]


@dataclass(frozen=True, slots=True)
class JoinLink:
    """Where the registries are (`HOST:PORT` or `[IPV6]:PORT`), the registry's key, and the secret of one invitation."""

    registries: tuple[str, ...]
    registry_key: PublicKey
    secret: bytes = field(repr=False)

    def to_text(self) -> str:
        """The link as it is handed over."""
        hosts = ",".join(self.registries)
        return f"{SCHEME}{hosts}/{VERSION}/{_encode(self.registry_key.raw)}/{_encode(self.secret)}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a link; ValueError says what is wrong, and never repeats the secret."""
        text = text.strip()
        if not text.startswith(SCHEME):
            raise ValueError("a join link begins with wgdisco://")
        parts = text.removeprefix(SCHEME).split("/")
        if len(parts) != 4:
            raise ValueError("the join link is damaged: copy all of it, from wgdisco:// to its end")
        hosts, version, key, secret = parts
        if version != VERSION:
            raise ValueError(f"the join link is of version {version[:8]!r}, this wgdisco knows {VERSION}: update it")
        registries = tuple(check_registry(host) for host in hosts.split(","))
        return cls(registries, PublicKey(_decode(key, KEY_SIZE)), _decode(secret, SECRET_SIZE))


def link_id(secret: bytes) -> str:
    """What tells one invitation from another in a member's own files, without giving it away."""
    return _derive(secret, "wgdisco link id 1", 8).hex()


def check_registry(text: str) -> str:
    """`text` again when it is HOST:PORT or [IPV6]:PORT; ValueError otherwise."""
    host, separator, port = text.rpartition(":")
    valid_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not separator or not _HOST.fullmatch(host) or not valid_port:
        raise ValueError(f"{text!r} in the join link is not HOST:PORT")
    return text
