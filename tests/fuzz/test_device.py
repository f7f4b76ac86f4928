"""Whole devices under a fuzzer guided by coverage that is itself one of the peers.

::

    alice  10.9.0.1 ── Bob, who is tested, 10.9.0.2 ── Mallory, 10.9.0.3/32 and fd00:9::3/128: the fuzzer
                                └─ strangers: the fuzzer too

An input is a list of actions. Mallory has keys of her own and speaks as she likes: her packets authenticate, whatever
is in them; her handshakes are true, stale, replayed or changed somewhere. After each action what Bob did is compared
with what he had to do, and in the end he and Alice still talk.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest

from tests.fuzz.coverage import LONG, SHORT, Reader, fuzz, needs_atheris, replay
from tests.tunnel.by_hand import BurstCipher
from tests.tunnel.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Node, Sent, Wire, ip_packet
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.burst import Burst, Frames
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.cookie import CookieChecker, CookieJar
from wgdisco.tunnel.events import PeerStatus, RawReceived
from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES, REPLAY_WINDOW, Initiation, Response

MALLORY = PrivateKey(bytes([13]) * 32)
HOME = Endpoint.from_text("203.0.113.13:51820")
PLACES = [HOME, *(Endpoint.from_text(text) for text in ("203.0.113.13:1", "[2001:db8::13]:65535", "198.51.100.9:7"))]
INNER = [
    ip_address(text).packed for text in ("10.9.0.3", "fd00:9::3", "10.9.0.1", "10.9.0.2", "fd00:9::1", "192.0.2.99")
]
HERS = frozenset(INNER[:2])
PSK = PresharedKey(bytes([7]) * 32)
START = 1000.0
PAUSES = (0.001, 0.02, 0.021, 1.0, 5.2, 10.1, 15.4, 26.0, 121.0, 181.0, 600.0)


@dataclass
class Keys:
    """One session of Mallory's with Bob; her side of it."""

    sealer: BurstCipher
    opener: BurstCipher
    receiver: int
    made_at: float
    seen: set[int] = field(default_factory=set)
    next_counter: int = 0

    @classmethod
    def of(cls, keys: noise.TransportKeys, now: float) -> "Keys":
        return cls(BurstCipher(keys.send), BurstCipher(keys.receive), keys.remote_index, now)

    def accepts(self, counter: int, now: float) -> bool:
        """Whether Bob has to take this counter, and then has taken it (rules D5, R1, R3, L2)."""
        greatest = max(self.seen, default=-1)
        fresh = counter not in self.seen and counter + REPLAY_WINDOW >= greatest and counter < REJECT_AFTER_MESSAGES
        if fresh and now - self.made_at < 180.0:
            self.seen.add(counter)
            return True
        return False


class World:
    """Bob, Alice, and what Mallory knows."""

    def __init__(self) -> None:
        self.wire = Wire(5, START)
        self.alice = self.wire.node("192.0.2.1:51820", "10.9.0.1", "fd00:9::1")
        self.bob = self.wire.node("198.51.100.2:51820", "10.9.0.2", "fd00:9::2")
        self.wire.introduce(self.alice, self.bob)
        self.mallory = Node(self.wire, MALLORY, HOME, ("10.9.0.3", "fd00:9::3"), self.bob.device)
        self.bob.peers[self.mallory] = PeerConfig(
            MALLORY.public_key(), None, HOME, (ip_network("10.9.0.3/32"), ip_network("fd00:9::3/128"))
        )
        self.wire.introduce(self.bob, self.alice)
        shared = noise.static_static(MALLORY, self.bob.key)
        assert shared is not None
        self.shared = shared
        self.random = random.Random(9)
        self.sessions: list[Keys] = []
        self.greatest = b""
        self.consumed_at = float("-inf")
        self.said: list[bytes] = []
        self.answered: set[bytes] = set()
        self.is_up = True

    @property
    def now(self) -> float:
        return self.wire.now

    @property
    def preshared(self) -> PresharedKey | None:
        return self.bob.peers[self.mallory].preshared_key

    def status(self) -> PeerStatus:
        return self.bob.status(self.mallory)

    def state(self) -> tuple[object, ...]:
        """All of Bob that garbage must not change."""
        return self.bob.device.status().peers, len(self.bob.device._local.indices), self.bob.device.get_timer()

    def give(self, datagrams: Burst, source: Endpoint) -> tuple[list[Sent], list[bytes]]:
        """Hand Bob a burst; what he sent then, and what came out of the tunnel."""
        mark, before = len(self.wire.log), len(self.bob.delivered)
        self.bob.device.receive(datagrams, source, self.now)
        self.bob.device.handle_handshakes(self.now)
        self.wire.settle()
        return self.wire.since(mark, by=self.bob), self.bob.delivered[before:]

    def give_in_vain(self, datagrams: Burst, source: Endpoint) -> None:
        """Bob neither answers, nor believes, nor tells (rule H19)."""
        state, events = self.state(), len(self.bob.events)
        assert self.give(datagrams, source) == ([], [])
        assert self.state() == state
        assert all(isinstance(event, RawReceived) for event in self.bob.events[events:])

    def initiation_of_bob(self) -> Sent | None:
        """The last one he sent her."""
        return next(
            (sent for sent in reversed(self.wire.log) if sent.kind == INITIATION and self._is_for_her(sent)), None
        )

    def _is_for_her(self, sent: Sent) -> bool:
        return sent.source == self.bob.endpoint and sent.destination != self.alice.endpoint


