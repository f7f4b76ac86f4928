"""Scenario 1: what `wg show` counts."""

import time

import pytest

from tests.system.tunnel.bed import Bed, new_psk

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.mark.rule("D3", "D4", "D12", "E7", "H14")
def test_ten_pings_are_counted_to_the_byte():
    """Counters are UDP payload, handshake included.

    ::

        n1                        n0                        n2
        wg1 192.168.241.1 ── 127.0.0.1:1  127.0.0.1:2 ── 192.168.241.2 wg2

        wg2 ─ initiation 148 ─────────────────────────────────► wg1
            ◄ response 92 ─────────────────────────────────────
            ─ 10 x echo request: 84, padded to 96, 32 around ─►
            ◄ 10 x echo reply: 128 ────────────────────────────
        wg2 received 92 + 1280 = 1372, sent 148 + 1280 = 1428; 32 more if a keepalive had confirmed the session first
    """
    with Bed("n0", "n1", "n2") as bed:
        wg1 = bed.tunnel("wg1", "n0", moved_to="n1")
        wg2 = bed.tunnel("wg2", "n0", moved_to="n2")
        psk = new_psk()
        allowed = "192.168.241.{0}/32,fd00::{0}/128"
        for tunnel, other, number in ((wg1, wg2, 1), (wg2, wg1, 2)):
            tunnel.addresses(f"192.168.241.{number}/24", f"fd00::{number}/64")
            peer = ["peer", other.public, "preshared-key", psk, "allowed-ips", allowed.format(3 - number)]
            tunnel.set("private-key", tunnel.key, "listen-port", number, *peer, "endpoint", f"127.0.0.1:{3 - number}")
            tunnel.up()
        began = int(time.time())
        assert wg1.handshake(wg2.public) == wg2.handshake(wg1.public) == 0
        assert bed.ping("n2", "192.168.241.1", "-f", count=10) == 10
        received, sent = wg2.transfer(wg1.public)
        assert received == 1372
        assert sent in (1428, 1460)
        assert wg1.transfer(wg2.public) == (sent, received)
        for stamp in (wg1.handshake(wg2.public), wg2.handshake(wg1.public)):
            assert began <= stamp <= time.time()
