"""What the registry tells the process that serves its zone: lines of JSON, each complete in itself.

The first is the `Setup`. Each further one is a part of a `Delta`; with the last part (no `more`) the zone is the next
snapshot, so that nobody sees half of one. There are no keys in any of them but public ones, and the secondaries'.

::

    {"v":1,"zone":"wg.example.","profile":"strict","listeners":[{"udp":4,"tcp":5,"address":"10.0.0.1","audience":…}],…}
    {"serial":7,"put":[{"key":…,"endpoint":…},…],"gone":[…],"members":[…],"registry":[…],"left":[…],"more":true}
    {"serial":8,"moved":[[KEY,ENDPOINT],…]}

Both ends are of one program: whatever cannot be read is an error of ours, and raised as ValueError.
"""

import base64
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Any

import dns.name

from wgdisco.api import CandidateRecord
from wgdisco.dnssd.instance import OwnInstance, ServiceInstance
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.dnssd.secondaries import Secondaries, TsigKey
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint, IPAddress, IPNetwork
from wgdisco.keys import PublicKey

VERSION = 1
LINE_MAX_SIZE = 1 << 22
# so many instances or members a line: with all that one can have, they are less than a line may hold
_PART = 32
# more of them do not fit into the 64 KiB of a TXT record
_PREFIXES_MAX = 2048


class Audience(Enum):
    """Who is answered at a listener, and with what."""

    MEMBERS = "members"  # inside the tunnel: by the source address, each what its groups may see
    ALL = "all"  # everybody who can ask, everything
    STRANGERS = "strangers"  # everybody, what is published; replies are limited
    ALL_STRANGERS = "all strangers"  # everybody, everything; replies are limited


@dataclass(frozen=True, slots=True)
class Listener:
    """Two sockets, by their descriptors, that are bound to `address` and one port."""

    udp: int
    tcp: int
    address: IPAddress
    audience: Audience


@dataclass(frozen=True, slots=True)
class Setup:
    """What does not change while the process lives. `published` are the members' names that strangers may ask for."""

    zone: str
    profile: Profile
    listeners: tuple[Listener, ...]
    own: OwnInstance | None = None
    published: frozenset[str] = frozenset()
    secondaries: Secondaries | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """From one snapshot to the next. `whole`: the last one is forgotten first.

    `put` are new, or not as they were; `moved` are as they were but for their endpoint, which is most of all there is.
    Of members, `left` are the names of those that are none any more; None for `members` says that nothing changed.
    """

    serial: int
    put: tuple[ServiceInstance, ...] = ()
    gone: tuple[PublicKey, ...] = ()
    members: tuple[ZoneMember, ...] | None = None
    left: tuple[str, ...] = ()
    registry: tuple[IPAddress, ...] = ()
    forwards: bool = False
    whole: bool = False
    moved: tuple[tuple[PublicKey, Endpoint], ...] = ()

    def touched(self) -> tuple[PublicKey, ...] | None:
        """Whose instances alone differ; None where more does."""
        if self.whole or self.members is not None:
            return None
        return (*(instance.key for instance in self.put), *self.gone, *(key for key, _ in self.moved))


def whole(zone: Zone) -> Delta:
    """All of a zone."""
    roster = zone.roster
    members = tuple(roster.members.values())
    return Delta(
        zone.serial, tuple(zone.instances.values()), (), members, (), roster.registry, roster.forwards, whole=True
    )


def between(before: Zone, after: Zone, touched: Iterable[PublicKey]) -> Delta:
    """What leads from one snapshot to another, when instances of `touched` keys alone differ."""
    put, gone, moved = [], [], []
    for key in touched:
        was, instance = before.instances.get(key), after.instances.get(key)
        if instance is None:
            gone.append(key)
        elif was is None or _at(was, instance.endpoint) != instance:
            put.append(instance)
        elif was.endpoint != instance.endpoint:
            moved.append((key, instance.endpoint))
    delta = Delta(after.serial, tuple(put), tuple(gone), moved=tuple(moved))
    old, new = before.roster, after.roster
    if old is new:
        return delta
    members = tuple(member for member in new.members.values() if old.members.get(member.name) != member)
    left = tuple(name for name in old.members if name not in new.members)
    return replace(delta, members=members, left=left, registry=new.registry, forwards=new.forwards)


def applied(zone: Zone, delta: Delta) -> Zone:
    """The snapshot after `delta`."""
    if delta.whole:
        zone = replace(zone, instances={}, roster=Roster())
    roster = None
    if delta.members is not None:
        members = {name: member for name, member in zone.roster.members.items() if name not in delta.left}
        members |= {member.name: member for member in delta.members}
        roster = Roster.create(members.values(), delta.registry, forwards=delta.forwards)
    # a dataclass's replace() would take most of the time of a move
    moved = [_at(zone.instances[key], endpoint) for key, endpoint in delta.moved]
    return zone.following(delta.serial, (*delta.put, *moved) if moved else delta.put, delta.gone, roster)


def _at(was: ServiceInstance, endpoint: Endpoint) -> ServiceInstance:
    return ServiceInstance(was.key, endpoint, was.allowed_ips, was.candidates, was.nat, was.name)


def pack_setup(setup: Setup) -> bytes:
    """The first line."""
    listeners = [asdict(one) | {"address": str(one.address), "audience": one.audience.value} for one in setup.listeners]
    own = setup.own
    return _line(
        {
            "v": VERSION,
            "zone": setup.zone,
            "profile": setup.profile.value,
            "listeners": listeners,
            "published": sorted(setup.published),
            "secondaries": setup.secondaries and _pack_secondaries(setup.secondaries),
            "own": own
            and {
                "key": own.key.to_text(),
                "port": own.listen_port,
                "endpoint": own.endpoint and own.endpoint.to_text(),
                "allowed": _texts(own.allowed_ips),
                "tunnel": _texts(own.tunnel_prefixes),
            },
        }
    )


