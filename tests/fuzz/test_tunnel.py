"""Arbitrary bytes, mutated messages and arbitrary bursts into every parser of the tunnel and into whole devices.

Nothing raises; nobody who did not authenticate is answered, except with a cookie under load; and a device that was
fed garbage does its work afterwards.
"""

import random
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tunnel.by_hand import BurstCipher, inner_packet
from tests.tunnel.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Node, Wire, ip_packet, joined
from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.allowed_ips import AllowedIPs
from wgdisco.tunnel.burst import Burst, Frames
from wgdisco.tunnel.cookie import CookieChecker, CookieJar
from wgdisco.tunnel.device import CHECK_MAGIC, STUN_COOKIE, Device
from wgdisco.tunnel.events import RawReceived
from wgdisco.tunnel.frames import destination_of
from wgdisco.tunnel.messages import CookieReply, Initiation, Response, message_type
from wgdisco.tunnel.notation import parse_prefix
from wgdisco.tunnel.replay import ReplayWindow

fuzz = settings.get_profile("fuzz")

STRANGER = Endpoint.from_text("203.0.113.66:6666")
ALICE = PrivateKey(bytes([1]) * 32)
BOB = PrivateKey(bytes([2]) * 32)

addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address), st.ip_addresses()
)
endpoints = st.builds(Endpoint, addresses, st.integers(1, 65535))
# Bytes that look like something: each message's header and size, then anything
headed = st.one_of(
    st.tuples(st.just(b"\x01\0\0\0"), st.binary(min_size=144, max_size=144)),
    st.tuples(st.just(b"\x02\0\0\0"), st.binary(min_size=88, max_size=88)),
    st.tuples(st.just(b"\x03\0\0\0"), st.binary(min_size=60, max_size=60)),
    st.tuples(st.just(b"\x04\0\0\0"), st.binary(min_size=28, max_size=200)),
    st.tuples(st.sampled_from([CHECK_MAGIC, b"\x01\x01\0\0" + STUN_COOKIE]), st.binary(max_size=100)),
).map(b"".join)
garbage = st.one_of(st.binary(max_size=300), headed)
bursts = st.one_of(
    garbage.map(Burst.of),
    st.builds(Burst, st.binary(max_size=2000), st.integers(1, 200)),
    st.lists(headed, min_size=1, max_size=4).map(lambda rows: Burst(b"".join(rows), len(rows[0]))),
)


# Parsers


@fuzz
@given(garbage)
def test_every_message_that_has_a_type_parses(data):
    kind = message_type(data)
    parsers = {1: Initiation, 2: Response, 3: CookieReply}
    if kind in parsers:
        parsed = parsers[kind].parse(data)
        assert parsed.pack() == data[: len(parsed.pack())]
    else:
        assert kind is None or (kind == 4 and len(data) >= 32)


@fuzz
@given(st.binary(min_size=148, max_size=148))
def test_arbitrary_initiations_do_not_open(data):
    opened = noise.open_initiation(BOB, BOB.public_key(), Initiation.parse(data))
    assert opened is None


@fuzz
@given(st.binary(min_size=92, max_size=92), st.binary(min_size=32, max_size=32))
def test_arbitrary_responses_are_not_consumed(data, preshared):
    state = noise.InitiatorState(1, PrivateKey(bytes([7]) * 32), bytes(32), bytes(32))
    for key in (None, PresharedKey(preshared)):
        assert noise.consume_response(ALICE, state, key, Response.parse(data)) is None


@fuzz
@given(st.binary(min_size=64, max_size=64), garbage, endpoints)
def test_arbitrary_cookies_and_macs_are_refused(reply, message, source):
    jar = CookieJar(BOB.public_key())
    jar.add_macs(bytes(116), 0.0)
    assert not jar.consume_reply(CookieReply.parse(reply), 1.0)
    checker = CookieChecker(BOB.public_key(), random.Random(1).randbytes)
    assert not checker.check_mac1(message)
    assert not checker.check_mac2(message, source, 0.0)


