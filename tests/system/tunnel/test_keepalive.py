"""Scenario 14: a persistent keepalive is sent as soon as it can be."""

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import Bed, new_key

pytestmark = [pytest.mark.usefixtures("needs_lab"), pytest.mark.rule("N14", "T9")]


def test_it_is_sent_when_the_interface_comes_up():
    """::

    wg set wg0 peer … persistent-keepalive 1    0 bytes sent
    ip link set wg0 up                          an initiation
    """
    with Bed("n1") as bed:
        tunnel, peer = bed.tunnel("wg0", "n1"), new_key().public_key()
        tunnel.set("private-key", tunnel.key, "peer", peer, "endpoint", "127.0.0.1:9", "persistent-keepalive", 1)
        assert tunnel.transfer(peer) == (0, 0)
        tunnel.up()
        await_(lambda: tunnel.transfer(peer)[1] > 0, "a keepalive", 1.0)
        assert tunnel.transfer(peer) == (0, 148)


def test_it_is_sent_when_the_private_key_arrives():
    """::

    wg set wg0 peer … persistent-keepalive 1    0 bytes sent
    ip link set wg0 up                          0 bytes sent
    wg set wg0 private-key …                    an initiation, before wg returns
    """
    with Bed("n1") as bed:
        tunnel, peer = bed.tunnel("wg0", "n1"), new_key().public_key()
        tunnel.set("peer", peer, "endpoint", "127.0.0.1:9", "persistent-keepalive", 1)
        assert tunnel.transfer(peer) == (0, 0)
        tunnel.up()
        assert tunnel.transfer(peer) == (0, 0)
        tunnel.set("private-key", tunnel.key)
        assert tunnel.transfer(peer) == (0, 148)
