"""The registry's STUN responder: who may ask, what is answered, and from where (RFC 8489, RFC 5780 section 7).

An answer goes to where it was asked from, or to another port of that address (RESPONSE-PORT), never elsewhere.

A member is given a short-term credential inside the tunnel. Whoever asks without one hears nothing. The credential is
derived from the registry's key and says itself when it ends, so none is kept. Each address has two ports that are
asked, and a third that only answers: what comes from there comes from a port nobody has sent to.

What a member asked from is remembered, so that addresses it claims can be compared. That is as good as WireGuard's own
roaming: a member that can forge its source can claim the forged one.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.stun import UNKNOWN_ATTRIBUTE, Change, Integrity, Kind, Message

LIFETIME = 3600
# One check of a NAT is at most 12 requests
BURST = 64
INTERVAL = 1 / 16
# Dozens of members may begin at once behind one address
ADDRESS_BURST = 512
ADDRESS_INTERVAL = 1 / 128
RATES_MAX = 4096
PROVEN_MAX = 8
PROVEN_MEMBERS_MAX = 16384

# What a NAT is told apart by: two addresses, where there are two
SITES_MAX = 2
THIRD_PORT = 3480

# Below are services; no NAT that RFC 4787 (REQ-3) allows maps a member's port there
RESPONSE_PORT_LEAST = 1024

_CHANGE_REQUEST = 0x0003
_RESPONSE_PORT = 0x0027


class Drop(Enum):
    """Why a datagram was not answered."""

    THIRD_PORT = "third port"
    NOT_STUN = "not stun"
    NOT_A_REQUEST = "not a request"
    NO_CREDENTIAL = "no valid credential"
    EXPIRED = "credential expired"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Site:
    """One address, as members know it: `ports` are asked, `third` only answers, where it could be had."""

    address: IPAddress
    ports: tuple[int, ...]
    third: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A datagram to send from the socket of `origin`."""

    data: bytes
    origin: Endpoint
    destination: Endpoint


def choose_addresses(
    named: Sequence[IPAddress], local: Sequence[IPAddress], source: IPAddress | None
) -> dict[IPAddress, IPAddress]:
    """Of one IP version, up to two addresses members can ask, and the local one each is served at.

    Public addresses of the machine, those that join links name (`named`) first. A machine that has none is behind a
    forwarded port or a one-to-one NAT: what is named then leads to `source`, where its default route leaves from.
    """
    public = [address for address in local if Endpoint(address, 1).is_global]
    if public:
        chosen = sorted(public, key=lambda address: address not in named)
        return {address: address for address in chosen[:SITES_MAX]}
    return {} if source is None else dict.fromkeys(named[:1], source)


