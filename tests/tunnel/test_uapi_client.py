"""What another engine's socket is told, and what is made of its answers; our own server's words are the other end."""

import random
from dataclasses import replace
from ipaddress import ip_network

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.uapi import SetOperation, format_get
from wgdisco.tunnel.uapi_client import StatusReader, check_answer, format_renew_peer, format_set_peer

OWN = PrivateKey(bytes(range(32)))
KEY = PublicKey(bytes(range(1, 33)))
SIX = Endpoint.from_text("[2001:db8::1]:7")


def device() -> Device:
    made = Device(random.Random(1).randbytes, lambda: 0.0)
    networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/64"))
    peers = (
        PeerConfig(KEY, PresharedKey(bytes([1] * 32)), SIX, networks, 25),
        PeerConfig(PublicKey(bytes([9] * 32))),
    )
    made.apply(DeviceConfig(OWN, 51820, 3, peers), 0.0)
    return made


def test_what_a_server_tells():
    made = device()
    seen = StatusReader().read("".join(format_get(made)) + "errno=0\n\n", 0.0)
    told = made.status()
    assert (seen.public_key, seen.listen_port, seen.fwmark) == (OWN.public_key(), 51820, 3)
    # when a handshake attempt began is not told
    assert seen.peers == tuple(replace(peer, unanswered_since=None) for peer in told.peers)


def test_a_peer_that_did_nothing_is_the_same_object():
    made, reader = device(), StatusReader()
    before = reader.read("".join(format_get(made)) + "errno=0\n\n", 0.0).peers
    made.set_peer(KEY, SIX, 7, 0.0)
    after = reader.read("".join(format_get(made)) + "errno=0\n\n", 5.0).peers
    assert after[1] is before[1]
    assert (after[0].persistent_keepalive, before[0].persistent_keepalive) == (7, 25)


def test_a_server_understands():
    class NoSockets:
        def set_listen_port(self, port):
            raise AssertionError(port)

        def set_fwmark(self, mark):
            raise AssertionError(mark)

    made = device()
    operation = SetOperation(made, NoSockets(), lambda: 0.0)
    for line in format_set_peer(KEY, Endpoint.from_text("192.0.2.1:5"), 7).splitlines()[1:-1]:
        for _ in operation.take(line) or ():
            pass
    operation.finish()
    peer = made.status().peers[0]
    assert (str(peer.endpoint), peer.persistent_keepalive, len(peer.allowed_ips)) == ("192.0.2.1:5", 7, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "errno=1\n\n",
        "errno=-22\n\n",
        "errno=--5\n\n",
        "errno=x\n\n",
        "private_key=zz\nerrno=0\n\n",
        "public_key=00\nerrno=0\n\n",
        f"public_key={KEY.raw.hex()}\nlast_handshake_time_sec={'9' * 400}\nerrno=0\n\n",
    ],
)
def test_answers_that_are_none(text):
    with pytest.raises(LocalError):
        StatusReader().read(text, 0.0)


def test_refusals_have_names():
    with pytest.raises(LocalError, match="EPERM"):
        check_answer("errno=1\n\n")
    check_answer("errno=0\n\n")


def boringtun(age: float, endpoint: str, more: str = "") -> str:
    seconds, nanoseconds = divmod(round(age * 1e9), 10**9)
    return (
        f"own_public_key={OWN.public_key().raw.hex()}\nlisten_port=1\npublic_key={KEY.raw.hex()}\n"
        f"preshared_key={'01' * 32}\nendpoint={endpoint}\nallowed_ip=10.0.0.0/8\n"
        f"last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={nanoseconds}\n{more}errno=0\n\n"
    )


def test_boringtun_tells_ages_and_the_same_handshake_is_the_same():
    reader = StatusReader()
    first = reader.read(boringtun(3.5, "192.0.2.1:5"), -900.0, 1000.0)
    assert reader.renews
    assert (first.public_key, first.listen_port) == (OWN.public_key(), 1)
    (peer,) = first.peers
    assert (peer.handshake_unix, peer.handshake_at) == (996.5, 96.5)
    (again,) = reader.read(boringtun(10.6, "192.0.2.1:5"), -900.001, 1007.0).peers
    assert again is peer
    (moved,) = reader.read(boringtun(10.7, "192.0.2.1:6"), -900.0, 1007.0).peers
    assert moved == replace(peer, endpoint=Endpoint.from_text("192.0.2.1:6"))
    (shaken,) = reader.read(boringtun(0.1, "192.0.2.1:6"), -900.0, 1008.0).peers
    assert shaken.handshake_unix == pytest.approx(1007.9)


def test_boringtun_s_peers_are_changed_by_adding_them_anew():
    reader = StatusReader()
    (peer,) = reader.read(boringtun(3.5, "192.0.2.1:5"), 0.0, 1000.0).peers
    shared = reader.shared[KEY]
    text = format_renew_peer(PeerConfig(KEY, shared, SIX, peer.allowed_ips, 7))
    named, *rest = text.splitlines()[1:-1]
    assert rest[:3] == ["remove=true", named, "remove=false"]
    assert sorted(rest[3:]) == [
        "allowed_ip=10.0.0.0/8",
        f"endpoint={SIX}",
        "persistent_keepalive_interval=7",
        f"preshared_key={'01' * 32}",
        "replace_allowed_ips=true",
    ]


def test_boringtun_with_a_key_of_zeros_has_none():
    none = PrivateKey(bytes(32)).public_key()
    assert StatusReader().read(f"own_public_key={none.raw.hex()}\nerrno=0\n\n", 0.0).public_key is None
