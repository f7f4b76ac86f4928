"""To the letter: what a plain peer does between two devices on a virtual clock, where only the wire can tell."""

import random
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise

import pytest

from tests.tunnel.by_hand import BurstCipher
from tests.tunnel.test_noise import LOW_ORDER
from tests.tunnel.wire import INITIATION, RESPONSE, TRANSPORT, Node, Sent, ip_packet, joined
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.burst import Burst, Frames, Room
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.cookie import CookieJar
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.messages import CONSTRUCTION, IDENTIFIER, Initiation
from wgdisco.tunnel.peer import Peer
from wgdisco.tunnel.session import Session

ELSEWHERE = Endpoint.from_text("203.0.113.77:4321")


def _peer(here: Node, there: Node) -> Peer:
    return here.device.peers[there.key]


def _sender(sent: Sent) -> int:
    return int.from_bytes(sent.data[4:8], "little")


def _receiver(response: Sent) -> int:
    return int.from_bytes(response.data[8:12], "little")


# Who says what, and how often


@pytest.mark.rule("H14", "T5", "D3", "D4")
@pytest.mark.parametrize(("count", "keepalives"), [(1, 1), (7, 2), (100, 2)])
def test_data_takes_a_handshake_and_a_keepalive_more(count, keepalives):
    """One initiation, one response, a keepalive of the side that has nothing to say, one more where data went on."""
    wire, alice, bob = joined()
    for size in range(count):
        alice.ping(bob, payload=bytes(size))
    wire.run(100.0)
    assert len(wire.log) == count + 2 + keepalives
    assert [sum(sent.kind == kind for sent in wire.log) for kind in (INITIATION, RESPONSE)] == [1, 1]
    assert [sent.source for sent in wire.log if sent.is_keepalive] == [bob.endpoint] * keepalives
    data = wire.since(0, TRANSPORT, by=alice)
    assert all(len(sent.data) % 16 == 0 for sent in data)
    assert [int.from_bytes(sent.data[8:16], "little") for sent in data] == list(range(count))


@pytest.mark.rule("H7")
def test_the_index_of_a_handshake_is_the_one_of_its_session():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    initiation, response, there, back = wire.log
    assert _receiver(response) == _sender(initiation) == back.index
    assert there.index == _sender(response) != back.index


@pytest.mark.rule("H7")
def test_an_index_that_is_taken_is_not_given_again():
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.3")
    drawn = [b"\1\1\1\1"] * 3 + [b"\2\2\2\2"]
    carol.device = Device(lambda n: drawn.pop(0) if n == 4 else wire.random.randbytes(n), wire.unix_time)
    for other in (alice, bob):
        wire.introduce(other, carol)
        wire.introduce(carol, other)
    carol.ping(alice)
    carol.ping(bob)
    assert [sent.data[4:8] for sent in wire.since(0, INITIATION)] == [b"\1\1\1\1", b"\2\2\2\2"]
    assert drawn == []
    assert len(alice.delivered) == len(bob.delivered) == 1


@pytest.mark.rule("H7")
def test_every_index_is_freed_with_what_held_it():
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(alice, carol)
    alice.ping(carol)  # who does not know her
    for _ in range(30):
        wire.run(125.0)
        alice.ping(bob)
        bob.ping(alice)
    assert len(alice.device._local.indices) <= 2 + 1
    assert len(bob.device._local.indices) <= 2
    for node in (alice, bob):
        node.peers.clear()
        node.apply()
        assert node.device._local.indices == {}


@pytest.mark.rule("D8")
def test_packets_come_out_in_the_order_they_went_in():
    """Staged ones first, whatever their sizes, then bursts and lone ones as they come."""
    wire, alice, bob = joined()
    wire.hold = True
    packets = [alice.ping(bob, payload=bytes([number]) * (number % 5 + 1)) for number in range(20)]
    wire.release()
    for number in range(20, 40, 2):
        rows = [ip_packet("10.9.0.1", "10.9.0.2", bytes([n]) * 8) for n in (number, number + 1)]
        alice.device.send(Frames.of(*rows), wire.now)
        packets += [*rows, alice.ping(bob, 1, payload=bytes([number]))]
    assert bob.delivered == packets


