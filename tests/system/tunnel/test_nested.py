"""Scenario 7: a tunnel in a tunnel, and a loop of the two."""

import time

import pytest

from tests.system.tunnel.bed import Bed, new_psk

pytestmark = pytest.mark.usefixtures("needs_lab")

LOOP_LIMIT = 70_000  # bytes, of ten pings


@pytest.mark.rule("N7")
def test_a_tunnel_in_a_tunnel_and_a_loop():
    """
    ::

        n1                                n0                             n2
        wg1 192.168.241.1, MTU 1340                    wg1 192.168.241.2, MTU 1340
         └─ its sockets: [fd00::5:1]:5 ──────────────── [fd00::5:2]:5 ─┘
        wg0 fd00::5:1 ──────────── 127.0.0.1:1  127.0.0.1:2 ─── wg0 fd00::5:2

    Then wg1 of n1 moves to n0, where wg0 finds 192.168.241.2 as its peer's endpoint: what wg1 takes in n0 comes out of
    wg0's socket in n0, into wg1. Each round is longer than the one before. Ten pings must end as a few packets.
    """
    with Bed("n0", "n1", "n2") as bed:
        outer1 = bed.tunnel("wg0", "n0", moved_to="n1")
        outer2 = bed.tunnel("wgx", "n0", moved_to="n2")
        inner1, inner2 = bed.tunnel("wg1", "n1"), bed.tunnel("wg1", "n2")
        psk = new_psk()
        for number, outer, outer_peer, inner, inner_peer in (
            (1, outer1, outer2, inner1, inner2),
            (2, outer2, outer1, inner2, inner1),
        ):
            other = 3 - number
            outer.addresses(f"fd00::5:{number}/112")
            peer = ["peer", outer_peer.public, "preshared-key", psk, "allowed-ips", f"fd00::5:{other}/128"]
            outer.set("private-key", outer.key, "listen-port", number, *peer, "endpoint", f"127.0.0.1:{other}")
            outer.up()
            inner.addresses(f"192.168.241.{number}/24", f"fd00::{number}/112")
            peer = ["peer", inner_peer.public, "allowed-ips", f"192.168.241.{other}/32,fd00::{other}/128"]
            inner.set("private-key", inner.key, "listen-port", 5, *peer, "endpoint", f"[fd00::5:{other}]:5")
            inner.up(1340)
        assert bed.ping("n2", "192.168.241.1", "-f", count=10, wait=5) == 10
        assert bed.ping("n1", "fd00::2", "-f", count=10, wait=5) == 10
        report = bed.iperf("n1", "n2", "192.168.241.2", size="4M")
        assert report["sum_sent"]["bytes"] >= 4 << 20
        report = bed.iperf("n2", "n1", "fd00::1", size="4M")
        assert report["sum_sent"]["bytes"] >= 4 << 20
        report = bed.iperf("n1", "n2", "fd00::2", "-u", "-b", "0", size="4M")
        assert report["sum"]["lost_percent"] < 100

        inner1.move("n0")
        inner1.addresses("192.168.241.1/24")
        inner1.up(1340)
        assert bed.ping("n0", "192.168.241.2") == 1
        outer1.set("peer", outer2.public, "endpoint", "192.168.241.2:7")
        outer2.delete()
        inner2.delete()
        before = inner1.transfer(inner2.public)[1]
        assert bed.ping("n0", "192.168.241.2", "-f", count=10, wait=5) == 0
        time.sleep(1.0)
        assert inner1.transfer(inner2.public)[1] - before < LOOP_LIMIT
