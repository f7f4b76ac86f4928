"""Datagrams leave from the address that was written to, for as long as the way out is the way in (rule E3)."""

import os
import socket
from ipaddress import IPv4Address

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from tests.tunnel.io.test_udp import arrivals, at
from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.burst import Burst, OwnAddress
from wgdisco.tunnel.io.routes import Routes
from wgdisco.tunnel.io.udp import UdpSockets

pytestmark = pytest.mark.rule("E3")

ROWS = Burst(b"a" * 100 + b"b" * 100 + b"c" * 40, 100)
SECONDS = ("10.7.0.5", "fd07::5")


def asked(one: UdpSockets, two: UdpSockets, host: str) -> tuple[Burst, object]:
    one.send(Burst.of(b"hello"), at(two, host))
    ((burst, source),) = arrivals(two, 1)
    assert burst.local is not None
    return burst, source


def second_addresses() -> None:
    for host in SECONDS:
        ip("addr", "add", host, "dev", "lo")
    while SECONDS[1] not in ip("-6", "route", "show", "table", "local"):
        pass  # the kernel lets it be used a little later


@in_namespace
def test_a_reply_comes_from_the_address_that_was_asked():
    second_addresses()
    for host in SECONDS:
        reply_from(host)


def reply_from(host: str) -> None:
    one, two = UdpSockets.open(), UdpSockets.open()
    burst, source = asked(one, two, host)
    assert burst.local == OwnAddress(socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host), 1)
    two.send(Burst(ROWS.data, ROWS.row, 0, burst.local), source)
    assert {came_from for _, came_from in arrivals(one, 3)} == {at(two, host)}
    one.close()
    two.close()


@in_namespace
def test_an_address_that_vanishes_is_let_go_and_taken_again_when_it_is_back():
    second_addresses()
    for host in SECONDS:
        let_go_and_taken_again(host)


def let_go_and_taken_again(host: str) -> None:
    one, two = UdpSockets.open(), UdpSockets.open()
    burst, _ = asked(one, two, host)
    source = at(one, "::1" if ":" in host else "127.0.0.1")
    reply = Burst(ROWS.data, ROWS.row, 0, burst.local)
    length = "128" if ":" in host else "32"
    ip("addr", "del", f"{host}/{length}", "dev", "lo")
    for expected in ("unnoticed", "noticed"):
        two.send(reply, source)
        froms = {came_from for _, came_from in arrivals(one, 3)}
        assert at(two, host) not in froms, expected
        two.routes_changed()
    assert not two.dropped
    ip("addr", "add", host, "dev", "lo", *(["nodad"] if ":" in host else []))
    two.routes_changed()
    two.send(reply, source)
    assert {came_from for _, came_from in arrivals(one, 3)} == {at(two, host)}
    one.close()
    two.close()


def test_a_way_for_many_is_found_by_the_routes_as_that_of_the_second_datagram_is():
    """The first one is sent from where it was asked for without a look."""
    one, two = UdpSockets.open(), UdpSockets.open()
    there, elsewhere = at(two), OwnAddress(bytes([127, 0, 0, 1]), 1 << 20)
    assert one.way(there, elsewhere) is None
    one.send(Burst(b"x", 1, 0, elsewhere), there)
    assert one.way(there, elsewhere).control == one.way(there, None).control
    assert not one.dropped
    one.close()
    two.close()


@in_namespace
def test_a_better_way_out_takes_the_address_with_it():
    for name in ("near", "far"):
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-other")
        ip("link", "set", name, "up")
        ip("link", "set", f"{name}-other", "up")
    ip("addr", "add", "10.7.0.1/24", "dev", "near")
    ip("addr", "add", "10.8.0.1/24", "dev", "far")
    routes = Routes()
    there, here = socket.inet_aton("10.7.0.2"), OwnAddress(socket.inet_aton("10.7.0.1"), socket.if_nametoindex("near"))
    assert routes.leads_out_by(there, here)
    routes.changed()
    ip("route", "add", "10.7.0.2/32", "dev", "far")
    assert routes.changed()
    assert not routes.changed()
    assert not routes.leads_out_by(there, here)
    ip("route", "del", "10.7.0.2/32", "dev", "far")
    assert routes.leads_out_by(there, here)
    # With a mark, another table
    ip("route", "add", "10.7.0.2/32", "dev", "far", "table", "7")
    ip("rule", "add", "fwmark", "9", "table", "7")
    assert routes.leads_out_by(there, here)
    assert not routes.leads_out_by(there, here, mark=9)
    ip("addr", "del", "10.7.0.1/24", "dev", "near")
    assert not routes.leads_out_by(there, here)
    routes.close()


@pytest.mark.rule("E4")
@in_namespace
def test_a_mark_takes_the_address_with_it():
    """What is sent time and again leaves from our address on `near`, until a mark leads it out by `far`."""
    for name, host in (("near", "10.7.0.1/24"), ("far", "10.8.0.1/24")):
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-other")
        ip("link", "set", name, "up")
        ip("link", "set", f"{name}-other", "up")
        ip("addr", "add", host, "dev", name)
    ip("route", "add", "10.7.0.2/32", "dev", "far", "table", "7")
    ip("rule", "add", "fwmark", "9", "table", "7")
    udp = UdpSockets.open()
    there = Endpoint(IPv4Address("10.7.0.2"), 9)
    here = OwnAddress(socket.inet_aton("10.7.0.1"), socket.if_nametoindex("near"))
    for mark, expected in ((0, here), (9, None), (0, here)):
        udp.set_fwmark(mark)
        for _ in range(3):
            way = udp._way(there, here)
            assert way is not None
            assert way.local == expected
    udp.close()


@pytest.mark.rule("H18", "D11")
@in_namespace
def test_traffic_classes_cross():
    one, two = UdpSockets.open(), UdpSockets.open()
    for host in ("127.0.0.1", "::1"):
        for tos in (0x88, 1, 2, 3, 0):
            for burst in (Burst(b"x", 1, tos), Burst(ROWS.data, ROWS.row, tos)):
                one.send(burst, at(two, host))
                assert {received.tos for received, _ in arrivals(two, burst.count)} == {tos}
    one.close()
    two.close()


@in_namespace
def test_an_address_of_the_other_family_is_no_wish():
    one, two = UdpSockets.open(), UdpSockets.open()
    one.send(Burst(b"x", 1, 0, OwnAddress(os.urandom(16), 1)), at(two))
    assert arrivals(two, 1)
    assert not one.dropped
    one.close()
    two.close()


@in_namespace
def test_places_that_cannot_be_reached_are_not_all_remembered():
    """Sources of cookie replies are whatever an attacker writes there."""
    sockets = UdpSockets.open()
    local = OwnAddress(bytes([127, 0, 0, 1]), 1)
    for number in range(3000):
        place = Endpoint(IPv4Address(0xC6336400 + number % 256), 1 + number)
        sockets.send(Burst(b"x", 1, 0, local), place)
    assert sockets.dropped.total() == 3000
    assert len(sockets._usable) <= 1024
    sockets.close()