@pytest.mark.rule("A7")
def test_a_packet_goes_to_the_most_specific_peer():
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.130")
    wire.introduce(alice, bob, allowed_ips=(ip_network("10.9.0.0/24"), ip_network("::/0")))
    wire.introduce(alice, carol, allowed_ips=(ip_network("10.9.0.128/25"), ip_network("fd00:c::/32")))
    wire.lose = lambda _sent: True
    for address in ("10.9.0.127", "10.9.0.128", "fd00:c::1", "fd00:d::1"):
        mark = len(wire.log)
        alice.send(ip_packet("10.9.0.1" if "." in address else "fd00:9::1", address))
        to = carol if address in ("10.9.0.128", "fd00:c::1") else bob
        assert len(_peer(alice, to)._staged._packets) == 1, address
        _peer(alice, to)._staged.clear()
        assert {sent.destination for sent in wire.since(mark)} <= {to.endpoint}


# Handshakes


@pytest.mark.rule("H9")
def test_an_old_initiation_is_not_answered_after_the_session_is_gone():
    wire, alice, bob = joined()
    alice.ping(bob)
    initiation = wire.log[0]
    wire.run(600.0)
    assert bob.device._local.indices == {}
    mark = len(wire.log)
    bob.receive(initiation.data, alice.endpoint)
    assert wire.since(mark) == []
    assert bob.drops(Drop.REPLAYED_INITIATION) == 1


def _claims(key: PublicKey, bob: Node, seed: int = 4) -> bytes:
    """An initiation that claims to be of `key`, made without its private key: as if their shared secret were zero."""
    chance = random.Random(seed)
    ephemeral = PrivateKey(chance.randbytes(32))
    chain_key = noise.hash_of(CONSTRUCTION)
    hash_ = noise.hash_of(noise.hash_of(chain_key, IDENTIFIER), bob.key.raw)
    (chain_key,) = noise.kdf(chain_key, ephemeral.public_key().raw, 1)
    hash_ = noise.hash_of(hash_, ephemeral.public_key().raw)
    chain_key, secret = noise.kdf(chain_key, noise.static_static(ephemeral, bob.key), 2)
    static = noise._seal(secret, key.raw, hash_)
    hash_ = noise.hash_of(hash_, static)
    _, secret = noise.kdf(chain_key, bytes(32), 2)
    stamp = noise._seal(secret, b"\x40" + bytes(11), hash_)
    packed = Initiation(9, ephemeral.public_key().raw, static, stamp).pack()
    return CookieJar(bob.key).add_macs(packed, 0.0)


@pytest.mark.rule("H4", "H5", "H19")
@pytest.mark.parametrize("point", LOW_ORDER)
def test_nobody_can_be_a_peer_with_a_low_order_key(point):
    wire, _alice, bob = joined()
    bad = PublicKey(bytes.fromhex(point))
    bob.device.apply(DeviceConfig(bob.private, peers=(PeerConfig(bad),)), wire.now)
    claim = _claims(bad, bob)
    opened = noise.open_initiation(bob.private, bob.key, Initiation.parse(claim))
    assert bob.device.peers[bad].verify_initiation(opened) is None
    bob.receive(claim, ELSEWHERE)
    assert wire.log == []
    assert bob.device._local.indices == {}
    assert bob.drops(Drop.BAD_INITIATION) == 1


@pytest.mark.rule("H4")
def test_a_new_private_key_is_a_new_secret_with_each_peer():
    wire, alice, bob = joined()
    before = _peer(bob, alice)._handshake._static_static()
    bob.private = PrivateKey(bytes([9]) * 32)
    bob.apply()
    assert _peer(bob, alice)._handshake._static_static() == noise.static_static(bob.private, alice.key) != before
    alice.peers[bob] = replace(alice.peers[bob], public_key=bob.key)
    alice.apply()
    packet = alice.ping(bob)
    assert bob.delivered == [packet]
    wire.run(6.0)
    bob.private = None
    bob.apply()
    assert _peer(bob, alice)._handshake._static_static() is None


