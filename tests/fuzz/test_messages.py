"""Every parser of a datagram, and what consumes handshakes and cookies, under a fuzzer guided by coverage.

The first byte says what is tried. Beside "nothing raises": what parses packs to the same bytes; a true message of
someone whose keys we have is taken, and one that differs from it anywhere it is authenticated is not.
"""

import hashlib
import random

import pytest

from tests.fuzz.coverage import LONG, SHORT, Reader, fuzz, needs_atheris, replay
from tests.tunnel.by_hand import BurstCipher, inner_packet
from wgdisco import stun
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import ecn, icmp, noise
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.cookie import CookieChecker, CookieJar
from wgdisco.tunnel.frames import destination_of
from wgdisco.tunnel.messages import TRANSPORT, CookieReply, Initiation, Response, message_type
from wgdisco.tunnel.replay import ReplayWindow

ALICE, BOB = PrivateKey(bytes([1]) * 32), PrivateKey(bytes([2]) * 32)
_shared = ALICE.exchange(BOB.public_key().raw)
assert _shared is not None
SHARED = _shared
PRESHARED = PresharedKey(bytes([3]) * 32)
SOURCE = Endpoint.from_text("192.0.2.1:5")
TIMESTAMP = bytes(range(12))


def _initiation() -> tuple[noise.InitiatorState, bytes]:
    made = noise.create_initiation(ALICE, BOB.public_key(), SHARED, bytes([4]) * 32, 5, TIMESTAMP)
    assert made is not None
    return made


def _response() -> bytes:
    opened = noise.open_initiation(BOB, BOB.public_key(), Initiation.parse(INITIATION + bytes(32)))
    assert opened is not None
    state = noise.verify_initiation(opened, SHARED)
    assert state is not None
    made = noise.create_response(state, PRESHARED, bytes([6]) * 32, 7)
    assert made is not None
    return made[1]


INITIATION = _initiation()[1]
RESPONSE = _response()


def _changed(reader: Reader, message: bytes) -> bytes:
    """The message with some of its bytes changed."""
    changed = bytearray(message)
    for _ in range(reader.number(4)):
        changed[reader.number(len(changed))] ^= reader.number(256)
    return bytes(changed)


def _parsers(reader: Reader) -> None:
    data = reader.rest()
    kind = message_type(data)
    if kind is not None and kind != TRANSPORT:
        parsed = {1: Initiation, 2: Response, 3: CookieReply}[kind].parse(data)
        assert parsed.pack() == data[: len(parsed.pack())]
    else:
        assert kind is None or len(data) >= 32
    assert kind is None or data[:4] == bytes([kind, 0, 0, 0])


def _initiations(reader: Reader) -> None:
    message = _changed(reader, INITIATION)
    opened = noise.open_initiation(BOB, BOB.public_key(), Initiation.parse(message + reader.take(32)))
    state = None if opened is None else noise.verify_initiation(opened, SHARED)
    # Type and sender index are mac1's to protect.
    assert (state is not None) == (message[8:] == INITIATION[8:])
    assert state is None or (state.remote, state.timestamp) == (ALICE.public_key(), TIMESTAMP)


def _responses(reader: Reader) -> None:
    message = _changed(reader, RESPONSE)
    preshared = (PRESHARED, None, PresharedKey(reader.take(32)))[reader.number(3)]
    pending, _ = _initiation()  # anew: what is used up is overwritten
    keys = noise.consume_response(ALICE, pending, preshared, Response.parse(message + reader.take(32)))
    assert (keys is not None) == (message[12:] == RESPONSE[12:] and preshared == PRESHARED)


def _strange_keys(reader: Reader) -> None:
    """Rule H5: of low order or not, a key of another's choice gives a handshake or none."""
    remote = PublicKey(reader.take(32))
    shared = noise.static_static(BOB, remote)
    made = noise.create_initiation(BOB, remote, bytes(32) if shared is None else shared, bytes([8]) * 32, 9, TIMESTAMP)
    mixed = PrivateKey(bytes([8]) * 32).exchange(remote.raw)
    assert (made is None) == (mixed is None)
    assert all(secret is None or any(secret) for secret in (shared, mixed))
    if shared is None:
        assert made is None
    keyless = Initiation(1, remote.raw, reader.take(48), reader.take(28))
    assert noise.open_initiation(BOB, BOB.public_key(), keyless) is None
    state = noise.ResponderState(1, ALICE.public_key(), remote.raw, TIMESTAMP, bytes(32), bytes(32))
    answered = noise.create_response(state, None, bytes([8]) * 32, 9)
    assert (answered is None) == (made is None)


