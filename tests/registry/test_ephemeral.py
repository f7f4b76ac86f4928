"""Ephemeral members: what their invitation does, and when they go."""

import json
from dataclasses import replace

import pytest

from tests.registry.test_membership import NETWORK, enrol, invite, join, key
from wgdisco.errors import RemoteError
from wgdisco.registry.ephemeral import ANYBODY_WITHIN, LEAST_PERIOD, LOOK_MOST, Absence, leave, vanish
from wgdisco.registry.facts import Invitation, Member, Put, Remove, Revoked, pack_fact, parse_fact
from wgdisco.registry.membership import Membership

PERIOD = 600.0
STEP = 5.0


class Watch:
    """A registry that looks each STEP seconds, while `heard` members speak every 25."""

    def __init__(self, membership, now=1000.0):
        self.membership = membership
        self.now = now
        self.received_at = {}
        self.restart()

    def restart(self):
        self.absence = Absence()
        self.received_at.clear()

    def run(self, seconds, *heard, step=STEP):
        """Time goes by; who has gone, and after how many seconds."""
        began, gone = self.now, {}
        while self.now < began + seconds:
            self.now += step
            if (self.now - began) % 25 < step:
                self.received_at.update((key(number), self.now) for number in heard)
            members = tuple(self.membership.members.values())
            for member in self.absence.look(members, self.received_at, self.now):
                self.membership.apply(self.membership.forget(member))
                gone[member.name] = self.now - began
        return gone


@pytest.fixture
def membership():
    return Membership([NETWORK])


@pytest.fixture
def watch(membership):
    join(membership, 1, "web", ephemeral=PERIOD)
    join(membership, 2, "stays")
    return Watch(membership)


def test_it_goes_when_it_was_not_heard_for_its_period_and_nobody_else_does(watch):
    assert watch.run(3600, 1, 2) == {}
    (name, after), *others = watch.run(3600, 2).items()
    assert (name, others) == ("web", [])
    assert PERIOD - 25 <= after <= PERIOD + STEP
    assert [member.name for member in watch.membership.members.values()] == ["stays"]
    assert watch.run(3600) == {}


def test_one_that_was_never_heard_goes_too(watch):
    assert PERIOD <= watch.run(3600, 2)["web"] <= PERIOD + 25 + STEP


def test_a_restart_of_the_registry_grants_a_full_period(watch):
    watch.run(60, 1, 2)
    assert watch.run(PERIOD - 60, 2) == {}
    watch.restart()
    assert PERIOD <= watch.run(3600, 2)["web"] <= PERIOD + 25 + STEP


def test_while_nobody_at_all_is_heard_nobody_goes(watch):
    """The registry itself is cut off: that may last, and then all have a full period, less what it took to notice."""
    watch.run(60, 1, 2)
    assert watch.run(24 * 3600) == {}
    assert watch.run(PERIOD - ANYBODY_WITHIN - 30, 2) == {}
    assert "web" in watch.run(PERIOD, 2)


def test_one_with_the_shortest_period_outlives_a_short_cut_and_its_own_silence(watch):
    watch.membership.apply([Put(replace(watch.membership.members[key(1)], ephemeral=LEAST_PERIOD))])
    watch.run(60, 1, 2)
    assert watch.run(3600) == {}
    assert watch.run(75, 2) == {}
    assert watch.run(600, 1, 2) == {}


def test_the_machines_sleep_does_not_count(watch):
    watch.run(60, 1, 2)
    watch.now += 8 * 3600
    watch.received_at[key(2)] = watch.now  # it is faster than our look
    assert watch.run(PERIOD - LOOK_MOST - 30, 2) == {}
    assert "web" in watch.run(PERIOD, 2)


def test_who_is_back_in_time_stays(watch):
    watch.run(60, 1, 2)
    for _ in range(10):
        assert watch.run(PERIOD - 60, 2) == {}
        assert watch.run(60, 1, 2) == {}