@pytest.mark.rule("H12")
def test_a_response_is_nobody_elses():
    """A response that names the index of a session, or of an initiation to another peer, is not taken."""
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(alice, carol)
    wire.introduce(carol, alice)
    wire.hold = True
    alice.ping(bob)
    alice.ping(carol)
    to_bob, to_carol = wire.held
    wire.pass_on(to_bob)
    response = wire.held[-1]
    swapped = response.data[:8] + to_carol.data[4:8] + response.data[12:60]
    alice.receive(CookieJar(alice.key).add_macs(swapped, wire.now), bob.endpoint)
    assert alice.drops(Drop.BAD_RESPONSE) == 1
    assert alice.status(carol).handshake_at is None
    assert alice.status(carol).endpoint == carol.endpoint
    wire.release()
    assert len(bob.delivered) == len(carol.delivered) == 1


@pytest.mark.rule("H13")
def test_a_responders_new_session_ends_the_previous_one():
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.run(6.0)
    wire.hold = True
    alice.ping(bob)
    (oldest,) = wire.held
    wire.held.clear()
    wire.hold = False
    for _ in range(2):
        wire.run(121.0)
        alice.ping(bob)
        _peer(bob, alice)._sessions.previous.created_at = wire.now  # its age alone would end it
        late = len(bob.delivered)
    bob.receive(oldest.data, alice.endpoint)
    assert len(bob.delivered) == late
    assert bob.drops(Drop.UNKNOWN_INDEX) == 1


@pytest.mark.rule("H13")
@pytest.mark.parametrize("managed", [False, True])
def test_a_late_packet_does_not_keep_the_previous_session_of_a_plain_peer(managed):
    """A third handshake ends the first session, though a packet in it came last."""
    wire, alice, bob = joined(managed=managed)
    alice.ping(bob)
    wire.run(130.0)
    wire.hold = True
    alice.ping(bob)  # in the first session; with it goes the initiation of the second
    late, second = wire.since(0, TRANSPORT, by=alice)[-1], wire.held[-1]
    wire.held.clear()
    wire.hold = False
    bob.device.receive(Burst.of(second.data), alice.endpoint, wire.now)
    bob.device.handle_handshakes(wire.now)
    wire.settle()
    alice.ping(bob)
    bob.receive(late.data, alice.endpoint)
    first = late.index
    wire.run(6.0)
    assert first in bob.device._local.indices
    alice.private = alice.private  # the third: alice begins again, as after a restart
    alice.device = Device(wire.random.randbytes, lambda: wire.unix_time() + 1.0)
    alice.apply()
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    assert (first in bob.device._local.indices) is managed


@pytest.mark.rule("H15")
def test_a_preshared_key_set_while_a_handshake_is_under_way_is_the_one_it_ends_in():
    preshared = PresharedKey(bytes([3]) * 32)
    wire, alice, bob = joined()
    wire.hold = True
    packet = alice.ping(bob)
    alice.change(bob, preshared_key=preshared)
    bob.change(alice, preshared_key=preshared)
    wire.release()
    assert bob.delivered == [packet]


@pytest.mark.rule("H16")
def test_a_new_private_key_ends_the_handshake_that_waits():
    wire, alice, bob = joined()
    wire.hold = True
    alice.ping(bob)
    (initiation,) = wire.held
    alice.private = PrivateKey(bytes([9]) * 32)
    alice.apply()
    assert alice.device._local.indices == {}
    wire.release(initiation)
    assert alice.drops(Drop.BAD_MAC1) == 1, "the response is to a key that is gone"
    assert alice.status(bob).handshake_at is None


@pytest.mark.rule("H16", "T10")
def test_receiving_in_a_session_of_the_old_key_renews_nothing():
    wire, alice, bob = joined()
    alice.ping(bob)
    alice.private = PrivateKey(bytes([9]) * 32)
    alice.apply()
    wire.run(170.0)
    mark = len(wire.log)
    packet = bob.ping(alice)
    assert alice.delivered == [packet]
    assert wire.since(mark, by=alice) == []


# Being set


def _set(here: Node, there: Node, **changes) -> None:
    """What a `set` over the UAPI does to a peer at the end of its block."""
    told = {"preshared_key": None, "endpoint": None, "keepalive": None} | changes
    here.device.configure_peer(_peer(here, there), **told, now=here.wire.now)
    here.wire.settle()


