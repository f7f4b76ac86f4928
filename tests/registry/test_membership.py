"""Who belongs to the network: the rules, and what holds whatever is done in whatever order."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError, RemoteError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.peer.records import MAX_REGISTRIES
from wgdisco.registry.facts import REGISTRIES_MAX, Kind, Network, Put, Role, pack_fact, parse_fact
from wgdisco.registry.membership import Membership

NETWORK = Network(
    "mesh",
    "wg.internal.",
    PrivateKey(bytes(range(32))),
    51820,
    ("198.51.100.10:51820",),
    IPv4Network("10.9.8.0/29"),
    IPv6Network("fd00:9:8::/64"),
)
DAY = 86400.0


def key(number):
    return PublicKey(bytes([number]) * 32)


def secret(number):
    return bytes([number]) * 16


@pytest.fixture
def membership():
    return Membership([NETWORK])


def invite(membership, number, name=None, **more):
    changes, link = membership.invite(secret(number), 0.0, name, **more)
    membership.apply(changes)
    return next(i for i in membership.invitations.values() if i == changes[0].fact), link


def enrol(membership, invitation, number, name=None, now=1.0):
    changes, member = membership.enrol(invitation.address, key(number), name, now)
    membership.apply(changes)
    return member


def join(membership, number, name, **more):
    invitation, _ = invite(membership, number, name, **more)
    enrol(membership, invitation, number)
    membership.apply(membership.prove(key(number), 2.0))
    return membership.members[key(number)]


def test_an_invitation_is_for_one_key(membership):
    invitation, link = invite(membership, 1, "laptop")
    assert link.registries == NETWORK.endpoints
    first = enrol(membership, invitation, 1, "another")
    assert (first.name, first.number, first.proven) == ("laptop", 2, False)
    assert membership.enrol(invitation.address, key(1), None, 2.0) == ([], first)
    with pytest.raises(RemoteError, match="used up"):
        enrol(membership, invitation, 2)
    membership.apply(membership.prove(key(1), 3.0))
    assert membership.members[key(1)].proven
    assert membership.invitations == {}
    assert membership.prove(key(1), 4.0) == []
    with pytest.raises(RemoteError, match="used up"):
        enrol(membership, invitation, 1)


def test_an_invitation_for_many_lets_each_choose_a_name(membership):
    invitation, _ = invite(membership, 1, uses=2)
    with pytest.raises(RemoteError, match="--name"):
        enrol(membership, invitation, 1)
    with pytest.raises(RemoteError, match="cannot be a name"):
        enrol(membership, invitation, 1, "../x")
    enrol(membership, invitation, 1, "one")
    with pytest.raises(RemoteError, match="already"):
        enrol(membership, invitation, 2, "one")
    enrol(membership, invitation, 2, "two")
    with pytest.raises(RemoteError, match="used up"):
        enrol(membership, invitation, 3, "three")
    membership.apply(membership.revoke(invitation.enrol_key.to_text(), 5.0)[0])
    assert membership.invitations == {}


def test_a_link_for_several_stays_for_those_whose_reply_was_lost(membership):
    invitation, _ = invite(membership, 1, uses=2)
    enrol(membership, invitation, 1, "one")
    lost = enrol(membership, invitation, 2, "two")
    membership.apply(membership.prove(key(1), 3.0))
    assert enrol(membership, invitation, 2, "two") == lost
    membership.apply(membership.prove(key(2), 4.0))
    assert membership.invitations == {}
    assert [member.name for member in membership.members.values() if member.proven] == ["one", "two"]


def test_with_a_revoked_link_go_those_who_never_showed_their_key(membership):
    invitation, _ = invite(membership, 1, uses=2)
    enrol(membership, invitation, 1, "one")
    membership.apply(membership.prove(key(1), 2.0))
    enrol(membership, invitation, 2, "two")
    changes, keys = membership.revoke(invitation.enrol_key.to_text(), 3.0)
    membership.apply(changes)
    assert keys == [invitation.enrol_key, key(2)]
    assert [member.name for member in membership.members.values()] == ["one"]
    assert membership.prove(key(2), 4.0) == []


def test_what_has_expired_is_refused_and_forgotten_with_what_was_never_proven(membership):
    invitation, _ = invite(membership, 1, "laptop")
    enrol(membership, invitation, 1)
    with pytest.raises(RemoteError, match="expired"):
        enrol(membership, invitation, 1, now=DAY)
    assert membership.expire(DAY - 1) == []
    membership.apply(membership.expire(DAY))
    assert (membership.members, membership.invitations) == ({}, {})


def test_the_registry_is_reached_where_it_is_said_to_be(membership):
    membership.apply(membership.set_registries(("vpn.test:443", "[2001:db8::9]:51820", "vpn.test:443")))
    assert membership.network.endpoints == ("vpn.test:443", "[2001:db8::9]:51820")
    assert membership.set_registries(membership.network.endpoints) == []
    for wrong in ((), ("vpn.test",), ("vpn.test:0",), tuple(f"192.0.2.{number}:1" for number in range(9))):
        with pytest.raises(LocalError, match="HOST:PORT"):
            membership.set_registries(wrong)


def test_a_revoked_key_never_comes_back(membership):
    join(membership, 1, "laptop")
    changes, keys = membership.revoke("laptop", 5.0)
    membership.apply(changes)
    assert keys == [key(1)]
    invitation, _ = invite(membership, 2, "laptop")
    with pytest.raises(RemoteError, match="cannot be enrolled"):
        enrol(membership, invitation, 1)
    with pytest.raises(LocalError, match="known"):
        membership.add_device("phone", key(1), PresharedKey(bytes(32)), 6.0)
    with pytest.raises(LocalError, match="no member"):
        membership.revoke("nobody", 7.0)
    assert membership.revoke("laptop", 8.0)[1] == [invitation.enrol_key], "the invitation of that name"
    membership.apply(membership.revoke("laptop", 8.0)[0])
    assert membership.revoke("laptop", 9.0) == ([], [])


def test_a_next_key_takes_over_and_the_old_one_is_revoked(membership):
    join(membership, 1, "laptop")
    join(membership, 2, "desk")
    for taken in (key(1), key(2), NETWORK.private_key.public_key()):
        with pytest.raises(RemoteError):
            membership.announce_key(key(1), taken)
    membership.apply(membership.announce_key(key(1), key(11)))
    assert membership.announce_key(key(1), key(11)) == []
    with pytest.raises(RemoteError):
        membership.announce_key(key(2), key(11))
    peers = {peer.public_key: peer for peer in membership.device_config().peers}
    assert peers[key(11)].allowed_ips == ()
    assert peers[key(11)].preshared_key == peers[key(1)].preshared_key
    membership.apply(membership.prove(key(11), 9.0))
    renewed = membership.by_name("laptop")
    assert (renewed.public_key, renewed.next_key, renewed.number) == (key(11), None, 2)
    assert key(1) in membership.revoked
    assert key(1) not in membership.members


def test_groups_decide_who_sees_whom(membership):
    one = join(membership, 1, "one", groups=("all", "dev"))
    two = join(membership, 2, "two", groups=("dev",))
    three = join(membership, 3, "three", groups=("sales",))
    assert membership.visible_to(one) == (two,)
    assert membership.visible_to(three) == ()
    invitation, _ = invite(membership, 4, "four", groups=("dev",))
    enrol(membership, invitation, 4)
    assert membership.visible_to(two) == (one,), "the fourth has shown no key yet"


def test_addresses_are_whose_they_are_and_no_others(membership):
    one = join(membership, 1, "one")
    assert membership.by_address(IPv4Address("10.9.8.2")) == one
    assert membership.by_address(NETWORK.addresses(2)[1]) == one
    for text in ("10.9.8.1", "10.9.8.3", "10.9.9.2", "192.0.2.1"):
        assert membership.by_address(IPv4Address(text)) is None


def test_a_freed_address_comes_round_last_and_a_full_network_says_so(membership):
    for number in range(2, 7):
        join(membership, number, f"m{number}")
    invitation, _ = invite(membership, 9, "late")
    with pytest.raises(RemoteError, match="addresses"):
        enrol(membership, invitation, 9)
    membership.apply(membership.revoke("m3", 5.0)[0])
    assert enrol(membership, invitation, 9).number == 3


def test_a_fixed_endpoint_is_the_devices_and_kept_alive(membership):
    join(membership, 1, "router")
    where = Endpoint.from_text("203.0.113.5:51820")
    membership.apply(membership.set_endpoint("router", where))
    (peer,) = membership.device_config().peers
    assert (peer.endpoint, peer.persistent_keepalive) == (where, 25)


class Membershipping(RuleBasedStateMachine):
    """Anything in any order; facts go through their stored text on the way."""

    def __init__(self):
        super().__init__()
        self.facts = [NETWORK]
        self.membership = Membership(self.facts)
        self.now = 0.0
        self.revoked = set()
        self.secrets = 0

    def apply(self, changes):
        changes = [replace(change, fact=_stored(change.fact)) for change in changes]
        self.membership.apply(changes)

    def attempt(self, command, *arguments):
        try:
            changes, *rest = command(*arguments)
        except (LocalError, RemoteError, ValueError):
            return None
        self.apply(changes)
        return rest[0] if rest else True

    @rule(name=st.sampled_from([None, "n1", "n2"]), uses=st.integers(1, 2))
    def invite(self, name, uses):
        self.secrets += 1
        fresh = self.secrets.to_bytes(16, "big")
        self.attempt(self.membership.invite, fresh, self.now, name, ("all",), Role.MEMBER, uses)

    @rule(which=st.integers(0, 5), mine=st.integers(1, 9), name=st.sampled_from(["a", "b", "n1", "n2"]))
    def enrol(self, which, mine, name):
        invitations = list(self.membership.invitations.values())
        if not invitations:
            return
        invitation = invitations[which % len(invitations)]
        uses = invitation.uses
        before = key(mine) in self.membership.members
        member = self.attempt(self.membership.enrol, invitation.address, key(mine), name, self.now)
        if member is not None and not before:
            assert self.membership.invitations[invitation.enrol_key].uses == uses - 1 >= 0

    @rule(mine=st.integers(1, 9))
    def prove(self, mine):
        self.apply(self.membership.prove(key(mine), self.now))

    @rule(mine=st.integers(1, 9), following=st.integers(1, 9))
    def rotate(self, mine, following):
        if key(mine) in self.membership.members:
            self.attempt(lambda: (self.membership.announce_key(key(mine), key(following)),))

    @rule(name=st.sampled_from(["a", "b", "n1", "n2", "phone"]))
    def revoke(self, name):
        self.revoked |= set(self.attempt(self.membership.revoke, name, self.now) or ())

    @rule(mine=st.integers(1, 9))
    def add_device(self, mine):
        self.attempt(self.membership.add_device, "phone", key(mine), PresharedKey(bytes(32)), self.now)

    @rule(seconds=st.sampled_from([1.0, DAY]))
    def wait(self, seconds):
        self.now += seconds
        self.apply(self.membership.expire(self.now))

    @invariant()
    def no_address_or_name_twice(self):
        members = list(self.membership.members.values())
        for values in ([m.number for m in members], [m.name for m in members]):
            assert len(set(values)) == len(values)
        assert all(2 <= member.number <= 6 for member in members)

    @invariant()
    def no_revoked_key_is_a_peer(self):
        keys = [peer.public_key for peer in self.membership.device_config().peers]
        assert len(set(keys)) == len(keys)
        assert not set(keys) & (self.revoked | set(self.membership.revoked))

    @invariant()
    def allowed_ips_are_nobodys_twice(self):
        networks = [n for peer in self.membership.device_config().peers for n in peer.allowed_ips]
        assert len(set(networks)) == len(networks)

    @invariant()
    def devices_are_proven(self):
        assert all(m.proven for m in self.membership.members.values() if m.kind is Kind.DEVICE)


def _stored(fact):
    kind = type(fact).__name__.lower()
    again = parse_fact(kind, pack_fact(fact))
    assert again == fact
    return again


TestMembershipping = Membershipping.TestCase
TestMembershipping.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_further_ports_are_where_members_try_too(membership):
    membership.apply(membership.set_ports((443, 53, 443), 8443))
    network = membership.network
    assert network.reached_at == ("198.51.100.10:51820", "198.51.100.10:443", "198.51.100.10:53")
    assert network.tls_at == ("198.51.100.10:8443",)
    assert invite(membership, 1, "laptop")[1].registries == network.reached_at
    assert parse_fact("network", pack_fact(network)) == network
    assert membership.set_ports((443, 53), 8443) == []
    membership.apply(membership.set_ports((), None))
    assert membership.network == replace(NETWORK, next_host=membership.network.next_host)


def test_a_network_of_before_has_no_further_ports():
    text = pack_fact(NETWORK).replace(',"also_ports":[],"tls_port":null', "")
    assert "ports" not in text
    assert parse_fact("network", text) == NETWORK


@pytest.mark.parametrize("ports", [((51820,), None), ((0,), None), ((1, 2, 3, 4), None), ((), 65536)])
def test_ports_that_cannot_be_are_refused(membership, ports):
    with pytest.raises(LocalError):
        membership.set_ports(*ports)


def test_members_are_told_of_no_more_places_than_they_take(membership):
    endpoints = tuple(f"registry{number}.example:51820" for number in range(5))
    membership.apply([Put(replace(NETWORK, endpoints=endpoints))])
    membership.apply(membership.set_ports((443, 53, 123), None))
    assert len(membership.network.reached_at) == REGISTRIES_MAX == MAX_REGISTRIES
    assert membership.network.reached_at[:5] == endpoints


def test_who_is_changed_keeps_its_place_and_is_seen_in_its_groups_alone(membership):
    for number in (1, 2, 3):
        join(membership, number, f"m{number}", groups=("all", "ops"))
    membership.apply([Put(replace(membership.members[key(1)], name="renamed", groups=("ops", "lab")))])
    assert [member.name for member in membership.members.values()] == ["renamed", "m2", "m3"]
    assert [one.name for one in membership.visible_to(membership.members[key(2)])] == ["m3", "renamed"]
    membership.apply([Put(replace(membership.members[key(1)], groups=("lab",)))])
    assert [one.name for one in membership.visible_to(membership.members[key(2)])] == ["m3"]
    assert membership.visible_to(membership.members[key(1)]) == ()
