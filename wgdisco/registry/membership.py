"""Who belongs to the network: pure rules over facts.

A command (`invite`, `enrol`, `revoke` …) looks at the facts and returns the changes it wants, or refuses; nothing is
changed by it. The shell stores the changes, and only then hands them to `apply`: what was acknowledged is on disk.

Members talk to each other directly. Devices are stock WireGuard (a phone): they know the registry alone, and members
reach them through it. Two see each other when they share a group.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.errors import LocalError, RemoteError
from wgdisco.invitation import (
    SECRET_SIZE,
    JoinLink,
    check_registry,
    enrol_address,
    enrol_private_key,
    member_preshared_key,
)
from wgdisco.keys import PresharedKey, PublicKey
from wgdisco.names import check_member_name, free_name
from wgdisco.offers import is_default
from wgdisco.registry.facts import (
    DEFAULT_GROUP,
    REGISTRIES_MAX,
    REGISTRY_HOST_NUMBER,
    Change,
    Fact,
    Invitation,
    Kind,
    Member,
    Network,
    Put,
    Remove,
    Revoked,
    Role,
)
from wgdisco.registry.members import Members
from wgdisco.registry.past import end, used
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.firewall import Mode

INVITATION_LIFETIME = 24 * 3600.0
FIXED_ENDPOINT_KEEPALIVE = 25
ALSO_PORTS_MAX = 3  # what a member takes at most


class Membership:
    """All facts of one network, and the rules over them. Times are unix time, in seconds."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        """From what a store holds; ValueError when there is no network among it."""
        self._members = Members()
        self.members = self._members.by_key
        self.invitations: dict[PublicKey, Invitation] = {}
        self.past: dict[PublicKey, Invitation] = {}  # invitations that are over
        self.revoked: dict[PublicKey, Revoked] = {}
        network: Network | None = None
        for fact in facts:
            match fact:
                case Network():
                    network = fact
                case Member():
                    self._members.add(fact)
                case Invitation():
                    self._put(fact)
                case Revoked():
                    self.revoked[fact.public_key] = fact
        if network is None:
            raise ValueError("there is no network in the store")
        self.network = network

    def apply(self, changes: Iterable[Change]) -> None:
        """Take over changes that have been stored."""
        for change in changes:
            match change:
                case Put(Network() as network):
                    self.network = network
                case Put(Member() as member):
                    self._members.add(member)
                case Put(Invitation() as invitation):
                    self._put(invitation)
                case Put(Revoked() as revoked):
                    self.revoked[revoked.public_key] = revoked
                case Remove(Member() as member):
                    self._members.remove(self.members.get(member.public_key))
                case Remove(Invitation() as invitation):
                    self.invitations.pop(invitation.enrol_key, None)
                    self.past.pop(invitation.enrol_key, None)

    # Commands

    def invite(
        self,
        secret: bytes,
        now: float,
        name: str | None = None,
        groups: tuple[str, ...] = (DEFAULT_GROUP,),
        role: Role = Role.MEMBER,
        uses: int = 1,
        lifetime: float = INVITATION_LIFETIME,
        ephemeral: float | None = None,
    ) -> tuple[list[Change], JoinLink]:
        """An invitation under a fresh random `secret` of 16 bytes.

        LocalError for a bad or taken name; ValueError when the secret's address is in use: draw another.
        """
        assert len(secret) == SECRET_SIZE
        if name is not None:
            self._check_free(name)
            if uses != 1 and ephemeral is None:
                raise LocalError("an invitation with a name is for one use: leave the name or --uses out")
        address = enrol_address(secret)
        if any(invitation.address == address for invitation in self.invitations.values()):
            raise ValueError("enrolment address in use")
        invitation = Invitation(
            enrol_private_key(secret).public_key(),
            member_preshared_key(secret),
            address,
            now + lifetime,
            name,
            groups,
            role,
            uses,
            ephemeral,
        )
        link = JoinLink(self.network.reached_at, self.network.private_key.public_key(), secret)
        return [Put(invitation)], link

    def enrol(self, source: IPv4Address, key: PublicKey, name: str | None, now: float) -> tuple[list[Change], Member]:
        """Make the owner of `key`, who speaks from an invitation's address, a member.

        The same key again is given the same member: a lost reply costs nothing, and one that is ephemeral need not know
        whether it still is one. RemoteError says why not.
        """
        invitation = next((i for i in self.invitations.values() if i.address == source), None)
        if invitation is None or now >= invitation.expires_at:
            raise RemoteError("the invitation has expired or was used up: ask for another")
        enrolled = self.members.get(key)
        if enrolled is not None and _is_from(enrolled, invitation):
            return [], enrolled
        if self._is_known(key):
            raise RemoteError("this key cannot be enrolled: join again with a new one")
        if invitation.uses <= 0:
            raise RemoteError("the invitation has expired or was used up: ask for another")
        chosen = invitation.name or name
        if chosen is None:
            raise RemoteError("the invitation names nobody: join with --name NAME")
        try:
            if invitation.ephemeral is not None:
                chosen = free_name(chosen, self._names_but(invitation))
            self._check_free(chosen, but=invitation)
            number, network = self._allocate()
        except LocalError as error:
            raise RemoteError(str(error)) from error
        member = Member(
            chosen,
            key,
            number,
            invitation.groups,
            now,
            role=invitation.role,
            preshared_key=invitation.preshared_key,
            invitation=invitation.enrol_key,
            ephemeral=invitation.ephemeral,
        )
        used = replace(invitation, uses=invitation.uses - 1)
        return [Put(network), Put(member), Put(used)], member

    def prove(self, key: PublicKey, now: float) -> list[Change]:
        """A handshake with a member's own key completed: it holds the key, and a used-up invitation goes.

        Not while others that it made members may still be waiting for the reply. With an announced next key it is the
        member's key from now on, and the one before is revoked.
        """
        member = self.by_next_key(key)
        if member is not None:
            renewed = replace(member, public_key=key, next_key=None, proven=True)
            return [Put(renewed), Put(Revoked(member.public_key, member.name, now))]
        member = self.members.get(key)
        if member is None or member.proven:
            return []
        changes: list[Change] = [Put(replace(member, proven=True, invitation=None))]
        invitation = None if member.invitation is None else self.invitations.get(member.invitation)
        if invitation is not None:
            invitation = used(invitation, member.name)
            is_over = invitation.uses <= 0 and self._enrolled_by(invitation) == [member]
            changes += end(self.past.values(), [invitation], now) if is_over else [Put(invitation)]
        return changes

    def announce_key(self, key: PublicKey, next_key: PublicKey) -> list[Change]:
        """A member will go over to `next_key`; RemoteError when that is anybody's. Again with the same does nothing."""
        member = self.members.get(key)
        if member is None:
            raise RemoteError("this membership has just ended")
        if member.next_key == next_key:
            return []
        if self._is_known(next_key):
            raise RemoteError("this key cannot be the next one: make a new one")
        return [Put(replace(member, next_key=next_key))]

    def add_device(
        self,
        name: str,
        key: PublicKey,
        preshared_key: PresharedKey,
        now: float,
        groups: tuple[str, ...] = (DEFAULT_GROUP,),
        direct_to: tuple[str, ...] = (),
        full_tunnel: bool = False,
    ) -> tuple[list[Change], Member]:
        """Add a stock WireGuard device; LocalError when name or key is taken, or one of `direct_to` is nobody."""
        self._check_free(name)
        if self._is_known(key):
            raise LocalError(f"the key {key} is known already: make a new one on the device")
        for other in direct_to:
            self.by_name(other)
        number, network = self._allocate()
        device = Member(name, key, number, groups, now, Kind.DEVICE, preshared_key=preshared_key, proven=True)
        device = replace(device, direct_to=direct_to, full_tunnel=full_tunnel)
        return [Put(network), Put(device)], device

    def rename(self, name: str, new_name: str) -> list[Change]:
        """Give a member another name; LocalError when there is no such member, or the name is taken."""
        member = self.by_name(name)
        if name == new_name:
            return []
        self._check_free(new_name)
        return [Put(replace(member, name=new_name)), *self._rename_in_devices(name, new_name)]

    def set_endpoint(self, name: str, endpoint: Endpoint | None) -> list[Change]:
        """Fix a member's public endpoint, or (None) let it be learnt again."""
        return [Put(replace(self.by_name(name), endpoint=endpoint))]

    def set_ports(self, also_ports: tuple[int, ...], tls_port: int | None) -> list[Change]:
        """By which further ports the registry is reached (`Network`); LocalError when one cannot be."""
        also_ports = tuple(dict.fromkeys(also_ports))
        for port in (*also_ports, *(() if tls_port is None else (tls_port,))):
            if not 0 < port < 65536:
                raise LocalError(f"{port} is not a port: give a number from 1 to 65535")
        if self.network.listen_port in also_ports:
            raise LocalError(f"UDP {self.network.listen_port} is the registry's port already: give others")
        if len(also_ports) > ALSO_PORTS_MAX:
            raise LocalError(f"at most {ALSO_PORTS_MAX} further ports: members try all of them at once")
        network = replace(self.network, also_ports=also_ports, tls_port=tls_port)
        return [] if network == self.network else [Put(network)]

    def succeed(self) -> list[Change]:
        """The server that the network was adopted from is gone for good."""
        return [Put(replace(self.network, predecessor=None))]

    def set_firewall(self, mode: Mode) -> list[Change]:
        """What to do about the registry host's own firewall."""
        return [] if mode is self.network.firewall else [Put(replace(self.network, firewall=mode))]

    def set_forward_dns(self, *, is_on: bool) -> list[Change]:
        """Whether members may ask the registry about other zones."""
        return [] if is_on is self.network.forward_dns else [Put(replace(self.network, forward_dns=is_on))]

    def set_registries(self, endpoints: tuple[str, ...]) -> list[Change]:
        """Where members reach the registry from now on, as HOST:PORT; LocalError when one is none."""
        try:
            valid = tuple(dict.fromkeys(check_registry(endpoint) for endpoint in endpoints))
        except ValueError as error:
            raise LocalError(str(error)) from error
        if not 0 < len(valid) <= REGISTRIES_MAX:
            raise LocalError(f"give 1 to {REGISTRIES_MAX} of HOST:PORT")
        return [] if valid == self.network.endpoints else [Put(replace(self.network, endpoints=valid))]

    def revoke(self, name: str, now: float) -> tuple[list[Change], list[PublicKey]]:
        """Take the member or invitation of that name away for good; the keys that go, none when it went before.

        With an invitation go those it made members who have not shown their key yet. LocalError when there never was
        one. An invitation that names nobody goes by its one-time public key.
        """
        invitations = [one for one in self.invitations.values() if name in (one.name, one.enrol_key.to_text())]
        waiting = [member for invitation in invitations for member in self._enrolled_by(invitation)]
        gone: list[Change] = [Remove(invitation) for invitation in invitations]
        keys = [invitation.enrol_key for invitation in invitations]
        for member in [member for member in self.members.values() if member.name == name or member in waiting]:
            theirs = [member.public_key] if member.next_key is None else [member.public_key, member.next_key]
            gone += [*self.forget(member), *(Put(Revoked(key, member.name, now)) for key in theirs)]
            keys += theirs
        if not gone and all(revoked.name != name for revoked in self.revoked.values()):
            raise LocalError(f"there is no member or invitation {name!r}: `wgdisco registry list` shows them")
        return gone, keys

    def forget(self, member: Member) -> list[Change]:
        """Have it be a member no longer. Its key is not revoked: it may come back with another invitation."""
        return [Remove(member), *self._rename_in_devices(member.name, None)]

    def expire(self, now: float) -> list[Change]:
        """Forget invitations whose time is over, and members that were enrolled and never proved their key."""
        over = [invitation for invitation in self.invitations.values() if now >= invitation.expires_at]
        gone = [Remove(member) for invitation in over for member in self._enrolled_by(invitation)]
        return [*end(self.past.values(), over, now), *gone]

    # Questions

    def by_name(self, name: str) -> Member:
        """The member of that name; LocalError when there is none."""
        for member in self.members.values():
            if member.name == name:
                return member
        raise LocalError(f"there is no member {name!r}: `wgdisco registry list` shows them")

    def by_next_key(self, key: PublicKey) -> Member | None:
        """Who announced `key` as its next."""
        return next((member for member in self.members.values() if member.next_key == key), None)

    def by_address(self, address: IPv4Address | IPv6Address) -> Member | None:
        """Whose own address this is: inside the tunnel the source address is the identity."""
        prefix = self.network.prefix4 if address.version == 4 else self.network.prefix6
        number = int(address) - int(prefix.network_address)
        return self._members.by_number.get(number)

    def by_number(self, number: int) -> Member | None:
        """Whose host number this is."""
        return self._members.by_number.get(number)

    def visible_to(self, member: Member) -> tuple[Member, ...]:
        """Proven members and devices that share a group with `member`, itself left out, in the order they came.

        Those of its first group first, then of the next.
        """
        found = self._members.in_groups(member.groups)
        return tuple(other for other in found if other.proven and other.number != member.number)

    def sees(self, member: Member, other: Member) -> bool:
        """Whether `member` may know of `other`: proven, in a common group, and not itself."""
        common = set(member.groups).intersection(other.groups)
        return bool(common) and other.proven and other.number != member.number

    def allowed_ips(self, member: Member) -> tuple[IPNetwork, ...]:
        """A member's own two addresses, and the subnets behind it. An exit is the business of who uses it."""
        own = self.network.networks(member.number)
        return own + tuple(network for network in member.subnets if not is_default(network))

    def device_config(self) -> DeviceConfig:
        """What the registry's device is to be: every member, device and live invitation a peer."""
        peers: list[PeerConfig] = []
        for member in self.members.values():
            keepalive = 0 if member.endpoint is None else FIXED_ENDPOINT_KEEPALIVE
            allowed = self.allowed_ips(member)
            peers.append(PeerConfig(member.public_key, member.preshared_key, member.endpoint, allowed, keepalive))
            if member.next_key is not None:
                peers.append(PeerConfig(member.next_key, member.preshared_key, replaces=member.public_key))
        peers += [
            PeerConfig(invitation.enrol_key, None, None, (ip_network(invitation.address),))
            for invitation in self.invitations.values()
        ]
        return DeviceConfig(self.network.private_key, self.network.listen_port, 0, tuple(peers))

    # Inside

    def _put(self, invitation: Invitation) -> None:
        key, is_over = invitation.enrol_key, invitation.ended_at is not None
        (self.past if is_over else self.invitations)[key] = invitation
        (self.invitations if is_over else self.past).pop(key, None)

    def _enrolled_by(self, invitation: Invitation) -> list[Member]:
        """Whom it made members, and who have not shown that they hold their key."""
        return [member for member in self.members.values() if member.invitation == invitation.enrol_key]

    def _is_known(self, key: PublicKey) -> bool:
        own = self.network.private_key.public_key()
        known = key == own or key in self.members or key in self.revoked or key in self.invitations
        return known or self.by_next_key(key) is not None

    def _names_but(self, invitation: Invitation) -> set[str | None]:
        """Which are taken, or reserved by other invitations."""
        reserved = {one.name for one in self.invitations.values() if one != invitation}
        return reserved.union(member.name for member in self.members.values())

    def _check_free(self, name: str, but: Invitation | None = None) -> None:
        check_member_name(name)
        if any(member.name == name for member in self.members.values()):
            raise LocalError(f"there is a member {name!r} already: revoke it first, or choose another name")
        if any(invitation.name == name and invitation != but for invitation in self.invitations.values()):
            raise LocalError(f"{name!r} is invited already: revoke that first, or choose another name")

    def _rename_in_devices(self, name: str, new_name: str | None) -> list[Change]:
        """The devices that had `name` as a direct peer; None takes it out."""
        names = {name: () if new_name is None else (new_name,)}
        return [
            Put(replace(device, direct_to=tuple(n for old in device.direct_to for n in names.get(old, (old,)))))
            for device in self.members.values()
            if name in device.direct_to and device.name != name
        ]

    def _allocate(self) -> tuple[int, Network]:
        """A free host number, and the network that has moved past it; LocalError when there is none left."""
        used = {self.network.own_host, *(member.number for member in self.members.values())}
        last = self.network.prefix4.num_addresses - 2
        first = REGISTRY_HOST_NUMBER + 1
        size = last - first + 1
        for step in range(size):
            number = first + (self.network.next_host - first + step) % size
            if number not in used:
                following = number + 1 if number < last else first
                return number, replace(self.network, next_host=following)
        raise LocalError(f"all {size} addresses of {self.network.prefix4} are in use: revoke members that are gone")


def _is_from(member: Member, invitation: Invitation) -> bool:
    """Whether `member` was enrolled under it, as far as can be told: of most that is forgotten once they are proven."""
    has_its_key = member.ephemeral is not None and member.preshared_key == invitation.preshared_key
    return has_its_key or member.invitation == invitation.enrol_key
