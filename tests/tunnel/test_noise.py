"""The handshake against vectors and against an independent implementation of the Noise framework."""

import hashlib
import hmac
import random
from dataclasses import replace

import pytest
from noise.connection import Keypair, NoiseConnection

from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.messages import Initiation, Response

pytestmark = pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")  # fixed keys, a transcript

# wireguard-go, device/kdf_test.go
KDF_VECTORS = [
    (
        "746573742d6b6579",
        "746573742d696e707574",
        "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
        "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
        "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
    ),
    (
        "776972656775617264",
        "776972656775617264",
        "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
        "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
        "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
    ),
    (
        "",
        "",
        "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
        "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
        "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
    ),
]

# Points of low order on Curve25519 and its twist, as every X25519 implementation must refuse them (RFC 7748, section 7)
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.rule("H3")
@pytest.mark.parametrize(("key", "data", "first", "second", "third"), KDF_VECTORS)
def test_kdf_vectors(key, data, first, second, third):
    expected = (bytes.fromhex(first), bytes.fromhex(second), bytes.fromhex(third))
    for count in (1, 2, 3):
        assert noise.kdf(bytes.fromhex(key), bytes.fromhex(data), count) == expected[:count]


@pytest.mark.rule("H3")
def test_kdf_is_hkdf_of_rfc_5869():
    chance = random.Random(5)
    for _ in range(20):
        key, data = chance.randbytes(32), chance.randbytes(chance.randint(0, 64))
        extracted = hmac.new(key, data, hashlib.blake2s).digest()
        first = hmac.new(extracted, b"\x01", hashlib.blake2s).digest()
        second = hmac.new(extracted, first + b"\x02", hashlib.blake2s).digest()
        third = hmac.new(extracted, second + b"\x03", hashlib.blake2s).digest()
        assert noise.kdf(key, data, 3) == (first, second, third)


def _independent(
    initiator: bool, private: PrivateKey, remote: PublicKey | None, psk: bytes, ephemeral: bytes
) -> NoiseConnection:
    connection = NoiseConnection.from_name(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    connection.set_prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com")
    connection.set_psks(psk=psk)
    connection.set_keypair_from_private_bytes(Keypair.STATIC, private.raw)
    connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    if initiator:
        connection.set_as_initiator()
        connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote.raw)
    else:
        connection.set_as_responder()
    connection.start_handshake()
    return connection


def _keys(connection: NoiseConnection) -> tuple[bytes, bytes]:
    protocol = connection.noise_protocol
    return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k


@pytest.fixture(params=[None, bytes(range(32))], ids=["no preshared key", "preshared key"])
def preshared(request):
    return None if request.param is None else PresharedKey(request.param)


@pytest.fixture(params=range(3), ids=lambda seed: f"seed {seed}")
def world(request):
    chance = random.Random(request.param)
    return {
        "alice": PrivateKey(chance.randbytes(32)),
        "bob": PrivateKey(chance.randbytes(32)),
        "e_alice": chance.randbytes(32),
        "e_bob": chance.randbytes(32),
        "timestamp": chance.randbytes(12),
    }


def _initiation(world) -> tuple[noise.InitiatorState, bytes]:
    alice, bob = world["alice"], world["bob"].public_key()
    shared = noise.static_static(alice, bob)
    made = noise.create_initiation(alice, bob, shared, world["e_alice"], 0x11223344, world["timestamp"])
    assert made is not None
    return made


def _responder_state(world, packed: bytes) -> noise.ResponderState | None:
    bob = world["bob"]
    opened = noise.open_initiation(bob, bob.public_key(), Initiation.parse(packed + bytes(32)))
    if opened is None:
        return None
    return noise.verify_initiation(opened, noise.static_static(bob, opened.remote))


def test_transcript_as_initiator(world, preshared):
    psk = bytes(32) if preshared is None else preshared.raw
    other = _independent(False, world["bob"], None, psk, world["e_bob"])
    state, packed = _initiation(world)
    assert other.read_message(packed[8:]) == world["timestamp"]
    response = bytes(other.write_message())
    keys = noise.consume_response(
        world["alice"], state, preshared, Response(5, state.index, response[:32], response[32:])
    )
    assert keys is not None
    assert (keys.receive, keys.send) == _keys(other)
    assert keys.remote_index == 5


def test_transcript_as_responder(world, preshared):
    psk = bytes(32) if preshared is None else preshared.raw
    other = _independent(True, world["alice"], world["bob"].public_key(), psk, world["e_alice"])
    initiation = bytes(other.write_message(world["timestamp"]))
    state = _responder_state(world, b"\x01\0\0\0\x09\0\0\0" + initiation)
    assert state is not None
    assert state.remote == world["alice"].public_key()
    assert state.timestamp == world["timestamp"]
    made = noise.create_response(state, preshared, world["e_bob"], 0x55667788)
    assert made is not None
    keys, packed = made
    assert packed[:12] == b"\x02\0\0\0" + b"\x88\x77\x66\x55" + b"\x09\0\0\0"
    assert other.read_message(packed[12:]) == b""
    assert (keys.receive, keys.send) == _keys(other)
    assert keys.remote_index == 9