@fuzz
@given(st.builds(Burst, st.binary(min_size=32, max_size=2000), st.integers(32, 200)))
def test_arbitrary_datagrams_do_not_open(burst):
    if len(burst.data) % burst.row < 32:  # shorter rows are no transport data, and do not get here
        burst = Burst(burst.data[: max(burst.row, len(burst.data) // burst.row * burst.row)], burst.row)
    assert {packet for _, packet in BurstCipher(bytes(32)).open(burst)} == {None}


@fuzz
@given(st.binary(max_size=100))
def test_arbitrary_packets_are_looked_at_without_a_fault(data):
    parsed = inner_packet(data)
    if parsed is not None:
        packet, source = parsed
        assert data.startswith(packet)
        assert ip_address(source).version == data[0] >> 4
    address = destination_of(data)
    assert address is None or len(address) in (4, 16)


@fuzz
@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(0, 2**64 - 1))
def test_any_counters_are_judged(counters, base):
    window = ReplayWindow()
    accepted = [c for c in (min(base + counter % 20000, 2**64 - 1) for counter in counters) if window.accept(c)]
    assert len(accepted) == len(set(accepted))
    assert not any(window.accept(counter) for counter in accepted)


@fuzz
@given(addresses)
def test_any_address_is_looked_up(address):
    table: AllowedIPs[str] = AllowedIPs()
    table.insert(ip_network("0.0.0.0/0"), "four")
    table.insert(ip_network("::/0"), "six")
    assert table.lookup(address.packed) == ("four" if address.version == 4 else "six")


@fuzz
@given(
    st.one_of(
        st.text(max_size=60),
        st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
        st.from_regex(r"[0-9a-f.:\[\]%/]{0,50}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9+/=]{40,60}", fullmatch=True),
    )
)
def test_any_text_is_a_value_or_a_value_error(text):
    for parse in (
        PublicKey.from_text,
        PrivateKey.from_text,
        PresharedKey.from_text,
        PublicKey.from_label,
        Endpoint.from_text,
        parse_address,
        parse_prefix,
    ):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value is not None


# Devices


def _state(node: Node) -> tuple:
    """All of a device that garbage must not change."""
    return node.device.status().peers, len(node.device._local.indices), node.device.get_timer()


STATES = ["no key", "no peers", "no session", "handshake pending", "session", "managed", "old session"]


def _device_in(state: str) -> Node:
    if state in ("no key", "no peers"):
        wire = Wire()
        node = wire.node("192.0.2.1:51820", "10.9.0.1")
        if state == "no peers":
            node.apply()
        return node
    wire, alice, bob = joined(managed=state == "managed")
    if state == "handshake pending":
        wire.lose = lambda _sent: True
    if state != "no session":
        alice.ping(bob)
        bob.ping(alice)
    if state == "old session":
        wire.run(170.0)
    return bob


@pytest.mark.parametrize("state", STATES)
@settings(fuzz, max_examples=60)
@given(st.lists(st.tuples(bursts, endpoints), max_size=5))
def test_garbage_changes_nothing_and_is_not_answered(state, received):
    node = _device_in(state)
    before, mark = _state(node), len(node.wire.log)
    node.events.clear()
    for burst, source in received:
        node.device.receive(burst, source, node.wire.now)
        node.device.handle_handshakes(node.wire.now)
    node.wire.settle()
    assert node.wire.since(mark, by=node) == []
    assert _state(node) == before
    assert all(isinstance(event, RawReceived) for event in node.events)


@dataclass(frozen=True)
class Mutation:
    """What is done to a recorded datagram: `kind` and two numbers that say where and what."""

    kind: str
    where: int
    what: int

    def apply(self, data: bytes, other: bytes) -> bytes:
        where = self.where % len(data)
        match self.kind:
            case "flip":
                return data[:where] + bytes([data[where] ^ (1 + self.what % 255)]) + data[where + 1 :]
            case "cut":
                return data[:where]
            case "extend":
                return data + bytes([self.what % 256]) * (1 + where)
            case "splice":
                return data[:where] + other[where:]
            case "retype":
                return bytes([self.what % 6]) + data[1:]
            case _:
                return data[:4] + self.what.to_bytes(4, "little") + data[8:]


mutations = st.builds(
    Mutation,
    st.sampled_from(["flip", "cut", "extend", "splice", "retype", "index"]),
    st.integers(0, 300),
    st.integers(0, 2**32 - 1),
)


def _proven(data: bytes) -> bytes:
    """What of a datagram is authenticated: without load, mac2 is not looked at (rule C3)."""
    return data[:-16] if data[:1] in (b"\x01", b"\x02") else data


@fuzz
@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 20), mutations), min_size=1, max_size=6), endpoints)
def test_mutated_messages_are_neither_answered_nor_believed(seed, mutated, source):
    """Every message of a real exchange, changed somewhere, sent to both ends at the moment the true one is due."""
    wire, alice, bob = joined(seed)
    wire.hold = True
    alice.ping(bob)
    true: set[bytes] = set()
    recorded: list[bytes] = []
    step = 0
    while wire.held and step < 12:
        datagram = wire.held[0]
        recorded.append(datagram.data)
        true.add(_proven(datagram.data))
        for at, mutation in mutated:
            false = mutation.apply(datagram.data, recorded[at % len(recorded)])
            if at % 4 == step % 4 and _proven(false) not in true:
                mark = len(wire.log)
                before = alice.device.status().peers, bob.device.status().peers
                for node in (alice, bob):
                    node.receive(false, source)
                assert wire.since(mark) == []
                assert (alice.device.status().peers, bob.device.status().peers) == before
        wire.pass_on(datagram)
        wire.now += 0.1
        if step == 2:
            bob.ping(alice)
        elif step == 3:
            alice.ping(bob)
        step += 1
    assert [data[0] for data in recorded] == [INITIATION, RESPONSE, TRANSPORT, TRANSPORT, TRANSPORT]
    assert len(bob.delivered) == 2
    assert len(alice.delivered) == 1


