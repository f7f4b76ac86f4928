"""WireGuard's netlink messages: sizes, what goes where, what cannot be read. The kernel judges in test_kernel.py."""

import os
from ipaddress import IPv4Network, ip_address, ip_network

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.io.netlink import attribute, attributes
from wgdisco.tunnel.io.wireguard_netlink import MESSAGE_SIZE, StatusReader, get_device, set_device, set_peer

KEY = PublicKey(bytes(range(32)))


def fields(body: bytes) -> dict[int, bytes]:
    return dict(attributes(body[4:]))


def peers_of(body: bytes) -> list[dict[int, bytes]]:
    return [dict(attributes(part)) for _, part in attributes(fields(body).get(8, b""))]


def test_many_prefixes_are_split():
    networks = tuple(IPv4Network((n << 8, 24)) for n in range(100_000))
    messages = list(set_device(7, DeviceConfig(None, 0, 0, (PeerConfig(KEY, allowed_ips=networks),))))
    assert max(map(len, messages)) <= MESSAGE_SIZE
    parts = [part for body in messages for part in peers_of(body)]
    assert {part[1] for part in parts} == {KEY.raw}
    assert [3 in part for part in parts] == [True] + [False] * (len(parts) - 1)  # replaced once, then added to
    assert sum(1 for part in parts for _ in attributes(part[9])) == 100_000
    assert [3 in fields(body) for body in messages] == [True] + [False] * (len(messages) - 1)
    assert StatusReader().read(messages, 0.0).peers[0].allowed_ips == networks


def test_many_peers_are_split_and_joined():
    peers = tuple(
        PeerConfig(PublicKey(b"\1" + n.to_bytes(31, "big")), None, Endpoint.from_text("[2001:db8::1]:9"), (), n % 70)
        for n in range(5000)
    )
    messages = list(set_device(7, DeviceConfig(None, 51820, 3, peers), [KEY]))
    assert max(map(len, messages)) <= MESSAGE_SIZE
    first = peers_of(messages[0])[0]
    assert (first[1], first[3]) == (KEY.raw, (1 | 4).to_bytes(4, "little"))
    status = StatusReader().read(messages, 0.0)
    assert [(one.endpoint, one.persistent_keepalive) for one in status.peers[1:]] == [
        (peer.endpoint, peer.persistent_keepalive) for peer in peers
    ]
    assert (status.listen_port, status.fwmark) == (51820, 3)


def test_one_peer_in_one_step():
    (part,) = peers_of(set_peer(7, KEY, Endpoint.from_text("192.0.2.1:5"), 25))
    assert part[3] == (4).to_bytes(4, "little")
    assert part[4][:8] == b"\2\0\0\5\xc0\0\2\1"
    assert part[5] == b"\x19\0"
    (part,) = peers_of(set_peer(7, KEY, None, 0))
    assert 4 not in part
    (part,) = peers_of(set_peer(7, KEY, Endpoint.from_text("[fd00::1%4294967296]:5"), 0))
    assert part[4][24:28] == bytes(4)


def test_what_is_no_status_says_nothing():
    """Short, long and senseless attributes: no exception, and no peer without a key."""
    status = StatusReader().read([b"", b"\0\0\0\0", get_device(7), attribute(8, b"\xff" * 40), os.urandom(3)], 0.0)
    assert (status.public_key, status.peers) == (None, ())
    for length in range(80):
        truncated = attribute(1, KEY.raw) + b"\x10\0\4\0" + bytes(length)
        StatusReader().read([bytes(4) + attribute(8, attribute(0, truncated))], 0.0)
        part = attribute(1, KEY.raw) + attribute(4, bytes(length)) + attribute(6, bytes(length % 24))
        (peer,) = StatusReader().read([bytes(4) + attribute(8, attribute(0, part))], 0.0).peers
        assert peer.endpoint is None


def test_a_peer_that_did_nothing_is_the_same_object():
    other = PublicKey(bytes([7] * 32))
    reader = StatusReader()

    def read(keepalive: int):
        networks = tuple(IPv4Network((n << 8, 24)) for n in range(1000))  # goes on in another message
        peers = (PeerConfig(KEY, allowed_ips=networks), PeerConfig(other, persistent_keepalive=keepalive))
        return reader.read(set_device(7, DeviceConfig(None, 0, 0, peers)), 0.0).peers

    before, after, again = read(1), read(2), read(2)
    assert [one is two for one, two in zip(before, after, strict=True)] == [True, False]
    assert [one is two for one, two in zip(after, again, strict=True)] == [True, True]
    assert (len(after[0].allowed_ips), after[1].persistent_keepalive) == (1000, 2)


def allowed_ips_of(part: dict[int, bytes]) -> list[tuple[str, int]]:
    """Prefixes in a part of a peer, and their flags."""
    found = []
    for _, packed in attributes(part[9]):
        told = dict(attributes(packed))
        address = f"{ip_address(told[2])}/{told[3][0]}"
        found.append((address, int.from_bytes(told.get(4, b""), "little")))
    return sorted(found)


def test_allowed_ips_that_stay_are_not_touched():
    ten, eleven, twelve = (ip_network(f"{n}.0.0.0/8") for n in (10, 11, 12))
    replace_all, remove = 2, 1

    def parts(had, wanted, *, one_by_one):
        config = DeviceConfig(None, 0, 0, (PeerConfig(KEY, allowed_ips=wanted),))
        (body,) = set_device(7, config, (), {} if had is None else {KEY: had}, one_by_one=one_by_one)
        (part,) = peers_of(body)
        return int.from_bytes(part[3], "little"), allowed_ips_of(part)

    for one_by_one in (False, True):
        assert parts(None, (ten, eleven), one_by_one=one_by_one) == (
            replace_all,
            [("10.0.0.0/8", 0), ("11.0.0.0/8", 0)],
        )
        assert parts((ten,), (ten,), one_by_one=one_by_one) == (0, [])
        assert parts((ten,), (ten, eleven), one_by_one=one_by_one) == (0, [("11.0.0.0/8", 0)])
    less = (ten, eleven), (eleven, twelve)
    assert parts(*less, one_by_one=False) == (replace_all, [("11.0.0.0/8", 0), ("12.0.0.0/8", 0)])
    assert parts(*less, one_by_one=True) == (0, [("10.0.0.0/8", remove), ("12.0.0.0/8", 0)])