@pytest.mark.rule("H1", "H3", "H6")
def test_both_messages_are_the_independent_ones_byte_for_byte(world, preshared):
    psk = bytes(32) if preshared is None else preshared.raw
    initiator = _independent(True, world["alice"], world["bob"].public_key(), psk, world["e_alice"])
    responder = _independent(False, world["bob"], None, psk, world["e_bob"])
    initiation = bytes(initiator.write_message(world["timestamp"]))
    responder.read_message(initiation)
    response = bytes(responder.write_message())
    state, packed = _initiation(world)
    assert packed == b"\x01\0\0\0" + b"\x44\x33\x22\x11" + initiation
    made = noise.create_response(_responder_state(world, packed), preshared, world["e_bob"], 1)
    assert made is not None
    assert made[1][12:] == response
    keys = noise.consume_response(world["alice"], state, preshared, Response.parse(made[1] + bytes(32)))
    assert keys is not None
    assert (keys.send, keys.receive) == (made[0].receive, made[0].send)


@pytest.mark.rule("H6")
def test_a_preshared_key_must_be_the_same_on_both_sides(world):
    state, packed = _initiation(world)
    made = noise.create_response(_responder_state(world, packed), PresharedKey(bytes([1]) * 32), world["e_bob"], 1)
    assert made is not None
    response = Response.parse(made[1] + bytes(32))
    for wrong in (None, PresharedKey(bytes([2]) * 32)):
        assert noise.consume_response(world["alice"], state, wrong, response) is None
    assert noise.consume_response(world["alice"], state, PresharedKey(bytes([1]) * 32), response) is not None


def test_every_flipped_bit_of_an_initiation_is_noticed(world):
    _, packed = _initiation(world)
    assert _responder_state(world, packed) is not None
    for position in range(8, len(packed)):
        flipped = bytearray(packed)
        flipped[position] ^= 0x10
        assert _responder_state(world, bytes(flipped)) is None, position


def test_every_flipped_bit_of_a_response_is_noticed(world):
    state, packed = _initiation(world)
    _, packed = noise.create_response(_responder_state(world, packed), None, world["e_bob"], 1)
    for position in range(12, len(packed)):
        flipped = bytearray(packed)
        flipped[position] ^= 0x10
        response = Response.parse(bytes(flipped) + bytes(32))
        assert noise.consume_response(world["alice"], state, None, response) is None, position


@pytest.mark.rule("H4", "H11")
def test_an_initiation_in_anothers_name_opens_but_does_not_verify(world):
    alice, bob, mallory = world["alice"], world["bob"], PrivateKey(bytes([7]) * 32)
    # Mallory knows both public keys and claims to be Alice; what she cannot make is the static-static secret.
    es_side = noise.static_static(mallory, bob.public_key())
    forged = noise.create_initiation(alice, bob.public_key(), es_side, world["e_alice"], 1, world["timestamp"])
    assert forged is not None
    opened = noise.open_initiation(bob, bob.public_key(), Initiation.parse(forged[1] + bytes(32)))
    assert opened is not None
    assert opened.remote == alice.public_key()
    assert noise.verify_initiation(opened, noise.static_static(bob, opened.remote)) is None


@pytest.mark.rule("H5")
@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points_have_no_secret(point):
    assert PrivateKey(bytes([9]) * 32).exchange(bytes.fromhex(point)) is None
    assert noise.static_static(PrivateKey(bytes([9]) * 32), PublicKey(bytes.fromhex(point))) is None


@pytest.mark.rule("H5")
@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_ephemerals_are_refused_in_both_roles(world, point):
    state, packed = _initiation(world)
    assert _responder_state(world, packed[:8] + bytes.fromhex(point) + packed[40:]) is None
    response = Response(1, state.index, bytes.fromhex(point), bytes(16))
    assert noise.consume_response(world["alice"], state, None, response) is None


@pytest.mark.rule("H5")
@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_static_keys_are_refused_in_both_roles(world, point):
    bad = PublicKey(bytes.fromhex(point))
    assert noise.create_initiation(world["alice"], bad, bytes(32), world["e_alice"], 1, world["timestamp"]) is None
    _, packed = _initiation(world)
    state = replace(_responder_state(world, packed), remote=bad)
    assert noise.create_response(state, None, world["e_bob"], 1) is None


def test_diffie_hellman_vector_of_rfc_7748():
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    expected = bytes.fromhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    assert PrivateKey(scalar).exchange(point) == expected


def test_secrets_do_not_show(world):
    state, packed = _initiation(world)
    made = noise.create_response(_responder_state(world, packed), None, world["e_bob"], 1)
    for text in (repr(state), repr(made[0]), repr(_responder_state(world, packed))):
        for secret in (world["e_alice"], state.chain_key, made[0].send, made[0].receive):
            assert repr(secret)[2:-1] not in text
            assert secret.hex() not in text
