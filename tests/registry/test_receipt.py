"""What a registry forgot with its disk, handed back by members."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgdisco.api import RECEIPT_MAX_SIZE
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.registry.facts import Member, Network, Revoked
from wgdisco.registry.membership import Membership
from wgdisco.registry.receipt import REVOKED_MAX, recall, seal, unseal

NETWORK = Network(
    "mesh",
    "wg.internal.",
    PrivateKey(bytes(range(32))),
    51820,
    ("198.51.100.10:51820",),
    IPv4Network("10.9.8.0/24"),
    IPv6Network("fd00:9:8::/64"),
    epoch=3,
    next_host=9,
)
NOW = 1_800_000_000.0


def key(number):
    return PublicKey(number.to_bytes(2, "big") * 16)


def revoked(*numbers):
    return [Revoked(key(number), f"m{number}", float(number)) for number in numbers]


def test_what_is_sealed_comes_back_and_only_to_its_registry():
    text = seal(NETWORK, revoked(5, 4))
    receipt = unseal(NETWORK, text)
    assert (receipt.epoch, receipt.next_host, receipt.revoked) == (3, 9, (key(4), key(5)))
    assert text == seal(NETWORK, revoked(4, 5))
    assert text != seal(NETWORK, revoked(4))
    with pytest.raises(ValueError, match="no receipt"):
        unseal(replace(NETWORK, private_key=PrivateKey(bytes(32))), text)


def test_the_newest_revocations_are_kept_and_it_stays_small():
    text = seal(NETWORK, revoked(*range(1000)))
    assert len(text) <= RECEIPT_MAX_SIZE
    assert unseal(NETWORK, text).revoked == tuple(key(number) for number in range(1000 - REVOKED_MAX, 1000))


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.hex()))
def test_nobody_makes_one(text):
    with pytest.raises(ValueError, match="no receipt"):
        unseal(NETWORK, text)


@given(st.integers(0, 187), st.integers(1, 255))
def test_nobody_changes_one(at, by):
    text = seal(NETWORK, revoked(1, 2, 3, 4)).encode()
    changed = bytes(byte ^ by if number == at % len(text) else byte for number, byte in enumerate(text))
    with pytest.raises(ValueError):  # noqa: PT011  not ASCII, not base64 or not sealed
        unseal(NETWORK, changed.decode())


def test_a_registry_restored_from_an_old_backup_takes_back_what_it_revoked():
    lost = Member("lost", key(7), 7, ("all",), 0.0, proven=True, next_key=key(8))
    kept = Member("kept", key(6), 6, ("all",), 0.0, proven=True)
    restored = Membership([replace(NETWORK, epoch=2, next_host=5), lost, kept])
    receipt = unseal(NETWORK, seal(NETWORK, revoked(7, 99)))
    restored.apply(recall(restored, receipt, NOW))
    assert set(restored.members) == {key(6)}
    assert set(restored.revoked) == {key(7), key(8), key(99)}
    assert (restored.network.epoch, restored.network.next_host) == (4, 9)
    assert recall(restored, receipt, NOW) == []


def test_a_registry_that_forgot_nothing_changes_nothing():
    whole = Membership([NETWORK, *revoked(1, 2)])
    assert recall(whole, unseal(NETWORK, seal(NETWORK, revoked(1))), NOW) == []
    older = unseal(NETWORK, seal(replace(NETWORK, epoch=1, next_host=4), ()))
    assert recall(whole, older, NOW) == []


@pytest.mark.parametrize(("ours", "theirs", "then"), [(5, 9, 9), (9, 5, 9), (250, 3, 3), (3, 250, 3), (9, 9, 9)])
def test_numbers_go_round(ours, theirs, then):
    membership = Membership([replace(NETWORK, next_host=ours)])
    receipt = unseal(NETWORK, seal(replace(NETWORK, next_host=theirs), ()))
    membership.apply(recall(membership, receipt, NOW))
    assert membership.network.next_host == then
