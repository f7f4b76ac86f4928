"""Sealing and opening bursts: the interface, and which of its two implementations runs.

Nothing on the data path takes a single packet; a lone packet is a burst of one. Frames of the TUN interface become
bursts of datagrams in one call, and back. The **reference** is plain Python, packet by packet; the **compiled** one is
`_burst.c`. They do the same, byte for byte, and nobody but this module knows that there are two.
"""

from types import ModuleType
from typing import Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.tunnel import reference
from wgdisco.tunnel.frames import Burst, Frames, Opened, OwnAddress, Room, Sealed
from wgdisco.tunnel.messages import TRANSPORT, TRANSPORT_HEADER, TRANSPORT_HEADER_SIZE
from wgdisco.tunnel.reference import padded_size
from wgdisco.tunnel.replay import ReplayWindow

compiled: ModuleType | None
try:
    from wgdisco.tunnel import compiled
except ImportError:
    compiled = None

__all__ = [
    "Burst",
    "BurstCipher",
    "Frames",
    "Opened",
    "Opener",
    "OwnAddress",
    "Room",
    "Sealed",
    "Sealer",
    "create_opener",
    "create_sealer",
    "implementation",
    "open_new",
    "padded_size",
    "use",
]

_NONCE_PREFIX = bytes(4)

Implementation = Literal["compiled", "reference"]


class Sealer(Protocol):
    """One key of a session, for sending. Not for two threads at once."""

    def seal(self, frames: Frames, receiver: int, counter: int, mtu: int, room: Room) -> Sealed:
        """Cut frames into packets, finish their checksums, pad to `mtu`, and seal each with the next counter.

        What is returned may lie in `room`, and is good until that is cleared. A frame with an impossible virtio header
        is left out; so is what is left when the counters end (rule L3).
        """
        ...

    def close(self) -> None:
        """Forget the key, overwriting it where that is in our hands. Using it then raises ValueError."""
        ...


class Opener(Protocol):
    """One key of a session, for receiving. Not for two threads at once."""

    def open(
        self, datagrams: Burst, room: Room, refused: bytes | None = None, *, tcp: bool = True, udp: bool = True
    ) -> Opened:
        """Open all rows, and merge the packets of one flow into as few frames as can be: of TCP, of UDP.

        Rows with a non-zero byte in `refused` are left out. What is returned may lie in `room`, and is good until that
        is cleared. Anything may be in the rows.
        """
        ...

    def close(self) -> None:
        """Forget the key, overwriting it where that is in our hands. Using it then raises ValueError."""
        ...


_chosen: Implementation = "reference" if compiled is None else "compiled"


def implementation() -> Implementation:
    """Which of the two makes new keys."""
    return _chosen


def use(wanted: Implementation) -> None:
    """From now on make keys of this one; ValueError when it was not built."""
    global _chosen  # noqa: PLW0603 - decided once, at start
    if wanted == "compiled" and compiled is None:
        raise ValueError("the compiled burst was not built")
    _chosen = wanted


def create_sealer(key: bytes) -> Sealer:
    """For a session's sending key, 32 bytes."""
    if compiled is not None and _chosen == "compiled":
        made: Sealer = compiled.CompiledSealer(key)
        return made
    return reference.ReferenceSealer(key)


def create_opener(key: bytes) -> Opener:
    """For a session's receiving key, 32 bytes."""
    if compiled is not None and _chosen == "compiled":
        made: Opener = compiled.CompiledOpener(key)
        return made
    return reference.ReferenceOpener(key)


def open_new(
    opener: Opener, window: ReplayWindow, datagrams: Burst, room: Room, *, tcp: bool = True, udp: bool = True
) -> tuple[Opened, int]:
    """Open rows and leave out replays (rule R2: asked only of what authenticated); and how many those were.

    All rows are opened and merged as if none were a replay; only if one is, all is done again without it.
    """
    opened = opener.open(datagrams, room, tcp=tcp, udp=udp)
    counters = opened.counters
    if isinstance(counters, range) and window.accept_run(counters.start, len(counters)):
        return opened, 0
    refused = bytes(counter is not None and not window.accept(counter) for counter in counters)
    replayed = sum(refused)
    if replayed:
        opened = opener.open(datagrams, room, refused, tcp=tcp, udp=udp)
    return opened, replayed


class BurstCipher:
    """One key of a session, in one direction: seals bursts, or opens them."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)

    def close(self) -> None:
        """Forget the key: OpenSSL overwrites its copies. It is of no more use then."""
        del self._aead

    def seal(self, packets: Burst, receiver: int, counter: int, mtu: int) -> Burst:
        """Pad and seal every row into a transport message; counters run from `counter` upward."""
        encrypt = self._aead.encrypt
        pack = TRANSPORT_HEADER.pack
        pieces: list[bytes] = []
        for packet in packets.rows():
            missing = padded_size(len(packet), mtu) - len(packet)
            plain = bytes(packet) + bytes(missing) if missing else packet
            header = pack(TRANSPORT, receiver, counter)
            pieces.append(header)
            pieces.append(encrypt(_NONCE_PREFIX + header[8:], plain, None))
            counter += 1
        return Burst(b"".join(pieces), TRANSPORT_HEADER_SIZE + len(pieces[1]))

    def open(self, datagrams: Burst) -> list[tuple[int, bytes | None]]:
        """Every row's counter and packet, padding included; None for a row that does not authenticate."""
        decrypt = self._aead.decrypt
        opened: list[tuple[int, bytes | None]] = []
        for datagram in datagrams.rows():
            counter = int.from_bytes(datagram[8:16], "little")
            try:
                packet = decrypt(_NONCE_PREFIX + datagram[8:16], datagram[16:], None)
            except InvalidTag:
                opened.append((counter, None))
            else:
                opened.append((counter, packet))
        return opened