@fuzz
@given(st.lists(st.one_of(garbage, st.binary(min_size=116, max_size=116), st.none()), max_size=8), endpoints)
def test_under_load_only_those_who_know_our_key_get_a_cookie(messages, source):
    _wire, _alice, bob = joined()
    bob.busy = True
    for number in range(512):
        body = b"\x01\0\0\0" + number.to_bytes(4, "little") + bytes(108)
        bob.device.receive(Burst.of(CookieJar(bob.key).add_macs(body, 0.0)), STRANGER, bob.wire.now)
    bob.device.datagrams_to_send()
    for message in messages:
        knows = message is None or len(message) == 116
        if message is None:
            message = b"\x01\0\0\0" + bytes(112)
        if knows:
            message = CookieJar(bob.key).add_macs(b"\x01\0\0\0" + message[4:], 0.0)
        bob.device.receive(Burst.of(message), source, bob.wire.now)
        answers = bob.device.datagrams_to_send()
        assert [(answer.data[0], len(answer.data), to) for answer, to in answers] == [
            (COOKIE_REPLY, 64, source)
        ] * knows


@fuzz
@given(st.lists(st.one_of(bursts, st.binary(max_size=80).map(lambda tail: Burst.of(b"\x45" + tail))), max_size=6))
def test_anything_may_be_sent(packets):
    wire, alice, bob = joined()
    alice.peers[bob] = alice.peers[bob].__class__(
        bob.key, endpoint=bob.endpoint, allowed_ips=(ip_network("0.0.0.0/0"), ip_network("::/0"))
    )
    alice.apply()
    for burst in packets:
        alice.device.send(Frames.of(*burst.rows()), wire.now)
        wire.settle()
    packet = alice.ping(bob)
    assert bob.delivered[-1] == packet


# Whole lives


@dataclass(frozen=True)
class Step:
    """One thing that happens to a pair of devices."""

    what: str
    side: int
    number: int
    data: bytes


PLAIN_STEPS = [
    *("wait", "wait", "ping", "ping", "garbage", "mutate", "replay", "roam", "lose"),
    *("clock", "keepalive", "rekey", "psk", "forget", "probe", "early"),
]
steps = st.builds(
    Step,
    st.sampled_from([*PLAIN_STEPS, "initiate"]),
    st.integers(0, 1),
    st.integers(0, 10_000),
    st.binary(max_size=80),
)


