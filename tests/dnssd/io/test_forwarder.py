"""Forwarding over real sockets, to resolvers on the loopback that answer as they are told."""

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager

import dns.message
import dns.rcode
import pytest

from tests.system.name_server import reply_to
from wgdisco.dnssd.forwarding import EACH_MAX, Passed
from wgdisco.dnssd.io import forwarder
from wgdisco.dnssd.io.forwarder import ATTEMPTS, Forwarder, Resolvers
from wgdisco.endpoint import Endpoint, parse_address

ASKER = "10.0.0.2"
ANSWER = "192.0.2.80"
STRANGER = "203.0.113.9"


class Upstream(asyncio.DatagramProtocol):
    """Keeps what it is asked and from where; `answers` makes of it what is sent back, in order."""

    def __init__(self):
        self.asked = []
        self.answers = lambda query: [reply_to(query, ANSWER, whole=False)]

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        self.asked.append((data, source))
        for answer in self.answers(data):
            self.transport.sendto(answer, source)

    async def tcp(self, reader, writer):
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = reply_to(await reader.readexactly(size), ANSWER, whole=True)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


@asynccontextmanager
async def upstream():
    """A resolver, and a forwarder that asks it alone."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(Upstream, ("127.0.0.1", port))
    tcp = await asyncio.start_server(server.tcp, sock=listener)
    resolver = Endpoint(parse_address("127.0.0.1"), port)
    passing = Forwarder(lambda: (resolver,), lambda asker: asker != STRANGER, "wg.internal.")
    try:
        yield server, passing
    finally:
        await passing.close()
        transport.close()
        tcp.close()
        await tcp.wait_closed()


async def ask(passing, name="www.example.net", rdtype="A", *, whole=False):
    reply = asyncio.get_running_loop().create_future()
    assert passing.forward(dns.message.make_query(name, rdtype).to_wire(), ASKER, reply.set_result, whole=whole)
    return dns.message.from_wire(await reply)


@contextmanager
def patience(seconds):
    before, forwarder.TIMEOUT = forwarder.TIMEOUT, seconds
    try:
        yield
    finally:
        forwarder.TIMEOUT = before


def test_answers_come_and_each_query_has_an_id_and_a_port_of_its_own():
    async def run():
        async with upstream() as (server, passing):
            replies = await asyncio.gather(*(ask(passing) for _ in range(16)))
            assert {str(reply.answer[0][0]) for reply in replies} == {ANSWER}
            assert len({data[:2] for data, _ in server.asked}) > 12
            assert len({source for _, source in server.asked}) == 16
            assert len({data[12:] for data, _ in server.asked}) > 12

    asyncio.run(run())


def test_forged_answers_before_the_right_one_change_nothing():
    async def run():
        async with upstream() as (server, passing):

            def answers(query):
                right = reply_to(query, ANSWER, whole=False)
                wrong = reply_to(query, "203.0.113.66", whole=False)
                yield bytes([wrong[0] ^ 1]) + wrong[1:]
                yield wrong[:12] + wrong[12:].swapcase()
                yield b"\xff" * 40
                yield right

            server.answers = answers
            assert str((await ask(passing)).answer[0][0]) == ANSWER

    asyncio.run(run())


def test_what_does_not_fit_is_cut_for_a_datagram_and_whole_by_tcp():
    async def run():
        async with upstream() as (_, passing):
            cut = await ask(passing, rdtype="TXT")
            assert cut.flags & dns.flags.TC
            whole = await ask(passing, rdtype="TXT", whole=True)
            assert len(whole.answer[0][0].strings) == 8

    asyncio.run(run())


def test_silence_is_told_after_some_attempts_of_which_the_last_is_spelled_as_asked():
    async def run():
        async with upstream() as (server, passing):
            server.answers = lambda _query: []
            reply = await ask(passing, "www.example.net")
            assert reply.rcode() == dns.rcode.SERVFAIL
            assert len(server.asked) == ATTEMPTS
            assert passing.counts == {Passed.UNANSWERED: 1}
            assert server.asked[-1][0][12:29] == b"\3www\7example\3net\0"
            local = await ask(passing, "printer.local")
            assert local.rcode() == dns.rcode.NXDOMAIN
            assert len(server.asked) == ATTEMPTS

    with patience(0.05):
        asyncio.run(run())


def test_one_asker_has_no_more_outstanding_than_its_share():
    async def run():
        async with upstream() as (server, passing):
            server.answers = lambda _query: []
            query = dns.message.make_query("www.example.net", "A").to_wire()
            taken = [passing.forward(query, ASKER, lambda _reply: None, whole=False) for _ in range(EACH_MAX + 5)]
            assert taken == [True] * EACH_MAX + [False] * 5
            assert passing.counts == {Passed.TOO_MANY: 5}
            assert passing.forward(query, "10.0.0.3", lambda _reply: None, whole=False)
            assert not passing.forward(query, STRANGER, lambda _reply: None, whole=False)

    asyncio.run(run())


@pytest.mark.parametrize("text", ["", "# nameserver 192.0.2.1\noptions edns0\n", "nameserver\nnameserver here\n"])
def test_no_resolvers(tmp_path, text):
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert Resolvers(path=path).now() == ()
    assert Resolvers(path=tmp_path / "none").now() == ()


def test_resolvers_are_those_of_the_file_as_it_is_now_but_not_ourselves(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.7.0.1\nnameserver 192.0.2.1\nnameserver fd00::1 \n nameserver 192.0.2.2\n")
    resolvers = Resolvers([parse_address("10.7.0.1"), parse_address("fd00::1")], path)
    assert [str(one) for one in resolvers.now()] == ["192.0.2.1:53", "192.0.2.2:53"]
    path.unlink()
    path.write_text("nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    assert [str(one) for one in resolvers.now()] == ["127.0.0.53:53", "192.0.2.1:53", "192.0.2.2:53"]
