"""Scenarios 9 to 12: the host's routing around the tunnel and through it; one end is behind a NAT.

::

    n1 ── vethc ────────────────────── vethrc ─ n0 ─ vethrs ────────────────── veths ── n2
    │     192.168.1.100    192.168.1.1          │          10.0.0.1      10.0.0.100     │
    │                                   SNAT 192.168.1.0/24                             │
    wg0 192.168.241.1, fd00::1 ═════════════════════════════════════ 192.168.241.2, fd00::2 wg0
"""

import sys

import pytest

from tests.system.tunnel.bed import Bed, across_a_nat, new_key

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.mark.rule("N9")
def test_packets_bound_to_the_interface_and_packets_whose_mark_changes():
    """A socket bound to wg0 is served, and so is a packet that netfilter marks on its way out, which routes it again.

    ::

        ping -I wg0 ──► OUTPUT: mark 1 ──► routed again, still by wg0 ──► wg0 ══► n2
                        OUTPUT: mark 1 ──► routed again ◄── what the engine sends
        with rule `fwmark 1 → table 7 → wg0`: a packet that was routed to vethc goes by wg0 after all
    """
    with across_a_nat("wg0", "wg0") as (bed, one, two):
        assert bed.ping("n1", "192.168.241.2", "-I", "wg0") == 1
        bed.run("n1", "iptables", "-t", "mangle", "-I", "OUTPUT", "-j", "MARK", "--set-xmark", "1")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert bed.ping("n1", "192.168.241.2", "-I", "wg0") == 1
        bed.run("n1", "iptables", "-t", "mangle", "-D", "OUTPUT", "-j", "MARK", "--set-xmark", "1")

        # The mark decides which way: by the main table this address is beyond vethc, where nobody has it.
        two.addresses("192.168.99.7/32")
        one.set("peer", two.public, "allowed-ips", "192.168.241.2/32,192.168.99.7/32")
        bed.ip("n1", "route", "add", "192.168.99.7/32", "dev", "wg0", "table", "7")
        bed.ip("n1", "rule", "add", "fwmark", "1", "table", "7")
        assert bed.ping("n1", "192.168.99.7", "-I", "192.168.241.1", wait=0.3) == 0
        mark = ["-d", "192.168.99.7", "-j", "MARK", "--set-xmark", "1"]
        bed.run("n1", "iptables", "-t", "mangle", "-A", "OUTPUT", *mark)
        assert bed.ping("n1", "192.168.99.7", "-I", "192.168.241.1") == 1


@pytest.mark.rule("N10", "A7")
def test_onion_routing_and_an_onion_of_nothing_but_itself():
    """A peer whose endpoint is inside the tunnel to another, and then one whose endpoint is inside its own.

    ::

        n1 wg0 ══ peer 3 ═══════════════════════════════► 192.168.242.2 wg1 n2
             └─ its datagrams ══ peer 2 ═══► 192.168.241.2:5, wg1's socket
        then:  peer 3's endpoint is 192.168.242.2:5, which is routed to peer 3, whose endpoint is …
    """
    with across_a_nat("wg0", "wg0") as (bed, one, _two):
        third = bed.tunnel("wg1", "n2")
        inner = ["peer", third.public, "allowed-ips", "192.168.242.2/32"]
        one.set(*inner, "endpoint", "192.168.241.2:5")
        one.addresses("192.168.242.1/24")
        third.addresses("192.168.242.2/24")
        one_again = ["peer", one.public, "allowed-ips", "192.168.242.1/32"]
        third.set("private-key", third.key, "listen-port", 5, *one_again)
        third.up()
        assert bed.ping("n1", "192.168.242.2") == 1
        assert third.endpoint(one.public) == "192.168.241.1:1"
        third.delete()

        one.set("peer", third.public, "endpoint", "192.168.242.2:5")
        _, before = one.transfer(third.public)
        assert bed.ping("n1", "192.168.242.2", wait=1.0) == 0
        _, after = one.transfer(third.public)
        assert after - before < 70_000, "a packet that goes round and round ends"
        assert bed.ping("n1", "192.168.241.2") == 1, "the engine lives"
        assert one.transfer(third.public)[1] == after, "and has nothing more to send round"