def _take(step: Step, wire: Wire, here: Node, there: Node) -> None:  # noqa: C901 - a table of what can happen
    match step.what:
        case "wait":
            wire.run((0.01, 1.0, 6.0, 11.0, 26.0, 121.0, 181.0, 600.0)[step.number % 8])
        case "ping":
            here.ping(there, step.number % 2, step.data)
        case "garbage":
            here.receive(step.data, STRANGER)
        case "mutate" if wire.log:
            data = wire.log[step.number % len(wire.log)].data
            where = step.number % (len(data) - 16 if data[0] in (INITIATION, RESPONSE) else len(data))
            here.receive(data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :], STRANGER)
        case "replay" if wire.log:
            here.receive(wire.log[step.number % len(wire.log)].data, STRANGER)
        case "roam":
            here.endpoint = Endpoint(here.endpoint.address, 1024 + step.number)
        case "lose":
            chance = random.Random(step.number)
            wire.lose = lambda _sent: chance.random() < (step.number % 4) / 3
        case "clock":
            wire.unix_offset += (step.number - 5000) * 3.0
        case "keepalive":
            here.device.set_peer(there.key, there.endpoint, step.number % 30, wire.now)
        case "rekey":
            old = here.key
            here.private = PrivateKey(wire.random.randbytes(32))
            here.apply()
            there.change(here, public_key=here.key, endpoint=here.endpoint)
            assert old not in {peer.key for peer in there.device.status().peers}
        case "psk":
            key = PresharedKey(wire.random.randbytes(32))
            here.change(there, preshared_key=key)
            there.change(here, preshared_key=key)
        case "forget":
            config, here.peers = here.peers, {}
            here.apply()
            here.peers = config
            here.change(there, endpoint=there.endpoint)
        case "initiate":
            here.device.initiate(there.key, (STRANGER, there.endpoint), wire.now)
        case "probe":
            here.device.probe(there.key, STRANGER, wire.now)
        case _:
            here.device.handle_timer(wire.now - step.number)
    wire.settle()


def _restore(wire: Wire, alice: Node, bob: Node) -> None:
    """The network works again, and each side is told where the other is."""
    wire.lose = lambda _sent: False
    for here, there in ((alice, bob), (bob, alice)):
        here.device.set_peer(there.key, there.endpoint, 0, wire.now)
    wire.settle()


@settings(fuzz, max_examples=250)
@given(st.integers(0, 1000), st.booleans(), st.lists(steps, max_size=40))
def test_whatever_happened_the_tunnel_works_again(seed, managed, story):
    wire, alice, bob = joined(seed, managed=managed)
    for step in story:
        here, there = (alice, bob) if step.side else (bob, alice)
        if step.what != "initiate" or managed:
            _take(step, wire, here, there)
    _restore(wire, alice, bob)
    wire.run(200.0)
    for node in (alice, bob):
        node.delivered.clear()
    packets = []
    for _ in range(4):  # a path that died under a session is noticed within 15 s of sending (rule T6)
        packets = [alice.ping(bob), bob.ping(alice, 1)]
        wire.run(6.0)
    assert packets[0] in bob.delivered
    assert packets[1] in alice.delivered


@fuzz
@given(st.lists(steps, max_size=25), st.integers(0, 1000))
def test_a_story_told_twice_is_the_same(story, seed):
    logs = []
    for _ in range(2):
        wire, alice, bob = joined(seed, managed=True)
        for step in story:
            here, there = (alice, bob) if step.side else (bob, alice)
            _take(step, wire, here, there)
        logs.append([(sent.at, sent.source, sent.destination, sent.data) for sent in wire.log])
    assert logs[0] == logs[1]


def test_the_device_is_as_deaf_without_configuration():
    device = Device(random.Random(1).randbytes, lambda: 0.0)
    device.send(Frames.of(ip_packet("10.0.0.1", "10.0.0.2")), 0.0)
    device.handle_timer(1e6)
    assert device.datagrams_to_send() == []
