"""Metrics as Prometheus reads them (text 0.0.4, or OpenMetrics by Accept), and a listener where one is asked for.

prometheus_client is imported by the first that asks: it takes a twentieth of a second.
"""

import asyncio
import importlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from wgdisco.endpoint import LOOPBACK, Endpoint, in_any
from wgdisco.errors import LocalError
from wgdisco.machine import boot_time, port_owner
from wgdisco.metrics import Buckets, Family, Kind, Metric

LOG = logging.getLogger(__name__)

PATH = "/metrics"
# Those of more than one Prometheus
CONNECTIONS_MAX = 16
# Whoever asks more often gets the same: at a large registry it costs time that packets wait for
RENEWED_EVERY = 1.0
IDLE_TIMEOUT = 120.0

# By prometheus_client, in every daemon
PROCESS = (
    Metric("process_cpu_seconds_total", Kind.COUNTER, "Total user and system CPU time spent in seconds."),
    Metric("process_resident_memory_bytes", Kind.GAUGE, "Resident memory size in bytes."),
    Metric("process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory size in bytes."),
    Metric("process_start_time_seconds", Kind.GAUGE, "Start time of the process since unix epoch in seconds."),
    Metric("process_open_fds", Kind.GAUGE, "Number of open file descriptors."),
    Metric("process_max_fds", Kind.GAUGE, "Maximum number of open file descriptors."),
)

Source = Callable[[], Iterable[Family]]


async def expose(source: Source, accept: str) -> tuple[bytes, str]:
    """What `source` has now and what this process takes, and its Content-Type, as asked for."""
    exposition = await asyncio.to_thread(importlib.import_module, "prometheus_client.exposition")
    encode, content_type = exposition.choose_encoder(accept)
    return encode(_Collected(source())), content_type


class Told:
    """What `source` has, not counted anew for each who asks."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: dict[bool, tuple[float, bytes, str]] = {}

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """As `expose`, at most RENEWED_EVERY seconds old."""
        at, body, content_type = self._kept.get("openmetrics" in accept, (float("-inf"), b"", ""))
        if boot_time() - at >= RENEWED_EVERY:
            body, content_type = await expose(self._source, accept)
            self._kept["openmetrics" in accept] = boot_time(), body, content_type
        return body, content_type


class _Collected:
    """What prometheus_client takes for a registry."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        from prometheus_client.process_collector import ProcessCollector  # noqa: PLC0415  see above

        yield from map(_converted, self._families)
        yield from ProcessCollector(registry=None).collect()


def _converted(family: Family) -> Any:
    from prometheus_client import core  # noqa: PLC0415  see above

    metric = family.metric
    kinds = {
        Kind.COUNTER: core.CounterMetricFamily,
        Kind.GAUGE: core.GaugeMetricFamily,
        Kind.HISTOGRAM: core.HistogramMetricFamily,
    }
    made = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in family.samples:
        if isinstance(value, Buckets):
            counts = [(_bound(bound), count) for bound, count in value.counts]
            made.add_metric(labels, counts, value.sum)
        else:
            made.add_metric(labels, value)
    return made


def _bound(bound: float) -> str:
    """A bound as a label has it."""
    return "+Inf" if bound == float("inf") else repr(float(bound))


class MetricsListener:
    """Answers whoever can reach it, and so tells nothing but numbers; on the loopback, no page of a browser either."""

    def __init__(self, listen: Endpoint, source: Source) -> None:
        self._listen = listen
        self._told = Told(source)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._runner: Any = None

    async def start(self) -> None:
        """Serve `GET /metrics`. LocalError when the endpoint cannot be had."""
        web = await asyncio.to_thread(importlib.import_module, "aiohttp.web")

        async def metrics(request: Any) -> Any:
            if in_any(self._listen.address, LOOPBACK) and not _is_literal(request.headers.get("Host", "")):
                return web.Response(status=421, text="ask by address: a name may be anybody's\n")
            body, content_type = await self._told.expose(request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type})

        application = web.Application()
        application.router.add_get(PATH, metrics)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=0.5, keepalive_timeout=IDLE_TIMEOUT
        )
        self._listener = await _bind(self._listen)
        await self._runner.setup()
        self._accepting = asyncio.ensure_future(self._accept(self._listener))
        if not in_any(self._listen.address, LOOPBACK):
            LOG.warning("metrics are told to whoever can reach %s", self._listen)

    async def close(self) -> None:
        """No more. Again does nothing, nor before it was started."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._accepting = self._listener = self._runner = None

    async def _accept(self, listener: socket.socket) -> None:
        """Let a few in: strangers may be able to ask."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(0.1)  # no descriptor left
                continue
            connections = self._runner.server.connections
            if len(connections) >= CONNECTIONS_MAX and connections[0].transport is not None:
                connections[0].transport.abort()  # the oldest: it may ask nothing, for ever
            try:
                await loop.connect_accepted_socket(self._runner.server, accepted)
            except OSError:
                accepted.close()


async def _bind(listen: Endpoint) -> socket.socket:
    family = socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(listen.address), listen.port))
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        owner = await asyncio.to_thread(port_owner, listen.port, "tcp")
        by = "" if owner is None else f" (in use by {owner})"
        raise LocalError(f"--metrics: cannot listen on {listen}{by}: {error.strerror}; give another port") from error
    return listener


def _is_literal(host: str) -> bool:
    """Whether a Host header is an address, or `localhost`, and not a name that a site has pointed here."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return name.lower() == "localhost"
