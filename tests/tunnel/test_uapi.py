import errno
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tunnel.test_conf import devices
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PeerStatus
from wgdisco.tunnel.uapi import apply_set, format_get, parse_set

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
PRIVATE = PrivateKey(bytes(range(32)))
ONE, TWO = ip_network("10.1.0.0/16"), ip_network("fd00::/64")


def config(*peers: PeerConfig, private_key: PrivateKey | None = None) -> DeviceConfig:
    return DeviceConfig(private_key, 1, 2, peers)


def after(start: DeviceConfig, *lines: str) -> DeviceConfig:
    """What the lines, all of them good, make of `start`."""
    operation = parse_set(lines)
    assert operation.errno == 0
    return apply_set(operation, start)


def test_device_keys():
    changed = after(config(), f"private_key={PRIVATE.raw.hex()}", "listen_port=51820", "fwmark=4294967295")
    assert changed == DeviceConfig(PRIVATE, 51820, 4294967295)
    assert after(changed) == changed
    assert after(changed, f"private_key={'0' * 64}", "listen_port=0", "fwmark=0") == DeviceConfig()


def test_a_private_key_is_clamped():
    changed = after(config(), f"private_key={'ff' * 32}")
    assert changed.private_key is not None
    assert changed.private_key.raw == b"\xf8" + b"\xff" * 30 + b"\x7f"


def test_a_whole_peer():
    changed = after(
        config(),
        f"public_key={A.hex().upper()}",
        "protocol_version=1",
        f"preshared_key={C.hex()}",
        "endpoint=[fe80::1%eth0]:5",
        "persistent_keepalive_interval=65535",
        "allowed_ip=10.1.2.3/16",
        "allowed_ip=fd00::1/64",
    )
    endpoint = Endpoint.from_text("[fe80::1%eth0]:5")
    assert changed.peers == (PeerConfig(PublicKey(A), PresharedKey(C), endpoint, (ONE, TWO), 65535),)


def test_what_is_not_said_stays():
    peer = PeerConfig(PublicKey(A), PresharedKey(C), Endpoint.from_text("192.0.2.1:5"), (ONE,), 3, managed=True)
    assert after(config(peer), f"public_key={A.hex()}") == config(peer)
    assert after(config(peer), f"public_key={A.hex()}", f"preshared_key={'0' * 64}").peers[0].preshared_key is None


def test_peers_are_kept_removed_and_replaced():
    a, b = PeerConfig(PublicKey(A)), PeerConfig(PublicKey(B))
    assert after(config(a, b), f"public_key={A.hex()}", "remove=true", "allowed_ip=10.0.0.0/8").peers == (b,)
    assert after(config(a), f"public_key={B.hex()}", "remove=true").peers == (a,)
    assert after(config(a), "replace_peers=true", f"public_key={B.hex()}").peers == (b,)
    assert after(config(a), f"public_key={B.hex()}", "update_only=true", "allowed_ip=10.1.0.0/16").peers == (a,)
    updated = after(config(a), f"public_key={A.hex()}", "update_only=true", "allowed_ip=10.1.0.0/16").peers
    assert updated == (replace(a, allowed_ips=(ONE,)),)
    twice = after(config(a), f"public_key={A.hex()}", "remove=true", f"public_key={A.hex()}", "allowed_ip=fd00::/64")
    assert twice.peers == (replace(a, allowed_ips=(TWO,)),)


def test_a_prefix_has_one_owner():
    a, b = PeerConfig(PublicKey(A), allowed_ips=(ONE, TWO)), PeerConfig(PublicKey(B))
    moved = after(config(a, b), f"public_key={B.hex()}", "allowed_ip=10.1.0.0/16")
    assert [peer.allowed_ips for peer in moved.peers] == [(TWO,), (ONE,)]
    not_its_own = after(moved, f"public_key={A.hex()}", "allowed_ip=-10.1.0.0/16", "allowed_ip=-fd00::/64")
    assert [peer.allowed_ips for peer in not_its_own.peers] == [(), (ONE,)]
    replaced = after(moved, f"public_key={B.hex()}", "replace_allowed_ips=true", "allowed_ip=fd00::/64")
    assert [peer.allowed_ips for peer in replaced.peers] == [(), (TWO,)]
    added_then_replaced = after(moved, f"public_key={A.hex()}", "allowed_ip=10.1.0.0/16", "replace_allowed_ips=true")
    assert [peer.allowed_ips for peer in added_then_replaced.peers] == [(), (ONE,)]


