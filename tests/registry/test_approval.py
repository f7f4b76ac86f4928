"""What members offer becomes a fact when it is approved."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.registry.test_membership import NETWORK, join, key
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey
from wgdisco.offers import EXIT, overlaps
from wgdisco.registry.approval import approve, disapprove, offer
from wgdisco.registry.facts import pack_fact, parse_fact
from wgdisco.registry.hub import hub_rules, hub_subnets
from wgdisco.registry.membership import Membership


def nets(*texts):
    return tuple(map(ip_network, texts))


@pytest.fixture
def membership():
    one = Membership([NETWORK])
    join(one, 1, "alice")
    join(one, 2, "bob")
    one.apply(offer(one, key(1), nets("192.168.1.0/24", "fd01::/64", "10.9.8.0/30", "127.0.0.0/8", *map(str, EXIT))))
    one.apply(offer(one, key(2), nets("192.168.0.0/16", "192.168.1.0/24", "192.168.1.0/26", *map(str, EXIT))))
    return one


def yes(membership, name, *texts):
    membership.apply(approve(membership, name, nets(*texts)))


def allowed(membership, number):
    return [str(network) for network in membership.allowed_ips(membership.members[key(number)])]


def test_nothing_is_routed_before_it_is_approved(membership):
    assert allowed(membership, 1) == ["10.9.8.2/32", "fd00:9:8::2/128"]
    yes(membership, "alice", "192.168.1.0/24", "fd01::/64")
    assert allowed(membership, 1)[2:] == ["192.168.1.0/24", "fd01::/64"]
    peer = next(peer for peer in membership.device_config().peers if peer.public_key == key(1))
    assert [str(network) for network in peer.allowed_ips] == allowed(membership, 1)
    assert approve(membership, "alice", nets("192.168.1.0/24")) == []


def test_what_is_no_longer_offered_is_no_longer_routed_and_comes_back_with_the_offer(membership):
    yes(membership, "alice", "192.168.1.0/24", "fd01::/64")
    membership.apply(offer(membership, key(1), nets("fd01::/64")))
    assert allowed(membership, 1)[2:] == ["fd01::/64"]
    membership.apply(offer(membership, key(1), nets("192.168.1.0/24")))
    assert allowed(membership, 1)[2:] == ["192.168.1.0/24"]
    assert offer(membership, key(1), nets("192.168.1.0/24")) == []


def test_an_approval_is_taken_back(membership):
    yes(membership, "alice", "192.168.1.0/24", "fd01::/64")
    membership.apply(disapprove(membership, "alice", nets("192.168.1.0/24")))
    assert allowed(membership, 1)[2:] == ["fd01::/64"]
    with pytest.raises(LocalError, match=r"192\.168\.1\.0/24 is not approved for alice"):
        disapprove(membership, "alice", nets("192.168.1.0/24"))


def test_an_exit_is_nobodys_route_and_may_be_many(membership):
    yes(membership, "alice", *map(str, EXIT))
    yes(membership, "bob", *map(str, EXIT))
    assert allowed(membership, 1) == ["10.9.8.2/32", "fd00:9:8::2/128"]
    assert membership.members[key(1)].subnets == EXIT


@pytest.mark.parametrize(
    ("name", "network", "says"),
    [
        ("bob", "192.168.1.0/24", "overlaps 192.168.1.0/24, which is behind alice"),
        ("bob", "192.168.1.0/26", "overlaps 192.168.1.0/24, which is behind alice"),
        ("bob", "192.168.0.0/16", "overlaps 192.168.1.0/24, which is behind alice: take that back first"),
        ("alice", "10.9.8.0/30", "cannot be behind alice: it overlaps 10.9.8.0/29, the network's own"),
        ("alice", "127.0.0.0/8", "cannot be behind alice: it is for one host"),
        ("alice", "10.3.0.0/24", "alice offers 192.168.1.0/24, fd01::/64, 10.9.8.0/30, 127.0.0.0/8, exit: have it"),
        ("carol", "10.3.0.0/24", "there is no member 'carol'"),
        ("phone", "0.0.0.0/0", "phone is a stock device: only members can be an exit"),
    ],
)
def test_what_is_refused_says_why(membership, name, network, says):
    yes(membership, "alice", "192.168.1.0/24")
    membership.apply(membership.add_device("phone", key(9), PresharedKey(bytes(32)), 0.0)[0])
    with pytest.raises(LocalError, match=says.replace(".", r"\.")):
        approve(membership, name, nets(network))


def test_two_that_overlap_are_not_approved_together(membership):
    with pytest.raises(LocalError, match="which is behind bob"):
        approve(membership, "bob", nets("192.168.1.0/24", "192.168.1.0/26"))


def test_what_is_behind_a_stock_device_is_approved_without_its_offer(membership):
    membership.apply(membership.add_device("router", key(9), PresharedKey(bytes(32)), 0.0)[0])
    yes(membership, "router", "10.3.0.0/24")
    assert "10.3.0.0/24" in allowed(membership, 9)
    assert hub_subnets(membership) == nets("10.3.0.0/24")


def test_the_hub_knows_what_is_behind_whom_and_leads_there_for_devices_of_a_group(membership):
    yes(membership, "alice", "192.168.1.0/24", "fd01::/64", *map(str, EXIT))
    alice, _ = hub_rules(membership, "mesh", {}).hosts
    assert alice.subnets == nets("192.168.1.0/24", "fd01::/64")
    assert hub_subnets(membership) == ()
    membership.apply(membership.add_device("guest", key(8), PresharedKey(bytes(32)), 0.0, ("guests",))[0])
    assert hub_subnets(membership) == ()
    membership.apply(membership.add_device("phone", key(9), PresharedKey(bytes(32)), 0.0)[0])
    assert hub_subnets(membership) == nets("192.168.1.0/24", "fd01::/64")


def test_a_fact_of_before_offers_is_read_and_one_with_them_comes_back(membership):
    alice = replace(membership.members[key(1)], approved=nets("fd01::/64", "0.0.0.0/0"))
    assert parse_fact("member", pack_fact(alice)) == alice
    without = pack_fact(alice).partition(',"offers"')[0] + "}"
    assert parse_fact("member", without) == replace(alice, offers=(), approved=())


SUBNETS = nets("10.1.0.0/16", "10.1.0.0/24", "10.1.0.128/25", "10.2.0.0/24", "fd01::/48", "fd01::/64", *map(str, EXIT))
STEP = st.tuples(
    st.sampled_from(["offer", "approve", "disapprove"]),
    st.sampled_from([1, 2, 3]),
    st.lists(st.sampled_from(SUBNETS), unique=True, max_size=3).map(tuple),
)


@given(st.lists(STEP, max_size=30))
def test_whatever_is_done_no_address_is_behind_two_and_nothing_is_routed_that_is_not_offered(steps):
    one = Membership([NETWORK])
    names = {1: "alice", 2: "bob", 3: "carol"}
    for number, name in names.items():
        join(one, number, name)
    for what, number, networks in steps:
        with suppress(LocalError):
            match what:
                case "offer":
                    one.apply(offer(one, key(number), networks))
                case "approve":
                    one.apply(approve(one, names[number], networks))
                case "disapprove":
                    one.apply(disapprove(one, names[number], networks))
        allowed_ips = [network for member in one.members.values() for network in one.allowed_ips(member)]
        for position, network in enumerate(allowed_ips):
            assert overlaps(network, allowed_ips[position + 1 :]) is None
        assert all(set(member.subnets) <= set(member.offers) for member in one.members.values())
