"""Whom a member trusts: what the registry says of the network, judged against what was seen before.

A name is pinned to the key it was first seen with. Another key for it is refused and reported, unless the pinned one
announced it (`next_key`), or was of an ephemeral member that is gone. A registry that comes back with an older epoch,
restored from a backup, is told, and changes nothing here. Without word from a registry for `offline_trust` seconds,
members are trusted no longer.

Times are unix time, in seconds: they outlive a reboot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address, ip_network

from wgdisco.api import EndpointChange, MemberRecord, Removed, Snapshot
from wgdisco.endpoint import Endpoint, IPAddress, IPNetwork, in_any
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.offers import EXIT, is_default, judge_subnets
from wgdisco.peer.records import KIND_DEVICE, MAX_MEMBERS, Network, endpoint_of, next_key_of
from wgdisco.peer.roster_news import Accepted, Gone, MemberRefused, OlderEpoch, RosterNews, TrustExpired
from wgdisco.tunnel.config import DeviceConfig, PeerConfig

OFFLINE_TRUST = 7 * 24 * 3600.0
KEEPALIVE = 25
MAX_PINS = 4 * MAX_MEMBERS


class Accept(Enum):
    """Which members that were never seen before are accepted.

    All; those a person accepts; or none but the ones that are there when we become a member.
    """

    ALL = "all"
    ASK = "ask"
    PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a roster keeps over a restart. `confirmed_at` is when a registry last vouched for `snapshot`.

    `announced` maps a pinned key to the one that may follow it; `is_fresh` until the first snapshot after enrolment.
    """

    snapshot: Snapshot
    confirmed_at: float
    epoch: int
    pins: Mapping[str, PublicKey] = field(default_factory=dict)
    announced: Mapping[PublicKey, PublicKey] = field(default_factory=dict)
    is_fresh: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A member or device that is trusted. `next_key` is announced to follow `key`.

    `is_direct` of a device that has us as a peer of its own, beside the registry. `subnets` are behind it; with default
    routes among them it may be our exit.
    """

    name: str
    key: PublicKey
    addresses: tuple[IPNetwork, ...]
    is_device: bool
    next_key: PublicKey | None
    is_direct: bool = False
    subnets: tuple[IPNetwork, ...] = ()

    def allowed_ips(self, exit_name: str | None) -> tuple[IPNetwork, ...]:
        """Its addresses, and what is behind it; the Internet only of the one that is our exit."""
        is_exit = self.name == exit_name
        return (*self.addresses, *(one for one in self.subnets if is_exit or not is_default(one)))


class Roster:
    """See the module's docstring."""

    def __init__(
        self,
        own_key: PublicKey,
        accept: Accept,
        memory: Memory,
        offline_trust: float = OFFLINE_TRUST,
        exit_name: str | None = None,
    ) -> None:
        """Begin with what is remembered. Everything goes to the member `exit_name`, if it may be an exit."""
        self.exit_name = exit_name
        self._offline_trust = offline_trust
        self.keepalive = KEEPALIVE  # towards the registry, in seconds
        self.own_key = own_key
        self.accept_mode = accept
        self.network = Network.of(memory.snapshot.network)
        self.confirmed_at = memory.confirmed_at
        self.members: dict[PublicKey, Member] = {}
        self._own = memory.snapshot.member
        self._network_record = memory.snapshot.network
        self._epoch = max(memory.epoch, self.network.epoch)
        self._pins = dict(memory.pins)
        self._announced = dict(memory.announced)
        self._records = {PublicKey.from_text(record.public_key): record for record in memory.snapshot.members}
        self._is_fresh = memory.is_fresh
        self._is_older = False
        self._is_expired = False
        self._refused: dict[PublicKey, MemberRefused] = {}
        self._subnets_refused: list[tuple[str, IPNetwork, str]] = []
        self._news: list[RosterNews] = []
        self._judge()

    # What the registry says

    def snapshot(self, snapshot: Snapshot, now: float) -> None:
        """All there is. ValueError when it is not of our network or not about us: then nothing changes."""
        network = Network.of(snapshot.network)
        if network.registry_key != self.network.registry_key or network.name != self.network.name:
            raise ValueError("the snapshot is of another network")
        key = PublicKey.from_text(snapshot.member.public_key)
        if self.own_key not in (key, next_key_of(snapshot.member)):
            raise ValueError("the snapshot is for another member")
        self._is_older = network.epoch < self._epoch
        if self._is_older:
            self._news.append(OlderEpoch(network.epoch, self._epoch))
            for record in snapshot.members:
                self.endpoint(EndpointChange(record.public_key, record.endpoint, record.live))
            return
        self.network, self._network_record = network, snapshot.network
        self._own, self._epoch = snapshot.member, network.epoch
        before = self._records
        self._records = {PublicKey.from_text(record.public_key): record for record in snapshot.members}
        self._unpin(before)
        self._judge()
        self._is_fresh = False
        self.confirm(now)

    def member(self, record: MemberRecord) -> None:
        """A member is new, or something about it is."""
        key = PublicKey.from_text(record.public_key)
        if self._is_older:
            return
        if self.own_key in (key, next_key_of(record)):
            self._own = record
            return
        if key not in self._records and len(self._records) >= MAX_MEMBERS:
            return
        replaced = [other for other, known in self._records.items() if known.name == record.name and other != key]
        for other in replaced:
            if next_key_of(self._records[other]) == key:
                del self._records[other]
        self._records[key] = record
        self._judge()

    def removed(self, removed: Removed) -> None:
        """A member is gone; its name stays pinned, unless it was ephemeral."""
        key = PublicKey.from_text(removed.public_key)
        if (record := self._records.pop(key, None)) is not None:
            self._unpin({key: record})
            self._judge()

    def endpoint(self, change: EndpointChange) -> None:
        """A member was seen elsewhere."""
        key = PublicKey.from_text(change.public_key)
        if key == self.own_key:
            self._own = replace(self._own, endpoint=change.endpoint, live=change.live)
        elif key in self._records:
            self._records[key] = replace(self._records[key], endpoint=change.endpoint, live=change.live)

    def confirm(self, now: float) -> None:
        """The registry answers: what is known holds. A clock that went back counts from there."""
        if not self._is_older:
            self.confirmed_at = now
            self._is_expired = False

    # What happens here

    def rotated(self, key: PublicKey) -> bool:
        """A session with `key` stands; True when it is an announced one, and its owner moved to it."""
        for old, record in self._records.items():
            if next_key_of(record) == key and old in self.members:
                moved = replace(record, public_key=key.to_text(), next_key=None)
                self._records = {key if k == old else k: moved if k == old else r for k, r in self._records.items()}
                self._judge()
                return True
        return False

    def accept(self, name: str) -> PublicKey:
        """A person says that the key now told for `name` is right. LocalError when nobody of that name was refused."""
        refused = next((one for one in self._refused.values() if one.name == name), None)
        if refused is None:
            raise LocalError(f"no member {name!r} waits to be accepted: `wgdisco status` shows who does")
        self._pins[name] = refused.key
        self._judge()
        return refused.key

    def check_trust(self, now: float) -> bool:
        """Whether members are trusted at `now`; tells once when they cease to be."""
        if now - self.confirmed_at < self._offline_trust:
            return True
        if not self._is_expired:
            self._is_expired = True
            self._news.append(TrustExpired())
        return False

    # What follows

    def own_addresses(self) -> tuple[IPAddress, ...]:
        """Ours in the tunnel, those outside the network's prefixes left out."""
        addresses = tuple(ip_address(address) for address in self._own.addresses)
        return tuple(address for address in addresses if in_any(address, self.network.prefixes))

    @property
    def own_name(self) -> str:
        """What the registry calls us."""
        return self._own.name

    @property
    def is_ephemeral(self) -> bool:
        """Whether we go for good when we end."""
        return self._own.ephemeral

    @property
    def own_endpoint(self) -> Endpoint | None:
        """Where the registry sees us."""
        return endpoint_of(self._own)

    def peers(self, now: float, endpoints: Mapping[PublicKey, Endpoint]) -> tuple[PeerConfig, ...]:
        """The registry and the trusted members as peers of the device, at their last known `endpoints`.

        Stock devices are behind the registry's peer, unless they have us as one. A key that is announced is a peer
        without a path of its own.
        """
        registry_key = self.network.registry_key
        trusted = self.members.values() if self.check_trust(now) else ()
        to_registry = [ip_network(address) for address in self.network.registry_addresses]
        peers: list[PeerConfig] = []
        for member in trusted:
            if member.is_device and not member.is_direct:
                to_registry.extend(member.allowed_ips(None))
                continue
            if member.is_device:
                # it comes to us, who are at a fixed endpoint: there is nothing to keep open
                peers.append(PeerConfig(member.key, None, None, member.allowed_ips(None), managed=True))
                continue
            endpoint = endpoints.get(member.key) or endpoint_of(self._records[member.key])
            allowed_ips = member.allowed_ips(self.exit_name)
            peers.append(PeerConfig(member.key, None, endpoint, allowed_ips, managed=True))
            if member.next_key is not None:
                peers.append(PeerConfig(member.next_key, managed=True, replaces=member.key))
        at = endpoints.get(registry_key)
        return (PeerConfig(registry_key, None, at, tuple(to_registry), self.keepalive, managed=True), *peers)

    def device_config(
        self,
        private_key: PrivateKey,
        preshared_key: PresharedKey,
        listen_port: int,
        peers: tuple[PeerConfig, ...],
        fwmark: int = 0,
    ) -> DeviceConfig:
        """`peers` as the device is told them: endpoints are the agent's business."""
        told = tuple(
            replace(
                peer,
                endpoint=None,
                preshared_key=preshared_key if peer.public_key == self.network.registry_key else None,
            )
            for peer in peers
        )
        return DeviceConfig(private_key, listen_port, fwmark, told)

    # What is behind members

    def own_subnets(self) -> tuple[IPNetwork, ...]:
        """What is behind us and approved, default routes (we may be an exit) among it."""
        return tuple(ip_network(subnet) for subnet in self._own.subnets)

    def own_offers(self) -> tuple[IPNetwork, ...]:
        """What the registry has heard that we offer."""
        return tuple(ip_network(offer) for offer in self._own.offers)

    def routes(self) -> tuple[IPNetwork, ...]:
        """What leads into the tunnel besides the network's own prefixes.

        With an exit that is the Internet whatever the exit allows: what cannot go there goes nowhere.
        """
        exits = () if self.exit_name is None else EXIT
        subnets = (subnet for member in self.members.values() for subnet in member.subnets if not is_default(subnet))
        return (*subnets, *exits)

    def subnets_refused(self) -> tuple[tuple[str, IPNetwork, str], ...]:
        """What the registry says is behind members and is not routed: name, subnet, and why in one phrase."""
        return tuple(self._subnets_refused)

    def live_endpoints(self) -> dict[PublicKey, Endpoint | None]:
        """Where the registry sees each trusted member now; None for those it has not heard lately, or by TLS only."""
        return {
            member.key: endpoint_of(self._records[member.key]) if self._records[member.key].live else None
            for member in self.members.values()
            if not member.is_device
        }

    def online(self) -> dict[PublicKey, bool]:
        """Whether the registry hears each trusted member now, by whatever way."""
        return {member.key: self._records[member.key].live for member in self.members.values() if not member.is_device}

    def told_of(self, key: PublicKey) -> MemberRecord | None:
        """What the registry tells of a member."""
        return self._records.get(key)

    def memory(self) -> Memory:
        """What to keep."""
        snapshot = Snapshot(self._network_record, self._own, list(self._records.values()))
        pinned = set(self._pins.values())
        announced = {old: new for old, new in self._announced.items() if old in pinned}
        return Memory(snapshot, self.confirmed_at, self._epoch, dict(self._pins), announced, self._is_fresh)

    def refused(self) -> tuple[MemberRefused, ...]:
        """Who is not talked to, and why."""
        return tuple(self._refused.values())

    def news(self) -> list[RosterNews]:
        """What there is to tell a person; each is returned once."""
        news, self._news = self._news, []
        return news

    # Judging

    def _unpin(self, before: Mapping[PublicKey, MemberRecord]) -> None:
        """Ephemeral members that are gone leave their names to others."""
        for key, record in before.items():
            if record.ephemeral and key not in self._records and self._pins.get(record.name) == key:
                del self._pins[record.name]

    def _judge(self) -> None:
        """Fold all records into members, those that were members before first."""
        before = self.members
        members: dict[PublicKey, Member] = {}
        refused: dict[PublicKey, MemberRefused] = {}
        self._subnets_refused = []
        for key, record in sorted(self._records.items(), key=lambda item: item[0] not in before):
            judged = self._judge_one(key, record, members)
            if isinstance(judged, str):
                refused[key] = MemberRefused(record.name, key, judged)
            else:
                members[key] = judged
        self._news += [Accepted(one.name, key) for key, one in members.items() if key not in before]
        self._news += [Gone(one.name, key) for key, one in before.items() if key not in members]
        self._news += [one for key, one in refused.items() if self._refused.get(key) != one]
        self.members, self._refused = members, refused

    def _judge_one(self, key: PublicKey, record: MemberRecord, members: Mapping[PublicKey, Member]) -> Member | str:
        """The member, or why it is none."""
        if key in (self.own_key, self.network.registry_key):
            return "it claims a key that is ours or the registry's"
        addresses = tuple(ip_network(address) for address in record.addresses)
        why = self._judge_addresses(addresses, members) or self._judge_name(record.name, key)
        if why is not None:
            return why
        self._pins[record.name] = key
        next_key = next_key_of(record)
        if next_key is not None and next_key in (self.own_key, self.network.registry_key, *self._records):
            next_key = None
        if next_key is not None:
            self._announced[key] = next_key
        taken = [*self.own_subnets(), *(subnet for member in members.values() for subnet in member.subnets)]
        subnets, bad = judge_subnets(map(ip_network, record.subnets), self.network.prefixes, taken)
        self._subnets_refused += [(record.name, subnet, why) for subnet, why in bad]
        return Member(record.name, key, addresses, record.kind == KIND_DEVICE, next_key, record.direct, subnets)

    def _judge_addresses(self, addresses: tuple[IPNetwork, ...], members: Mapping[PublicKey, Member]) -> str | None:
        taken = {address for member in members.values() for address in member.addresses}
        taken.update(ip_network(address) for address in (*self.network.registry_addresses, *self.own_addresses()))
        for address in addresses:
            if not in_any(address.network_address, self.network.prefixes):
                return f"its address {address.network_address} is outside the network"
            if address in taken:
                return f"its address {address.network_address} is another's"
        return None

    def _judge_name(self, name: str, key: PublicKey) -> str | None:
        pinned = self._pins.get(name)
        if pinned == key:
            return None
        if pinned is not None:
            if self._announced.pop(pinned, None) == key:
                return None
            return f"its key has changed: ask its owner, then `wgdisco accept {name}`"
        if key in self._pins.values():
            return None  # renamed; the old name stays its own
        if len(self._pins) >= MAX_PINS:
            return "too many names were seen"
        match self.accept_mode:
            case Accept.ALL:
                return None
            case Accept.ASK:
                return f"it is new: `wgdisco accept {name}` accepts it"
            case Accept.PINNED if self._is_fresh:
                return None
            case Accept.PINNED:
                return f"it is new, and only known members are accepted: `wgdisco accept {name}` makes it one"
