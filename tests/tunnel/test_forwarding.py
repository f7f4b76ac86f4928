from wgdisco.tunnel.forwarding import (
    ALL_IPV6,
    DefaultRoute,
    forwarding_settings,
    settings_to_restore,
    settings_to_write,
    uplinks,
)

ROUTES = [DefaultRoute(4, "eth0", False), DefaultRoute(6, "eth0", True), DefaultRoute(6, "mesh", False)]


def test_router_advertisements_are_kept_before_forwarding_goes_on():
    wanted = forwarding_settings("mesh", ROUTES, uplink=False)
    assert list(wanted) == ["ipv4/conf/mesh/forwarding", "ipv6/conf/eth0/accept_ra", ALL_IPV6]
    assert wanted["ipv6/conf/eth0/accept_ra"] == "2"


def test_an_uplink_forwards_too_where_packets_come_back_in():
    assert forwarding_settings("mesh", ROUTES, uplink=True)["ipv4/conf/eth0/forwarding"] == "1"


def test_only_what_differs_and_exists_is_written():
    wanted = forwarding_settings("mesh", ROUTES, uplink=False)
    assert settings_to_write(wanted, {"ipv4/conf/mesh/forwarding": "1"}) == {}
    present = {"ipv6/conf/eth0/accept_ra": "1", ALL_IPV6: "0"}
    assert settings_to_write(wanted, present) == {"ipv6/conf/eth0/accept_ra": "2", ALL_IPV6: "1"}


def test_accept_ra_is_left_alone_where_somebody_else_listens_or_it_is_deaf_already():
    wanted = forwarding_settings("mesh", ROUTES, uplink=False)
    assert settings_to_write(wanted, {"ipv6/conf/eth0/accept_ra": "0", ALL_IPV6: "0"}) == {ALL_IPV6: "1"}
    assert settings_to_write(wanted, {"ipv6/conf/eth0/accept_ra": "1", ALL_IPV6: "1"}) == {}


def test_the_way_back_is_the_way_there_backwards():
    assert list(settings_to_restore({"a": "1", "b": "0"}).items()) == [("b", "0"), ("a", "1")]


def test_the_tunnel_is_not_its_own_uplink():
    assert uplinks(ROUTES, "mesh") == {4: ("eth0",), 6: ("eth0",)}


def test_one_ip_version_alone_and_by_an_interface_that_is_no_uplink():
    assert list(forwarding_settings("mesh", ROUTES, True, ["lan"], {4})) == [
        "ipv4/conf/mesh/forwarding",
        "ipv4/conf/eth0/forwarding",
        "ipv4/conf/lan/forwarding",
    ]
    assert list(forwarding_settings("mesh", ROUTES, True, ["lan"], {6})) == ["ipv6/conf/eth0/accept_ra", ALL_IPV6]
