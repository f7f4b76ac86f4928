"""The listener for Prometheus, on real sockets of the loopback."""

import asyncio
import logging
import socket
from contextlib import asynccontextmanager, closing
from ipaddress import ip_address

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.metrics import Histogram, Kind, Metric
from wgdisco.tunnel.io.exposition import CONNECTIONS_MAX, MetricsListener, expose

TIMES = Metric("wgdisco_times_total", Kind.COUNTER, "How often it was asked.")
REASONS = Metric("wgdisco_reasons", Kind.GAUGE, 'Backslash \\ and "quotes".', ("reason",))
TOOK = Metric("wgdisco_took_seconds", Kind.HISTOGRAM, "How long it took.", ("path",))


class Source:
    """Counts how often it is asked."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return [TIMES.of(self.times)]


@asynccontextmanager
async def listening(where, source):
    listener = MetricsListener(where, source)
    await listener.start()
    try:
        yield
    finally:
        await listener.close()
        await listener.close()


def free_endpoint(address="127.0.0.1"):
    with closing(socket.create_server((address, 0))) as listener:
        return Endpoint(ip_address(address), listener.getsockname()[1])


async def ask(where, head):
    reader, writer = await asyncio.open_connection(str(where.address), where.port)
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


def test_values_are_written_as_prometheus_reads_them():
    histogram = Histogram((0.1, 1.0))
    histogram.observe(0.5)
    families = [REASONS.by({'a "b"\n': 1, "c": 2}), TOOK.by({"direct": histogram.buckets()})]
    text = asyncio.run(expose(lambda: families, ""))[0].decode().split("# HELP process_")[0]
    assert text == (
        '# HELP wgdisco_reasons Backslash \\\\ and "quotes".\n'
        "# TYPE wgdisco_reasons gauge\n"
        'wgdisco_reasons{reason="a \\"b\\"\\n"} 1.0\n'
        'wgdisco_reasons{reason="c"} 2.0\n'
        "# HELP wgdisco_took_seconds How long it took.\n"
        "# TYPE wgdisco_took_seconds histogram\n"
        'wgdisco_took_seconds_bucket{le="0.1",path="direct"} 0.0\n'
        'wgdisco_took_seconds_bucket{le="1.0",path="direct"} 1.0\n'
        'wgdisco_took_seconds_bucket{le="+Inf",path="direct"} 1.0\n'
        'wgdisco_took_seconds_count{path="direct"} 1.0\n'
        'wgdisco_took_seconds_sum{path="direct"} 0.5\n'
    )


def test_who_asks_again_at_once_is_told_the_same():
    source, where = Source(), free_endpoint()

    async def scenario():
        async with listening(where, source):
            head = f"GET /metrics HTTP/1.1\r\nHost: {where}"
            answers = [await ask(where, head) for _ in range(5)]
            assert all("wgdisco_times_total 1.0" in answer for answer in answers)
            assert (await ask(where, f"GET / HTTP/1.1\r\nHost: {where}")).startswith("HTTP/1.1 404")
            assert (await ask(where, f"POST /metrics HTTP/1.1\r\nHost: {where}")).startswith("HTTP/1.1 405")

    asyncio.run(scenario())
    assert source.times == 1


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:9", 200), ("localhost", 200), ("[::1]:9", 200), ("a.b", 421)])
def test_on_the_loopback_only_an_address_is_a_host(host, status):
    where = free_endpoint()

    async def scenario():
        async with listening(where, Source()):
            return await ask(where, f"GET /metrics HTTP/1.1\r\nHost: {host}")

    assert asyncio.run(scenario()).startswith(f"HTTP/1.1 {status} ")


def test_those_who_connect_and_say_nothing_keep_nobody_out():
    where = free_endpoint()

    async def scenario():
        async with listening(where, Source()):
            silent = [await asyncio.open_connection(str(where.address), where.port) for _ in range(3 * CONNECTIONS_MAX)]
            answer = await ask(where, f"GET /metrics HTTP/1.1\r\nHost: {where}")
            async with asyncio.timeout(5):
                ended = [await reader.read() for reader, _ in silent[:CONNECTIONS_MAX]]
            for _, writer in silent:
                writer.close()
            return answer, ended

    answer, ended = asyncio.run(scenario())
    assert "wgdisco_times_total" in answer
    assert ended == [b""] * CONNECTIONS_MAX


def test_a_port_that_is_taken_is_one_line():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        where = Endpoint(ip_address("127.0.0.1"), taken.getsockname()[1])

        async def scenario():
            async with listening(where, Source()):
                pass

        with pytest.raises(LocalError, match=r"--metrics: cannot listen on 127.0.0.1:\d+ .*: Address already in use"):
            asyncio.run(scenario())


@pytest.mark.parametrize(("address", "warnings"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_beyond_the_loopback_it_says_so(address, warnings, caplog):
    where = free_endpoint(address)

    async def scenario():
        async with listening(where, Source()):
            pass

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == (
        [f"metrics are told to whoever can reach {where}"] * warnings
    )
