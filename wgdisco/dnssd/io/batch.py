"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), which Python does not have.

The kernel's structures lie in memory that is set up once; what changes from call to call (sizes, to whom) is written
into it as numbers. For 64-bit machines; on others datagrams are received one by one.

Where some thousands a second ask, most of a question's cost is to be woken for it: then the socket is looked at every
millisecond instead. Where more do, every look finds many, and there is no pause.
"""

import asyncio
import ctypes
import socket
import struct
from functools import partial
from typing import Any

from wgdisco.dnssd.forwarding import is_refused
from wgdisco.dnssd.io.forwarder import Forwarder
from wgdisco.dnssd.responder import Answerer, Transport
from wgdisco.endpoint import IPAddress

BATCH = 64
QUERY_MAX_SIZE = 4096

_REPLY_MAX_SIZE = 4096
_NAME_SIZE = 28  # struct sockaddr_in6, the larger one
_SOURCES_MAX = 16_384
# Between two looks, in seconds: begun when we are woken so often in less and each time for few, ended when few have
# come in it, and left out where more wait
_PAUSE = 0.001
_WAKES_MAX = 8
_FEW = 4
# struct mmsghdr in words of 8 bytes: name, size of it, iovec, count of it, control, size of it, flags, bytes received
_WORDS = 8
_NAME, _NAME_LENGTH, _PIECE, _PIECES = range(4)
_RECEIVED = 14  # in words of 4


def is_possible() -> bool:
    """Whether this machine has it."""
    return struct.calcsize("P") == 8 and _libc is not None


class Batch:
    """For one UDP socket, not blocking, that is bound to `address` and not to all. `unsent` counts replies.

    What the answerer refuses, `forwarder` may take. The socket is read from `start` to `close`, which leaves it open.
    """

    def __init__(
        self, udp: socket.socket, answerer: Answerer, address: IPAddress, forwarder: Forwarder | None = None
    ) -> None:
        self.unsent = 0
        self._forwarder = forwarder
        self._wakes = 0
        self._woken_at = 0.0
        self._pausing: asyncio.Handle | None = None
        self._udp = udp
        self._answer = answerer.answer
        self._local = address
        is_v4 = udp.family == socket.AF_INET
        self._address = slice(4, 8) if is_v4 else slice(8, 24)
        self._family = udp.family
        self._queries = memoryview(bytearray(BATCH * QUERY_MAX_SIZE))
        self._replies = memoryview(bytearray(BATCH * _REPLY_MAX_SIZE))
        self._names = memoryview(bytearray(BATCH * _NAME_SIZE))
        pieces_in, pieces_out = (memoryview(bytearray(BATCH * 16)) for _ in range(2))
        heads_in, heads_out = (memoryview(bytearray(BATCH * _WORDS * 8)) for _ in range(2))
        self._pieces_in = pieces_in  # the kernel alone looks at it: it has to stay
        self._sizes_out, self._out, self._in = pieces_out.cast("Q"), heads_out.cast("Q"), heads_in.cast("I")
        self._pointer_in, self._pointer_out = _address(heads_in), _address(heads_out)
        names = _address(self._names)
        self._name_at = [names + slot * _NAME_SIZE for slot in range(BATCH)]
        for heads, pieces, data, size in (
            (heads_in, pieces_in, self._queries, QUERY_MAX_SIZE),
            (heads_out, pieces_out, self._replies, _REPLY_MAX_SIZE),
        ):
            words, parts = heads.cast("Q"), pieces.cast("Q")
            for slot in range(BATCH):
                parts[2 * slot], parts[2 * slot + 1] = _address(data) + slot * size, size
                words[slot * _WORDS + _NAME] = self._name_at[slot]
                words[slot * _WORDS + _NAME_LENGTH] = 16 if is_v4 else _NAME_SIZE
                words[slot * _WORDS + _PIECE] = _address(pieces) + slot * 16
                words[slot * _WORDS + _PIECES] = 1
        self._sources: dict[bytes, str] = {}

    def start(self) -> None:
        """Answer from now on."""
        self._pausing = None
        asyncio.get_running_loop().add_reader(self._udp, self._woken)

    def close(self) -> None:
        """Do so no more."""
        asyncio.get_running_loop().remove_reader(self._udp)
        if self._pausing is not None:
            self._pausing.cancel()

    def _woken(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        is_few = self.answer() < _FEW
        self._wakes = self._wakes + 1 if is_few and now - self._woken_at < _PAUSE else 0
        self._woken_at = now
        if self._wakes >= _WAKES_MAX:
            self._wakes = 0
            loop.remove_reader(self._udp)
            self._pausing = loop.call_later(_PAUSE, self._look)

    def _look(self) -> None:
        """What came in the pause."""
        count = self.answer()
        if count < _FEW:
            self.start()
        else:
            pause = 0.0 if count == BATCH else _PAUSE
            self._pausing = asyncio.get_running_loop().call_later(pause, self._look)

    def answer(self) -> int:
        """Receive what waits, at most BATCH datagrams, and send the answers; how many there were."""
        answer, local = self._answer, self._local
        count = _libc.recvmmsg(self._udp.fileno(), self._pointer_in, BATCH, socket.MSG_DONTWAIT, None)
        replies = 0
        for slot in range(max(0, count)):
            start = slot * QUERY_MAX_SIZE
            query = bytes(self._queries[start : start + self._in[slot * 2 * _WORDS + _RECEIVED]])
            reply = answer(query, self._source(slot), local, Transport.UDP)
            if reply is None or (self._forwarder is not None and is_refused(reply) and self._is_passed_on(query, slot)):
                continue
            if len(reply) > _REPLY_MAX_SIZE:
                self._send_alone(self._name(slot), reply)
                continue
            self._replies[replies * _REPLY_MAX_SIZE : replies * _REPLY_MAX_SIZE + len(reply)] = reply
            self._sizes_out[2 * replies + 1] = len(reply)
            self._out[replies * _WORDS + _NAME] = self._name_at[slot]
            replies += 1
        sent = 0
        while sent < replies:
            head = self._pointer_out + sent * _WORDS * 8
            done = _libc.sendmmsg(self._udp.fileno(), head, replies - sent, socket.MSG_DONTWAIT)
            if done < 1:
                # full buffer, no route, source port 0: the asker asks again
                self.unsent += 1
            sent += max(1, done)
        return int(max(0, count))

    def _is_passed_on(self, query: bytes, slot: int) -> bool:
        assert self._forwarder is not None
        deliver = partial(self._send_alone, self._name(slot))
        return self._forwarder.forward(query, self._source(slot), deliver, whole=False)

    def _name(self, slot: int) -> bytes:
        return bytes(self._names[slot * _NAME_SIZE : (slot + 1) * _NAME_SIZE])

    def _source(self, slot: int) -> str:
        start = slot * _NAME_SIZE
        packed = bytes(self._names[start + self._address.start : start + self._address.stop])
        source = self._sources.get(packed)
        if source is None:
            if len(self._sources) >= _SOURCES_MAX:
                self._sources.clear()
            source = self._sources[packed] = socket.inet_ntop(self._family, packed)
        return source

    def _send_alone(self, name: bytes, reply: bytes) -> None:
        port, host = int.from_bytes(name[2:4], "big"), socket.inet_ntop(self._family, name[self._address])
        is_v4 = self._family == socket.AF_INET
        scope = 0 if is_v4 else int.from_bytes(name[24:28], "little")
        try:
            self._udp.sendto(reply, (host, port) if is_v4 else (host, port, 0, scope))
        except OSError:
            # EBADF too: what was passed on is answered after the socket was closed
            self.unsent += 1


def _load() -> Any:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "recvmmsg") or not hasattr(libc, "sendmmsg"):
        return None
    libc.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    return libc


def _address(memory: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


_libc = _load()