def _changed(reader: Reader, message: bytes, most: int = 3) -> bytes:
    """The message with up to `most` of its bytes changed."""
    changed = bytearray(message)
    for _ in range(reader.number(most + 1)):
        changed[reader.number(len(changed))] ^= reader.number(256)
    return bytes(changed)


def _place(reader: Reader) -> Endpoint:
    return PLACES[reader.number(len(PLACES))]


# Strangers


def garbage(world: World, reader: Reader) -> None:
    kind = reader.number(6)
    sizes = {INITIATION: 148, RESPONSE: 92, COOKIE_REPLY: 64, TRANSPORT: 32 + reader.number(64)}
    if kind in sizes:
        indices = [*world.bob.device._local.indices, 0]
        body = indices[reader.number(len(indices))].to_bytes(4, "little") + reader.some(sizes[kind] - 8)
        body = bytes([kind, 0, 0, 0]) + body if kind != RESPONSE else bytes([kind, 0, 0, 0]) + bytes(4) + body
        data = body[: sizes[kind]].ljust(sizes[kind], b"\0")
        if kind in {INITIATION, RESPONSE} and reader.number(2):
            data = CookieJar(world.bob.key).add_macs(data[:-32], 0.0)
    else:
        data = reader.some(300)
    row = 1 + reader.number(300) if reader.number(2) else len(data)
    world.give_in_vain(Burst(data, row, tos=reader.number(256)), (*PLACES, world.alice.endpoint)[reader.number(5)])


def replayed(world: World, reader: Reader) -> None:
    """What went over the wire or came from Mallory, once more."""
    old = world.said if reader.number(2) else [sent.data for sent in world.wire.log]
    if old:
        world.give_in_vain(Burst.of(old[reader.number(len(old))]), _place(reader))


def changed(world: World, reader: Reader) -> None:
    """What went over the wire with one authenticated byte changed."""
    if not world.wire.log:
        return
    message = world.wire.log[reader.number(len(world.wire.log))].data
    proven = len(message) - 16 if message[0] in {INITIATION, RESPONSE} else len(message)
    at = reader.number(proven)
    false = message[:at] + bytes([message[at] ^ (1 + reader.number(255))]) + message[at + 1 :]
    world.give_in_vain(Burst.of(false), _place(reader))


# Mallory


def _inner(reader: Reader) -> bytes:
    """An IP packet, or something like one."""
    kind = reader.number(4)
    if kind == 3:
        return reader.some(120)
    source, destination = INNER[reader.number(6)], INNER[reader.number(6)]
    length = (0, 1, -1, 16, -20, -40, 40, 65535)[reader.number(8)] if reader.number(2) else 0
    body = reader.some(40)
    if kind == 0 and len(source) == 4:
        total = (20 + len(body) + length) % 65536
        packet = (
            bytes([0x45, reader.number(256)]) + total.to_bytes(2, "big") + bytes(8) + source + destination[:4] + body
        )
    else:
        total = (len(body) + length) % 65536
        packet = b"\x60" + reader.take(1) + bytes(2) + total.to_bytes(2, "big") + b"\x3b\x40" + source.ljust(16, b"\0")
        packet += destination.ljust(16, b"\0") + body
    return packet + bytes(reader.number(3) * 8)


def _deliverable(plain: bytes) -> bytes | None:
    """Rules D6 and D7 as they are written, but for the ECN field: what comes out of the tunnel of such a packet."""
    version = plain[0] >> 4 if plain else 0
    if version == 4 and len(plain) >= 20:
        total, source, least = int.from_bytes(plain[2:4], "big"), plain[12:16], 20
    elif version == 6 and len(plain) >= 40:
        total, source, least = 40 + int.from_bytes(plain[4:6], "big"), plain[8:24], 40
    else:
        return None
    return plain[:total] if least <= total <= len(plain) and source in HERS else None


def _without_mark(packet: bytes) -> bytes:
    """The packet without its ECN field, which the tunnel may change (rule D11), and the checksum over it."""
    if packet[0] >> 4 == 6:
        return packet[:1] + bytes([packet[1] & 0xCF]) + packet[2:]
    return packet[:1] + bytes([packet[1] & 0xFC]) + packet[2:10] + bytes(2) + packet[12:]


