"""Scenario 2: traffic of every kind, over both outer protocols, at MTUs small, usual, full and large.

::

    n1                        n0                           n2
    wg1 192.168.241.1 ── 127.0.0.1:1   127.0.0.1:2 ── 192.168.241.2 wg2
        fd00::1              [::1]:1       [::1]:2          fd00::2
"""

import pytest

from tests.system.tunnel.bed import Bed, loopback_pair

pytestmark = pytest.mark.usefixtures("needs_lab")

MEGABYTES = 16
OUTER = {"v4": "127.0.0.1", "v6": "[::1]"}


@pytest.fixture(scope="module", params=OUTER)
def pair(request):
    """Bed and both tunnels, the outer packets over the protocol of the parameter."""
    with Bed("n0", "n1", "n2") as bed:
        wg1, wg2 = loopback_pair(bed)
        wg1.set("peer", wg2.public, "endpoint", f"{OUTER[request.param]}:2")
        wg2.set("peer", wg1.public, "endpoint", f"{OUTER[request.param]}:1")
        yield bed, wg1, wg2


@pytest.mark.rule("N2", "D8", "M2")
@pytest.mark.parametrize("mtu", [1420, 1280, 1500, 34736])
def test_pings_and_streams_cross(pair, mtu):
    """Flood pings, TCP, UDP and four TCP streams at once, each way in one of IPv4 and IPv6. The MTU changes live.

    ::

        n2 ── 10 x ping -f, of both protocols ──► n1        and back
        n1 ── TCP 16 MB over IPv4 ──► n2     n2 ── TCP over IPv6 ──► n1
        n2 ── UDP 16 MB over IPv4 ──► n1     n1 ── UDP over IPv6 ──► n2     in order, as fast as it can: it may lose
        n1 ── 4 x TCP over IPv4 ──► n2
    """
    bed, wg1, wg2 = pair
    wg1.up(mtu)
    wg2.up(mtu)
    for number in (1, 2):
        for address in (f"192.168.241.{number}", f"fd00::{number}"):
            assert bed.ping(f"n{3 - number}", address, "-f", count=10) == 10
    for client, server, address, streams in (
        ("n1", "n2", "192.168.241.2", 1),
        ("n2", "n1", "fd00::1", 1),
        ("n1", "n2", "192.168.241.2", 4),
    ):
        report = bed.iperf(client, server, address, "-P", str(streams), size=f"{MEGABYTES}M")
        assert report["sum_sent"]["bytes"] >= MEGABYTES << 20
        assert report["sum_received"]["bytes"] > 0  # counted before all is there

        assert len(report["streams"]) == streams
    for client, server, address in (("n2", "n1", "192.168.241.1"), ("n1", "n2", "fd00::2")):
        report = bed.iperf(client, server, address, "-u", "-b", "0", size=f"{MEGABYTES}M")
        (stream,) = report["streams"]
        assert stream["udp"]["out_of_order"] == 0
        assert stream["udp"]["lost_percent"] < 100
