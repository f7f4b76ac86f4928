import base64
import random

import pytest

from wgdisco.keys import PresharedKey, PrivateKey, PublicKey

# RFC 7748, section 6.1
PRIVATE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
KEYS = [PublicKey, PrivateKey, PresharedKey]


def test_the_public_key_is_rfc_7748s():
    assert PrivateKey(PRIVATE).public_key() == PublicKey(PUBLIC)


def test_private_keys_are_clamped():
    clamped = PrivateKey(b"\xff" * 32).raw
    assert clamped == b"\xf8" + b"\xff" * 30 + b"\x7f"
    assert PrivateKey(bytes(32)).raw == bytes(31) + b"\x40"
    assert PrivateKey(PRIVATE) == PrivateKey(PRIVATE[:31] + bytes([PRIVATE[31] | 0x80]))


def test_preshared_keys_are_taken_as_they_are():
    assert PresharedKey(b"\xff" * 32).raw == b"\xff" * 32


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_is_32_bytes(kind, size):
    with pytest.raises(ValueError, match="32 bytes"):
        kind(bytes(size))


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("seed", range(5))
def test_text_comes_back(kind, seed):
    key = kind(random.Random(seed).randbytes(32))
    assert key.to_text() == base64.b64encode(key.raw).decode()
    assert kind.from_text(key.to_text()) == key


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "A" * 43,
        "A" * 44,
        "A" * 43 + "=A",
        "A" * 42 + "B=",  # spare bits not zero
        " " + "A" * 43 + "=",
        "A" * 43 + "=\n",
        "A" * 42 + "==",
        "A" * 42 + "-=",
        "ä" + "A" * 42 + "=",
        "A" * 45 + "=",
    ],
)
def test_text_that_wg_refuses(kind, text):
    with pytest.raises(ValueError, match="44 base64 characters"):
        kind.from_text(text)


def test_label_is_lower_case_base32_with_padding():
    label = PublicKey(bytes(32)).to_label()
    assert label == "a" * 52 + "===="
    assert PublicKey(PUBLIC).to_label() == base64.b32encode(PUBLIC).decode().lower()


@pytest.mark.parametrize("seed", range(5))
def test_label_comes_back_in_any_case(seed):
    key = PublicKey(random.Random(seed).randbytes(32))
    assert PublicKey.from_label(key.to_label()) == key
    assert PublicKey.from_label(key.to_label().upper()) == key


@pytest.mark.parametrize(
    "label",
    ["", "a" * 52, "a" * 56, "a" * 51 + "b====", "a" * 52 + "===", "0" * 52 + "====", "a" * 48 + "====", "é" * 56],
)
def test_labels_that_are_no_key(label):
    with pytest.raises(ValueError, match="key"):
        PublicKey.from_label(label)


def test_public_keys_show_and_secrets_do_not():
    assert str(PublicKey(PUBLIC)) == PublicKey(PUBLIC).to_text()
    for secret in (PrivateKey(PRIVATE), PresharedKey(PRIVATE)):
        for text in (repr(secret), str(secret), f"{secret}"):
            assert secret.to_text() not in text
            assert secret.raw.hex() not in text
            assert repr(secret.raw)[2:-1] not in text


def test_secrets_of_different_kinds_are_not_equal():
    raw = PrivateKey(PRIVATE).raw
    assert PrivateKey(raw) == PrivateKey(raw)
    assert hash(PrivateKey(raw)) == hash(PrivateKey(raw))
    assert PrivateKey(raw) != PresharedKey(raw)
    assert PresharedKey(raw) != PresharedKey(bytes(32))
    assert PrivateKey(raw) != raw
