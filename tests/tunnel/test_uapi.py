import errno
from dataclasses import replace
from ipaddress import ip_network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tunnel.test_conf import devices
from tests.tunnel.wire import ip_packet, joined
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import uapi
from wgdisco.tunnel.burst import Frames
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.messages import REKEY_TIMEOUT
from wgdisco.tunnel.uapi import RefusedError, SetOperation, format_get

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
PRIVATE = PrivateKey(bytes(range(32)))
ONE, TWO = ip_network("10.1.0.0/16"), ip_network("fd00::/64")
NOW = 100.0


class Configured:
    """A device that `set` operations change, with nothing but its core: ports and marks are numbers."""

    def __init__(self, config: DeviceConfig | None = None) -> None:
        random = Random(1)
        self.device = Device(random.randbytes, lambda: 1e9)
        self.device.apply(config or DeviceConfig(), NOW)
        self.taken = 0

    def set_listen_port(self, port: int) -> None:
        if port and port == self.taken:
            raise LocalError("taken") from OSError(errno.EADDRINUSE, "")
        self.device.listen_port = port

    def set_fwmark(self, mark: int) -> None:
        self.device.fwmark = mark

    def set(self, *lines: str) -> int:
        """Carry out lines up to the first at fault; its errno, or 0."""
        operation = SetOperation(self.device, self, lambda: NOW)
        try:
            for line in lines:
                for _ in operation.take(line):
                    pass
        except RefusedError as refused:
            return refused.errno
        finally:
            operation.finish()
        return 0


def config(*peers: PeerConfig, private_key: PrivateKey | None = None) -> DeviceConfig:
    return DeviceConfig(private_key, 1, 2, peers)


def after(start: DeviceConfig, *lines: str) -> DeviceConfig:
    """What the lines, all of them good, make of `start`."""
    configured = Configured(start)
    assert configured.set(*lines) == 0
    return configured.device.config()


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


@pytest.mark.rule("U10")
@pytest.mark.parametrize("address", ["192.0.2.2", "[fd00::2]"])
def test_port_0_is_taken_and_leaves_the_endpoint(address):
    """`wg setconf` sends it for an Endpoint of port 0, which wireguard-go and the kernel accept."""
    peer = PeerConfig(PublicKey(A), endpoint=Endpoint.from_text("192.0.2.1:5"))
    assert after(config(peer), f"public_key={A.hex()}", f"endpoint={address}:0") == config(peer)
    assert after(config(), f"public_key={A.hex()}", f"endpoint={address}:0").peers[0].endpoint is None


def test_what_is_not_said_stays():
    peer = PeerConfig(PublicKey(A), PresharedKey(C), Endpoint.from_text("192.0.2.1:5"), (ONE,), 3, managed=True)
    assert after(config(peer), f"public_key={A.hex()}") == config(peer)
    assert after(config(peer), f"public_key={A.hex()}", f"preshared_key={'0' * 64}").peers[0].preshared_key is None


@pytest.mark.rule("U7", "U9")
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
    assert [peer.allowed_ips for peer in added_then_replaced.peers] == [(), ()]  # line by line


@pytest.mark.rule("U9")
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
    configured = Configured()
    assert configured.set("listen_port=7", line, "listen_port=8") == number
    assert configured.device.listen_port == 7


