"""Scenario 3 and what else concerns sizes: padding, fragments outside, MTUs that change, and datagrams beyond any.

::

    n1                        n0                           n2
    wg1 192.168.241.1 ── 127.0.0.1:1   127.0.0.1:2 ── 192.168.241.2 wg2
"""

import sys

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import Bed, introduce, loopback_pair

pytestmark = pytest.mark.usefixtures("needs_lab")

ICMP = 28  # headers in front of a ping's payload
TRANSPORT = 32

FLOOD = """
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for head in (b"\\x01", b"\\x02", b"\\x03", b"\\x04", b"\\xff"):
            for size in (65507, 65000, 9000, 33, 32, 31, 1, 0):
                sender.sendto((head + bytes(65535))[:size], (address, 1))
"""


@pytest.fixture
def pair():
    with Bed("n0", "n1", "n2") as bed:
        wg1, wg2 = loopback_pair(bed)
        wg1.set("peer", wg2.public, "endpoint", "127.0.0.1:2")
        wg2.set("peer", wg1.public, "endpoint", "127.0.0.1:1")
        yield bed, wg1, wg2


@pytest.mark.rule("N3", "D4")
def test_padding_stops_at_the_mtu_of_the_route(pair):
    """A packet of 1297 bytes is padded to 1300 where the MTU is 1300, and to 1299 where its route has that MTU.

    ::

        n2 ── 1297, padded, + 32 + 28 outside ──► n0 drops what is 1360 long
    """
    bed, wg1, wg2 = pair
    wg1.up(1300)
    wg2.up(1300)
    bed.run("n0", "iptables", "-A", "INPUT", "-m", "length", "--length", "1360", "-j", "DROP")
    assert bed.ping("n2", "192.168.241.1", "-s", "1200") == 1
    assert bed.ping("n2", "192.168.241.1", "-s", "1269", wait=1.0) == 0
    bed.ip("n1", "route", "add", "192.168.241.2/32", "dev", "wg1", "mtu", "1299")
    bed.ip("n2", "route", "add", "192.168.241.1/32", "dev", "wg2", "mtu", "1299")
    assert bed.ping("n2", "192.168.241.1", "-s", "1269") == 1
    bed.ip("n2", "route", "delete", "192.168.241.1/32", "dev", "wg2", "mtu", "1299")
    assert bed.ping("n2", "192.168.241.1", "-s", "1269", wait=1.0) == 0


@pytest.mark.rule("M1", "D4")
def test_the_mtu_is_followed_as_it_changes(pair):
    """Shown by the padding of 1297 bytes: to 1312 below an MTU of 1420, to 1300 below one of 1300, and so back."""
    bed, wg1, wg2 = pair
    assert bed.ping("n2", "192.168.241.1") == 1
    for mtu, padded in ((1420, 1312), (1300, 1300), (1420, 1312)):
        wg1.up(mtu)
        wg2.up(mtu)
        received, sent = wg2.transfer(wg1.public)
        assert bed.ping("n2", "192.168.241.1", "-s", str(1297 - ICMP)) == 1
        assert wg2.transfer(wg1.public) == (received + padded + TRANSPORT, sent + padded + TRANSPORT)


@pytest.mark.rule("M1", "D13")
def test_the_smallest_and_the_largest_mtu(pair):
    """68 bytes; and 65535, at which a full packet no longer fits a datagram, and is lost without harm."""
    bed, wg1, wg2 = pair
    wg1.up(68)
    wg2.up(68)
    assert bed.ping("n2", "192.168.241.1", "-s", str(68 - ICMP)) == 1
    wg1.up(65535)
    wg2.up(65535)
    assert bed.ping("n2", "192.168.241.1", "-s", "65000") == 1
    assert bed.ping("n2", "192.168.241.1", "-s", "65507", wait=0.3) == 0
    assert bed.ping("n2", "192.168.241.1") == 1


@pytest.mark.rule("D13", "H2", "H19")
def test_datagrams_of_every_size_do_no_harm(pair):
    """The largest there are, the smallest, of every type and none, on both sockets: nothing is answered."""
    bed, wg1, wg2 = pair
    assert bed.ping("n2", "192.168.241.1") == 1
    before = wg1.transfer(wg2.public)
    bed.run("n0", sys.executable, "-c", FLOOD)
    assert wg1.transfer(wg2.public) == before
    assert bed.ping("n2", "192.168.241.1") == 1


@pytest.mark.rule("D14")
@pytest.mark.parametrize(("outer", "near"), [("v4", True), ("v4", False), ("v6", True)])
def test_outer_packets_are_fragmented_where_the_path_is_narrow(outer, near):
    """Full packets of an MTU of 1420 cross a link of 1280, and so do streams.

    ::

        n1 wg1 ── a ── n0 ── b ── wg2 n2        a or b is of 1280 bytes

    Over IPv4 that is so from the first packet on, because n0 fragments. Over IPv6 only the sender does: n2 loses one
    before it knows.
    """
    one, two = ("10.0.{}.1", "10.0.{}.2") if outer == "v4" else ("fd00:{}::1", "fd00:{}::2")
    bits = 24 if outer == "v4" else 64
    endpoint = "10.0.2.2:2" if outer == "v4" else "[fd00:2::2]:2"
    with Bed("n0", "n1", "n2") as bed:
        for number, host in ((1, "n1"), (2, "n2")):
            bed.veth("n0", f"veth{number}", host, "veth0")
            bed.address("n0", f"veth{number}", f"{one.format(number)}/{bits}")
            bed.address(host, "veth0", f"{two.format(number)}/{bits}")
            bed.ip(host, "route", "add", "default", "via", one.format(number))
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            bed.sysctl("n0", f"net/{path}", 1)
        narrow = 1 if near else 2
        bed.ip("n0", "link", "set", f"veth{narrow}", "mtu", "1280")
        bed.ip(f"n{narrow}", "link", "set", "veth0", "mtu", "1280")
        wg1, wg2 = bed.tunnel("wg1", "n1"), bed.tunnel("wg2", "n2")
        introduce(wg1, wg2)
        wg1.set("peer", wg2.public, "endpoint", endpoint)
        if outer == "v6":
            bed.ping("n1", "192.168.241.2", "-s", str(1420 - ICMP))
        assert bed.ping("n1", "192.168.241.2", "-M", "do", "-s", str(1420 - ICMP)) == 1
        assert bed.ping("n2", "fd00::1", "-M", "do", "-s", str(1420 - ICMP - 20)) == 1
        for client, server, address in (("n1", "n2", "192.168.241.2"), ("n2", "n1", "fd00::1")):
            report = bed.iperf(client, server, address, size="4M")
            assert report["sum_sent"]["bytes"] >= 4 << 20
        await_(lambda: bed.ping("n1", "192.168.241.2"), "a ping at the end")