def data(world: World, reader: Reader) -> None:
    """A burst in her newest session: packets of one size, some of them said before, some changed on the way."""
    if not world.sessions:
        return
    session = world.sessions[-1]
    plain = _inner(reader)
    rows, expected, taken = [], [], 0
    for _ in range(1 + reader.number(3)):
        counter = (session.next_counter, session.next_counter, reader.number(2**16), reader.number(2**64))[
            reader.number(4)
        ]
        sealed = session.sealer.seal(Burst.of(plain), session.receiver, counter, 65535)
        row = _changed(reader, bytes(sealed.data), most=1)
        rows.append(row)
        if row != sealed.data or not world.is_up:
            if row[:8] != sealed.data[:8]:
                break  # another index or type: the burst ends with it
            continue
        if session.accepts(counter, world.now):
            session.next_counter = max(session.next_counter, counter + 1)
            taken += len(row)
            world.said.append(row)
            padded = plain.ljust(-(-len(plain) // 16) * 16, b"\0")
            inner = _deliverable(padded)
            if inner is not None:
                expected.append(_without_mark(inner))
    source, before = _place(reader), world.status()
    _, delivered = world.give(Burst(b"".join(rows), len(rows[0]), tos=reader.number(256)), source)
    assert [_without_mark(packet) for packet in delivered] == expected
    after = world.status()
    assert after.rx_bytes - before.rx_bytes == taken
    assert after.endpoint == (source if taken else before.endpoint), "the endpoint follows what authenticates (rule E1)"


def initiation(world: World, reader: Reader) -> None:
    """Fresh, stale or changed, with its mac1 right or wrong (rule C1)."""
    kind = reader.number(4)
    if kind == 3:
        timestamp = reader.take(12)
    else:
        step = (1, 0, -1)[kind] * (1 + reader.number(256))
        timestamp = max(0, min(2**96 - 1, int.from_bytes(world.greatest or bytes(12), "big") + step)).to_bytes(
            12, "big"
        )
    index = reader.number(2**32)
    made = noise.create_initiation(MALLORY, world.bob.key, world.shared, world.random.randbytes(32), index, timestamp)
    assert made is not None
    state, true = made
    message = _changed(reader, true, most=1)
    message = b"\x01\0\0\0" + message[4:]
    is_fresh = timestamp > world.greatest and world.now - world.consumed_at >= 0.020
    said, source = CookieJar(world.bob.key).add_macs(message, 0.0), _place(reader)
    wrong_mac1 = reader.number(256)
    said = said[:116] + bytes([said[116] ^ wrong_mac1]) + said[117:]
    if message[8:] != true[8:] or wrong_mac1 or not is_fresh or not world.is_up:
        world.give_in_vain(Burst.of(said), source)
        return
    sent, delivered = world.give(Burst.of(said), source)
    assert delivered == []
    assert [(answer.kind, answer.destination) for answer in sent] == [(RESPONSE, source)]
    state = replace(state, index=int.from_bytes(message[4:8], "little"))
    keys = noise.consume_response(MALLORY, state, world.preshared, Response.parse(sent[0].data))
    assert keys is not None, "an answer she cannot read"
    assert sent[0].data[8:12] == message[4:8]
    world.greatest, world.consumed_at = timestamp, world.now
    world.said.append(said)
    world.sessions.append(Keys.of(keys, world.now))
    assert world.status().endpoint == source


def response(world: World, reader: Reader) -> None:
    """To Bob's last initiation, once or again, with the right preshared key or another, changed or not."""
    asked = world.initiation_of_bob()
    if asked is None:
        return
    opened = noise.open_initiation(MALLORY, MALLORY.public_key(), Initiation.parse(asked.data))
    state = None if opened is None else noise.verify_initiation(opened, world.shared)
    assert state is not None, "an initiation she cannot read"
    preshared = (world.preshared, PSK, None)[reader.number(3)]
    made = noise.create_response(state, preshared, world.random.randbytes(32), reader.number(2**32))
    assert made is not None
    keys, true = made
    message = b"\x02\0\0\0" + _changed(reader, true, most=1)[4:]
    said, source = CookieJar(world.bob.key).add_macs(message, 0.0), _place(reader)
    pending = (
        int.from_bytes(asked.data[4:8], "little") in world.bob.device._local.indices
    ) and asked.data not in world.answered
    same = (preshared or PresharedKey(bytes(32))) == (world.preshared or PresharedKey(bytes(32)))
    if message[8:] != true[8:] or not same or not pending or not world.is_up:
        world.give_in_vain(Burst.of(said), source)
        return
    sent, delivered = world.give(Burst.of(said), source)
    assert delivered == []
    world.answered.add(asked.data)
    world.said.append(said)
    session = Keys.of(replace(keys, remote_index=int.from_bytes(asked.data[4:8], "little")), world.now)
    # Key confirmation at once (rule H14), in the new session and to where she is now.
    assert sent
    for datagram in sent:
        assert (datagram.kind, datagram.destination) == (TRANSPORT, source)
        assert datagram.data[4:8] == message[4:8]
        assert session.opener.open(Burst.of(datagram.data))[0][1] is not None
    world.sessions.append(session)
    assert world.status().endpoint == source


def cookie(world: World, reader: Reader) -> None:
    """A cookie reply is never answered, moves nothing and shows no life, true or not (rule C7)."""
    asked = world.initiation_of_bob()
    if asked is None:
        return
    checker = CookieChecker(MALLORY.public_key(), world.random.randbytes)
    reply = checker.create_reply(asked.data, world.bob.endpoint, world.now)
    world.give_in_vain(Burst.of(_changed(reader, reply)), _place(reader))


# Bob, and what happens to him


def send(world: World, reader: Reader) -> None:
    """Packets from Bob's interface, real ones and others; what is for Mallory she can read (rule D4)."""
    packets = _inner(reader) if reader.number(2) else reader.some(1500)
    mark = len(world.wire.log)
    world.bob.device.send(Frames.of(*Burst(packets, 1 + reader.number(1500)).rows()), world.now)
    world.wire.settle()
    for sent in world.wire.since(mark, TRANSPORT, by=world.bob):
        if sent.destination != world.alice.endpoint:
            opened = [keys.opener.open(Burst.of(sent.data))[0][1] for keys in world.sessions]
            plain = next((packet for packet in opened if packet is not None), None)
            assert plain is not None, "in none of her sessions"
            assert len(plain) % world.bob.device._local.mtu % 16 == 0


def ping(world: World, reader: Reader) -> None:
    here, there = ((world.alice, world.bob), (world.bob, world.alice))[reader.number(2)]
    here.ping(there, reader.number(2), reader.some(50))


def pause(world: World, reader: Reader) -> None:
    seconds = PAUSES[reader.number(len(PAUSES))]
    if world.now - START + seconds < 1500.0:  # longer lives are only slower
        world.wire.run(seconds)


def configure(world: World, reader: Reader) -> None:
    kind, amount = reader.number(5), reader.number(2**16)
    if kind == 0:
        world.bob.change(world.mallory, preshared_key=(None, PSK)[amount % 2])
    elif kind == 1:
        world.bob.change(world.mallory, persistent_keepalive=amount % 60)
    elif kind == 2:
        world.bob.device.set_mtu(68 + amount % (65503 - 68))
    elif kind == 3:
        world.bob.change(world.mallory, endpoint=PLACES[amount % len(PLACES)])
    else:
        world.is_up = bool(amount % 4)
        if not world.is_up:
            world.sessions.clear()
            world.answered.update(sent.data for sent in world.wire.log)
        world.bob.device.set_up(world.is_up, world.now)
        world.wire.settle()


ACTIONS: list[Callable[[World, Reader], None]] = [
    *(garbage, replayed, changed, data, data, initiation, initiation, response, cookie, send, ping, pause, configure),
]


def _check_bounds(world: World) -> None:
    """Two peers hold three sessions and an initiation each, whatever came."""
    device = world.bob.device
    assert len(device._local.indices) <= 8
    assert len(device._peers._heap) <= 64
    assert not device.has_handshakes
    assert len(device._intake._limiter._buckets) <= len(PLACES)
    assert {peer.key for peer in device.status().peers} == {world.alice.key, MALLORY.public_key()}


def one_input(given: bytes) -> None:
    reader, world = Reader(given), World()
    for _ in range(30):
        if not reader:
            break
        ACTIONS[reader.number(len(ACTIONS))](world, reader)
        _check_bounds(world)
    if not world.is_up:
        world.bob.device.set_up(True, world.now)
    world.bob.device.set_mtu(1420)
    # Alice may not know yet that Bob was down: her first packet is lost then, and after 15 s she begins anew (T6).
    for seconds in (5.4, 16.0):
        world.wire.run(seconds)
        packet = ip_packet("10.9.0.1", "10.9.0.2", b"still here")
        world.alice.send(packet)
    world.wire.run(6.0)
    assert packet in world.bob.delivered[-2:]


def test_the_corpus():
    replay(__name__, one_input)


@needs_atheris
def test_fuzzing(tmp_path):
    fuzz(__name__, SHORT, tmp_path)


@needs_atheris
@pytest.mark.soak
def test_fuzzing_for_long(tmp_path):
    fuzz(__name__, LONG, tmp_path)
