"""Scenario 8: a NAT between, whose mappings expire after 2 s, held open by a persistent keepalive."""

import time

import pytest

from tests.system.tunnel.bed import Bed, introduce

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
    with Bed("n0", "n1", "n2") as bed:
        bed.veth("n0", "vethrc", "n1", "vethc")
        bed.veth("n0", "vethrs", "n2", "veths")
        bed.address("n0", "vethrc", "192.168.1.1/24")
        bed.address("n0", "vethrs", "10.0.0.1/24")
        bed.address("n1", "vethc", "192.168.1.100/24")
        bed.address("n2", "veths", "10.0.0.100/24")
        bed.ip("n1", "route", "add", "default", "via", "192.168.1.1")
        bed.sysctl("n0", "net/ipv4/ip_forward", 1)
        nat = ["-s", "192.168.1.0/24", "-d", "10.0.0.0/24", "-j", "SNAT", "--to", "10.0.0.1"]
        bed.run("n0", "iptables", "-t", "nat", "-A", "POSTROUTING", *nat)
        for timeout in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            bed.sysctl("n0", f"net/netfilter/{timeout}", CONNTRACK_TIMEOUT)
        wg1, wg2 = bed.tunnel("wg1", "n1"), bed.tunnel("wg2", "n2")
        introduce(wg1, wg2)
        wg1.set("peer", wg2.public, "endpoint", "10.0.0.100:2", "persistent-keepalive", 1)
        assert bed.ping("n1", "192.168.241.2") == 1
        assert bed.ping("n2", "192.168.241.1") == 1
        assert wg2.endpoint(wg1.public) == "10.0.0.1:1"
        received = wg2.transfer(wg1.public)[0]
        time.sleep(CONNTRACK_TIMEOUT + 1)
        keepalives = (wg2.transfer(wg1.public)[0] - received) // 32
        assert CONNTRACK_TIMEOUT <= keepalives <= CONNTRACK_TIMEOUT + 2
        assert bed.ping("n2", "192.168.241.1") == 1
        wg1.set("peer", wg2.public, "persistent-keepalive", 0)
        time.sleep(CONNTRACK_TIMEOUT + 0.5)
        assert bed.ping("n2", "192.168.241.1") == 0
