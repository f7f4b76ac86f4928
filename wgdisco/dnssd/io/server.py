"""The responder on UDP and TCP sockets.

A reply leaves from the address its query came to, on a wildcard socket too. UDP is drained in bounded runs, so that a
flood leaves the loop to others between two of them.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from wgdisco.dnssd.forwarding import is_refused
from wgdisco.dnssd.io import batch
from wgdisco.dnssd.io.bind import ANCILLARY_SIZE, Ancillary, bind_pair, read_pktinfo
from wgdisco.dnssd.io.connections import Connections
from wgdisco.dnssd.io.forwarder import Forwarder
from wgdisco.dnssd.io.transfer import Transfers
from wgdisco.dnssd.responder import Answerer, Transport
from wgdisco.dnssd.tally import Kind, Tally
from wgdisco.endpoint import Endpoint, IPAddress, parse_address
from wgdisco.errors import LocalError

DRAIN_MAX = batch.BATCH

# a query that is longer is cut, and then no query
_QUERY_MAX_SIZE = batch.QUERY_MAX_SIZE


class DnsServer:
    """Serves on any number of addresses.

    With `transfers`, the zone's secondaries are answered by that, wherever they ask.
    """

    def __init__(self, transfers: Transfers | None = None) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self._unsent = 0
        self._batches: list[batch.Batch] = []
        self._udp: list[socket.socket] = []
        self._transfers = transfers
        self._connections = Connections(transfers)

    def tally(self) -> Tally:
        """What the kernel did not take, and what became of connections."""
        unsent = self._unsent + sum(batch.unsent for batch in self._batches)
        connections = Counter({what.value: count for what, count in self._connections.counts.items()})
        return {Kind.DROPS: Counter({"unsent": unsent}), Kind.CONNECTIONS: connections}

    async def start(
        self, answerer: Answerer, addresses: Sequence[tuple[IPAddress, int]], interface: str | None = None
    ) -> None:
        """Bind UDP and TCP on each address and port (0: any free one, the same for both); see `endpoints` then.

        With `interface`, nobody is heard who does not come in by it. May be called again, for more.

        LocalError says which address failed and why, and nothing stays bound.
        """
        try:
            for address, port in addresses:
                udp, tcp = bind_pair(address, port, interface)
                await self.serve(answerer, address, udp, tcp)
        except LocalError:
            await self.close()
            raise

    async def serve(
        self,
        answerer: Answerer,
        address: IPAddress,
        udp: socket.socket,
        tcp: socket.socket,
        forwarder: Forwarder | None = None,
    ) -> None:
        """Answer at two sockets that are bound to `address` and one port; they are ours from now on.

        What the answerer refuses, `forwarder` may take.
        """
        await self._connections.listen(tcp, answerer, forwarder)
        self._udp.append(udp)
        if self._transfers is not None:
            answerer = _WithTransfers(answerer, self._transfers)
        loop = asyncio.get_running_loop()
        if address.is_unspecified:
            loop.add_reader(udp, self._drain_wildcard, udp, answerer)
        elif batch.is_possible():
            self._batches.append(batch.Batch(udp, answerer, _unmapped(address), forwarder))
            self._batches[-1].start()
        else:
            loop.add_reader(udp, self._drain, udp, answerer, _unmapped(address), forwarder)
        self.endpoints += (Endpoint(address, udp.getsockname()[1]),)

    async def close(self) -> None:
        """Release every socket and end every connection. May be called twice."""
        loop = asyncio.get_running_loop()
        for one in self._batches:
            one.close()
            self._unsent += one.unsent
        for udp in self._udp:
            loop.remove_reader(udp)
            udp.close()
        self._udp, self._batches, self.endpoints = [], [], ()
        await self._connections.close()

    def _drain(
        self, udp: socket.socket, answerer: Answerer, local_address: IPAddress, forwarder: Forwarder | None = None
    ) -> None:
        answer, receive, send, kind = answerer.answer, udp.recvfrom, udp.sendto, Transport.UDP
        for _ in range(DRAIN_MAX):
            try:
                query, source = receive(_QUERY_MAX_SIZE)
            except BlockingIOError:
                return
            except OSError:
                # an ICMP error about an earlier reply
                continue
            reply = answer(query, source[0], local_address, kind)
            if reply is not None:
                if forwarder is not None and is_refused(reply):
                    deliver = partial(self._send, udp, ancillary=[], target=source)
                    if forwarder.forward(query, source[0], deliver, whole=False):
                        continue
                try:
                    send(reply, source)
                except OSError:
                    # full buffer, no route, source port 0: the asker asks again
                    self._unsent += 1

    def _drain_wildcard(self, udp: socket.socket, answerer: Answerer) -> None:
        for _ in range(DRAIN_MAX):
            try:
                query, ancillary, _, source = udp.recvmsg(_QUERY_MAX_SIZE, ANCILLARY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue
            queried, reply_from = read_pktinfo(ancillary)
            reply = answerer.answer(query, source[0], queried, Transport.UDP)
            if reply is not None:
                self._send(udp, reply, reply_from, source)

    def _send(self, udp: socket.socket, reply: bytes, ancillary: Ancillary, target: Any) -> None:
        try:
            udp.sendmsg([reply], ancillary, 0, target)
        except OSError:
            # EBADF too: what was passed on is answered after we closed
            self._unsent += 1


class _WithTransfers:
    """Answers what secondaries ask by UDP, which is one message, and has the others answered by `answerer`."""

    def __init__(self, answerer: Answerer, transfers: Transfers) -> None:
        self._answerer = answerer
        self._transfers = transfers

    def answer(self, query: bytes, source: str, local_address: IPAddress | None, transport: Transport) -> bytes | None:
        """As the protocol has it."""
        replies = self._transfers.respond(query, source, transport)
        if replies is not None:
            return next(replies)
        return self._answerer.answer(query, source, local_address, transport)


def _unmapped(address: IPAddress) -> IPAddress:
    return parse_address(str(address))