@pytest.mark.parametrize(
    "line",
    [
        "listen_port=1",
        "remove=yes",
        "update_only=false",
        "replace_allowed_ips=",
        "endpoint=example.com:5",
        "endpoint=example.com:0",
        "endpoint=192.0.2.1:00",
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
    configured = Configured()
    lines = f"public_key={A.hex()}", f"preshared_key={C.hex()}", "allowed_ip=10.1.0.0/16", line
    assert configured.set(*lines, f"public_key={B.hex()}") == errno.EINVAL
    assert configured.device.config().peers == (PeerConfig(PublicKey(A), PresharedKey(C), allowed_ips=(ONE,)),)


@pytest.mark.rule("U8")
def test_a_port_that_is_taken_is_told_and_what_came_before_stays():
    configured = Configured()
    configured.taken = 7
    assert configured.set("fwmark=5", "listen_port=7", "fwmark=6") == errno.EADDRINUSE
    assert (configured.device.fwmark, configured.device.listen_port) == (5, 0)


@pytest.mark.rule("U9")
def test_a_new_peer_is_at_rest_until_its_block_ends():
    configured = Configured(DeviceConfig(PRIVATE))
    operation = SetOperation(configured.device, configured, lambda: NOW)
    for line in (f"public_key={A.hex()}", "endpoint=192.0.2.1:5", "persistent_keepalive_interval=5"):
        assert list(operation.take(line)) == []
    assert configured.device.datagrams_to_send() == []
    operation.take(f"public_key={B.hex()}")
    ((initiation, endpoint),) = configured.device.datagrams_to_send()
    assert (len(initiation.data), str(endpoint)) == (148, "192.0.2.1:5")
    operation.take("endpoint=192.0.2.2:5")
    operation.take("persistent_keepalive_interval=5")
    operation.finish()
    assert [str(to) for _, to in configured.device.datagrams_to_send()] == ["192.0.2.2:5"]


@pytest.mark.rule("U11")
def test_what_is_staged_goes_to_the_new_endpoint_when_the_block_ends():
    peer = PeerConfig(PublicKey(A), allowed_ips=(ONE,), endpoint=Endpoint.from_text("192.0.2.1:5"))
    configured = Configured(DeviceConfig(PRIVATE, peers=(peer,)))
    configured.device.send(Frames.of(ip_packet("10.9.0.1", "10.1.0.1")), NOW)
    assert [str(to) for _, to in configured.device.datagrams_to_send()] == ["192.0.2.1:5"]
    operation = SetOperation(configured.device, configured, lambda: NOW + REKEY_TIMEOUT)
    for line in (f"public_key={A.hex()}", "endpoint=192.0.2.2:5", f"preshared_key={C.hex()}"):
        operation.take(line)
    assert configured.device.datagrams_to_send() == []
    operation.finish()
    assert [str(to) for _, to in configured.device.datagrams_to_send()] == ["192.0.2.2:5"]


@pytest.mark.rule("U9", "H11")
def test_a_peer_at_rest_hears_no_handshake():
    """Half set, it could be answered without the preshared key that a later line brings."""
    _wire, alice, bob = joined()
    configured = Configured(DeviceConfig(bob.private))
    operation = SetOperation(configured.device, configured, lambda: NOW)
    operation.take(f"public_key={alice.key.raw.hex()}")
    alice.device.apply(DeviceConfig(alice.private, peers=(replace(alice.peers[bob], endpoint=bob.endpoint),)), NOW)
    alice.device.send(Frames.of(ip_packet("10.9.0.1", "10.9.0.2")), NOW)
    ((initiation, _),) = alice.device.datagrams_to_send()
    configured.device.receive(initiation, alice.endpoint, NOW)
    configured.device.handle_handshakes(NOW)
    assert configured.device.datagrams_to_send() == []
    operation.finish()
    configured.device.receive(initiation, alice.endpoint, NOW)
    configured.device.handle_handshakes(NOW)
    assert [len(datagram.data) for datagram, _ in configured.device.datagrams_to_send()] == [92]


@pytest.mark.rule("U14")
def test_peers_have_a_number_that_is_not_passed(monkeypatch):
    assert uapi.MAX_PEERS == 65536
    monkeypatch.setattr(uapi, "MAX_PEERS", 100)
    configured = Configured()
    lines = [f"public_key={number:064x}" for number in range(1, 101)]
    assert configured.set(*lines) == 0
    assert configured.set(f"public_key={'f' * 64}") == errno.EINVAL
    assert len(configured.device.peers) == 100
    assert configured.set(lines[0], "allowed_ip=10.0.0.0/8") == 0  # one that is there may change
    assert configured.set("replace_peers=true") == 0
    assert configured.device.config() == DeviceConfig()


def test_what_takes_long_lets_others_have_their_turn():
    configured = Configured()
    prefixes = [f"allowed_ip=10.0.{number >> 8}.{number & 255}/32" for number in range(2000)]
    peers = [f"public_key={number:064x}" for number in range(1, 20)]
    assert configured.set(*peers, *prefixes) == 0
    operation = SetOperation(configured.device, configured, lambda: NOW)
    operation.take(peers[-1])
    assert len(list(operation.take("replace_allowed_ips=true"))) > 5
    assert configured.device.config().peers[-1].allowed_ips == ()
    operation.finish()
    assert configured.set(peers[-1], *prefixes) == 0
    assert len(list(SetOperation(configured.device, configured, lambda: NOW).take("replace_peers=true"))) > 20
    assert configured.device.config() == DeviceConfig()


def told(device: Device) -> str:
    return "".join(format_get(device))


@pytest.mark.rule("U4")
def test_get_in_the_order_of_the_protocol():
    wire, alice, bob = joined(preshared_key=PresharedKey(C))
    alice.ping(bob)
    where = Endpoint.from_text("[2001:db8::1]:5")
    first = replace(alice.peers[bob], endpoint=where, allowed_ips=(ONE, TWO), persistent_keepalive=25)
    second = PeerConfig(PublicKey(B))
    alice.device.apply(DeviceConfig(alice.private, 51820, 2, (first, second)), wire.now)
    status = alice.status(bob)
    assert status.handshake_unix is not None
    seconds, fraction = divmod(status.handshake_unix, 1)
    assert told(alice.device) == (
        f"private_key={alice.private.raw.hex()}\nlisten_port=51820\nfwmark=2\n"
        f"public_key={bob.key.raw.hex()}\npreshared_key={C.hex()}\nprotocol_version=1\nendpoint=[2001:db8::1]:5\n"
        f"last_handshake_time_sec={int(seconds)}\nlast_handshake_time_nsec={int(fraction * 1e9)}\n"
        f"tx_bytes={status.tx_bytes}\nrx_bytes={status.rx_bytes}\n"
        "persistent_keepalive_interval=25\nallowed_ip=10.1.0.0/16\nallowed_ip=fd00::/64\n"
        f"public_key={B.hex()}\npreshared_key={'0' * 64}\nprotocol_version=1\n"
        "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"
        "persistent_keepalive_interval=0\n"
    )
    assert status.rx_bytes == 92
    assert told(Configured().device) == "listen_port=0\n"


READ_ONLY = ("last_handshake_time_", "tx_bytes=", "rx_bytes=")


@given(devices, devices)
def test_what_get_says_set_understands(whole, before):
    said = Configured(whole).device  # without prefixes two peers claim, or our own key
    lines = [line for line in told(said).splitlines() if not line.startswith(READ_ONLY)]
    clear = [f"private_key={'0' * 64}", "fwmark=0", "replace_peers=true"]
    assert after(before, *clear, *lines) == said.config()


KEYS = ["public_key=", "remove=", "allowed_ip=", "endpoint=", "listen_port=", "private_key=", "replace_peers="]
VALUES = ["0" * 64, A.hex(), "true", "10.0.0.1", "::1", "5", "\x00", "%", "\u0663", "[", "]:"]
WORDS = st.sampled_from(["=", "\n", "-", "/", *KEYS, *VALUES])


@pytest.mark.rule("U16")
@given(st.lists(st.text()) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).split("\n")), devices)
def test_any_lines_are_applied_or_refused(lines, before):
    configured = Configured(before)
    assert configured.set(*lines) in (0, errno.EINVAL, errno.EPROTO)
    owned = [network for peer in configured.device.config().peers for network in peer.allowed_ips]
    assert len(owned) == len(set(owned))


@pytest.mark.parametrize("key", ["private_key", "public_key", "preshared_key", "endpoint", "colour"])
def test_values_stay_out_of_complaints(key):
    operation = SetOperation(Configured().device, Configured(), lambda: NOW)
    if key != "private_key":
        operation.take(f"public_key={A.hex()}")
    with pytest.raises(RefusedError) as refused:
        operation.take(f"{key}=secret{'ab' * 29}")
    assert "secret" not in str(refused.value)
