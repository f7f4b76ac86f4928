"""Scenario 13: which of our addresses a datagram leaves from. Sticky, and not too sticky."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.tunnel.bed import Bed, Tunnel, introduce

pytestmark = [pytest.mark.usefixtures("needs_lab"), pytest.mark.rule("N13", "E3")]


@contextmanager
def two_ends() -> Iterator[tuple[Bed, Tunnel, Tunnel]]:
    """n1 and n2 with a tunnel each, configured and up, and nothing between them yet.

    ::

        n1 ── veth1 ─────────────────────── veth2 ── n2
        │                                             │
        wg0 192.168.241.1 ═══════════ 192.168.241.2 wg0
    """
    with Bed("n1", "n2") as bed:
        one, two = bed.tunnel("wg0", "n1"), bed.tunnel("wg0", "n2")
        introduce(one, two)
        bed.veth("n1", "veth1", "n2", "veth2")
        yield bed, one, two


def test_when_our_address_vanishes_another_is_used():
    """The address that datagrams left from is removed; the next packet leaves from another, and arrives.

    ::

        n1 10.0.0.1, fd00:aa::1 ─────────── 10.0.0.2, fd00:aa::2 n2
        n1 10.0.0.10 instead     ── ping ──► answered at once, without a new handshake's 5 s
        n1 fd00:aa::10 instead   ── ping ──► likewise
    """
    with two_ends() as (bed, one, two):
        bed.sysctl("n1", "net/ipv4/conf/veth1/promote_secondaries", 1)
        bed.address("n1", "veth1", "10.0.0.1/24", "fd00:aa::1/96")
        bed.address("n2", "veth2", "10.0.0.2/24", "fd00:aa::2/96")
        one.set("peer", two.public, "endpoint", "10.0.0.2:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "10.0.0.1:1"
        bed.address("n1", "veth1", "10.0.0.10/24")
        bed.ip("n1", "addr", "del", "10.0.0.1/24", "dev", "veth1")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "10.0.0.10:1"
        one.set("peer", two.public, "endpoint", "[fd00:aa::2]:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "[fd00:aa::1]:1"
        bed.address("n1", "veth1", "fd00:aa::10/96")
        bed.ip("n1", "addr", "del", "fd00:aa::1/96", "dev", "veth1")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "[fd00:aa::10]:1"


def test_the_answer_comes_from_the_address_that_was_asked():
    """n1 has two addresses of each family. Whichever n2 sends to, n1 answers from: n2's endpoint of n1 stays.

    ::

                                          ┌─ 10.0.0.1:1
        n2 10.0.0.3, fd00:aa::3 ── ping ──┼─ [fd00:aa::1]:1    veth1 n1
                                          ├─ 10.0.0.2:1
                                          └─ [fd00:aa::2]:1
    """
    with two_ends() as (bed, one, two):
        bed.address("n1", "veth1", "10.0.0.1/24", "10.0.0.2/24", "fd00:aa::1/96", "fd00:aa::2/96")
        bed.address("n2", "veth2", "10.0.0.3/24", "fd00:aa::3/96")
        for endpoint in ("10.0.0.1:1", "[fd00:aa::1]:1", "10.0.0.2:1", "[fd00:aa::2]:1"):
            two.set("peer", one.public, "endpoint", endpoint)
            assert bed.ping("n2", "192.168.241.1") == 1, endpoint
            assert two.endpoint(one.public) == endpoint


@pytest.mark.parametrize("where", ["lo", "another veth"])
def test_the_answer_comes_from_an_address_of_another_interface(where):
    """n2 sends to an address of n1 that is not veth1's own; the answer leaves by veth1, from that address.

    ::

        n2 10.0.0.3 ── to 10.50.0.1:1 ──► veth1 (10.0.0.1) │ n1 │ lo or veth5: 10.50.0.1, fd00:50::1
                    ◄─ from 10.50.0.1:1 ──┘
    """
    with two_ends() as (bed, one, two):
        device = "lo"
        if where == "another veth":
            device = "veth5"
            bed.ip("n1", "link", "add", "veth5", "type", "veth", "peer", "name", "veth6")
            bed.sysctl("n1", "net/ipv6/conf/veth5/accept_dad", 0)
            bed.ip("n1", "link", "set", "veth6", "up")
            bed.ip("n1", "link", "set", "veth5", "up")
        bed.address("n1", "veth1", "10.0.0.1/24", "fd00:aa::1/96")
        bed.address("n2", "veth2", "10.0.0.3/24", "fd00:aa::3/96")
        bed.address("n1", device, "10.50.0.1/24", "fd00:50::1/96")
        bed.ip("n2", "route", "add", "10.50.0.0/24", "dev", "veth2")
        bed.ip("n2", "-6", "route", "add", "fd00:50::/96", "via", "fd00:aa::1", "dev", "veth2")
        for endpoint in ("10.50.0.1:1", "[fd00:50::1]:1"):
            two.set("peer", one.public, "endpoint", endpoint)
            assert bed.ping("n2", "192.168.241.1") == 1, endpoint
            assert two.endpoint(one.public) == endpoint


def test_a_better_route_takes_over():
    """n1 has spoken to n2 over veth1; then a better route over veth3 appears, and the next packet takes it.

    ::

        n1 ── veth1 10.0.0.1 (metric 2) ──── veth2 10.0.0.2 ── n2
           ── veth3 10.0.0.3 (metric 1) ──── veth4 ───────────
    """
    with two_ends() as (bed, one, two):
        bed.veth("n1", "veth3", "n2", "veth4")
        bed.address("n1", "veth1", "10.0.0.1/24")
        bed.address("n2", "veth2", "10.0.0.2/24")
        bed.address("n1", "veth3", "10.0.0.3/24")
        bed.ip("n1", "route", "flush", "dev", "veth1")
        bed.ip("n1", "route", "flush", "dev", "veth3")
        bed.ip("n1", "route", "add", "10.0.0.0/24", "dev", "veth1", "src", "10.0.0.1", "metric", "2")
        one.set("peer", two.public, "endpoint", "10.0.0.2:2")
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "10.0.0.1:1"
        bed.ip("n1", "route", "add", "10.0.0.0/24", "dev", "veth3", "src", "10.0.0.3", "metric", "1")
        for host, device in (("n1", "veth1"), ("n2", "veth4"), ("n1", "all"), ("n2", "all")):
            bed.sysctl(host, f"net/ipv4/conf/{device}/rp_filter", 0)
        assert bed.ping("n1", "192.168.241.2") == 1
        assert two.endpoint(one.public) == "10.0.0.3:1"