def parse_setup(line: bytes) -> Setup:
    """Read it back; ValueError when it is of another version."""
    data = _parse(line)
    if data["v"] != VERSION:
        raise ValueError(f"a feed of version {data['v']}")
    own = data["own"]
    return Setup(
        data["zone"],
        Profile(data["profile"]),
        tuple(
            Listener(one["udp"], one["tcp"], ip_address(one["address"]), Audience(one["audience"]))
            for one in data["listeners"]
        ),
        own
        and OwnInstance(
            PublicKey.from_text(own["key"]),
            own["port"],
            own["endpoint"] and Endpoint.from_text(own["endpoint"]),
            _networks(own["allowed"]),
            _networks(own["tunnel"]),
        ),
        frozenset(data["published"]),
        data["secondaries"] and _parse_secondaries(data["secondaries"]),
    )


def pack_delta(delta: Delta) -> Iterator[bytes]:
    """Its lines."""
    put, members, moved = delta.put, delta.members or (), delta.moved
    parts = max(1, *(-(-len(all_) // _PART) for all_ in (put, members, moved)))
    for part in range(parts):
        span = slice(part * _PART, (part + 1) * _PART)
        data: dict[str, Any] = {"serial": delta.serial}
        if put[span]:
            data["put"] = [_pack_instance(one) for one in put[span]]
        if moved[span]:
            data["moved"] = [(key.to_text(), endpoint.to_text()) for key, endpoint in moved[span]]
        if delta.members is not None:
            data["members"] = [[one.name, _texts(one.addresses), one.groups] for one in members[span]]
            data["registry"] = _texts(delta.registry)
            data["forwards"] = delta.forwards
        if part == 0 and (delta.gone or delta.left or delta.whole):
            data |= {"gone": [key.to_text() for key in delta.gone], "left": delta.left, "whole": delta.whole}
        if part < parts - 1:
            data["more"] = True
        yield _line(data)


@dataclass(slots=True)
class DeltaReader:
    """Puts the parts of deltas together."""

    _parts: list[Delta] = field(default_factory=list)

    def feed(self, line: bytes) -> Delta | None:
        """The delta that this line ends, if it is the last of one."""
        data = _parse(line)
        members = data.get("members")
        self._parts.append(
            Delta(
                data["serial"],
                tuple(_parse_instance(one) for one in data.get("put", ())),
                tuple(PublicKey.from_text(key) for key in data.get("gone", ())),
                None
                if members is None
                else tuple(
                    ZoneMember(name, _addresses(addresses), tuple(groups)) for name, addresses, groups in members
                ),
                tuple(data.get("left", ())),
                _addresses(data.get("registry", ())),
                bool(data.get("forwards")),
                data.get("whole", False),
                tuple([(PublicKey.from_text(key), Endpoint.from_text(at)) for key, at in data.get("moved", ())]),
            )
        )
        if data.get("more"):
            return None
        parts, self._parts = self._parts, []
        first = parts[0]
        if len(parts) == 1:
            return first
        put = tuple(one for part in parts for one in part.put)
        moved = tuple(one for part in parts for one in part.moved)
        joined = None if first.members is None else tuple(one for part in parts for one in part.members or ())
        return replace(first, put=put, members=joined, moved=moved)


def empty_zone(setup: Setup) -> Zone:
    """The zone before the first delta."""
    return Zone(ZoneNames.from_text(setup.zone), 0, {}, setup.own)


def _pack_secondaries(told: Secondaries) -> dict[str, Any]:
    key = told.key
    return {
        "endpoints": [endpoint.to_text() for endpoint in told.endpoints],
        "servers": _texts(told.servers),
        "full": told.is_full,
        "key": key and [key.name.to_text(), key.algorithm.to_text(), base64.b64encode(key.secret).decode()],
    }


def _parse_secondaries(data: dict[str, Any]) -> Secondaries:
    key = None
    if data["key"]:
        name, algorithm, secret = data["key"]
        key = TsigKey(dns.name.from_text(name), dns.name.from_text(algorithm), base64.b64decode(secret))
    return Secondaries(
        tuple(map(Endpoint.from_text, data["endpoints"])), key, _addresses(data["servers"]), data["full"]
    )


def _pack_instance(one: ServiceInstance) -> dict[str, Any]:
    data: dict[str, Any] = {
        "key": one.key.to_text(),
        "endpoint": one.endpoint.to_text(),
        "allowed": _texts(one.allowed_ips[:_PREFIXES_MAX]),
    }
    if one.candidates:
        data["candidates"] = [[c.kind, c.endpoint, c.priority] for c in one.candidates]
    if one.nat is not None:
        data["nat"] = one.nat
    if one.name is not None:
        data["name"] = one.name
    return data


def _parse_instance(data: dict[str, Any]) -> ServiceInstance:
    return ServiceInstance(
        PublicKey.from_text(data["key"]),
        Endpoint.from_text(data["endpoint"]),
        _networks(data["allowed"]),
        tuple(CandidateRecord(*one) for one in data.get("candidates", ())),
        data.get("nat"),
        data.get("name"),
    )


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data


def _texts(values: Collection[IPNetwork] | Collection[IPAddress]) -> list[str]:
    return [str(value) for value in values]


def _networks(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


def _addresses(texts: Iterable[str]) -> tuple[IPAddress, ...]:
    return tuple(ip_address(text) for text in texts)