@pytest.mark.rule("U11")
def test_a_set_of_a_peer_nothing_waits_for_sends_nothing():
    wire, alice, bob = joined()
    _set(alice, bob, endpoint=bob.endpoint)
    alice.ping(bob)
    wire.run(200.0)
    mark = len(wire.log)
    _set(alice, bob, endpoint=bob.endpoint, preshared_key=PresharedKey(bytes([3]) * 32), keepalive=0)
    wire.run(100.0)
    assert wire.since(mark) == []


@pytest.mark.rule("U11")
@pytest.mark.parametrize("has_session", [True, False])
def test_after_a_set_what_waits_goes_in_the_session_there_is_or_begins_one(has_session):
    wire, alice, bob = joined()
    if has_session:
        alice.ping(bob)
    packet = ip_packet("10.9.0.1", "10.9.0.2", b"waits")
    _peer(alice, bob)._staged.add(Frames.of(packet), wire.now)
    mark = len(wire.log)
    _set(alice, bob, endpoint=bob.endpoint)
    assert bob.delivered[-1:] == [packet]
    assert len(wire.since(mark, INITIATION)) == (not has_session)


# Receiving


@pytest.mark.rule("D5", "H13")
def test_a_forgery_confirms_no_session():
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == TRANSPORT
    alice.ping(bob)
    data = wire.log[-1].data
    bob.receive(data[:-1] + bytes([data[-1] ^ 1]), alice.endpoint)
    slots = _peer(bob, alice)._sessions
    assert (slots.current, slots.next is None) == (None, False)
    assert bob.status(alice).handshake_at is None
    bob.receive(data, alice.endpoint)
    assert slots.next is None
    assert len(bob.delivered) == 1


@pytest.mark.rule("D5", "E1", "T6")
@pytest.mark.parametrize(
    "inner",
    [b"\x45\0\0\x40" + ip_packet("10.9.0.1", "10.9.0.2")[4:], ip_packet("10.9.0.99", "10.9.0.2")],
    ids=["longer than it is", "not its address"],
)
def test_what_is_not_delivered_has_authenticated_all_the_same(inner):
    """The endpoint follows it, and the answer that was due is there."""
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    wire.run(12.0)
    bob.ping(alice)
    alice.endpoint = ELSEWHERE
    alice.send(inner)
    assert bob.status(alice).endpoint == ELSEWHERE
    assert len(bob.delivered) == 1
    assert bob.drops(Drop.BAD_INNER_PACKET) + bob.drops(Drop.SOURCE_NOT_ALLOWED) == 1
    wire.lose = lambda sent: sent.source == ELSEWHERE
    mark = len(wire.log)
    wire.run(16.0)
    assert wire.since(mark, INITIATION, by=bob) == []


@pytest.mark.rule("D5", "L2")
def test_a_session_that_is_too_old_moves_nothing():
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.hold = True
    alice.ping(bob)
    (late,) = wire.held
    wire.held.clear()
    wire.run(180.0)
    heard = bob.status(alice)
    bob.receive(late.data, ELSEWHERE)
    assert bob.status(alice) == heard
    assert bob.drops(Drop.SESSION_EXPIRED) == 1


# Timers


@pytest.mark.rule("T3")
def test_a_later_packet_starts_the_count_of_attempts_afresh():
    wire, alice, bob = joined()
    wire.lose = lambda _sent: True
    alice.ping(bob)
    wire.run(60.0)
    assert _peer(alice, bob).timers.attempts > 10
    alice.ping(bob)
    assert _peer(alice, bob).timers.attempts == 0
    mark = len(wire.log)
    wire.run(300.0)
    assert len(wire.since(mark)) == 19


@pytest.mark.rule("T3", "T5")
def test_giving_up_ends_the_keepalive_that_is_due():
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.lose = lambda _sent: True
    peer = _peer(alice, bob)
    wire.run(200.0)
    mark = len(wire.log)
    alice.ping(bob)
    wire.run(19 * 5.0)
    for _ in range(20):
        wire.run(0.5 if len(wire.since(mark)) < 20 else 0.0)
    peer.timers.data_received(wire.now)  # after the last attempt, and before it is given up
    wire.run(60.0)
    assert len(wire.since(mark)) == 20


