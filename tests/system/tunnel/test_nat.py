"""Scenario 8: a NAT between, whose mappings expire after 2 s, held open by a persistent keepalive."""

import time

import pytest

from tests.system.tunnel.bed import across_a_nat

pytestmark = pytest.mark.usefixtures("needs_lab")

CONNTRACK_TIMEOUT = 2


@pytest.mark.rule("N8", "T9", "E1")
def test_keepalives_hold_a_nat_open():
    """
    ::

        n1 wg1 192.168.1.100 ── 192.168.1.1 n0, SNAT to 10.0.0.1 ── 10.0.0.100 wg2 n2
               keepalive 1 s                conntrack: 2 s
        n2 pings n1 after 3 s without traffic: answered. Without keepalives for as long: lost at the NAT
    """
    with across_a_nat("wg1", "wg2") as (bed, wg1, wg2):
        for timeout in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            bed.sysctl("n0", f"net/netfilter/{timeout}", CONNTRACK_TIMEOUT)
        wg1.set("peer", wg2.public, "persistent-keepalive", 1)
        assert bed.ping("n2", "192.168.241.1") == 1
        received = wg2.transfer(wg1.public)[0]
        time.sleep(CONNTRACK_TIMEOUT + 1)
        keepalives = (wg2.transfer(wg1.public)[0] - received) // 32
        assert CONNTRACK_TIMEOUT <= keepalives <= CONNTRACK_TIMEOUT + 2
        assert bed.ping("n2", "192.168.241.1") == 1
        wg1.set("peer", wg2.public, "persistent-keepalive", 0)
        time.sleep(CONNTRACK_TIMEOUT + 0.5)
        assert bed.ping("n2", "192.168.241.1", wait=1.0) == 0
