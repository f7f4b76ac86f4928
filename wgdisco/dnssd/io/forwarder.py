"""Queries passed on to the host's own resolvers, each from a socket of its own: the port is as random as the id."""

import asyncio
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import dns.name

from wgdisco.dnssd.forwarding import Budget, Passed, Query, read_query
from wgdisco.endpoint import Endpoint, IPAddress, parse_address

DNS_PORT = 53
# How long each answer is waited for, and how often it is asked for at all, in turn of the resolvers
TIMEOUT = 2.0
ATTEMPTS = 3
RESOLVERS_MAX = 3  # as resolv.conf(5)

_REPLY_MAX_SIZE = 65535
# Datagrams that answer nothing we asked are read past so many; then somebody guesses
_STRAY_MAX = 50

Deliver = Callable[[bytes], None]


class Resolvers:
    """Those of a resolv.conf(5), as the file is now, but none of `without`: we do not ask ourselves."""

    def __init__(self, without: Iterable[IPAddress] = (), path: Path = Path("/etc/resolv.conf")) -> None:
        self._without = frozenset(without)
        self._path = path
        self._read: tuple[int, int] | None = None
        self._found: tuple[Endpoint, ...] = ()

    def now(self) -> tuple[Endpoint, ...]:
        """At most three, the first first; none where there is no file."""
        try:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._read:
                self._found = tuple(self._parsed(self._path.read_text(errors="replace")))[:RESOLVERS_MAX]
                self._read = status.st_ino, status.st_mtime_ns
        except OSError:
            self._found, self._read = (), None
        return self._found

    def _parsed(self, text: str) -> Iterable[Endpoint]:
        for line in text.splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with suppress(ValueError):
                    address = parse_address(words[1])
                    if address not in self._without and not address.is_unspecified:
                        yield Endpoint(address, DNS_PORT)


class Forwarder:
    """Asks `resolvers()` about what is not in `zone`, for askers that it `serves`. `close` ends it.

    `counts` only grow.
    """

    def __init__(self, resolvers: Callable[[], tuple[Endpoint, ...]], serves: Callable[[str], bool], zone: str) -> None:
        self._resolvers = resolvers
        self._serves = serves
        self._zone = dns.name.from_text(zone)
        self.counts: Counter[Passed] = Counter()
        self._budget = Budget()
        self._tasks: set[asyncio.Task[None]] = set()

    def forward(self, query: bytes, asker: str, deliver: Deliver, *, whole: bool) -> bool:
        """Have the query answered: `deliver` is called with the reply, once, later. False for what is not passed on.

        `whole`: the reply may be of any size, since the asker uses TCP.
        """
        if not self._serves(asker):
            return False
        if not self._budget.take(asker):
            self.counts[Passed.TOO_MANY] += 1
            return False
        asked = read_query(query, self._zone)
        if asked is None:
            self._budget.give_back(asker)
            return False
        task = asyncio.ensure_future(self._answer(asked, deliver, whole=whole))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._budget.give_back(asker)

        task.add_done_callback(ended)
        return True

    async def close(self) -> None:
        """Ask no more; who waits gets no reply. May be called twice."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, asked: Query, deliver: Deliver, *, whole: bool) -> None:
        reply = None
        resolvers = () if asked.is_local else self._resolvers()
        for attempt in range(ATTEMPTS if resolvers else 0):
            resolver = resolvers[attempt % len(resolvers)]
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT):
                    # the last time as the asker spells it: there are resolvers that answer in small letters
                    bits = None if attempt == ATTEMPTS - 1 else secrets.randbits(256)
                    reply = await _ask(asked, resolver, bits, whole=whole)
            if reply is not None:
                break
        self.counts[Passed.UNANSWERED if reply is None else Passed.ANSWERED] += 1
        deliver(asked.failed() if reply is None else reply)


async def _ask(asked: Query, resolver: Endpoint, bits: int | None, *, whole: bool) -> bytes | None:
    """By UDP, and by TCP what does not fit there, for who can take it."""
    sent = asked.to_upstream(secrets.randbits(16), bits)
    target = (str(resolver.address), resolver.port)
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if resolver.address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
        # connected: nobody else is heard; an unreachable resolver is known at once
        udp.connect(socket.getaddrinfo(*target, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4])
        await loop.sock_sendall(udp, sent)
        for _ in range(_STRAY_MAX):
            data = await loop.sock_recv(udp, _REPLY_MAX_SIZE)
            reply = asked.to_asker(data, sent, _REPLY_MAX_SIZE if whole else asked.size)
            if reply is not None:
                break
        else:
            return None
    return await _ask_by_tcp(asked, target, sent) if whole and asked.is_cut(reply) else reply


async def _ask_by_tcp(asked: Query, target: tuple[str, int], sent: bytes) -> bytes | None:
    reader, writer = await asyncio.open_connection(*target)
    try:
        writer.write(len(sent).to_bytes(2, "big") + sent)
        size = int.from_bytes(await reader.readexactly(2), "big")
        return asked.to_asker(await reader.readexactly(size), sent, _REPLY_MAX_SIZE)
    finally:
        writer.transport.abort()
