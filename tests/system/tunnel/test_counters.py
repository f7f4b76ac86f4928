"""Scenario 1: what `wg show` counts."""

import time

import pytest

from tests.system.tunnel.bed import Bed, loopback_pair

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.mark.rule("N1", "D4", "D12", "E7")
def test_ten_pings_are_counted_to_the_byte():
    """Counters are UDP payload, handshake included.

    ::

        wg2 ── initiation 148 ─────────────────────────────────► wg1
            ◄─ response 92 ─────────────────────────────────────
            ── 10 x echo request: 84, padded to 96, 32 around ─►
            ◄─ 10 x echo reply: 128 ────────────────────────────
        wg2 received 92 + 1280 = 1372, sent 148 + 1280 = 1428; 32 more if a keepalive had confirmed the session first
    """
    with Bed("n0", "n1", "n2") as bed:
        wg1, wg2 = loopback_pair(bed)
        wg1.set("peer", wg2.public, "endpoint", "127.0.0.1:2")
        wg2.set("peer", wg1.public, "endpoint", "127.0.0.1:1")
        began = int(time.time())
        assert wg1.handshake(wg2.public) == wg2.handshake(wg1.public) == 0
        assert bed.ping("n2", "192.168.241.1", "-f", count=10) == 10
        received, sent = wg2.transfer(wg1.public)
        assert received == 1372
        assert sent in (1428, 1460)
        assert wg1.transfer(wg2.public) == (sent, received)
        for stamp in (wg1.handshake(wg2.public), wg2.handshake(wg1.public)):
            assert began <= stamp <= time.time()
