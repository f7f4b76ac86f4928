"""The zone as bytes: replies that are ready before anybody asks, but for header and question.

What follows the question in a reply may point into it, since it is always at offset 12, so the same bytes answer the
question in any case. Of each question the whole tail is kept, and what is left of it where the TXT does not fit. When
an instance moves, its own are rendered anew and no others. Lists are kept as one run of records of equal size, to be
cut anywhere.

Who may know of what is a set of bits: a name or answer exists for whoever has one of its bits.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache

import dns.name
from dns.rdatatype import PTR, SOA, SRV, TXT, RdataType

from wgdisco.dnssd.feed import Delta
from wgdisco.dnssd.instance import ServiceInstance, host_data, txt_data
from wgdisco.dnssd.records import SoaData
from wgdisco.dnssd.responder import PTR_SIZE
from wgdisco.dnssd.roster import REGISTRY_NAME, Groups, ZoneMember
from wgdisco.dnssd.serials import Serials
from wgdisco.dnssd.wire import AA, HEADER_SIZE, QR, RD, TC, Question, Reply, pack_reply
from wgdisco.dnssd.zone import ENDPOINT_TTL, MEMBER_TTL, Zone
from wgdisco.endpoint import IPAddress
from wgdisco.keys import PublicKey

# who has the first bit sees everything, and everybody has the second
_SEES_ALL = 1
_EVERYBODY = 2
ALL = -1
# lists of so many different audiences are kept, and serials
_LISTS_MAX = 32
_SERIALS_MAX = 1024

_CLASS_IN = 1
_FIXED = struct.Struct("!HHHIH")
_QUESTION_POINTER = 0xC000 | HEADER_SIZE
_TYPE_AND_CLASS = 4
_SERIAL_SIZE = 4
# in a rendered SRV record, after priority and weight
_PORT_AT = _FIXED.size + 4
# and its target, and of that the first label
_TARGET_AT = _FIXED.size + 6
_HOST_LABEL_SIZE = 1 + 52
_POINTER_SIZE = 2
_SRV_ASKED = struct.pack("!HH", SRV, _CLASS_IN)
_PADDING = b"===="

# flags and counts, with RD or not, with OPT or not
Heads = tuple[bytes, bytes, bytes, bytes]
Entry = tuple[int, Heads, bytes, Heads, bytes]


@lru_cache(maxsize=256)
def heads(answers: int, authorities: int, additionals: int, flags: int) -> Heads:
    """What goes between the message id and the question, at RD + 2 x EDNS."""
    return tuple(
        struct.pack("!5H", QR | AA | flags | rd, 1, answers, authorities, additionals + opt)
        for opt in (0, 1)
        for rd in (0, RD)
    )  # type: ignore[return-value]


class RenderedZone:
    """`entries` are by question in lower case. `names` has who may know of each name, and None for those whose answers
    depend on more than the question; `lists` the group that a PTR question lists.
    """

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.entries: dict[bytes, Entry] = {}
        self.names: dict[bytes, int | None] = {}
        self.lists: dict[bytes, str | None] = {}
        self._bits: dict[str, int] = {}
        # lists: of everything that somebody may see, by his bits; and of a group, whose instances are kept in order
        self._runs: dict[int | str, bytes] = {}
        self._grouped: dict[str, dict[PublicKey, None]] = {}
        self._groups_of: dict[PublicKey, tuple[str, ...]] = {}
        # by name: what is in `entries`, and in `names`, on behalf of a key, a member or the groups
        self._rendered: dict[PublicKey | str | None, tuple[bytes, ...]] = {}
        self._masks: dict[PublicKey, int] = {}
        self._key_named: dict[str, PublicKey] = {}
        self._serials = Serials(zone.serial)
        # by mask, of the snapshot there is
        self._serial_of: dict[int, int] = {}
        self._set(zone)

    def update(self, zone: Zone, delta: Delta) -> None:
        """The next snapshot, to which `delta` has led."""
        if delta.whole:
            self._set(zone)
            return
        before, self.zone = self.zone, zone
        for key in delta.gone:
            self._serials.changed(zone.serial, self._groups_of.get(key, ()))
            self._drop_instance(key)
        is_regrouped = delta.members is not None
        for key, _ in delta.moved:
            self._serials.changed(zone.serial, self._groups_of[key])
            self._move_instance(zone.instances[key])
        for instance in delta.put:
            self._serials.changed(zone.serial, self._groups_of.get(instance.key, ()), self._groups(instance))
            self._put_instance(instance)
            is_regrouped = self._put_in_lists(instance) or is_regrouped
        if delta.members is not None:
            named = (*(member.name for member in delta.members), *delta.left)
            self._serials.changed_members(zone.serial, before.roster, zone.roster, named)
            self._put_members(delta.members, delta.left)
            self._put_groups()
        if is_regrouped:
            self._put_lists()
        self._serial_of.clear()

    def mask(self, groups: Groups) -> int:
        """The bits of who is in `groups`."""
        if groups is None:
            return ALL
        return _EVERYBODY | self._mask_of(groups)

    def run(self, mask: int, groups: Groups, subtype: str | None) -> bytes:
        """The PTR records of all that who is in `groups` may list, PTR_SIZE bytes each."""
        kept = mask if subtype is None else subtype
        run = self._runs.get(kept)
        if run is None:
            if subtype is None and sum(isinstance(one, int) for one in self._runs) >= _LISTS_MAX:
                self._forget_whole_lists()
            service = HEADER_SIZE if subtype is None else HEADER_SIZE + 2 + len(subtype.encode()) + len(b"\x04_sub")
            head = _FIXED.pack(_QUESTION_POINTER, PTR, _CLASS_IN, ENDPOINT_TTL, PTR_SIZE - _FIXED.size) + b"\x38"
            tail = struct.pack("!H", 0xC000 | service)
            if subtype is None:
                keys: Iterable[PublicKey] = (one.key for one in self.zone.listed(groups))
            else:
                keys = self._grouped.get(subtype, ())
            run = b"".join([head + key.to_label().encode() + tail for key in keys])
            self._runs[kept] = run
        return run

    def listed_records(self, run: bytes, end: int, room: int) -> tuple[int, bytes]:
        """What follows a reply's list `run`, after a question that ended at `end`: how many records, and they.

        They are the SRV record of each instance and what goes with it, while all of that is within `room` bytes from
        the start of the message (RFC 6763 section 12.1).
        """
        at, count, tail = end + len(run), 0, b""
        address_at = _TARGET_AT + _HOST_LABEL_SIZE + len(self.origin)
        for name_at in range(_FIXED.size, len(run), PTR_SIZE):
            label = run[name_at : name_at + PTR_SIZE - _FIXED.size - _POINTER_SIZE]
            _, _, whole, _, srv = self.entries[label + self._service + _SRV_ASKED]
            if at + len(whole) > room:
                break
            # the same records, but for what points elsewhere in this message
            name, target = struct.pack("!H", 0xC000 | end + name_at), struct.pack("!H", 0xC000 | at + _TARGET_AT)
            tail += name + whole[_POINTER_SIZE:address_at] + target + srv[address_at + _POINTER_SIZE :]
            tail += name + whole[len(srv) + _POINTER_SIZE :]
            at, count = at + len(whole), count + 3
        return count, tail

    def serial(self, mask: int, groups: Groups) -> int:
        """The zone's, as who is in `groups` sees it."""
        if groups is None:
            return self.zone.serial
        serial = self._serial_of.get(mask)
        if serial is None:
            if len(self._serial_of) >= _SERIALS_MAX:
                self._serial_of.clear()
            serial = self._serial_of[mask] = self._serials.seen_in(groups)
        return serial

    def soa(self, serial: int, origin_at: int = HEADER_SIZE) -> bytes:
        """The SOA record where the message has the zone's name at `origin_at`; with a denial, within its question."""
        around = self._around_serial.get(origin_at)
        if around is None:
            around = self._around_serial[origin_at] = self._render_soa(0xC000 | origin_at)
        return around[0] + serial.to_bytes(4, "big") + around[1]

    # everything

    def _set(self, zone: Zone) -> None:
        self.zone = zone
        for kept in (self.entries, self.names, self.lists, self._rendered, self._masks, self._key_named, self._bits):
            kept.clear()
        names = zone.names
        self._service = _wire(names.service)
        self.origin = _wire(names.origin)
        self.shared = tuple(_wire(name) for name in (names.name_server, names.hostmaster))
        for name in (names.service, *names.empty):
            self.names[_wire(name)] = _EVERYBODY
        for name in (names.service_types, *names.browse_domains):
            self.names[_wire(name)] = _EVERYBODY
            self._put_static(name, PTR)
        own = () if zone.own is None else (names.instance(zone.own.key), names.host(zone.own.key))
        self._own = frozenset(_wire(name) for name in own)
        for name in (names.origin, names.name_server, *own):
            self.names[_wire(name)] = None
        if zone.own is not None:
            self.names[self._service] = None
        elif zone.browsable:
            self.lists[_question(self._service, PTR)] = None
        for instance in zone.instances.values():
            self._put_instance(instance)
        self._put_members(zone.roster.members.values(), ())
        self._put_groups()
        self._put_lists()
        # SOA records but for the serial, by where the zone's name is in the message
        self._around_serial: dict[int, tuple[bytes, bytes]] = {}
        self.soa_asked = _question(self.origin, SOA)
        self._serials = Serials(zone.serial)
        self._serial_of.clear()

    def _render_soa(self, origin: int) -> tuple[bytes, bytes]:
        soa = self.zone.soa()
        assert isinstance(soa.data, SoaData)
        pointer = struct.pack("!H", origin)
        names = b"".join(name[: len(name) - len(self.origin)] + pointer for name in self.shared)
        times = struct.pack("!4I", soa.data.refresh, soa.data.retry, soa.data.expire, soa.data.minimum)
        size = len(names) + _SERIAL_SIZE + len(times)
        return _FIXED.pack(origin, SOA, _CLASS_IN, soa.ttl, size) + names, times

    def _put_static(self, name: dns.name.Name, rdtype: RdataType) -> None:
        answer = self.zone.lookup(name, rdtype)
        reply = Reply(0, 0, 0, Question(name, rdtype, _CLASS_IN), answer.answer)
        question = _question(_wire(name), rdtype)
        tail = pack_reply(reply, 512, fold=True)[HEADER_SIZE + len(question) :]
        self.entries[question] = _entry(_EVERYBODY, len(answer.answer), tail)

    # instances

    def _put_instance(self, one: ServiceInstance) -> None:
        mask = self._instance_mask(one.name)
        if self._masks.get(one.key) != mask:
            self._forget_whole_lists()
        self._drop(one.key)
        label = one.key.to_label().encode()
        instance = bytes((len(label),)) + label + self._service
        label = label.removesuffix(_PADDING)
        host = bytes((len(label),)) + label + self.origin
        address = host_data(one.endpoint.address)
        a = _FIXED.pack(_QUESTION_POINTER, address.rdtype, _CLASS_IN, ENDPOINT_TTL, len(address.address.packed))
        a += address.address.packed
        srv = _FIXED.pack(_QUESTION_POINTER, SRV, _CLASS_IN, ENDPOINT_TTL, 6 + len(host))
        # the host record's name is the target, after priority, weight and port
        target = struct.pack("!H", 0xC000 | HEADER_SIZE + len(instance) + 4 + len(srv) + 6)
        srv += struct.pack("!HHH", 0, 0, one.endpoint.port) + host + target + a[2:]
        strings = b"".join(bytes((len(string),)) + string for string in txt_data(one).strings)
        txt = _FIXED.pack(_QUESTION_POINTER, TXT, _CLASS_IN, ENDPOINT_TTL, len(strings)) + strings
        entries = {
            _question(instance, SRV): (mask, heads(1, 0, 2, 0), srv + txt, heads(1, 0, 1, TC), srv),
            _question(instance, TXT): (mask, heads(1, 0, 0, 0), txt, heads(0, 0, 0, TC), b""),
            _question(instance, address.rdtype): _entry(mask, 1, a),
            _question(host, address.rdtype): _entry(mask, 1, a),
        }
        self.entries |= entries
        self.names[instance] = self.names[host] = mask
        self._rendered[one.key] = (*entries, instance, host)
        self._masks[one.key] = mask
        if one.name is not None:
            self._key_named[one.name] = one.key

    def _move_instance(self, one: ServiceInstance) -> None:
        """It is as it was but for its endpoint: what is rendered is kept but for port and address."""
        srv_asked, _, address_asked, host_asked, *_ = self._rendered[one.key]
        address = host_data(one.endpoint.address)
        packed = address.address.packed
        mask, head, whole, short_head, srv = self.entries[srv_asked]
        if address_asked[-_TYPE_AND_CLASS:] != struct.pack("!HH", address.rdtype, _CLASS_IN):
            self._put_instance(one)
            return
        moved = srv[:_PORT_AT] + one.endpoint.port.to_bytes(2, "big") + srv[_PORT_AT + 2 : -len(packed)] + packed
        self.entries[srv_asked] = mask, head, moved + whole[len(srv) :], short_head, moved
        a = self.entries[address_asked][2]
        self.entries[address_asked] = self.entries[host_asked] = _entry(mask, 1, a[: -len(packed)] + packed)

    def _drop_instance(self, key: PublicKey) -> None:
        self._drop(key)
        if self._masks.pop(key, None) is not None:
            self._forget_whole_lists()
        for group in self._groups_of.pop(key, ()):
            self._grouped[group].pop(key, None)
            self._runs.pop(group, None)

    def _groups(self, one: ServiceInstance) -> tuple[str, ...]:
        member = None if one.name is None else self.zone.roster.members.get(one.name)
        return () if member is None else member.groups

    def _instance_mask(self, name: str | None) -> int:
        member = None if name is None else self.zone.roster.members.get(name)
        return _SEES_ALL | (0 if member is None else self._mask_of(member.groups))

    # lists

    def _put_lists(self) -> None:
        """All anew: an instance that is in other groups now has its place among them."""
        self._runs.clear()
        self._grouped.clear()
        self._groups_of.clear()
        for instance in self.zone.instances.values():
            self._put_in_lists(instance)

    def _put_in_lists(self, one: ServiceInstance) -> bool:
        """As one more, at the end; or whether it was in other groups before."""
        groups = self._groups(one)
        before = self._groups_of.get(one.key)
        if before is None:
            self._groups_of[one.key] = groups
            for group in groups:
                self._grouped.setdefault(group, {})[one.key] = None
                self._runs.pop(group, None)
        return before is not None and before != groups

    def _forget_whole_lists(self) -> None:
        self._runs = {kept: run for kept, run in self._runs.items() if isinstance(kept, str)}

    # members

    def _put_members(self, members: Iterable[ZoneMember], left: Iterable[str]) -> None:
        for gone in left:
            self._drop(gone)
            self._refresh_named(gone)
            self._key_named.pop(gone, None)
        for member in members:
            self._drop(member.name)
            name = self.zone.names.member(member.name)
            # a key's host is never taken for a member
            if self.zone.names.host_key_of(name) is None:
                self._put_host(member.name, _wire(name), member.addresses, self._instance_mask(member.name))
            self._refresh_named(member.name)

    def _refresh_named(self, name: str) -> None:
        """Who may know of a member may know of its instance."""
        key = self._key_named.get(name)
        instance = None if key is None else self.zone.instances.get(key)
        if instance is not None and instance.name == name:
            self._put_instance(instance)

    def _put_host(self, owner: str, name: bytes, addresses: Iterable[IPAddress], mask: int) -> None:
        records: dict[RdataType, list[bytes]] = {}
        for address in addresses:
            host = host_data(address)
            packed = host.address.packed
            fixed = _FIXED.pack(_QUESTION_POINTER, host.rdtype, _CLASS_IN, MEMBER_TTL, len(packed))
            records.setdefault(host.rdtype, []).append(fixed + packed)
        entries = {_question(name, rdtype): _entry(mask, len(run), b"".join(run)) for rdtype, run in records.items()}
        self.entries |= entries
        self.names[name] = mask
        self._rendered[owner] = (*entries, name)

    # groups

    def _put_groups(self) -> None:
        """The sub-types, and the registry's own host."""
        for name in self._rendered.get(None, ()):
            self.lists.pop(name, None)
        self._drop(None)
        names, roster = self.zone.names, self.zone.roster
        found: list[bytes] = []
        shown = [(group, subtype) for group in roster.groups if (subtype := names.subtype(group)) is not None]
        for group, subtype in shown if self.zone.browsable else ():
            name = _wire(subtype)
            self.names[name] = _SEES_ALL | self._mask_of((group,))
            self.lists[_question(name, PTR)] = group
            found += [name, _question(name, PTR)]
        if found:
            self.names[_wire(names.sub)] = _SEES_ALL | self._mask_of(group for group, _ in shown)
            found.append(_wire(names.sub))
        self._rendered[None] = tuple(found)
        self._drop(REGISTRY_NAME)
        if roster.registry:
            self._put_host(REGISTRY_NAME, _wire(names.member(REGISTRY_NAME)), roster.registry, _EVERYBODY)

    def _mask_of(self, groups: Iterable[str]) -> int:
        mask = 0
        for group in groups:
            bit = self._bits.get(group)
            if bit is None:
                bit = self._bits[group] = _EVERYBODY << len(self._bits) + 1
            mask |= bit
        return mask

    def _drop(self, owner: PublicKey | str | None) -> None:
        for name in self._rendered.pop(owner, ()):
            self.entries.pop(name, None)
            if name in self.names:
                if name in self._own:
                    self.names[name] = None
                else:
                    del self.names[name]


def _entry(mask: int, answers: int, tail: bytes) -> Entry:
    """One that always fits."""
    head = heads(answers, 0, 0, 0)
    return mask, head, tail, head, tail


def _question(name: bytes, rdtype: RdataType) -> bytes:
    return name + struct.pack("!HH", rdtype, _CLASS_IN)


def _wire(name: dns.name.Name) -> bytes:
    return b"".join(bytes((len(label),)) + label.lower() for label in name.labels)
