"""Scenario 6: the private key changes."""

import pytest

from tests.system.tunnel.bed import Bed, loopback_pair, new_key, new_psk

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.mark.rule("N6", "H16", "H17")
def test_a_changed_private_key_shakes_hands_at_once():
    """No 5 s pass: the new key begins with a handshake of its own, though one has just been.

    ::

        n1 wg1 key1 ── ping ──► n2 wg2 peer key1
           wg1 key3             wg2 peer key3, key1 removed
           wg1 key3 ── ping ──► answered within a second
    """
    with Bed("n0", "n1", "n2") as bed:
        wg1, wg2 = loopback_pair(bed)
        wg1.set("peer", wg2.public, "endpoint", "127.0.0.1:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        psk, before, wg1.key = new_psk(), wg1.public, new_key()
        wg1.set("private-key", wg1.key, "peer", wg2.public, "preshared-key", psk)
        wg2.set("peer", wg1.public, "preshared-key", psk, "allowed-ips", "192.168.241.1/32", "peer", before, "remove")
        received, sent = wg1.transfer(wg2.public)
        assert bed.ping("n1", "192.168.241.2") == 1
        assert wg2.handshake(wg1.public) > 0
        assert [peer for peer, _ in wg2.show("endpoints")] == [str(wg1.public)]
        now_received, now_sent = wg1.transfer(wg2.public)
        assert (now_received - received, now_sent - sent) == (92 + 128, 148 + 128), "one handshake, one ping"
