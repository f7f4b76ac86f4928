"""The device: what it takes in and refuses, load and cookies, routing, configuration."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest

from tests.tunnel.by_hand import inner_packet
from tests.tunnel.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Node, Wire, ip_packet, joined
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.burst import Burst, Frames
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.cookie import CookieJar
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop, PeerHandshake, RawReceived
from wgdisco.tunnel.frames import destination_of
from wgdisco.tunnel.intake import COOKIE_REPLIES_A_TURN
from wgdisco.tunnel.messages import HANDSHAKE_QUEUE, UNDER_LOAD_QUEUE, CookieReply

STRANGER = Endpoint.from_text("203.0.113.66:6666")


def _forged_initiation(key: PublicKey, number: int = 0) -> bytes:
    """What anybody can send who knows the public key: rubbish with a good mac1."""
    body = b"\x01\0\0\0" + number.to_bytes(4, "little") + bytes(108)
    return CookieJar(key).add_macs(body, 0.0)


def _load(node: Node, count: int = UNDER_LOAD_QUEUE) -> None:
    """Fill the handshake queue, and let it wait."""
    node.busy = True
    for number in range(count):
        node.device.receive(Burst.of(_forged_initiation(node.key, number)), STRANGER, node.wire.now)
    node.wire.settle()


def _drain(node: Node) -> None:
    node.busy = False
    while node.device.handle_handshakes(node.wire.now):
        pass
    node.wire.settle()


# Load and cookies (rules C1 to C9)


@pytest.mark.rule("C2", "C9")
def test_below_512_waiting_handshakes_there_are_no_cookies():
    wire, alice, bob = joined()
    _load(bob, UNDER_LOAD_QUEUE - 1)
    alice.ping(bob)
    assert wire.since(0, COOKIE_REPLY) == []
    _drain(bob)
    assert len(bob.delivered) == 1
    assert bob.drops(Drop.BAD_INITIATION) == UNDER_LOAD_QUEUE - 1


@pytest.mark.rule("C2", "C3", "C5")
def test_under_load_a_handshake_is_answered_with_a_cookie():
    wire, alice, bob = joined()
    _load(bob)
    alice.ping(bob)
    assert [sent.kind for sent in wire.log] == [INITIATION, COOKIE_REPLY]
    initiation, reply = wire.log
    assert CookieReply.parse(reply.data).receiver == int.from_bytes(initiation.data[4:8], "little")
    assert reply.destination == alice.endpoint
    assert bob.drops(Drop.COOKIE_SENT) == 1


@pytest.mark.rule("C3", "C6")
def test_a_cookie_is_used_by_the_next_retry_and_no_sooner():
    wire, alice, bob = joined()
    _load(bob)
    packet = alice.ping(bob)
    assert wire.run(4.9) == []
    (initiation,) = wire.run(0.5)
    assert initiation.data[-16:] != bytes(16)
    assert bob.drops(Drop.COOKIE_SENT) == 1
    _drain(bob)
    assert bob.delivered == [packet]
    assert bob.drops(Drop.RATE_LIMITED) == 0


@pytest.mark.rule("C7")
def test_a_cookie_reply_is_no_sign_of_life_and_moves_nothing():
    wire, alice, bob = joined()
    _load(bob)
    wire.lose = lambda sent: sent.kind == COOKIE_REPLY
    alice.ping(bob)
    reply = wire.log[-1]
    alice.receive(reply.data, STRANGER)
    status = alice.status(bob)
    assert (status.endpoint, status.received_at, status.rx_bytes) == (bob.endpoint, None, 0)
    assert alice.events_of(PeerHandshake) == []
    assert alice.drops(Drop.BAD_COOKIE) == 0
    alice.receive(reply.data, STRANGER)
    assert alice.drops(Drop.BAD_COOKIE) == 1, "one reply a mac1"


@pytest.mark.rule("C6")
def test_a_forged_cookie_reply_is_refused():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    alice.ping(bob)
    index = int.from_bytes(wire.log[0].data[4:8], "little")
    alice.receive(CookieReply(index, bytes(24), bytes(32)).pack(), bob.endpoint)
    assert alice.drops(Drop.BAD_COOKIE) == 1
    alice.receive(CookieReply(index ^ 1, bytes(24), bytes(32)).pack(), bob.endpoint)
    assert alice.drops(Drop.UNKNOWN_INDEX) == 1


@pytest.mark.rule("C2", "C9")
def test_load_lingers_for_a_second():
    wire, _alice, bob = joined()
    _load(bob)
    bob.device.receive(Burst.of(_forged_initiation(bob.key)), STRANGER, wire.now)
    _drain(bob)
    cookies = bob.drops(Drop.COOKIE_SENT)
    wire.now += 0.99
    bob.receive(_forged_initiation(bob.key), STRANGER)
    assert bob.drops(Drop.COOKIE_SENT) == cookies + 1
    wire.now += 0.02
    bob.receive(_forged_initiation(bob.key), STRANGER)
    assert bob.drops(Drop.COOKIE_SENT) == cookies + 1


@pytest.mark.rule("C3")
def test_responses_need_a_cookie_under_load_too():
    wire, alice, bob = joined()
    _load(alice)
    alice.ping(bob)
    assert [sent.kind for sent in wire.log] == [INITIATION, RESPONSE, COOKIE_REPLY]
    assert alice.status(bob).handshake_at is None


@pytest.mark.rule("C1", "C3", "H19")
def test_under_load_a_bad_mac1_is_not_answered():
    wire, _alice, bob = joined()
    _load(bob)
    message = bytearray(_forged_initiation(bob.key))
    message[100] ^= 1
    mark = len(wire.log)
    bob.receive(bytes(message), STRANGER)
    assert wire.since(mark) == []
    assert bob.drops(Drop.BAD_MAC1) == 1


class _Stranger:
    """A source that holds a cookie for `node`, got as anybody gets one."""

    def __init__(self, node: Node, source: Endpoint) -> None:
        self.node, self.source, self.jar = node, source, CookieJar(node.key)
        now = node.wire.now
        node.device.receive(Burst.of(self.jar.add_macs(self.body(0), now)), source, now)
        (reply,) = [burst for burst, to in node.device.datagrams_to_send() if to == source]
        assert self.jar.consume_reply(CookieReply.parse(bytes(reply.data)), now)

    def body(self, number: int) -> bytes:
        return b"\x01\0\0\0" + number.to_bytes(4, "little") + bytes(108)

    def send(self, number: int) -> None:
        now = self.node.wire.now
        self.node.device.receive(Burst.of(self.jar.add_macs(self.body(number), now)), self.source, now)


@pytest.mark.rule("C3", "C8")
def test_under_load_a_source_may_begin_5_handshakes_at_once_and_20_a_second():
    wire, _alice, bob = joined()
    _load(bob)
    stranger = _Stranger(bob, STRANGER)
    for number in range(8):
        stranger.send(number)
    assert bob.drops(Drop.RATE_LIMITED) == 3
    for number in range(100):
        wire.now += 0.01
        stranger.send(number)
    assert 100 - 21 <= bob.drops(Drop.RATE_LIMITED) - 3 <= 100 - 19


@pytest.mark.rule("C8")
def test_under_load_an_ipv6_64_is_one_source():
    _wire, _alice, bob = joined()
    _load(bob)
    near = [_Stranger(bob, Endpoint.from_text(f"[2001:db8:0:1::{number:x}]:1")) for number in range(1, 11)]
    for number, stranger in enumerate(near):
        stranger.send(number)
    assert bob.drops(Drop.RATE_LIMITED) == 5
    _Stranger(bob, Endpoint.from_text("[2001:db8:0:2::1]:1")).send(0)
    assert bob.drops(Drop.RATE_LIMITED) == 5


@pytest.mark.rule("C4")
def test_a_cookie_does_not_serve_another_port():
    _wire, _alice, bob = joined()
    _load(bob)
    stranger = _Stranger(bob, STRANGER)
    stranger.source = replace(STRANGER, port=6667)
    before = bob.drops(Drop.COOKIE_SENT)
    stranger.send(1)
    assert bob.drops(Drop.COOKIE_SENT) == before + 1


@pytest.mark.rule("C2")
def test_the_handshake_queue_is_bounded():
    wire, _alice, bob = joined()
    _load(bob)
    strangers = [_Stranger(bob, Endpoint.from_text(f"203.0.{number >> 8}.{number & 255}:9")) for number in range(720)]
    for stranger in strangers:
        for number in range(5):
            stranger.send(number)
    room = HANDSHAKE_QUEUE - UNDER_LOAD_QUEUE
    assert bob.drops(Drop.QUEUE_FULL) == 720 * 5 - room
    assert bob.device.handle_handshakes(wire.now, HANDSHAKE_QUEUE - 1)
    assert not bob.device.handle_handshakes(wire.now, 1)


def test_handshakes_are_consumed_by_budget():
    wire, _alice, bob = joined()
    _load(bob, 100)
    assert bob.device.handle_handshakes(wire.now, 60)
    assert bob.drops(Drop.BAD_INITIATION) == 60
    assert not bob.device.handle_handshakes(wire.now, 60)
    assert bob.drops(Drop.BAD_INITIATION) == 100


@pytest.mark.rule("C1")
def test_a_bad_mac1_is_refused_before_anything_else():
    """It takes no place in the queue, so there is no load and no key exchange, however many come."""
    wire, alice, bob = joined()
    bob.busy = True
    for number in range(2 * HANDSHAKE_QUEUE):
        message = b"\x01\0\0\0" + number.to_bytes(4, "little") + bytes(140)
        bob.device.receive(Burst.of(message), STRANGER, wire.now)
    assert bob.drops(Drop.BAD_MAC1) == 2 * HANDSHAKE_QUEUE
    assert not bob.device.has_handshakes
    bob.busy = False
    alice.ping(bob)
    assert len(bob.delivered) == 1


@pytest.mark.rule("C3")
def test_without_load_mac2_is_ignored():
    wire, alice, bob = joined()
    wire.hold = True
    alice.ping(bob)
    (sent,) = wire.held
    bob.receive(sent.data[:-16] + bytes(range(16)), alice.endpoint)
    assert [held.kind for held in wire.held] == [INITIATION, RESPONSE]


@pytest.mark.rule("C3", "C9")
def test_who_has_a_cookie_is_served_however_many_others_knock():
    wire, alice, bob = joined()
    _load(bob)
    packet = alice.ping(bob)
    for number in range(2 * HANDSHAKE_QUEUE):
        source = Endpoint(IPv4Address((198 << 24) + number), 1 + number)
        bob.device.receive(Burst.of(_forged_initiation(bob.key, number)), source, wire.now)
    assert bob.drops(Drop.QUEUE_FULL) == 0
    wire.run(5.5)
    _drain(bob)
    assert bob.delivered == [packet]


@pytest.mark.rule("C9")
def test_handshakes_that_are_consumed_in_time_never_make_load():
    wire, _alice, bob = joined()
    for number in range(4 * UNDER_LOAD_QUEUE):
        bob.receive(_forged_initiation(bob.key, number), STRANGER)
    assert wire.since(0, COOKIE_REPLY) == []
    assert bob.drops(Drop.BAD_INITIATION) == 4 * UNDER_LOAD_QUEUE


@pytest.mark.rule("C3")
def test_what_cookie_replies_cost_is_bounded_between_two_drains():
    wire, _alice, bob = joined()
    _load(bob)
    for number in range(3 * COOKIE_REPLIES_A_TURN):
        bob.device.receive(Burst.of(_forged_initiation(bob.key, number)), STRANGER, wire.now)
    assert bob.drops(Drop.COOKIE_SENT) == COOKIE_REPLIES_A_TURN
    assert bob.drops(Drop.COOKIE_WITHHELD) == 2 * COOKIE_REPLIES_A_TURN
    assert len(bob.device.datagrams_to_send()) == COOKIE_REPLIES_A_TURN
    bob.receive(_forged_initiation(bob.key), STRANGER)
    assert bob.drops(Drop.COOKIE_SENT) == COOKIE_REPLIES_A_TURN + 1


# Silence


@pytest.mark.rule("H2", "H19", "D13")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Drop.NOT_WIREGUARD),
        (b"\x01", Drop.NOT_WIREGUARD),
        (bytes(148), Drop.NOT_WIREGUARD),
        (b"\x01\0\0\0" + bytes(143), Drop.NOT_WIREGUARD),
        (b"\x01\0\0\x01" + bytes(144), Drop.NOT_WIREGUARD),
        (b"\x05\0\0\0" + bytes(60), Drop.NOT_WIREGUARD),
        (b"\xff" * 65507, Drop.NOT_WIREGUARD),
        (b"\x01\0\0\0" + bytes(144), Drop.BAD_MAC1),
        (b"\x02\0\0\0" + bytes(88), Drop.BAD_MAC1),
        (b"\x03\0\0\0" + bytes(60), Drop.UNKNOWN_INDEX),
        (b"\x04\0\0\0" + bytes(28), Drop.UNKNOWN_INDEX),
        (b"\x04\0\0\0" + bytes(65503), Drop.UNKNOWN_INDEX),
    ],
)
def test_rubbish_is_counted_and_not_answered(data, reason):
    wire, _alice, bob = joined()
    bob.receive(data, STRANGER)
    assert wire.log == []
    assert bob.device.status().drops == {reason: 1}
    assert bob.events == []


@pytest.mark.rule("H11", "H19")
def test_strangers_who_know_our_key_are_not_answered():
    wire, _alice, bob = joined()
    mallory = wire.node("203.0.113.66:6666", "10.9.0.66")
    wire.introduce(mallory, bob)
    mallory.ping(bob)
    assert [sent.source for sent in wire.log] == [mallory.endpoint]
    assert bob.drops(Drop.UNKNOWN_PEER) == 1
    bob.receive(_forged_initiation(bob.key), STRANGER)
    assert bob.drops(Drop.BAD_INITIATION) == 1
    bob.receive(CookieJar(bob.key).add_macs(b"\x02\0\0\0" + bytes(56), 0.0), STRANGER)
    assert bob.drops(Drop.UNKNOWN_INDEX) == 1
    assert len(wire.log) == 1


@pytest.mark.rule("H11")
@pytest.mark.parametrize("configured", [False, True])
def test_without_a_private_key_nothing_is_answered(configured):
    wire, alice, bob = joined()
    device = Device(wire.random.randbytes, wire.unix_time)
    if configured:
        device.apply(DeviceConfig(None, peers=(PeerConfig(alice.key, persistent_keepalive=1),)), wire.now)
    for data in (_forged_initiation(bob.key), b"\x02\0\0\0" + bytes(88)):
        device.receive(Burst.of(data), STRANGER, wire.now)
        device.handle_handshakes(wire.now)
    assert device.status().drops == {Drop.NO_PRIVATE_KEY: 2}
    assert device.status().public_key is None
    assert device.datagrams_to_send() == []


@pytest.mark.parametrize(
    "data", [b"\x01\x01\0\x08\x21\x12\xa4\x42" + bytes(20), b"wgd\x01" + bytes(60)], ids=["STUN", "check"]
)
def test_other_protocols_of_the_port_are_handed_on(data):
    wire, _alice, bob = joined()
    bob.receive(data, STRANGER)
    assert bob.events == [RawReceived(data, STRANGER)]
    assert wire.log == []
    assert bob.device.status().drops == {}


# Bursts


@pytest.mark.rule("S8", "D5")
def test_a_burst_may_mix_sessions_kinds_and_rubbish():
    """One receive brings rows of one size: data of two sessions, a forgery, an unknown index, data again."""
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(carol, bob)
    wire.introduce(bob, carol)
    alice.ping(bob)
    carol.ping(bob)
    bob.delivered.clear()
    wire.hold = True
    packets = [alice.ping(bob, payload=b"alice one..."), alice.ping(bob, payload=b"alice two...")]
    packets += [carol.ping(bob, payload=b"carol one..."), alice.ping(bob, payload=b"alice three.")]
    one, two, three, four = (sent.data for sent in wire.held)
    forged = two[:-1] + bytes([two[-1] ^ 1])
    unknown = b"\x04\0\0\0\x99\x99\x99\x99" + one[8:]
    rubbish = bytes(len(one))
    short = rubbish[:7]
    rows = [rubbish, one, forged, two, unknown, three, rubbish, four, short]
    wire.hold = False
    bob.device.receive(Burst(b"".join(rows), len(one)), alice.endpoint, wire.now)
    wire.settle()
    assert bob.delivered == packets
    assert bob.device.status().drops == {Drop.NOT_WIREGUARD: 3, Drop.FORGED: 1, Drop.UNKNOWN_INDEX: 1}


def test_a_burst_of_initiations_is_queued_row_by_row():
    wire, _alice, bob = joined()
    rows = b"".join(_forged_initiation(bob.key, number) for number in range(7))
    bob.device.receive(Burst(rows, 148), STRANGER, wire.now)
    assert not bob.device.handle_handshakes(wire.now)
    assert bob.drops(Drop.BAD_INITIATION) == 7


@pytest.mark.rule("D8")
@pytest.mark.parametrize("last", [1, 20, 60])
def test_a_burst_whose_last_row_is_short_arrives_whole(last):
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.delivered.clear()
    packets = [ip_packet("10.9.0.1", "10.9.0.2", bytes(60)) for _ in range(3)]
    packets.append(ip_packet("10.9.0.1", "10.9.0.2", bytes(last)))
    alice.device.send(Frames.of(*packets), wire.now)
    ((burst, place),) = alice.device.datagrams_to_send()
    assert burst.count == 4
    bob.device.receive(burst, alice.endpoint, wire.now)
    wire.settle()
    assert place == bob.endpoint
    assert bob.delivered == packets


# Inner packets


@pytest.mark.rule("D6")
@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        (ip_packet("10.0.0.1", "10.0.0.2", b""), "10.0.0.1"),
        (ip_packet("10.0.0.1", "10.0.0.2", b"abc"), "10.0.0.1"),
        (ip_packet("fd00::1", "fd00::2", b""), "fd00::1"),
        (ip_packet("fd00::1", "fd00::2", b"abc"), "fd00::1"),
    ],
)
def test_inner_packets_are_trimmed_to_their_length(plain, expected):
    for padding in (0, 1, 15):
        parsed = inner_packet(plain + bytes(padding))
        assert parsed is not None
        assert parsed[0] == plain
        assert Endpoint.from_text(f"[{expected}]:1" if ":" in expected else f"{expected}:1").address.packed == parsed[1]


@pytest.mark.rule("D6")
@pytest.mark.parametrize(
    "plain",
    [
        b"",
        bytes(40),
        b"\x45",
        b"\x45\0\0\x14" + bytes(15),  # shorter than a header
        b"\x45\0\0\x13" + bytes(16),  # says less than a header
        b"\x45\0\0\x15" + bytes(16),  # says more than there is
        b"\x60\0\0\0" + bytes(35),
        b"\x60\0\0\0\0\x01" + bytes(34),
        b"\x50\0\0\x14" + bytes(36),
        b"\xff" * 40,
    ],
)
def test_what_is_no_inner_packet(plain):
    assert inner_packet(plain) is None


@pytest.mark.rule("D6")
def test_a_bad_inner_packet_is_dropped_and_still_a_sign_of_life():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.delivered.clear()
    wire.run(5.0)
    alice.send(b"\x45\0\0\x40" + ip_packet("10.9.0.1", "10.9.0.2")[4:])
    assert bob.delivered == []
    assert bob.drops(Drop.BAD_INNER_PACKET) == 1
    assert bob.status(alice).received_at == wire.now


def test_destination():
    assert destination_of(ip_packet("10.0.0.1", "10.0.0.2")) == b"\x0a\0\0\x02"
    assert destination_of(memoryview(ip_packet("fd00::1", "fd00::2"))) == b"\xfd" + bytes(14) + b"\x02"
    for packet in (b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x55" + bytes(60)):
        assert destination_of(packet) is None


def test_packets_without_a_peer_or_an_endpoint_are_counted():
    wire, alice, bob = joined()
    alice.send(ip_packet("10.9.0.1", "10.9.0.77"))
    alice.send(b"rubbish")
    assert alice.drops(Drop.NO_ROUTE) == 2
    alice.device.set_peer(bob.key, None, 0, wire.now)
    alice.ping(bob)
    assert alice.drops(Drop.NO_ENDPOINT) == 1
    assert wire.log == []


# Configuration


def test_keys_that_are_not_configured_are_the_callers_fault():
    wire, alice, _bob = joined()
    unknown = PrivateKey(bytes([5]) * 32).public_key()
    for call in (
        lambda: alice.device.set_peer(unknown, None, 0, wire.now),
        lambda: alice.device.initiate(unknown, (), wire.now),
        lambda: alice.device.probe(unknown, STRANGER, wire.now),
    ):
        with pytest.raises(LocalError, match="no peer"):
            call()


@pytest.mark.rule("E5")
def test_applying_the_same_again_keeps_session_and_roamed_endpoint():
    wire, alice, bob = joined()
    alice.ping(bob)
    alice.endpoint = STRANGER
    alice.ping(bob)
    mark = len(wire.log)
    alice.apply()
    bob.change(alice)
    assert bob.status(alice).endpoint == STRANGER
    assert alice.delivered == []
    packet = bob.ping(alice)
    assert [sent.kind for sent in wire.since(mark)] == [TRANSPORT]
    assert alice.delivered == [packet]


def test_a_removed_peer_is_gone_with_its_session():
    wire, alice, bob = joined()
    alice.change(bob, persistent_keepalive=5)
    alice.ping(bob)
    bob.peers.clear()
    bob.apply()
    assert bob.device.status().peers == ()
    assert bob.device._local.indices == {}
    mark = len(wire.log)
    alice.ping(bob)
    wire.run(30.0)
    assert wire.since(mark, by=bob) == []
    assert bob.drops(Drop.UNKNOWN_INDEX) >= 1
    assert bob.delivered == bob.delivered[:1]
    bob.ping(alice)
    assert bob.drops(Drop.NO_ROUTE) == 1


def test_a_peer_that_comes_back_begins_anew():
    wire, alice, bob = joined()
    alice.ping(bob)
    config = dict(bob.peers)
    bob.peers.clear()
    bob.apply()
    bob.peers = config
    bob.apply()
    assert bob.status(alice).handshake_at is None
    wire.run(30.0)
    packet = bob.ping(alice)
    assert alice.delivered == [packet]


@pytest.mark.rule("A3", "A7", "A8")
def test_prefixes_may_change_hands_in_one_apply():
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(alice, carol)
    one, other = alice.peers[bob].allowed_ips, alice.peers[carol].allowed_ips
    alice.peers[bob], alice.peers[carol] = (
        replace(alice.peers[bob], allowed_ips=other),
        replace(alice.peers[carol], allowed_ips=one),
    )
    alice.apply()
    assert alice.status(bob).allowed_ips == other
    assert alice.status(carol).allowed_ips == one
    alice.send(ip_packet("10.9.0.1", "10.9.0.2"))
    assert wire.log[-1].destination == carol.endpoint


def test_the_configuration_comes_back_with_roamed_endpoints():
    _wire, alice, bob = joined(preshared_key=PresharedKey(bytes(32)), persistent_keepalive=7, managed=True)
    alice.ping(bob)
    alice.endpoint = STRANGER
    alice.ping(bob)
    assert bob.device.config() == DeviceConfig(
        bob.private,
        peers=(
            PeerConfig(
                alice.key,
                PresharedKey(bytes(32)),
                STRANGER,
                (ip_network("10.9.0.1/32"), ip_network("fd00:9::1/128")),
                7,
                True,
            ),
        ),
    )


def test_status_is_what_was_configured():
    wire, alice, bob = joined(preshared_key=PresharedKey(bytes(32)), persistent_keepalive=7)
    alice.device.apply(DeviceConfig(alice.private, 51820, 99, tuple(alice.peers.values())), wire.now)
    status = alice.device.status()
    assert (status.public_key, status.listen_port, status.fwmark) == (alice.key, 51820, 99)
    (peer,) = status.peers
    assert (peer.key, peer.endpoint, peer.has_preshared_key, peer.persistent_keepalive) == (
        bob.key,
        bob.endpoint,
        True,
        7,
    )


# Being driven


def test_a_device_wants_nothing_until_it_is_told_something():
    wire = Wire()
    node = wire.node("192.0.2.1:1", "10.0.0.1")
    assert node.device.get_timer() is None
    node.device.handle_timer(1e9)
    assert node.device.datagrams_to_send() == []
    assert node.device.packets_to_deliver() == []
    assert node.device.events() == []


def test_everything_is_drained_once():
    wire, alice, _bob = joined()
    alice.device.send(Frames.of(ip_packet("10.9.0.1", "10.9.0.2")), wire.now)
    assert len(alice.device.datagrams_to_send()) == 1
    assert alice.device.datagrams_to_send() == []
    assert len(alice.device.events()) == 1
    assert alice.device.events() == []


@pytest.mark.parametrize("seed", range(5))
def test_early_and_repeated_timer_calls_change_nothing(seed):
    """Two runs of one story, one driven on the deadlines and one also at random moments between: the same datagrams."""
    stories = []
    for restless in (False, True):
        chance = random.Random(seed)
        wire, alice, bob = joined(seed, persistent_keepalive=11)
        wire.lose = lambda sent: int(sent.at) % 7 == 0
        for _ in range(40):
            pause = chance.uniform(0.0, 9.0)
            if restless:
                for _ in range(5):
                    wire.run(pause / 5)
                    for node in (alice, bob):
                        node.device.handle_timer(wire.now)
                        node.device.handle_timer(wire.now - 3.0)
            else:
                wire.run(pause)
            here, there = (alice, bob) if chance.random() < 0.5 else (bob, alice)
            here.ping(there)
        stories.append([(round(sent.at, 6), sent.source, sent.kind, len(sent.data)) for sent in wire.log])
    assert stories[0] == stories[1]


def test_no_call_costs_more_than_the_peers_it_touches():
    """With 5,000 idle peers, deadlines and output of one peer are found without a walk over all."""
    wire = Wire()
    hub = wire.node("192.0.2.1:1", "10.0.0.1")
    chance = random.Random(3)
    peers = tuple(PeerConfig(PublicKey(chance.randbytes(32))) for _ in range(5000))
    hub.device.apply(DeviceConfig(hub.private, peers=peers), wire.now)
    assert hub.device.get_timer() is None
    assert hub.device._peers._heap == []
    assert hub.device._peers.dirty == {}


def test_a_peer_that_changes_to_its_next_key_loses_no_packet():
    wire, alice, bob = joined()
    alice.ping(bob)
    next_private = PrivateKey(bytes([9]) * 32)
    successor = PeerConfig(next_private.public_key(), managed=True, replaces=alice.key)
    bob.device.apply(DeviceConfig(bob.private, peers=(*bob.peers.values(), successor)), wire.now)
    bob.ping(alice)
    alice.private = next_private
    alice.apply()
    sent = [alice.ping(bob, which) for which in (0, 1)]
    assert bob.delivered[-2:] == sent
    assert bob.drops(Drop.SOURCE_NOT_ALLOWED) == 0
    answer = bob.ping(alice)
    assert alice.delivered[-1] == answer
    by_key = {status.key: status for status in bob.device.status().peers}
    assert set(by_key[alice.key].allowed_ips) == {ip_network("10.9.0.1"), ip_network("fd00:9::1")}


def test_a_next_key_that_never_speaks_changes_nothing():
    wire, alice, bob = joined()
    successor = PeerConfig(PrivateKey(bytes([9]) * 32).public_key(), managed=True, replaces=alice.key)
    bob.device.apply(DeviceConfig(bob.private, peers=(*bob.peers.values(), successor)), wire.now)
    sent = [alice.ping(bob), bob.ping(alice)]
    assert [*bob.delivered, *alice.delivered] == sent
