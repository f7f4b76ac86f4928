"""The unit of the data path: a burst of packets, and the plain implementation of sealing and opening one.

Nothing on the data path takes a single packet; a lone packet is a burst of one. `BurstCipher` is the reference: packet
by packet on `cryptography`'s AEAD, short and obviously right. A faster one has the same two methods.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.tunnel.messages import PADDING, TRANSPORT, TRANSPORT_HEADER, TRANSPORT_HEADER_SIZE

_NONCE_PREFIX = bytes(4)


class OwnAddress(NamedTuple):
    """An address of ours, 4 or 16 bytes, and the index of the interface that a datagram to it came in by."""

    packed: bytes
    interface: int


@dataclass(frozen=True, slots=True)
class Burst:
    """Rows of equal size in one buffer; the last row may be shorter. A lone packet is a burst of one.

    Of datagrams also what their IP headers say: the traffic class `tos`, the address of ours they came to or are to
    leave from (`local`; None leaves it to the system), and of those to send the hop limit (`hops`; 0 leaves it).
    """

    data: bytes | memoryview
    row: int
    tos: int = 0
    local: OwnAddress | None = None
    hops: int = 0

    def rows(self) -> Iterator[memoryview]:
        """Each row in turn; one empty row for an empty buffer."""
        view = memoryview(self.data)
        if len(view) <= self.row:
            yield view
            return
        for start in range(0, len(view), self.row):
            yield view[start : start + self.row]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return max(1, -(-len(self.data) // self.row)) if self.row else 1

    @classmethod
    def of(cls, packet: bytes | memoryview) -> "Burst":
        """A burst of this one packet."""
        return cls(packet, len(packet))


def padded_size(size: int, mtu: int) -> int:
    """The size of a packet after padding to 16 bytes, never past the MTU (rule D4); an MTU of 0 is none."""
    mtu = mtu or size + PADDING
    last = size % mtu if size > mtu else size
    padded = min(mtu, -(-last // PADDING) * PADDING)
    return size - last + padded


class BurstCipher:
    """One key of a session, in one direction: seals bursts, or opens them."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)

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