def test_its_key_may_come_back_and_its_number_only_after_all_others(watch):
    first = watch.membership.members[key(1)]
    assert watch.run(3600, 2) == {"web": pytest.approx(PERIOD, abs=30)}
    assert key(1) not in watch.membership.revoked
    again = join(watch.membership, 1, "web", ephemeral=PERIOD)
    assert again.public_key == first.public_key
    assert again.number != first.number


def test_one_link_is_for_many_and_a_name_that_is_taken_gets_a_number(membership):
    invitation, _ = invite(membership, 1, uses=4, ephemeral=PERIOD)
    assert [enrol(membership, invitation, number, "web").name for number in (1, 2)] == ["web", "web-2"]
    with pytest.raises(RemoteError, match="--name"):
        enrol(membership, invitation, 3)
    with pytest.raises(RemoteError, match="the registry's own name"):
        enrol(membership, invitation, 3, "registry")
    membership.apply(membership.forget(membership.members[key(1)]))
    assert enrol(membership, invitation, 3, "web").name == "web"


def test_a_name_in_the_link_is_the_stem_of_all_and_nobody_elses(membership):
    invitation, _ = invite(membership, 1, "web", uses=3, ephemeral=PERIOD)
    other, _ = invite(membership, 2, "web-2")
    names = [enrol(membership, invitation, number, "x").name for number in (1, 2)]
    assert names == ["web", "web-3"]
    assert enrol(membership, other, 3).name == "web-2"


def test_with_the_same_key_it_may_ask_again_whether_it_still_is_one_or_not(membership):
    """A container that was killed, with its state on a volume."""
    invitation, _ = invite(membership, 1, uses=9, ephemeral=PERIOD)
    first = enrol(membership, invitation, 1, "web")
    membership.apply(membership.prove(key(1), 2.0))
    proven = membership.members[key(1)]
    assert membership.enrol(invitation.address, key(1), "web", 3.0) == ([], proven)
    membership.apply(membership.forget(proven))
    again = enrol(membership, invitation, 1, "web")
    assert (again.name, again.public_key) == ("web", first.public_key)
    assert membership.invitations[invitation.enrol_key].uses == 7


def test_another_link_does_not_tell_who_a_member_is(membership):
    join(membership, 1, "web", ephemeral=PERIOD)
    other, _ = invite(membership, 2, uses=2, ephemeral=PERIOD)
    with pytest.raises(RemoteError, match="cannot be enrolled"):
        enrol(membership, other, 1, "web")


def test_who_leaves_is_gone_at_once_and_only_an_ephemeral_one_may_come_back(membership):
    web, stays = join(membership, 1, "web", ephemeral=PERIOD), join(membership, 2, "stays")
    assert leave(membership, key(1), 5.0) == [Remove(web)]
    assert leave(membership, key(2), 5.0) == [Remove(stays), Put(Revoked(key(2), "stays", 5.0))]
    assert leave(membership, key(9), 5.0) == []


def test_facts_of_an_older_store_are_read(membership):
    member = join(membership, 1, "web", ephemeral=PERIOD)
    invitation, _ = invite(membership, 2, ephemeral=PERIOD)
    for kind, fact in (("member", member), ("invitation", invitation)):
        text = pack_fact(fact)
        assert parse_fact(kind, text) == fact
        data = json.loads(text)
        assert data.pop("ephemeral") == PERIOD
        old = parse_fact(kind, json.dumps(data))
        assert isinstance(old, Member | Invitation)
        assert old.ephemeral is None
    assert Membership([NETWORK, member]).members[key(1)].ephemeral == PERIOD


def test_one_that_comes_back_with_its_next_key_while_it_is_forgotten_stays(membership):
    join(membership, 1, "web", ephemeral=PERIOD)
    away = membership.members[key(1)]
    membership.apply(membership.announce_key(key(1), key(7)))
    membership.apply(membership.prove(key(7), 1000.0))
    assert vanish(membership, away) == []
    renewed = membership.members[key(7)]
    assert vanish(membership, renewed) == [Remove(renewed)]
    membership.apply(membership.rename("web", "www"))
    assert vanish(membership, renewed) == [Remove(membership.members[key(7)])]
