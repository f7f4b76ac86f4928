"""Members on one LAN find each other by multicast DNS (RFC 6762), and strangers there learn nothing of who they are.

A member announces an instance of `_wireguard._udp.local.` under a random label. TXT `n` is a nonce of 16 bytes, `t` a
tag of 16: BLAKE2s keyed with HASH(`wgdisco mdns 1` ‖ own public key) over nonce and port. Who knows the public key
recognises it, by trial; nobody else can tell one announcement from another, and they change hourly.

A tag proves that its owner announced that port once, not that it is where the records say: others may repeat it. Where
it leads to is only ever tried.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from wgdisco.endpoint import SITE_LOCAL, Endpoint, IPAddress, in_any
from wgdisco.keys import PublicKey

SERVICE_TYPE = "_wireguard._udp.local."
ROTATE_AFTER = 3600.0
MAX_ENDPOINTS = 8
# What strangers may make us remember and compute
MAX_SEEN = 512
MAX_SEEN_PER_KEY = 4
TRIALS_PER_SECOND = 20_000
TRIALS_BURST = 100_000

_LABEL = b"wgdisco mdns 1"
_NONCE_SIZE = 16
_TAG_SIZE = 16
_INSTANCE_SIZE = 8


class Drop(Enum):
    """Why an announcement was not used."""

    MALFORMED = "malformed announcement"
    STRANGER = "announcement of a stranger"
    ELSEWHERE = "announcement that leads elsewhere"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a member says on a LAN. `label` is the instance's and, before `.local.`, the host's."""

    label: str
    port: int
    nonce: bytes
    tag: bytes

    def pairs(self) -> dict[str, bytes]:
        """The pairs of its TXT record."""
        return {"n": self.nonce, "t": self.tag}


@dataclass(frozen=True, slots=True)
class LanPeer:
    """A known peer is on the LAN, or somewhere else on it than before."""

    key: PublicKey
    endpoints: tuple[Endpoint, ...]
    at: float


@dataclass(frozen=True, slots=True)
class LanPeerGone:
    """A peer said goodbye, or its announcement expired."""

    key: PublicKey
    at: float


LanEvent = LanPeer | LanPeerGone


def announce(key: PublicKey, port: int, random_bytes: Callable[[int], bytes]) -> Announcement:
    """An announcement as no other was; `port` is 1 to 65535."""
    nonce = random_bytes(_NONCE_SIZE)
    return Announcement(random_bytes(_INSTANCE_SIZE).hex(), port, nonce, _tag(_tag_key(key), port, nonce))


def parse_announcement(label: str, port: int, pairs: Mapping[bytes, bytes | None]) -> Announcement | None:
    """What an instance's records say, None when it cannot be an announcement of ours."""
    nonce, tag = pairs.get(b"n"), pairs.get(b"t")
    if nonce is None or tag is None or len(nonce) != _NONCE_SIZE or len(tag) != _TAG_SIZE or not 0 < port < 65536:
        return None
    return Announcement(label, port, nonce, tag)


class Announcer:
    """Our own announcement and when it is another: call `handle_timer` at `get_timer`."""

    def __init__(self, key: PublicKey, port: int, random_bytes: Callable[[int], bytes], now: float) -> None:
        self._key = key
        self._port = port
        self._random_bytes = random_bytes
        self._renew(now)

    def set_identity(self, key: PublicKey, port: int, now: float) -> None:
        """Announce this key and port from now on."""
        if (key, port) != (self._key, self._port):
            self._key, self._port = key, port
            self._renew(now)

    def handle_timer(self, now: float) -> None:
        """Change nonce, tag and label when an hour is over."""
        if now >= self._renew_at:
            self._renew(now)

    def get_timer(self) -> float:
        """When the announcement is to change."""
        return self._renew_at

    def _renew(self, now: float) -> None:
        self.announcement = announce(self._key, self._port, self._random_bytes)
        self._renew_at = now + ROTATE_AFTER


@dataclass(slots=True)
class _Seen:
    """An announcement and where it leads. `key` is whose it is, once recognised; `is_tried` with all known keys."""

    announcement: Announcement
    addresses: tuple[IPAddress, ...]
    key: PublicKey | None = None
    is_tried: bool = False


