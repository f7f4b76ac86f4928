"""What was different about members lately, by who may know; and how that is numbered towards those who listen.

How much happens in other groups is not for a member to know. So each group's changes are kept, and forgotten, by
themselves, and a number is sealed, each time under another nonce: only the registry can tell two of them apart.
"""

import base64
import binascii
from collections.abc import Callable, Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.keys import PublicKey

_KEY_SIZE = 32
_NONCE_SIZE = 12
_NUMBER_SIZE = 8
_ID_SIZE = 48  # nonce, number and tag, in base64


class Changes:
    """Of each group the latest change of each member, of `most` members. `latest` is the number of the last of all."""

    def __init__(self, most: int) -> None:
        self.latest = 0
        self._most = most
        self._own: dict[int, int] = {}
        self._by_group: dict[str, dict[PublicKey, tuple[int, str]]] = {}
        self._forgotten: dict[str, int] = {}

    def note(self, key: PublicKey, name: str, groups: Iterable[str]) -> None:
        """To who is in these groups the member of that key, called `name` before, is another, comes or goes."""
        self.latest += 1
        for group in groups:
            changed = self._by_group.setdefault(group, {})
            changed.pop(key, None)
            changed[key] = self.latest, name
            if len(changed) > self._most:
                oldest = next(iter(changed))
                self._forgotten[group], _ = changed.pop(oldest)

    def note_own(self, number: int) -> None:
        """What the member of that host number is told of itself may be another."""
        self.latest += 1
        self._own[number] = self.latest

    def since(self, last: int, number: int, groups: Iterable[str]) -> dict[PublicKey, tuple[int, str]] | None:
        """Number and name of all that has changed after change `last` to member `number` of these groups, in order.

        None where that is not known any longer, is more than `most`, or has to do with itself.
        """
        if last < self._own.get(number, 0):
            return None
        found: dict[PublicKey, tuple[int, str]] = {}
        for group in groups:
            if last < self._forgotten.get(group, 0):
                return None
            for key, change in reversed(self._by_group.get(group, {}).items()):
                if change[0] <= last:
                    break
                found[key] = max(change, found.get(key, change))
        return dict(sorted(found.items(), key=lambda item: item[1])) if len(found) <= self._most else None


class EventIds:
    """Numbers as they are told, for as long as this object lives. `random_bytes(n)` draws."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._sealer = ChaCha20Poly1305(random_bytes(_KEY_SIZE))

    def to_text(self, number: int) -> str:
        """_ID_SIZE characters, other ones each time."""
        nonce = self._random_bytes(_NONCE_SIZE)
        sealed = self._sealer.encrypt(nonce, number.to_bytes(_NUMBER_SIZE, "big"), None)
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def from_text(self, text: str) -> int | None:
        """The number; None for what is none of ours."""
        if len(text) != _ID_SIZE:
            return None
        try:
            raw = base64.urlsafe_b64decode(text)
            return int.from_bytes(self._sealer.decrypt(raw[:_NONCE_SIZE], raw[_NONCE_SIZE:], None), "big")
        except (binascii.Error, ValueError, InvalidTag):
            return None