@pytest.mark.rule("T5")
def test_keepalives_are_not_answered():
    wire, alice, bob = joined(persistent_keepalive=0)
    alice.change(bob, persistent_keepalive=4, endpoint=bob.endpoint)
    wire.run(100.0)
    assert wire.since(0, TRANSPORT, by=bob) == []


@pytest.mark.rule("T6")
def test_a_keepalive_wants_no_answer():
    wire, alice, bob = joined()
    alice.change(bob, persistent_keepalive=10, endpoint=bob.endpoint)
    mark = len(wire.log)
    wire.lose = lambda _sent: True
    wire.run(110.0)
    assert wire.since(mark, INITIATION) == []


@pytest.mark.rule("T6")
def test_a_keepalive_is_an_answer():
    wire, alice, bob = joined()
    alice.ping(bob)
    mark = len(wire.log)
    wire.run(119.0)
    assert [sent.is_keepalive for sent in wire.since(mark)] == [True]


@pytest.mark.rule("T7")
def test_every_session_starts_the_540_seconds_anew():
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.run(300.0)
    alice.ping(bob)
    wire.run(539.0)
    assert len(alice.device._local.indices) == len(bob.device._local.indices) == 2
    wire.run(2.0)
    assert alice.device._local.indices == bob.device._local.indices == {}


@pytest.mark.rule("T9")
@pytest.mark.parametrize("here", ["initiator", "responder"])
def test_a_handshake_counts_for_the_persistent_keepalive(here):
    wire, alice, bob = joined()
    wire.lose = lambda sent: sent.kind == TRANSPORT
    node, other = (alice, bob) if here == "initiator" else (bob, alice)
    node.device.set_peer(other.key, other.endpoint, 60, wire.now)
    wire.run(20.0)
    node.device.set_peer(other.key, other.endpoint, 60, wire.now)
    wire.lose = lambda _sent: False
    began = wire.now
    other.ping(node)
    keepalives = [sent.at - began for sent in wire.run(200.0) if sent.source == node.endpoint and sent.is_keepalive]
    assert 10.0 in keepalives
    assert 60.0 + 10.0 in keepalives


@pytest.mark.rule("T10")
def test_a_packet_in_another_session_renews_the_current_one_too():
    """What is asked is the age of the session we send in, in whichever a packet came."""
    wire, alice, bob = joined()
    wire.hold = True
    alice.ping(bob), bob.ping(alice)
    wire.release()
    wire.run(20.0)
    theirs = _peer(bob, alice)._sessions.current
    assert _peer(alice, bob)._sessions.current.index != theirs.remote_index, "they crossed"
    wire.run(165.5 - 20.0)
    mark = len(wire.log)
    wire.lose = lambda sent: sent.kind == INITIATION
    theirs.initiator = False  # so that bob's sending begins nothing
    bob.ping(alice)
    assert len(wire.since(mark, INITIATION, by=alice)) == 1


@pytest.mark.rule("T13")
@pytest.mark.parametrize("seed", range(4))
def test_a_burst_is_to_the_timers_what_its_packets_are(seed):
    """The same packets, in bursts or one by one, are followed by the same messages at the same times."""
    logs = []
    for together in (True, False):
        chance = random.Random(seed)
        wire, alice, bob = joined(seed)
        alice.ping(bob)
        for _ in range(25):
            wire.run(chance.uniform(0.0, 25.0))
            here, there = (alice, bob) if chance.random() < 0.6 else (bob, alice)
            rows = [ip_packet(here.inner[0], there.inner[0], bytes(8)) for _ in range(chance.randint(1, 6))]
            for part in [rows] if together else [[row] for row in rows]:
                here.device.send(Frames.of(*part), wire.now)
                if together:
                    for burst, _ in here.device.datagrams_to_send():
                        there.device.receive(burst, here.endpoint, wire.now)
                    there.device.handle_handshakes(wire.now)
                wire.settle()
        wire.log.clear()
        tail = wire.run(700.0)
        logs.append([(round(sent.at), sent.source, sent.kind, len(sent.data)) for sent in tail])
    assert logs[0] == logs[1]
    assert logs[0]


# Counters


