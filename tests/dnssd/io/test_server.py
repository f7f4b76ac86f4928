"""The server on loopback sockets, asked by dnspython and by hand."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from tests.dnssd.goldenzone import ALICE, golden_zone
from wgdisco.dnssd.io import batch
from wgdisco.dnssd.io import connections as connections_module
from wgdisco.dnssd.io.connections import Became
from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.responder import Profile, Responder
from wgdisco.dnssd.tally import Kind
from wgdisco.errors import LocalError
from wgdisco.machine import port_owner

SERVICE = "_wireguard._udp.example.com."
COMM = Path("/proc/self/comm").read_text().strip()
ALICE_NAME = f"{ALICE.to_label()}.{SERVICE}"


@asynccontextmanager
async def serving(*addresses: str, profile=Profile.STRICT, answerer=None):
    server = DnsServer()
    responder = answerer or Responder(golden_zone(), profile)
    await server.start(responder, [(ip_address(address), 0) for address in addresses or ("127.0.0.1",)])
    try:
        yield server
    finally:
        await server.close()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_answers_by_udp_and_tcp(address):
    async def main():
        async with serving(address) as server:
            port = server.endpoints[0].port
            query = dns.message.make_query(ALICE_NAME, "SRV")
            for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
                reply = await ask(query, address, port=port, timeout=5)
                assert reply.answer[0][0].port == 7777

    asyncio.run(main())


@pytest.mark.parametrize(("wildcard", "queried"), [("0.0.0.0", "127.0.0.2"), ("::", "::1")])
def test_wildcard_replies_from_the_address_queried_and_tells_it(wildcard, queried):
    async def main():
        async with serving(wildcard, profile=Profile.WGSD_EXACT) as server:
            own = golden_zone().own
            query = dns.message.make_query(f"{own.key.to_label()}.{SERVICE}", "SRV")
            for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
                # dnspython refuses a UDP reply from another address than it sent to
                reply = await ask(query, queried, port=server.endpoints[0].port, timeout=5)
                assert reply.additional[0][0].address == queried

    asyncio.run(main())


def test_serves_several_addresses():
    async def main():
        async with serving("127.0.0.1", "127.0.0.2", "::1") as server:
            assert [str(endpoint.address) for endpoint in server.endpoints] == ["127.0.0.1", "127.0.0.2", "::1"]
            for endpoint in server.endpoints:
                query = dns.message.make_query(SERVICE, "PTR")
                reply = await dns.asyncquery.udp(query, str(endpoint.address), port=endpoint.port, timeout=5)
                assert reply.rcode() == dns.rcode.NOERROR

    asyncio.run(main())


def test_a_burst_is_answered_whole():
    async def main():
        async with serving() as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(("127.0.0.1", server.endpoints[0].port))
                for message_id in range(150):
                    client.send(dns.message.make_query(SERVICE, "PTR", id=message_id).to_wire())
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(10):
                    ids = [(await loop.sock_recv(client, 512))[:2] for _ in range(150)]
                assert ids == [message_id.to_bytes(2, "big") for message_id in range(150)]

    asyncio.run(main())


def test_where_many_ask_it_looks_now_and_then_and_answers_all(monkeypatch):
    monkeypatch.setattr(batch, "_PAUSE", 0.05)

    async def main():
        loop = asyncio.get_running_loop()
        async with serving() as server, asyncio.timeout(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.setblocking(False)
                asker.connect(("127.0.0.1", server.endpoints[0].port))
                paused = 0
                for burst in (*[1] * 30, 20, 20, *[1] * 30):
                    for number in range(burst):
                        query = dns.message.make_query(ALICE_NAME, "SRV", id=number).to_wire()
                        await loop.sock_sendall(asker, query)
                    replies = {(await loop.sock_recv(asker, 4096))[:2] for _ in range(burst)}
                    assert replies == {number.to_bytes(2, "big") for number in range(burst)}
                    paused += server._batches[0]._pausing is not None
            assert 2 < paused < 40

    asyncio.run(main())


def test_garbage_leaves_the_server_answering():
    async def main():
        async with serving() as server:
            port = server.endpoints[0].port
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for garbage in (b"", b"\xff" * 11, b"\x00" * 12, os.urandom(500)):
                    client.sendto(garbage, ("127.0.0.1", port))
            reply = await dns.asyncquery.udp(dns.message.make_query(SERVICE, "PTR"), "127.0.0.1", port=port, timeout=5)
            assert reply.rcode() == dns.rcode.NOERROR

    asyncio.run(main())


@pytest.mark.rule("DNS6")
def test_tcp_queries_may_be_pipelined_and_arrive_in_pieces():
    async def main():
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.endpoints[0].port)
            stream = b"".join(
                framed(dns.message.make_query(SERVICE, "PTR", id=message_id).to_wire()) for message_id in range(5)
            )
            writer.write(stream[:50])
            await writer.drain()
            writer.write(stream[50:])
            async with asyncio.timeout(5):
                ids = [dns.message.from_wire(await read_framed(reader)).id for _ in range(5)]
            assert ids == [0, 1, 2, 3, 4]
            writer.close()

    asyncio.run(main())


def test_pipelined_queries_leave_the_loop_to_others():
    """A browse of a large zone costs milliseconds a reply: pipelined queries must not stop the rest of a daemon."""

    async def main():
        class Counting(Responder):
            def answer(self, *args):
                asked_at.append(turns)
                return super().answer(*args)

        async with serving(answerer=Counting(golden_zone())) as server:
            turns = 0
            asked_at = []
            stream = framed(dns.message.make_query(SERVICE, "PTR").to_wire()) * 50
            connections = [await asyncio.open_connection("127.0.0.1", server.endpoints[0].port) for _ in range(4)]
            for _, writer in connections:
                writer.write(stream)
            async with asyncio.timeout(10):
                while len(asked_at) < 200:
                    await asyncio.sleep(0)
                    turns += 1
            assert max(asked_at.count(turn) for turn in set(asked_at)) <= 2 * connections_module.TURN_REPLIES
            for _, writer in connections:
                writer.close()

    asyncio.run(main())


def test_a_message_that_gets_no_reply_leaves_the_connection_open():
    async def main():
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.endpoints[0].port)
            writer.write(
                framed(b"") + framed(b"short") + framed(dns.message.make_query(SERVICE, "PTR", id=9).to_wire())
            )
            async with asyncio.timeout(5):
                assert dns.message.from_wire(await read_framed(reader)).id == 9
            writer.close()

    asyncio.run(main())


@pytest.mark.rule("DNS6")
def test_idle_connections_are_closed(monkeypatch):
    monkeypatch.setattr(connections_module, "IDLE_TIMEOUT", 0.05)

    async def main():
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.endpoints[0].port)
            writer.write(b"\x00")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


@pytest.mark.rule("DNS6")
def test_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(connections_module, "CONNECTIONS_MAX", 2)

    async def main():
        async with serving() as server, asyncio.timeout(5):
            port = server.endpoints[0].port
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(framed(dns.message.make_query(SERVICE, "PTR", id=7).to_wire()))
            assert (await read_framed(reader))[:2] == b"\0\x07", "who has a question is let in"
            with suppress(ConnectionError):
                assert await idle[0][0].read() == b"", "who was idle longest has gone"
            assert await still_open([reader for reader, _ in idle]) == 1
            for _, one in [*idle, (reader, writer)]:
                one.close()

    async def still_open(readers):
        reads = [asyncio.ensure_future(reader.read()) for reader in readers]
        done, waiting = await asyncio.wait(reads, timeout=0.1)
        await asyncio.gather(*done, return_exceptions=True)
        for one in waiting:
            one.cancel()
        return len(waiting)

    asyncio.run(main())


def test_close_ends_connections_and_frees_the_port():
    async def main():
        async with serving() as server:
            endpoint = server.endpoints[0]
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(framed(dns.message.make_query(SERVICE, "PTR").to_wire()))
            await read_framed(reader)
            await server.close()
            async with asyncio.timeout(5):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await read_framed(reader)
            writer.close()
            await server.start(Responder(golden_zone()), [(endpoint.address, endpoint.port)])
            assert server.endpoints == (endpoint,)

    asyncio.run(main())


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_in_use_names_the_process(kind):
    async def main():
        with socket.socket(socket.AF_INET, kind) as holder:
            holder.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                holder.listen()
            port = holder.getsockname()[1]
            server = DnsServer()
            with pytest.raises(LocalError) as caught:
                await server.start(Responder(golden_zone()), [(ip_address("127.0.0.1"), port)])
            name = "udp" if kind == socket.SOCK_DGRAM else "tcp"
            assert str(caught.value) == (
                f"DNS cannot listen on {name} 127.0.0.1:{port}: the port is in use by {COMM} (pid {os.getpid()})"
            )

    asyncio.run(main())


def test_a_failed_start_leaves_nothing_bound():
    async def main():
        server = DnsServer()
        with pytest.raises(LocalError, match="no such address"):
            await server.start(Responder(golden_zone()), [(ip_address("127.0.0.1"), 0), (ip_address("192.0.2.1"), 0)])
        assert server.endpoints == ()

    asyncio.run(main())


def test_a_free_port_is_nobodys():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert port_owner(port, "udp") is None
    assert port_owner(port, "tcp") is None


def test_who_does_not_read_takes_bounded_memory_and_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(connections_module, "HELD_MAX", 1 << 19)
    monkeypatch.setattr(connections_module, "TURN_TIME", 0.0)

    async def main():
        async with serving(answerer=Large()) as server, asyncio.timeout(10):
            port = server.endpoints[0].port
            stream = framed(dns.message.make_query(SERVICE, "PTR").to_wire()) * 10_000
            greedy = [await asyncio.open_connection("127.0.0.1", port, limit=1024) for _ in range(20)]
            for _, writer in greedy:
                writer.write(stream)
            held = server._connections
            while len(held._open) < len(greedy):  # noqa: ASYNC110  they come as the kernel has it
                await asyncio.sleep(0)
            while len(held._open) == len(greedy):
                await asyncio.sleep(0)
                assert held._held <= 1 << 19
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(framed(dns.message.make_query(SERVICE, "PTR", id=7).to_wire()))
            assert (await read_framed(reader))[:2] == b"\0\x07", "a first question does not wait for all others"
            for _, one in [*greedy, (reader, writer)]:
                one.transport.abort()
            while held._open:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert held._held == 0

    asyncio.run(main())


def test_who_does_not_read_is_ended_before_those_that_are_only_idle(monkeypatch):
    monkeypatch.setattr(connections_module, "HELD_MAX", 1 << 19)

    async def main():
        async with serving(answerer=Large()) as server, asyncio.timeout(30):
            port = server.endpoints[0].port
            question = framed(dns.message.make_query(SERVICE, "PTR", id=7).to_wire())
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(question)
            await read_framed(reader)
            greedy = [await asyncio.open_connection("127.0.0.1", port, limit=1024) for _ in range(20)]
            for _, one in greedy:
                one.write(question * 10_000)
            counts = server._connections.counts
            while counts[Became.TOO_MUCH] < 10:  # noqa: ASYNC110  as the kernel has it
                await asyncio.sleep(0)
            writer.write(question)
            assert (await read_framed(reader))[:2] == b"\0\x07", "it was idle for longer than any of them"
            assert server.tally()[Kind.CONNECTIONS]["ended: too much unread"] == counts[Became.TOO_MUCH]
            for _, one in [*greedy, (reader, writer)]:
                one.transport.abort()

    asyncio.run(main())


class Large:
    """Answers with as much as there can be."""

    def answer(self, query, source, local_address, transport):
        return query[:2] + bytes(60_000)
