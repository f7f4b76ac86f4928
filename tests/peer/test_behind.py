"""What is behind members: who is sent what, what leads into the tunnel, and what a person is told."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

from tests.peer.test_roster import BOB, CAROL, NOW, OWN, record, snapshot
from wgdisco.offers import EXIT
from wgdisco.peer.behind import behind_notes
from wgdisco.peer.interfaces import LocalAddress, LocalNetwork
from wgdisco.peer.roster import Accept, Memory, Roster

NOWHERE = LocalNetwork()
BOTH = ["0.0.0.0/0", "::/0"]


def roster(*members, exit_name=None, own=()):
    told = snapshot(*members)
    told = replace(told, member=replace(told.member, subnets=list(own)))
    return Roster(OWN, Accept.ALL, Memory(told, NOW, 1), exit_name=exit_name)


def allowed(one):
    return {peer.public_key: [str(network) for network in peer.allowed_ips] for peer in one.peers(NOW, {})}


def notes(one, *offers, local=NOWHERE):
    return list(behind_notes(one, tuple(map(ip_network, offers)), local))


def on(*addresses):
    found = [LocalAddress("eth0", ip_interface(one).ip, ip_interface(one).network, True) for one in addresses]
    return LocalNetwork((), tuple(found), ())


def test_subnets_are_sent_to_their_member_and_those_behind_a_device_to_the_registry():
    one = roster(
        record("bob", BOB, 3, subnets=["10.1.0.0/24", "fd01::/64", *BOTH]),
        record("router", CAROL, 4, kind="device", subnets=["10.2.0.0/24"]),
    )
    registry, bob = allowed(one).values()
    assert registry[-1] == "10.2.0.0/24"
    assert bob == ["10.9.8.3/32", "fd00:9::3/128", "10.1.0.0/24", "fd01::/64"]
    assert set(map(str, one.routes())) == {"10.1.0.0/24", "fd01::/64", "10.2.0.0/24"}
    assert notes(one) == []


def test_everything_goes_to_the_exit_we_asked_for_and_to_no_other():
    members = [record("bob", BOB, 3, subnets=BOTH), record("carol", CAROL, 4, subnets=BOTH)]
    assert not set(BOTH) & {net for nets in allowed(roster(*members)).values() for net in nets}
    assert roster(*members).routes() == ()
    one = roster(*members, exit_name="bob")
    assert allowed(one)[BOB][2:] == BOTH
    assert not set(BOTH) & set(allowed(one)[CAROL])
    assert one.routes() == EXIT
    assert notes(one) == []


def test_with_an_exit_that_is_none_everything_goes_nowhere():
    unknown = roster(exit_name="bob")
    assert unknown.routes() == EXIT
    (said,) = notes(unknown)
    assert "exit bob is no member that is known here" in said
    partly = roster(record("bob", BOB, 3, subnets=["0.0.0.0/0"]), exit_name="bob")
    assert partly.routes() == EXIT
    assert allowed(partly)[BOB][2:] == ["0.0.0.0/0"]
    (said,) = notes(partly)
    assert "bob is not approved as an exit for ::/0" in said


def test_what_cannot_be_behind_a_member_is_not_routed_there_and_the_member_stays():
    one = roster(
        record("bob", BOB, 3, subnets=["10.9.8.0/25", "127.0.0.0/8", "64.0.0.0/3", "10.1.0.0/24"]),
        record("carol", CAROL, 4, subnets=["10.1.0.128/25", "192.168.5.0/24", "10.2.0.0/24"]),
        own=["192.168.0.0/16"],
    )
    assert allowed(one)[BOB][2:] == ["10.1.0.0/24"]
    assert allowed(one)[CAROL][2:] == ["10.2.0.0/24"]
    assert len(notes(one)) == 5
    assert "10.1.0.128/25 behind carol is not routed there: it overlaps 10.1.0.0/24" in " ".join(notes(one))


def test_who_is_on_such_a_subnet_is_told_that_it_stays_there():
    one = roster(record("bob", BOB, 3, subnets=["10.1.0.0/16"]))
    (said,) = notes(one, local=on("10.1.7.9/24", "192.168.1.9/24"))
    assert said == "10.1.0.0/16 behind bob is not reached in 10.1.7.0/24: this host is on that itself (eth0)"


def test_an_offer_says_what_it_waits_for():
    (said,) = notes(roster(own=["10.1.0.0/24"]), "10.1.0.0/24", *BOTH)
    assert "`wgdisco registry approve alice exit`" in said
    assert notes(roster(own=["10.1.0.0/24"]), "10.1.0.0/24") == []