class Neighbours:
    """Who of the known peers is on the LAN. `drops` counts what was not used."""

    def __init__(self, now: float) -> None:
        self.drops: Counter[Drop] = Counter()
        self._tag_keys: dict[PublicKey, bytes] = {}
        # by the interface it was heard on and the label of its instance
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._budget = float(TRIALS_BURST)
        self._budget_at = now
        self._told: dict[PublicKey, tuple[Endpoint, ...]] = {}
        self._events: list[LanEvent] = []

    def set_known(self, keys: Iterable[PublicKey], now: float) -> None:
        """Recognise these from now on; what nobody was recognised in is tried with them."""
        wanted = dict.fromkeys(keys)
        is_more = any(key not in self._tag_keys for key in wanted)
        self._tag_keys = {key: self._tag_keys.get(key) or _tag_key(key) for key in wanted}
        for seen in self._seen.values():
            if seen.key is not None and seen.key not in wanted:
                seen.key = None
            elif is_more and seen.key is None:
                seen.is_tried = False
        self._told = {key: endpoints for key, endpoints in self._told.items() if key in wanted}
        self._try(now)

    def instance_seen(
        self, interface: str, announcement: Announcement, addresses: Iterable[IPAddress], now: float
    ) -> None:
        """An instance is there, or its records are others."""
        heard = interface, announcement.label
        known = self._seen.pop(heard, None)
        seen = _Seen(announcement, tuple(addresses)[:MAX_ENDPOINTS])
        if known is not None and known.announcement == announcement:
            seen.key, seen.is_tried = known.key, known.is_tried
        self._make_room()
        self._seen[heard] = seen
        self._try(now)
        for key in {one.key: None for one in (seen, known) if one is not None and one.key is not None}:
            self._tell(key, now)

    def instance_gone(self, interface: str, label: str, now: float) -> None:
        """An instance said goodbye or expired."""
        seen = self._seen.pop((interface, label), None)
        if seen is not None and seen.key is not None:
            self._tell(seen.key, now)

    def interface_gone(self, interface: str, now: float) -> None:
        """Nothing is heard there any longer."""
        for heard in [heard for heard in self._seen if heard[0] == interface]:
            self.instance_gone(*heard, now)

    def malformed(self) -> None:
        """An instance of the service is none of ours."""
        self.drops[Drop.MALFORMED] += 1

    def handle_timer(self, now: float) -> None:
        """Try what there was no budget for."""
        self._try(now)

    def get_timer(self) -> float | None:
        """When there is budget for what was not tried yet."""
        if not any(self._is_to_try(seen) for seen in self._seen.values()):
            return None
        return self._budget_at + max(0.0, self._cost() - self._budget) / TRIALS_PER_SECOND

    def events(self) -> list[LanEvent]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def _make_room(self) -> None:
        """Strangers go before peers, the oldest first."""
        if len(self._seen) >= MAX_SEEN:
            strangers = (heard for heard, seen in self._seen.items() if seen.key is None)
            del self._seen[next(strangers, next(iter(self._seen)))]

    def _cost(self) -> int:
        # one that passes the burst as a whole is tried when the budget is full
        return min(max(1, len(self._tag_keys)), TRIALS_BURST)

    def _try(self, now: float) -> None:
        """Try announcements with all known keys, as long as the budget lasts."""
        earned = max(0.0, now - self._budget_at) * TRIALS_PER_SECOND
        self._budget, self._budget_at = min(self._budget + earned, float(TRIALS_BURST)), now
        for seen in [seen for seen in self._seen.values() if self._is_to_try(seen)]:
            if self._budget < self._cost():
                break
            self._budget -= self._cost()
            seen.is_tried = True
            seen.key = self._recognise(seen.announcement)
            if seen.key is None:
                self.drops[Drop.STRANGER] += 1
            else:
                self._forget_oldest(seen.key)
                self._tell(seen.key, now)

    def _is_to_try(self, seen: _Seen) -> bool:
        return seen.key is None and not seen.is_tried and bool(self._tag_keys)

    def _recognise(self, announcement: Announcement) -> PublicKey | None:
        for key, tag_key in self._tag_keys.items():
            expected = _tag(tag_key, announcement.port, announcement.nonce)
            if hmac.compare_digest(expected, announcement.tag):
                return key
        return None

    def _forget_oldest(self, key: PublicKey) -> None:
        """A peer has one announcement an interface, two while they change: others may repeat it under more labels."""
        heard = [one for one, seen in self._seen.items() if seen.key == key]
        for oldest in heard[:-MAX_SEEN_PER_KEY]:
            del self._seen[oldest]

    def _tell(self, key: PublicKey, now: float) -> None:
        """Tell where `key` is when it is not what was last told: at all its announcements, the newest first."""
        endpoints: dict[Endpoint, None] = {}
        for seen in reversed(self._seen.values()):
            if seen.key == key:
                endpoints |= dict.fromkeys(self._endpoints(seen))
        told = tuple(endpoints)[:MAX_ENDPOINTS]
        if told == self._told.get(key, ()):
            return
        if told:
            self._told[key] = told
            self._events.append(LanPeer(key, told, now))
        else:
            del self._told[key]
            self._events.append(LanPeerGone(key, now))

    def _endpoints(self, seen: _Seen) -> list[Endpoint]:
        # what is private leads nowhere but into this site, whoever says it
        addresses = [address for address in seen.addresses if in_any(address, SITE_LOCAL)]
        if not addresses:
            self.drops[Drop.ELSEWHERE] += 1
        return [Endpoint(address, seen.announcement.port) for address in addresses]


def _tag_key(key: PublicKey) -> bytes:
    return hashlib.blake2s(_LABEL + key.raw).digest()


def _tag(tag_key: bytes, port: int, nonce: bytes) -> bytes:
    return hashlib.blake2s(nonce + port.to_bytes(2, "big"), key=tag_key, digest_size=_TAG_SIZE).digest()
