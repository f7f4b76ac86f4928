"""ICMP echo (RFC 792, RFC 4443 section 4.1) to an address inside the tunnel: whether it answers, and how soon.

By a ping socket where the system lets this user have one (`net.ipv4.ping_group_range`), else by a raw one.
"""

import asyncio
import os
import socket
import struct
import time
from contextlib import suppress
from typing import Self

from wgdisco.endpoint import IPAddress
from wgdisco.errors import LocalError

_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_NONCE_SIZE = 16
# Request and reply
_TYPES = {4: (8, 0), 6: (128, 129)}
_FAMILIES = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}


class Echo:
    """Asks `address`, by `interface` alone where the system allows that; a context manager.

    LocalError when this user may have no such socket.
    """

    def __init__(self, address: IPAddress, interface: str) -> None:
        self._address = address
        self._sequence = 0
        family, protocol = _FAMILIES[address.version]
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM, protocol)
        except OSError:
            try:
                self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
            except OSError as error:
                raise LocalError("this user may not send pings: use sudo") from error
        self._socket.setblocking(False)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self) -> bytes:
        """Ask once, and return what the answer is known by. What cannot be sent is as good as lost."""
        self._sequence = (self._sequence + 1) % 65536
        nonce = os.urandom(_NONCE_SIZE)
        request, _ = _TYPES[self._address.version]
        packet = _HEADER.pack(request, 0, 0, os.getpid() & 0xFFFF, self._sequence) + nonce
        if self._address.version == 4:  # of ICMPv6 the kernel computes it
            packet = packet[:2] + _checksum(packet).to_bytes(2, "big") + packet[4:]
        with suppress(OSError):
            self._socket.sendto(packet, (str(self._address), 0))
        return nonce

    async def ask(self, within: float) -> float | None:
        """Ask once; the round-trip time in seconds, None without an answer in that many seconds."""
        began = time.monotonic()
        nonce = self.send()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    data, _ = await asyncio.get_running_loop().sock_recvfrom(self._socket, 2048)
                    if self._is_answer(data, nonce):
                        return time.monotonic() - began
        return None

    def _is_answer(self, data: bytes, nonce: bytes) -> bool:
        """A raw socket of IPv4 hears all of ICMP, and with the IP header; nobody else knows the nonce."""
        _, reply = _TYPES[self._address.version]
        if self._socket.type == socket.SOCK_RAW and self._address.version == 4:
            data = data[(data[0] & 15) * 4 :] if data else data
        return data[:1] == bytes([reply]) and data[_HEADER.size :] == nonce


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