def test_our_own_key_is_never_a_peer():
    own = PRIVATE.public_key()
    assert after(config(private_key=PRIVATE), f"public_key={own.raw.hex()}", "allowed_ip=10.0.0.0/8").peers == ()
    assert after(config(PeerConfig(own)), f"private_key={PRIVATE.raw.hex()}").peers == ()


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("nonsense", errno.EPROTO),
        ("", errno.EPROTO),
        ("colour=red", errno.EINVAL),
        ("=", errno.EINVAL),
        ("listen_port=65536", errno.EINVAL),
        ("listen_port=-1", errno.EINVAL),
        ("listen_port=٣", errno.EINVAL),
        (f"listen_port={'9' * 5000}", errno.EINVAL),
        ("fwmark=4294967296", errno.EINVAL),
        ("replace_peers=false", errno.EINVAL),
        (f"private_key={'0' * 63}", errno.EINVAL),
        (f"private_key= {'0' * 63}", errno.EINVAL),
        (f"preshared_key={'0' * 64}", errno.EINVAL),  # before any public_key
        ("public_key=x", errno.EINVAL),
    ],
)
def test_a_faulty_device_line_ends_the_operation(line, number):
    operation = parse_set(["listen_port=7", line, "listen_port=8"])
    assert operation.errno == number
    assert apply_set(operation, config()).listen_port == 7


@pytest.mark.parametrize(
    "line",
    [
        "listen_port=1",
        "remove=yes",
        "update_only=false",
        "replace_allowed_ips=",
        "endpoint=example.com:5",
        "endpoint=192.0.2.1:0",
        "endpoint=192.0.2.1:99999",
        "endpoint=fe80::1:5",
        "persistent_keepalive_interval=65536",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=+10.0.0.0/8",
        "allowed_ip=--10.0.0.0/8",
        "protocol_version=2",
    ],
)
def test_a_faulty_peer_line_keeps_the_lines_before_it(line):
    operation = parse_set([f"public_key={A.hex()}", "allowed_ip=10.1.0.0/16", line, f"public_key={B.hex()}"])
    assert operation.errno == errno.EINVAL
    assert apply_set(operation, config()).peers == (PeerConfig(PublicKey(A), allowed_ips=(ONE,)),)


def status_of(whole: DeviceConfig) -> DeviceStatus:
    """The status of a device that did nothing yet."""
    peers = tuple(
        PeerStatus(
            peer.public_key,
            peer.endpoint,
            peer.allowed_ips,
            peer.preshared_key is not None,
            peer.persistent_keepalive,
            *(None, None, None, None, 0, 0),
        )
        for peer in whole.peers
    )
    public = None if whole.private_key is None else whole.private_key.public_key()
    return DeviceStatus(public, whole.listen_port, whole.fwmark, peers, {})


def test_get_in_the_order_of_the_protocol():
    peer = PeerConfig(PublicKey(A), PresharedKey(C), Endpoint.from_text("[2001:db8::1]:5"), (ONE, TWO), 25)
    whole = config(peer, PeerConfig(PublicKey(B)), private_key=PRIVATE)
    status = status_of(whole)
    busy = replace(status.peers[0], handshake_unix=1700000000.5, rx_bytes=1372, tx_bytes=1460)
    status = replace(status, listen_port=51820, peers=(busy, status.peers[1]))
    assert format_get(whole, status) == (
        f"private_key={PRIVATE.raw.hex()}\nlisten_port=51820\nfwmark=2\n"
        f"public_key={A.hex()}\npreshared_key={C.hex()}\nprotocol_version=1\nendpoint=[2001:db8::1]:5\n"
        "last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=500000000\ntx_bytes=1460\nrx_bytes=1372\n"
        "persistent_keepalive_interval=25\nallowed_ip=10.1.0.0/16\nallowed_ip=fd00::/64\n"
        f"public_key={B.hex()}\nprotocol_version=1\n"
        "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"
        "persistent_keepalive_interval=0\n"
    )
    assert format_get(DeviceConfig(), status_of(DeviceConfig())) == "listen_port=0\n"


READ_ONLY = ("last_handshake_time_", "tx_bytes=", "rx_bytes=")


@given(devices, devices)
def test_what_get_says_set_understands(whole, before):
    whole = apply_set(parse_set([]), whole)  # without prefixes two peers claim, or our own key
    lines = [line for line in format_get(whole, status_of(whole)).splitlines() if not line.startswith(READ_ONLY)]
    clear = [f"private_key={'0' * 64}", "fwmark=0", "replace_peers=true"]
    assert after(before, *clear, *lines) == whole


KEYS = ["public_key=", "remove=", "allowed_ip=", "endpoint=", "listen_port=", "private_key=", "replace_peers="]
VALUES = ["0" * 64, A.hex(), "true", "10.0.0.1", "::1", "5", "\x00", "%", "\u0663", "[", "]:"]
WORDS = st.sampled_from(["=", "\n", "-", "/", *KEYS, *VALUES])


@given(st.lists(st.text()) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).split("\n")), devices)
def test_any_lines_are_applied_or_refused(lines, before):
    operation = parse_set(lines)
    assert operation.errno in (0, errno.EINVAL, errno.EPROTO)
    changed = apply_set(operation, before)
    owned = [network for peer in changed.peers for network in peer.allowed_ips]
    assert len(owned) == len(set(owned))


def test_secrets_stay_out_of_repr():
    operation = parse_set([f"private_key={'ab' * 32}", f"public_key={A.hex()}", f"preshared_key={'cd' * 32}"])
    assert "abab" not in repr(operation).lower()
    assert bytes.fromhex("cd" * 32).__repr__()[2:20] not in repr(operation)
