from ipaddress import ip_network

import pytest

from tests.tunnel.wire import ip_packet, joined
from wgdisco.tunnel.route_mtus import RouteMtus

pytestmark = pytest.mark.rule("D4")

ONE = {4: ip_packet("10.9.0.1", "10.9.0.2"), 6: ip_packet("fd09::1", "fd09::2")}
NETWORKS = {4: ("10.9.0.0/24", "10.9.0.2/32", "0.0.0.0/0"), 6: ("fd09::/64", "fd09::2/128", "::/0")}


@pytest.mark.parametrize("version", [4, 6])
def test_the_longest_prefix_counts_and_never_more_than_the_interface(version):
    routes = RouteMtus()
    assert routes.limit(ONE[version], 1420) == 1420
    subnet, host, default = map(ip_network, NETWORKS[version])
    for network, mtu, counts in ((subnet, 1300, 1300), (host, 1280, 1280), (default, 600, 1280), (host, 1290, 1290)):
        routes.set(network, mtu)
        assert routes.limit(ONE[version], 1420) == counts
        assert routes.limit(ONE[10 - version], 1420) == 1420
    assert routes.limit(ONE[version], 1000) == 1000
    for network, counts in ((host, 1300), (subnet, 600), (default, 1420)):
        routes.set(network, None)
        assert routes.limit(ONE[version], 1420) == counts
    routes.set(default, 1300)
    routes.clear()
    assert routes.limit(ONE[version], 1420) == 1420


@pytest.mark.parametrize("size", [0, 1, 19, 20, 39])
def test_what_is_no_packet_has_the_interface_s(size):
    routes = RouteMtus()
    routes.set(ip_network("10.9.0.0/24"), 1300)
    for first in (0x45, 0x60, 0xFF):
        assert routes.limit((bytes([first]) + bytes(40))[:size], 1420) == 1420


def test_a_device_pads_to_the_route_s_until_it_goes_down():
    wire, alice, bob = joined()
    alice.ping(bob)
    alice.device.set_mtu(1300)
    route = ip_network("10.9.0.2/32")

    def sizes() -> list[int]:
        """Of what alice sends for 1297 bytes, without what the transport message adds."""
        before = len(wire.log)
        for which, header in ((0, 20), (1, 40)):
            alice.ping(bob, which, bytes(1297 - header))
        return [len(sent.data) - 32 for sent in wire.log[before:]]

    assert sizes() == [1300, 1300]
    alice.device.set_route_mtu(route, 1299)
    assert sizes() == [1299, 1300]
    alice.device.set_route_mtu(route, None)
    assert sizes() == [1300, 1300]
    alice.device.set_route_mtu(route, 1299)
    alice.device.set_up(False, wire.now)
    alice.device.set_up(True, wire.now)
    wire.run(1.0)
    alice.ping(bob)
    assert sizes() == [1300, 1300]
