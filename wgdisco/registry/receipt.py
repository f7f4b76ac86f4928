"""What members keep for their registry, in case its disk is lost: what it must not forget, sealed.

A receipt holds the revoked keys, the epoch, and the host number that is given out next. The seal (ChaCha20-Poly1305,
under a key derived from the registry's own) lets only the registry read it, and nobody make one: a member can hand back
what it was given, and nothing else. So a registry restored from an old backup, on a new disk too, is told.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.keys import KEY_SIZE, PublicKey
from wgdisco.registry.facts import Change, Network, Put, Revoked
from wgdisco.registry.membership import Membership

_LABEL = b"wgdisco receipt 1"
_NONCE_SIZE = 12
_NUMBER_SIZE = 8
# The newest ones: a receipt stays below 12 KB.
REVOKED_MAX = 256


@dataclass(frozen=True, slots=True)
class Receipt:
    """See the module's docstring."""

    epoch: int
    next_host: int
    revoked: tuple[PublicKey, ...]


def seal(network: Network, revoked: Iterable[Revoked]) -> str:
    """The receipt of now; the same facts give the same text."""
    newest = sorted(revoked, key=lambda one: (one.at, one.public_key.raw))[-REVOKED_MAX:]
    numbers = b"".join(number.to_bytes(_NUMBER_SIZE, "big") for number in (network.epoch, network.next_host))
    plain = numbers + b"".join(one.public_key.raw for one in newest)
    key = _key(network)
    # no two texts share a nonce: it is a function of the text under the key
    nonce = hashlib.blake2s(plain, key=key, digest_size=_NONCE_SIZE).digest()
    return base64.b64encode(nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, _LABEL)).decode()


def unseal(network: Network, text: str) -> Receipt:
    """What a receipt of ours says; ValueError for anything else."""
    try:
        raw = base64.b64decode(text, validate=True)
        plain = ChaCha20Poly1305(_key(network)).decrypt(raw[:_NONCE_SIZE], raw[_NONCE_SIZE:], _LABEL)
    except (binascii.Error, ValueError, InvalidTag):
        raise ValueError("this is no receipt of this registry") from None
    numbers, keys = plain[: 2 * _NUMBER_SIZE], plain[2 * _NUMBER_SIZE :]
    epoch, next_host = (int.from_bytes(numbers[at : at + _NUMBER_SIZE], "big") for at in (0, _NUMBER_SIZE))
    raws = (keys[at : at + KEY_SIZE] for at in range(0, len(keys), KEY_SIZE))
    return Receipt(epoch, next_host, tuple(PublicKey(raw) for raw in raws))


def recall(membership: Membership, receipt: Receipt, now: float) -> list[Change]:
    """What the registry had forgotten; nothing where it had not."""
    changes: list[Change] = []
    for key in receipt.revoked:
        if key in membership.revoked:
            continue
        member = membership.members.get(key)
        if member is None:
            changes.append(Put(Revoked(key, "", now)))
        else:
            changes += membership.revoke(member.name, now)[0]
    network = membership.network
    epoch = network.epoch if receipt.epoch <= network.epoch else receipt.epoch + 1
    renewed = replace(network, epoch=epoch, next_host=_later(network, receipt.next_host))
    return changes if renewed == network else [Put(renewed), *changes]


def _later(network: Network, next_host: int) -> int:
    """Whichever of two next host numbers is further on: they go round, and are taken to be less than half apart."""
    size = network.prefix4.num_addresses
    ahead = (next_host - network.next_host) % size
    return next_host if 0 < ahead < size // 2 and 1 < next_host < size - 1 else network.next_host


def _key(network: Network) -> bytes:
    return hashlib.blake2s(_LABEL, key=network.private_key.raw).digest()