class StunResponder:
    """See the module's docstring. `sites` is where the shell listens; `drops` counts what was not answered.

    `answers` counts what was.
    """

    def __init__(self, private_key: PrivateKey, unix_time: Callable[[], float]) -> None:
        self._key = hashlib.blake2s(b"wgdisco stun 1", key=private_key.raw).digest()
        self._unix_time = unix_time
        self.sites: tuple[Site, ...] = ()
        self.drops: Counter[Drop] = Counter()
        self.answers = 0
        self._members = _Rates(BURST, INTERVAL)
        self._addresses = _Rates(ADDRESS_BURST, ADDRESS_INTERVAL)
        self._proven: dict[str, dict[IPAddress, float]] = {}

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where members may ask: all ports of an address, then the next."""
        return [Endpoint(site.address, port) for site in self.sites for port in site.ports]

    def issue(self, member: PublicKey) -> StunRecord:
        """Where `member` may ask, and a credential, good for LIFETIME from now."""
        username = f"{int(self._unix_time()) + LIFETIME:x}.{self._identify(member)}"
        endpoints = [endpoint.to_text() for endpoint in self.endpoints]
        return StunRecord(endpoints, username, self._password(username), LIFETIME)

    def proven(self, member: PublicKey, now: float) -> set[IPAddress]:
        """The addresses `member` has asked from in the last LIFETIME, PROVEN_MAX at most."""
        known = self._proven.get(self._identify(member), {})
        return {address for address, at in known.items() if now - at < LIFETIME}

    def answer(self, data: bytes, asked: Endpoint, source: Endpoint, now: float) -> Reply | None:
        """What to say to a datagram from `source` that came to `asked`, one of `endpoints`; None: nothing."""
        if asked not in self.endpoints:
            self.drops[Drop.THIRD_PORT] += 1
            return None
        request = self._request(data)
        if request is None:
            return None
        identity = str(request.username).partition(".")[2]
        # the member, and the address: whoever replays what he overheard cannot flood anyone with it
        if not (self._members.allow(identity, now) and self._addresses.allow(_site_of(source.address), now)):
            self.drops[Drop.RATE] += 1
            return None
        self._remember(identity, source.address, now)
        self.answers += 1
        unknown = request.unknown
        origin = asked if unknown else self._origin(asked, request.change)
        if origin is None:
            origin, unknown = asked, (_CHANGE_REQUEST,)
        destination = source
        if request.response_port is not None:
            if request.response_port < RESPONSE_PORT_LEAST:
                unknown = (*unknown, _RESPONSE_PORT)
            elif not unknown:
                destination = Endpoint(source.address, request.response_port)
        if unknown:
            reply = Message(Kind.ERROR, request.transaction_id, error=UNKNOWN_ATTRIBUTE, unknown=unknown[:8])
        else:
            other = self._other(asked)
            reply = Message(Kind.SUCCESS, request.transaction_id, mapped=source, origin=origin, other=other)
        password = self._password(str(request.username))
        return Reply(reply.pack(password, request.integrity or Integrity.SHA256), origin, destination)

    def _request(self, data: bytes) -> Message | None:
        """A request with a credential that is good; everything else is counted."""
        try:
            request = Message.parse(data)
        except ValueError:
            self.drops[Drop.NOT_STUN] += 1
            return None
        if request.kind is not Kind.REQUEST:
            self.drops[Drop.NOT_A_REQUEST] += 1
        elif request.username is None or not request.verify(self._password(request.username)):
            self.drops[Drop.NO_CREDENTIAL] += 1
        elif int(request.username.partition(".")[0], 16) <= self._unix_time():  # we wrote it ourselves
            self.drops[Drop.EXPIRED] += 1
        else:
            return request
        return None

    def _origin(self, asked: Endpoint, change: Change | None) -> Endpoint | None:
        """Where the answer is to come from; None where there is no such place."""
        if change is None or not (change.address or change.port):
            return asked
        site = self._alternate(asked.address) if change.address else self._site(asked.address)
        if site is None:
            return None
        port = site.third if change.port else asked.port if asked.port in site.ports else None
        return None if port is None else Endpoint(site.address, port)

    def _other(self, asked: Endpoint) -> Endpoint | None:
        """The other address and the other port, OTHER-ADDRESS; None unless there are both (RFC 5780 section 7.4)."""
        site = self._alternate(asked.address)
        ports = () if site is None else [port for port in site.ports if port != asked.port]
        return None if site is None or not ports else Endpoint(site.address, ports[0])

    def _site(self, address: IPAddress) -> Site | None:
        return next((site for site in self.sites if site.address == address), None)

    def _alternate(self, address: IPAddress) -> Site | None:
        others = (site for site in self.sites if site.address.version == address.version and site.address != address)
        return next(others, None)

    def _identify(self, member: PublicKey) -> str:
        """What a member goes by on the open network, where its key does not show."""
        return hashlib.blake2s(b"wgdisco stun id 1" + member.raw, key=self._key, digest_size=8).hexdigest()

    def _password(self, username: str) -> str:
        label = b"wgdisco stun password 1" + username.encode()
        return hashlib.blake2s(label, key=self._key, digest_size=16).hexdigest()

    def _remember(self, identity: str, address: IPAddress, now: float) -> None:
        known = self._proven.pop(identity, {})
        known.pop(address, None)
        known[address] = now
        if len(known) > PROVEN_MAX:
            del known[next(iter(known))]
        self._proven[identity] = known
        if len(self._proven) > PROVEN_MEMBERS_MAX:
            del self._proven[next(iter(self._proven))]


class _Rates:
    """`burst` at once, then one each `interval` seconds; when the bucket would be full again is what is kept."""

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._full_at: dict[Hashable, float] = {}

    def allow(self, who: Hashable, now: float) -> bool:
        """Count one more of `who`'s, unless it is one too many."""
        full_at = max(now, self._full_at.pop(who, now)) + self._interval
        allowed = full_at <= now + self._burst * self._interval
        self._full_at[who] = full_at if allowed else full_at - self._interval
        if len(self._full_at) > RATES_MAX:
            del self._full_at[next(iter(self._full_at))]
        return allowed


def _site_of(address: IPAddress) -> tuple[int, int]:
    """An IPv4 address, or the /64 of an IPv6 one: whoever has one address of it has all."""
    return (4, int(address)) if address.version == 4 else (6, int(address) >> 64)