@pytest.mark.rule("D2", "D12", "R2")
def test_only_what_authenticates_and_is_new_counts():
    """Of one receive: a forgery, a replay, data and a keepalive's worth of bytes."""
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.hold = True
    alice.ping(bob)
    alice.ping(bob)
    one, two = (sent.data for sent in wire.held)
    wire.hold = False
    before = bob.status(alice).rx_bytes
    forged = two[:-1] + bytes([two[-1] ^ 1])
    bob.device.receive(Burst(forged + one + one + two, len(one)), alice.endpoint, wire.now)
    wire.settle()
    assert bob.status(alice).rx_bytes - before == len(one) + len(two)
    assert len(bob.delivered) == 3


@pytest.mark.rule("R2")
def test_each_session_has_a_window_of_its_own():
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.run(130.0)
    wire.hold = True
    in_old = alice.ping(bob)
    old, initiation = wire.held
    wire.release(initiation)
    for _ in range(20):
        alice.ping(bob)
    delivered = len(bob.delivered)
    bob.receive(old.data, alice.endpoint)
    bob.receive(old.data, alice.endpoint)
    assert bob.delivered[delivered:] == [in_old]
    assert bob.drops(Drop.REPLAYED) == 1


@pytest.mark.rule("L3", "D2")
def test_the_last_counters_are_used_once_each_and_never_wrap():
    keys = noise.TransportKeys(bytes(32), bytes(32), 7)
    session = Session(keys, 1, True, 0.0)
    last = (1 << 64) - 1 - 8128 - 1
    session.next_counter = last - 2
    (sealed,) = session.seal(Frames.of(bytes(16), bytes(16), bytes(16)), 1420, Room()).bursts
    assert [counter for counter, _ in BurstCipher(bytes(32)).open(sealed)] == [last - 2, last - 1]
    assert not session.is_usable(0.0)


# What managed peers may do beyond the letter is not done by plain ones


def _story(seed: int, lost: float) -> list[Sent]:
    """All that was sent in half an hour of pings, losses, crossings and handshakes said again between plain peers."""
    chance = random.Random(seed)
    wire, alice, bob = joined(seed)
    wire.lose = lambda _sent: chance.random() < lost
    for _ in range(60):
        wire.run(chance.uniform(0.0, 60.0))
        here, there = (alice, bob) if chance.random() < 0.5 else (bob, alice)
        here.ping(there)
        if chance.random() < 0.3:
            there.ping(here)
        for node, other in ((alice, bob), (bob, alice)):
            again = chance.choice(wire.since(0, INITIATION, RESPONSE, by=other)[-3:] or wire.log)
            node.receive(again.data, other.endpoint)
    return wire.log


@pytest.mark.rule("T10")
@pytest.mark.parametrize("greater", [True, False], ids=["greater key", "smaller key"])
def test_whoevers_key_is_greater_a_plain_initiator_renews_at_120_seconds(greater):
    wire, alice, bob = joined()
    here, there = (alice, bob) if (alice.key.raw > bob.key.raw) is greater else (bob, alice)
    here.ping(there)
    wire.run(119.9)
    here.ping(there)
    assert len(wire.since(0, INITIATION)) == 1
    wire.run(0.1)
    here.ping(there)
    assert len(wire.since(0, INITIATION)) == 2


@pytest.mark.rule("H17")
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_plain_peers_begin_once_in_5_seconds_at_one_place(seed):
    log = _story(seed, lost=0.3)
    for place in {sent.source for sent in log}:
        handshakes = [sent for sent in log if sent.source == place and sent.kind == INITIATION]
        times = [sent.at for sent in handshakes]
        assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))
        assert len({sent.data for sent in handshakes}) == len(handshakes) > 5, "no initiation is sent twice"
    responses = [sent.data for sent in log if sent.kind == RESPONSE]
    assert len(set(responses)) == len(responses) > 5, "no response is sent twice"


@pytest.mark.rule("E1")
def test_a_plain_peer_moves_at_once_also_where_there_is_a_relay():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.device.set_relays(frozenset({ELSEWHERE}))
    alice.endpoint = ELSEWHERE
    alice.ping(bob)
    assert bob.status(alice).endpoint == ELSEWHERE
    assert wire.log[-1].source == ELSEWHERE