@pytest.mark.rule("N11", "E4")
def test_policy_routing_as_wg_quick_does_it():
    """All traffic goes by wg0 but what bears the engine's mark. 100 pings at once: no answer is lost.

    ::

        rule: table main, but not its default routes │ rule: not fwmark 51820 → table 51820: default dev wg0

        ping 192.168.99.7 ─► wg0 ═► engine ─ marked 51820 ─► table main ─► vethc ─► n0 ─► n2 (192.168.99.7)
    """
    with across_a_nat("wg0", "wg0") as (bed, one, two):
        bed.address("n1", "vethc", "fc00::9/96")
        bed.ip("n1", "-6", "route", "add", "default", "via", "fc00::1")
        two.addresses("192.168.99.7/32", "abab::1111/128")
        one.set("fwmark", 51820, "peer", two.public, "allowed-ips", "192.168.99.7,abab::1111")
        for family in ("-6", "-4"):
            bed.ip("n1", family, "route", "add", "default", "dev", "wg0", "table", "51820")
            bed.ip("n1", family, "rule", "add", "not", "fwmark", "51820", "table", "51820")
            bed.ip("n1", family, "rule", "add", "table", "main", "suppress_prefixlength", "0")
        bed.sysctl("n1", "net/ipv4/conf/vethc/rp_filter", 0)
        assert one.show("fwmark") == [["0xca6c"]]
        assert bed.ping("n1", "192.168.99.7", "-f", count=100) == 100
        assert bed.ping("n1", "abab::1111", "-f", count=100) == 100
        # Without its mark the engine's own datagrams would go into the tunnel, and nothing out of it.
        one.set("fwmark", 0)
        assert bed.ping("n1", "192.168.99.7", wait=0.3) == 0
        one.set("fwmark", 51820)
        assert bed.ping("n1", "192.168.99.7") == 1


_CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 7), 2.0)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.rule("N12", "D10")
def test_what_has_no_way_out_comes_back_as_icmp_through_a_nat():
    """n2 forwards for n0 into the tunnel, behind a NAT of its own; then the peer is removed.

    ::

        n0 10.0.0.1 ─ echo request to 192.168.241.1 ─► n2 ─ SNAT to 192.168.241.2 ─► wg0: nobody has this address
                    ◄─ ICMP from 10.0.0.100: host unreachable ─ un-NATed ──────────┘
        n0 drops what comes over vethrs from beyond 10.0.0.0/24, as its reverse-path filter would
    """
    with across_a_nat("wg0", "wg0") as (bed, one, two):
        snat = ["-s", "10.0.0.0/24", "-d", "192.168.241.0/24", "-j", "SNAT", "--to", "192.168.241.2"]
        bed.run("n2", "iptables", "-t", "nat", "-A", "POSTROUTING", *snat)
        bed.run("n0", "iptables", "-A", "INPUT", "!", "-s", "10.0.0.0/24", "-i", "vethrs", "-j", "DROP")
        bed.sysctl("n2", "net/ipv4/ip_forward", 1)
        bed.ip("n0", "route", "add", "192.168.241.1", "via", "10.0.0.100")
        two.set("peer", one.public, "remove")
        answer = bed.ping_output("n0", "192.168.241.1")
        assert "From 10.0.0.100 icmp_seq=1 Destination Host Unreachable" in answer, answer
        assert bed.run("n0", sys.executable, "-c", _CONNECT, "192.168.241.1") == "No route to host\n"

        # Likewise in IPv6
        bed.address("n0", "vethrs", "fd00:10::1/64")
        bed.address("n2", "veths", "fd00:10::100/64")
        snat = ["-s", "fd00:10::/64", "-d", "fd00::/112", "-j", "SNAT", "--to", "fd00::2"]
        bed.run("n2", "ip6tables", "-t", "nat", "-A", "POSTROUTING", *snat)
        bed.run("n0", "ip6tables", "-A", "INPUT", "-s", "fd00::/112", "-i", "vethrs", "-j", "DROP")
        bed.sysctl("n2", "net/ipv6/conf/all/forwarding", 1)
        bed.ip("n0", "-6", "route", "add", "fd00::1", "via", "fd00:10::100")
        answer = bed.ping_output("n0", "fd00::1")
        assert "From fd00:10::100 icmp_seq=1 Destination unreachable: Address unreachable" in answer, answer


@pytest.mark.rule("N12", "D10")
@pytest.mark.parametrize("why", ["no peer", "no endpoint"])
def test_who_sends_into_nowhere_hears_of_it(why):
    """The sender on the tunnel's own host hears at once that nobody has the address, or that the peer is nowhere.

    ::

        ping 192.168.241.2 ─► wg0: no such peer │ a peer, and no endpoint
                           ◄─ Destination Host Unreachable
        ping fd00::2       ─► wg0
                           ◄─ Destination unreachable: Address unreachable
    """
    with Bed("n1") as bed:
        tunnel = bed.tunnel("wg0", "n1")
        tunnel.set("private-key", tunnel.key)
        if why == "no endpoint":
            tunnel.set("peer", new_key().public_key(), "allowed-ips", "192.168.241.2/32,fd00::2/128")
        tunnel.addresses("192.168.241.1/24", "fd00::1/112")
        tunnel.up()
        answer = bed.ping_output("n1", "192.168.241.2")
        assert "icmp_seq=1 Destination Host Unreachable" in answer, answer
        answer = bed.ping_output("n1", "fd00::2")
        assert "icmp_seq=1 Destination unreachable: Address unreachable" in answer, answer