def _cookies(reader: Reader) -> None:
    jar = CookieJar(BOB.public_key())
    message = jar.add_macs(INITIATION, 0.0)
    checker = CookieChecker(BOB.public_key(), random.Random(1).randbytes)
    reply = checker.create_reply(message, SOURCE, 0.0)
    changed = _changed(reader, reply)
    taken = jar.consume_reply(CookieReply.parse(changed), 1.0)
    assert taken == (changed[8:] == reply[8:])
    assert not jar.consume_reply(CookieReply.parse(reply), 1.0) or not taken  # one a message
    now = reader.number(300)
    proven = jar.add_macs(reader.rest() or b"\0", float(now))
    assert checker.check_mac1(proven)
    assert checker.check_mac2(proven, SOURCE, 2.0) == (now < 116)
    assert not checker.check_mac2(proven, Endpoint(SOURCE.address, SOURCE.port + 1), 2.0)


def _macs(reader: Reader) -> None:
    checker = CookieChecker(BOB.public_key(), random.Random(1).randbytes)
    data = reader.rest()
    key = hashlib.blake2s(b"mac1----" + BOB.public_key().raw).digest()
    is_true = len(data) >= 32 and hashlib.blake2s(data[:-32], key=key, digest_size=16).digest() == data[-32:-16]
    assert checker.check_mac1(data) == is_true
    assert not checker.check_mac2(data, SOURCE, 0.0)


def _transport(reader: Reader) -> None:
    """A burst of sealed rows with some bytes changed: what is not changed opens, and nothing else."""
    cipher = BurstCipher(bytes([9]) * 32)
    plain, row = reader.some(300), 1 + reader.number(300)
    first = reader.number(2**64 - 400)
    sealed = cipher.seal(Burst(plain, row), 10, first, 1 + reader.number(1500))
    data, true = _changed(reader, bytes(sealed.data)), bytes(sealed.data)
    opened = cipher.open(Burst(data, sealed.row))
    rows = list(Burst(plain, row).rows())
    assert len(opened) == len(rows)
    for number, (counter, packet) in enumerate(opened):
        start = number * sealed.row
        if data[start + 8 : start + sealed.row] == true[start + 8 : start + sealed.row]:
            assert counter == first + number
            assert packet is not None
            assert packet.rstrip(b"\0") == bytes(rows[number]).rstrip(b"\0")
        else:
            assert packet is None


def _inner(reader: Reader) -> None:
    """Rules D6, D10 and D11 on what comes out of a tunnel."""
    tos, data = reader.number(256), reader.rest()
    found = inner_packet(data)
    if found is not None:
        packet, source = found
        assert data.startswith(packet)
        assert source == (packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])
        marked = ecn.decapsulated(packet, tos)
        assert len(marked) == len(packet)
        assert (marked[0], marked[2:10], marked[12:]) == (packet[0], packet[2:10], packet[12:])
        assert ecn.field_of(packet) or marked == packet
    address = destination_of(data)
    assert address is None or len(address) in {4, 16}
    error = icmp.unreachable(data)
    if error is not None:
        assert icmp.unreachable(error) is None, "an error about an error"
        assert len(error) <= 1280
        assert inner_packet(error) == (error, address)


def _window(reader: Reader) -> None:
    """Rule R1, beside a window that is a set."""
    window, seen, greatest = ReplayWindow(), set(), -1
    base = reader.number(2**64)
    for _ in range(64):
        if not reader:
            break
        counter = (base + reader.number(2**16)) % 2**64 if reader.number(2) else reader.number(2**64)
        accepted = window.accept(counter)
        fits = counter < 2**64 - 1 - 8128 - 1 and counter not in seen and counter + 8128 >= greatest
        assert accepted == fits
        if accepted:
            seen.add(counter)
            greatest = max(greatest, counter)


def _stun(reader: Reader) -> None:
    data = reader.rest()
    try:
        message = stun.Message.parse(data)
    except ValueError:
        return
    assert stun.Message.parse(message.pack()).pack() == message.pack()


ACTIONS = [
    *(_parsers, _initiations, _responses, _strange_keys, _cookies, _macs, _transport, _inner, _window, _stun),
]


def one_input(data: bytes) -> None:
    reader = Reader(data)
    ACTIONS[reader.number(len(ACTIONS))](reader)


def test_the_corpus():
    replay(__name__, one_input)


@needs_atheris
def test_fuzzing(tmp_path):
    fuzz(__name__, SHORT, tmp_path)


@needs_atheris
@pytest.mark.soak
def test_fuzzing_for_long(tmp_path):
    fuzz(__name__, LONG, tmp_path)
