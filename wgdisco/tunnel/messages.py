"""The four WireGuard messages and every constant of the protocol (white paper sections 5.4 and 6.1).

========== ==== =====  ==================================================================
message    type bytes  fields after the 4-byte type (little-endian u32, 3 reserved zeros)
========== ==== =====  ==================================================================
initiation 1    148    sender 4, ephemeral 32, static 32+16, timestamp 12+16, mac1, mac2
response   2    92     sender 4, receiver 4, ephemeral 32, nothing 0+16, mac1, mac2
cookie     3    64     receiver 4, nonce 24, cookie 16+16
transport  4    32+n   receiver 4, counter 8, packet n+16
========== ==== =====  ==================================================================

Parsing is by exact size; the type is compared as one u32, so non-zero reserved bytes are another type (rule H2).
"""

import struct
from dataclasses import dataclass

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"

INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT = 1, 2, 3, 4
INITIATION_SIZE, RESPONSE_SIZE, COOKIE_REPLY_SIZE = 148, 92, 64
TRANSPORT_HEADER_SIZE, TAG_SIZE = 16, 16
MINIMUM_TRANSPORT_SIZE = TRANSPORT_HEADER_SIZE + TAG_SIZE
PADDING = 16
MAC_SIZE = 16

# Seconds (white paper section 6.1; jitter and the last four as the kernel has them)
REKEY_AFTER_TIME = 120.0
REJECT_AFTER_TIME = 180.0
REKEY_ATTEMPT_TIME = 90.0
REKEY_TIMEOUT = 5.0
KEEPALIVE_TIMEOUT = 10.0
REKEY_TIMEOUT_JITTER = 0.333
MAX_HANDSHAKE_ATTEMPTS = int(REKEY_ATTEMPT_TIME / REKEY_TIMEOUT)
ZERO_KEY_TIME = 3 * REJECT_AFTER_TIME
COOKIE_SECRET_LIFETIME = 120.0
COOKIE_LATENCY = 5.0
MINIMUM_INITIATION_GAP = 0.020

REPLAY_BITS = 8192
REPLAY_WINDOW = REPLAY_BITS - 64
REKEY_AFTER_MESSAGES = 1 << 60
REJECT_AFTER_MESSAGES = (1 << 64) - 1 - REPLAY_WINDOW - 1

HANDSHAKE_TOS = 0x88  # AF41, and no ECN (rule H18)
HANDSHAKE_QUEUE = 4096
UNDER_LOAD_QUEUE = HANDSHAKE_QUEUE // 8
STAGED_PACKETS = 128
DEFAULT_MTU = 1420  # 1500 less the outer IPv6 and UDP headers and 32 bytes of WireGuard's (rule M1)

_INITIATION = struct.Struct("<II32s48s28s16s16s")
_RESPONSE = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
TRANSPORT_HEADER = struct.Struct("<IIQ")


@dataclass(frozen=True, slots=True)
class Initiation:
    """First handshake message; `static` and `timestamp` are sealed."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes

    def pack(self) -> bytes:
        """116 bytes: all but the two MACs."""
        return _INITIATION.pack(INITIATION, self.sender, self.ephemeral, self.static, self.timestamp, b"", b"")[:116]

    @classmethod
    def parse(cls, data: bytes) -> "Initiation":
        """Parse 148 bytes; the MACs are `cookie.py`'s."""
        _, sender, ephemeral, static, timestamp, _, _ = _INITIATION.unpack(data)
        return cls(sender, ephemeral, static, timestamp)


@dataclass(frozen=True, slots=True)
class Response:
    """Second handshake message; `nothing` is a bare tag."""

    sender: int
    receiver: int
    ephemeral: bytes
    nothing: bytes

    def pack(self) -> bytes:
        """60 bytes: all but the two MACs."""
        return _RESPONSE.pack(RESPONSE, self.sender, self.receiver, self.ephemeral, self.nothing, b"", b"")[:60]

    @classmethod
    def parse(cls, data: bytes) -> "Response":
        """Parse 92 bytes; the MACs are `cookie.py`'s."""
        _, sender, receiver, ephemeral, nothing, _, _ = _RESPONSE.unpack(data)
        return cls(sender, receiver, ephemeral, nothing)


@dataclass(frozen=True, slots=True)
class CookieReply:
    """What a responder under load sends instead of a response."""

    receiver: int
    nonce: bytes
    cookie: bytes

    def pack(self) -> bytes:
        """64 bytes."""
        return _COOKIE_REPLY.pack(COOKIE_REPLY, self.receiver, self.nonce, self.cookie)

    @classmethod
    def parse(cls, data: bytes) -> "CookieReply":
        """Parse 64 bytes."""
        _, receiver, nonce, cookie = _COOKIE_REPLY.unpack(data)
        return cls(receiver, nonce, cookie)


_EXACT_SIZES = {INITIATION: INITIATION_SIZE, RESPONSE: RESPONSE_SIZE, COOKIE_REPLY: COOKIE_REPLY_SIZE}


def message_type(data: bytes | memoryview) -> int | None:
    """The type of a WireGuard message of a possible size; None for anything else."""
    if len(data) < MINIMUM_TRANSPORT_SIZE:
        return None
    kind = int.from_bytes(data[:4], "little")
    if kind == TRANSPORT or _EXACT_SIZES.get(kind) == len(data):
        return kind
    return None
