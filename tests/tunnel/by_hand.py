"""Transport data sealed and opened row by row on `cryptography`'s AEAD, and what is in it: ours is held against it."""

from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.tunnel.frames import Burst, Frames, source_of
from wgdisco.tunnel.messages import TRANSPORT, TRANSPORT_HEADER, TRANSPORT_HEADER_SIZE
from wgdisco.tunnel.reference import inner_size, padded_size
from wgdisco.tunnel.segment import split

_NONCE_PREFIX = bytes(4)


def packets_in(frames: Iterable[Frames]) -> list[bytes]:
    """The packets that frames stand for."""
    return [packet for some in frames for frame in some for packet in split(bytes(frame)) or ()]


def inner_packet(plain: bytes) -> tuple[bytes, bytes] | None:
    """An IP packet without its padding, and its source address; None when it is no packet."""
    packet = plain[: inner_size(plain)]
    source = source_of(packet)
    return None if source is None else (packet, source)


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
