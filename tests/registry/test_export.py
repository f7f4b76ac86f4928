"""A registry as plain wg-quick files."""

from ipaddress import ip_interface, ip_network

from tests.registry.test_stock import LAPTOP, NETWORK, PHONE, PSK, REGISTRY, VPS, add, membership
from wgdisco.endpoint import Endpoint
from wgdisco.registry.export import member_texts, registry_text
from wgdisco.registry.stock import KEY_PLACEHOLDER
from wgdisco.tunnel.conf import parse_conf

__all__ = ["membership"]  # the fixture

HERE = Endpoint.from_text("203.0.113.9:4000")


def test_every_member_and_device_is_a_peer_where_it_is_fixed_or_was_last(membership):
    add(membership)
    changes, link = membership.invite(b"s" * 16, 0.0, "eve")
    membership.apply(changes)
    text = registry_text(membership, {LAPTOP: HERE, VPS: HERE}, with_ipv6=True)
    conf = parse_conf(text, "mesh.conf")
    assert conf.device.private_key == REGISTRY
    assert conf.device.listen_port == 51820
    assert conf.addresses == (ip_interface("10.7.8.1/24"), ip_interface("fd77::1/64"))
    vps, laptop, phone = conf.device.peers
    assert [vps.public_key, laptop.public_key, phone.public_key] == [VPS, LAPTOP, PHONE.public_key()]
    assert (vps.endpoint, laptop.endpoint, phone.endpoint) == (Endpoint.from_text("192.0.2.7:51820"), HERE, None)
    assert phone.preshared_key == PSK
    assert phone.allowed_ips == (ip_network("10.7.8.4"), ip_network("fd77::4"))
    assert "# phone\n" in text
    assert "It holds no private key but its own" in text
    assert link.to_text() not in text
    assert "fd77" not in registry_text(membership, {}, with_ipv6=False)


def test_the_end_of_a_tls_connection_is_no_endpoint(membership):
    conf = parse_conf(registry_text(membership, {LAPTOP: Endpoint.from_text("127.0.0.1:9")}, with_ipv6=True), "x")
    assert conf.device.peers[1].endpoint is None


def test_everybodys_file_is_whole_but_for_the_private_key(membership):
    add(membership, direct_to=("vps",))
    membership.apply(membership.set_endpoint("vps", None))
    texts = member_texts(membership)
    assert set(texts) == {"vps", "laptop", "phone"}
    assert KEY_PLACEHOLDER in texts["phone"]
    assert "The registry never had the private key" in texts["laptop"]
    conf = parse_conf(texts["phone"].replace(KEY_PLACEHOLDER, f"PrivateKey = {PHONE.to_text()}"), "phone.conf")
    (registry,) = conf.device.peers
    assert (registry.public_key, registry.preshared_key) == (NETWORK.private_key.public_key(), PSK)
    assert conf.addresses[0] == ip_interface("10.7.8.4/32")
