"""Invitations that are over: what stays of them, and for how long."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from tests.registry import test_membership
from wgdisco.keys import PresharedKey, PublicKey
from wgdisco.registry.facts import Invitation, Network, Put, identity, pack_fact, parse_fact
from wgdisco.registry.membership import Membership
from wgdisco.registry.past import PAST_FOR, PAST_MAX, USED_BY_MAX, used

NETWORK = replace(test_membership.NETWORK, prefix4=IPv4Network("10.9.0.0/16"))
NOW = 1_700_000_000.0


def key(number):
    return PublicKey(number.to_bytes(32, "big"))


class Facts:
    """A membership, and what a store would hold of it."""

    def __init__(self):
        self.membership = Membership([NETWORK])

    def change(self, command):
        changes, result = command
        self.membership.apply(changes)
        return result

    def invite(self, number=0, **how):
        self.change(self.membership.invite(number.to_bytes(16, "big"), NOW, **how))
        return list(self.membership.invitations.values())[-1]

    def join(self, invitation, number, name=None):
        self.change(self.membership.enrol(invitation.address, key(number), name, NOW))
        self.change((self.membership.prove(key(number), NOW + number), None))

    @property
    def past(self):
        return list(self.membership.past.values())


@pytest.fixture
def facts():
    return Facts()


def test_who_used_a_link_up_is_known_and_its_secret_is_not(facts):
    invitation = facts.invite(name="carol")
    facts.join(invitation, 5)
    assert not facts.membership.invitations
    (past,) = facts.past
    assert (past.used_by, past.uses, past.ended_at) == (("carol",), 0, NOW + 5)
    assert past.preshared_key == PresharedKey(bytes(32))
    assert invitation.address not in [peer.allowed_ips for peer in facts.membership.device_config().peers]


def test_a_link_for_several_tells_who_used_it_meanwhile_and_when_its_time_is_over(facts):
    invitation = facts.invite(uses=3)
    facts.join(invitation, 5, "dave")
    facts.join(invitation, 6, "erin")
    (now,) = facts.membership.invitations.values()
    assert (now.used_by, now.uses, facts.past) == (("dave", "erin"), 1, [])
    facts.change((facts.membership.expire(now.expires_at), None))
    (past,) = facts.past
    assert (past.used_by, past.uses, facts.membership.invitations) == (("dave", "erin"), 1, {})


def test_who_never_showed_his_key_did_not_use_it(facts):
    invitation = facts.invite(name="carol")
    facts.change(facts.membership.enrol(invitation.address, key(5), None, NOW))
    facts.change((facts.membership.expire(invitation.expires_at), None))
    assert facts.past[0].used_by == ()
    assert not facts.membership.members


def test_a_revoked_one_leaves_nothing(facts):
    invitation = facts.invite(name="carol")
    facts.change(facts.membership.revoke(invitation.enrol_key.to_text(), NOW))
    assert (facts.past, facts.membership.invitations) == ([], {})


def test_the_name_and_the_place_of_one_that_is_over_are_free(facts):
    facts.change((facts.membership.expire(facts.invite(name="carol").expires_at), None))
    facts.invite(name="carol")
    assert len(facts.membership.invitations) == 1


def test_they_are_forgotten_by_number_and_by_age(facts):
    for number in range(PAST_MAX + 3):
        facts.join(facts.invite(number, name=f"m{number}"), number + 2)
    assert [past.used_by[0] for past in facts.past] == [f"m{number}" for number in range(3, PAST_MAX + 3)]
    facts.change((facts.membership.expire(NOW + 50 + PAST_FOR), None))
    assert facts.past[0].used_by[0] == "m49"


def test_names_of_a_link_for_many_are_bounded():
    invitation = Invitation(key(1), PresharedKey(bytes(32)), NETWORK.prefix4[9], NOW)
    for number in range(USED_BY_MAX + 2):
        invitation = used(used(invitation, f"m{number}"), f"m{number}")
    assert invitation.used_by == tuple(f"m{number}" for number in range(2, USED_BY_MAX + 2))


def test_a_store_gives_them_back_as_what_they_are(facts):
    facts.join(facts.invite(name="carol"), 5)
    stored = [parse_fact(identity(fact)[0], pack_fact(fact)) for fact in (NETWORK, *facts.past)]
    again = Membership(stored)
    assert (again.past, again.invitations) == (facts.membership.past, {})
    again.apply([Put(facts.past[0])])
    assert isinstance(again.network, Network)
    assert len(again.past) == 1
