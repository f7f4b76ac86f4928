"""Scenario 4: an endpoint moves, and the other side follows with the first authenticated packet (rule E1)."""

import pytest

from tests.system.tunnel.bed import Bed, introduce, loopback_pair

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.mark.rule("N4", "E1", "E3", "E5")
def test_a_new_address_and_port_are_followed_in_both_protocols():
    """
    ::

        n1                         n0's loopback                         n2
        wg1 ── 127.0.0.1:1     ─── moves to ───► 127.212.121.99:9999 ──► wg2 sees it there, by a ping over IPv6
        wg1 ── 127.212.121.99:9999 ─ moves to ─► [::1]:9998 ───────────► wg2 sees it there, by a ping over IPv4
    """
    with Bed("n0", "n1", "n2") as bed:
        wg1, wg2 = loopback_pair(bed)
        wg1.set("peer", wg2.public, "endpoint", "127.0.0.1:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert wg2.endpoint(wg1.public) == "127.0.0.1:1"
        bed.ip("n0", "addr", "del", "127.0.0.1/8", "dev", "lo")
        bed.ip("n0", "addr", "add", "127.212.121.99/8", "dev", "lo")
        wg1.set("listen-port", 9999)
        wg1.set("peer", wg2.public, "endpoint", "127.0.0.1:2")
        assert bed.ping("n1", "fd00::2") == 1
        assert wg2.endpoint(wg1.public) == "127.212.121.99:9999"
        wg1.set("listen-port", 9998)
        wg1.set("peer", wg2.public, "endpoint", "[::1]:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert wg2.endpoint(wg1.public) == "[::1]:9998"


@pytest.mark.rule("N4", "E1")
@pytest.mark.parametrize("outer", ["10.0.0.{}", "fd00:aa::{}"], ids=["v4", "v6"])
def test_either_side_moves_without_another_handshake(outer):
    """
    ::

        n1 wg1 10.0.0.1:1  ── veth1 ── veth2 ──  10.0.0.2:2 wg2 n2
        1. n1's address becomes .10: its next ping shows wg2 where it is now
        2. n2's address becomes .20: its next ping shows wg1 where it is now
        3. n1 sends again: to .20, from .10. Still in the first session
    """
    bits = 24 if "." in outer else 64
    at = f"[{outer}]:{{}}" if bits == 64 else f"{outer}:{{}}"
    with Bed("n1", "n2") as bed:
        bed.veth("n1", "veth1", "n2", "veth2")
        for host, veth in (("n1", "veth1"), ("n2", "veth2")):  # or the second address would go with the first
            bed.sysctl(host, f"net/ipv4/conf/{veth}/promote_secondaries", 1)
        bed.address("n1", "veth1", f"{outer.format(1)}/{bits}")
        bed.address("n2", "veth2", f"{outer.format(2)}/{bits}")
        wg1, wg2 = bed.tunnel("wg1", "n1"), bed.tunnel("wg2", "n2")
        introduce(wg1, wg2)
        wg1.set("peer", wg2.public, "endpoint", at.format(2, 2))
        assert bed.ping("n1", "192.168.241.2") == 1
        assert wg2.endpoint(wg1.public) == at.format(1, 1)
        received = wg1.transfer(wg2.public)[0]
        for mover, other, host, veth, old, new in (
            (wg1, wg2, "n1", "veth1", 1, 10),
            (wg2, wg1, "n2", "veth2", 2, 20),
        ):
            bed.address(host, veth, f"{outer.format(new)}/{bits}")
            bed.ip(host, "addr", "del", f"{outer.format(old)}/{bits}", "dev", veth)
            assert bed.ping(host, "192.168.241.2" if host == "n1" else "192.168.241.1") == 1
            assert other.endpoint(mover.public) == at.format(new, 1 if host == "n1" else 2)
        assert bed.ping("n1", "fd00::2") == 1
        assert wg1.endpoint(wg2.public) == at.format(20, 2)
        assert wg1.transfer(wg2.public)[0] - received == 3 * 128 + 16, "three packets of data and nothing else"
