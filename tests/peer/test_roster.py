"""Whom a member trusts."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from wgdisco.api import EndpointChange, MemberRecord, NetworkRecord, Removed, Snapshot
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.peer.roster import OFFLINE_TRUST, Accept, Memory, Roster
from wgdisco.peer.roster_news import Accepted, Gone, MemberRefused, OlderEpoch, TrustExpired

NOW = 1_800_000_000.0


def key(number: int) -> PublicKey:
    return PrivateKey(bytes([number]) * 32).public_key()


OWN, REGISTRY, BOB, CAROL, EVIL = (key(number) for number in range(1, 6))


def record(name: str, whose: PublicKey, number: int, **more) -> MemberRecord:
    addresses = [f"10.9.8.{number}", f"fd00:9::{number:x}"]
    return MemberRecord(
        **{
            "name": name,
            "public_key": str(whose),
            "addresses": addresses,
            "kind": "member",
            "role": "member",
            "groups": ["all"],
            **more,
        }
    )


def snapshot(*members: MemberRecord, epoch: int = 1) -> Snapshot:
    network = NetworkRecord(
        "home",
        "wg.internal.",
        epoch,
        ["10.9.8.0/24", "fd00:9::/64"],
        ["198.51.100.10:51820"],
        str(REGISTRY),
        ["10.9.8.1", "fd00:9::1"],
    )
    return Snapshot(network, record("alice", OWN, 2), list(members))


def roster(*members: MemberRecord, accept: Accept = Accept.ALL, memory: Memory | None = None) -> Roster:
    return Roster(OWN, accept, memory or Memory(snapshot(*members), NOW, 1))


def names(one: Roster) -> set[str]:
    return {member.name for member in one.members.values()}


def test_members_become_peers_and_devices_are_behind_the_registry():
    one = roster(record("bob", BOB, 3, endpoint="203.0.113.9:1234"), record("phone", CAROL, 4, kind="device"))
    registry, bob = one.peers(NOW, {REGISTRY: Endpoint.from_text("198.51.100.10:51820")})
    assert registry.public_key == REGISTRY
    assert str(registry.endpoint) == "198.51.100.10:51820"
    assert set(map(str, registry.allowed_ips)) == {"10.9.8.1/32", "fd00:9::1/128", "10.9.8.4/32", "fd00:9::4/128"}
    assert (bob.public_key, str(bob.endpoint), bob.managed) == (BOB, "203.0.113.9:1234", True)
    assert bob.allowed_ips == (ip_network("10.9.8.3"), ip_network("fd00:9::3"))
    psk = PresharedKey(bytes(32))
    config = one.device_config(PrivateKey(bytes(32)), psk, 7, (registry, bob))
    assert [peer.preshared_key for peer in config.peers] == [psk, None]
    assert [peer.endpoint for peer in config.peers] == [None, None]


def test_a_changed_key_for_a_known_name_is_refused_and_reported_once():
    one = roster(record("bob", BOB, 3))
    assert one.news() == [Accepted("bob", BOB)]
    one.snapshot(snapshot(record("bob", EVIL, 3)), NOW)
    gone, refused = one.news()
    assert gone == Gone("bob", BOB)
    assert isinstance(refused, MemberRefused)
    assert "has changed" in refused.why
    one.snapshot(snapshot(record("bob", EVIL, 3)), NOW)
    assert one.news() == []
    assert [peer.public_key for peer in one.peers(NOW, {})] == [REGISTRY]
    assert one.accept("bob") == EVIL
    assert names(one) == {"bob"}


def test_removal_does_not_unpin():
    one = roster(record("bob", BOB, 3))
    one.removed(Removed(str(BOB), "bob"))
    assert names(one) == set()
    one.member(record("bob", EVIL, 3))
    assert names(one) == set()
    one.member(record("bob", BOB, 3))
    assert names(one) == {"bob"}


def test_pins_outlive_a_restart():
    memory = roster(record("bob", BOB, 3)).memory()
    again = roster(memory=memory)
    again.snapshot(snapshot(record("bob", EVIL, 3)), NOW)
    assert names(again) == set()


def test_a_renamed_member_keeps_its_old_name_for_itself():
    one = roster(record("bob", BOB, 3))
    one.snapshot(snapshot(record("robert", BOB, 3), record("bob", EVIL, 5)), NOW)
    assert names(one) == {"robert"}


def test_an_announced_key_is_a_peer_without_addresses_until_it_is_heard():
    one = roster(record("bob", BOB, 3, next_key=str(CAROL)))
    _, bob, successor = one.peers(NOW, {})
    assert (successor.public_key, successor.allowed_ips, successor.replaces) == (CAROL, (), BOB)
    assert not one.rotated(BOB)
    assert one.rotated(CAROL)
    _, bob_again = one.peers(NOW, {})
    assert (bob_again.public_key, bob_again.allowed_ips) == (CAROL, bob.allowed_ips)


def test_the_registry_may_move_an_announced_key_first():
    one = roster(record("bob", BOB, 3, next_key=str(CAROL)))
    one.member(record("bob", CAROL, 3))
    assert [member.key for member in one.members.values()] == [CAROL]
    one.member(record("bob", EVIL, 3))
    assert [member.key for member in one.members.values()] == [CAROL], "an announcement is for one key"


def test_ask_and_pinned_wait_for_a_person():
    for mode in (Accept.ASK, Accept.PINNED):
        one = roster(accept=mode)
        one.member(record("bob", BOB, 3))
        assert names(one) == set()
        assert "wgdisco accept bob" in one.refused()[0].why
        one.accept("bob")
        assert names(one) == {"bob"}
        with pytest.raises(LocalError, match="no member"):
            one.accept("bob")


def test_an_older_epoch_is_told_and_changes_only_endpoints():
    one = roster(record("bob", BOB, 3))
    one.snapshot(snapshot(record("bob", BOB, 3), epoch=3), NOW)
    one.news()
    older = snapshot(record("carol", CAROL, 4), record("bob", BOB, 3, endpoint="203.0.113.9:5", live=True), epoch=2)
    one.snapshot(older, NOW + 100)
    assert one.news() == [OlderEpoch(2, 3)]
    one.member(record("carol", CAROL, 4))
    one.confirm(NOW + 100)
    assert names(one) == {"bob"}
    assert one.live_endpoints() == {BOB: Endpoint.from_text("203.0.113.9:5")}
    assert one.confirmed_at == NOW
    assert one.memory().epoch == 3
    one.snapshot(snapshot(record("carol", CAROL, 4), epoch=4), NOW + 200)
    assert names(one) == {"carol"}


def test_trust_ends_after_a_week_without_a_registry_and_comes_back_with_it():
    one = roster(record("bob", BOB, 3), record("phone", CAROL, 4, kind="device"))
    one.news()
    assert len(one.peers(NOW + OFFLINE_TRUST - 1, {})) == 2
    (registry,) = one.peers(NOW + OFFLINE_TRUST, {})
    assert len(registry.allowed_ips) == 2
    one.peers(NOW + OFFLINE_TRUST + 1, {})
    assert one.news() == [TrustExpired()]
    one.confirm(NOW + OFFLINE_TRUST + 2)
    assert len(one.peers(NOW + OFFLINE_TRUST + 3, {})) == 2


def test_how_long_trust_lasts_can_be_said():
    one = Roster(OWN, Accept.ALL, Memory(snapshot(record("bob", BOB, 3)), NOW, 1), offline_trust=3600)
    assert one.check_trust(NOW + 3599)
    assert not one.check_trust(NOW + 3600)


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        (["10.9.9.3"], "outside"),
        (["192.0.2.1"], "outside"),
        (["fd00:8::3"], "outside"),
        (["10.9.8.2"], "another's"),
        (["10.9.8.1"], "another's"),
        (["10.9.8.3", "10.9.8.4"], "another's"),
    ],
)
def test_addresses_that_are_not_the_members_own_are_refused(addresses, why):
    one = roster(record("bob", BOB, 3))
    one.news()
    one.member(replace(record("carol", CAROL, 9), addresses=addresses))
    (refused,) = one.news()
    assert isinstance(refused, MemberRefused)
    assert why in refused.why
    assert names(one) == {"bob"}


@pytest.mark.parametrize("whose", [OWN, REGISTRY])
def test_nobody_else_has_our_key_or_the_registrys(whose):
    one = roster(record("mallory", whose, 7))
    assert names(one) == set()


def test_a_snapshot_for_others_changes_nothing():
    one = roster(record("bob", BOB, 3))
    other = snapshot(record("carol", CAROL, 4))
    with pytest.raises(ValueError, match="another member"):
        one.snapshot(replace(other, member=record("alice", EVIL, 2)), NOW)
    with pytest.raises(ValueError, match="another network"):
        one.snapshot(replace(other, network=replace(other.network, registry_key=str(EVIL))), NOW)
    assert names(one) == {"bob"}


def test_endpoints_follow_what_the_registry_sees():
    one = roster(record("bob", BOB, 3))
    assert one.live_endpoints() == {BOB: None}
    one.endpoint(EndpointChange(str(BOB), "203.0.113.9:7", True))
    assert one.live_endpoints() == {BOB: Endpoint.from_text("203.0.113.9:7")}
    one.endpoint(EndpointChange(str(BOB), "203.0.113.9:7", False))
    assert one.live_endpoints() == {BOB: None}
    one.endpoint(EndpointChange(str(OWN), "192.0.2.10:9", True))
    assert one.own_endpoint == Endpoint.from_text("192.0.2.10:9")
    one.endpoint(EndpointChange(str(EVIL), "192.0.2.10:9", True))


def test_pinned_takes_over_who_is_there_at_the_first_snapshot():
    one = roster(accept=Accept.PINNED, memory=Memory(snapshot(), NOW, 1, is_fresh=True))
    one.snapshot(snapshot(record("bob", BOB, 3)), NOW)
    one.member(record("carol", CAROL, 4))
    assert names(one) == {"bob"}
    assert not one.memory().is_fresh


def test_a_device_that_has_us_as_a_peer_is_one_of_ours_and_not_behind_the_registry():
    one = roster(record("router", CAROL, 4, kind="device", direct=True))
    registry, router = one.peers(NOW, {})
    assert (router.public_key, router.preshared_key, router.persistent_keepalive) == (CAROL, None, 0)
    assert ip_network("10.9.8.4/32") in router.allowed_ips
    assert ip_network("10.9.8.4/32") not in registry.allowed_ips


@pytest.mark.parametrize("how", ["removed", "snapshot", "restart"])
@pytest.mark.parametrize("is_ephemeral", [True, False])
def test_only_an_ephemeral_member_that_is_gone_leaves_its_name_to_another(is_ephemeral, how):
    one = roster(record("web", BOB, 3, ephemeral=is_ephemeral))
    if how == "restart":
        one = roster(memory=one.memory())
    if how == "removed":
        one.removed(Removed(str(BOB), "web"))
        one.member(record("web", CAROL, 4, ephemeral=True))
    else:
        one.snapshot(snapshot(record("web", CAROL, 4, ephemeral=True)), NOW)
    assert (set(one.members) == {CAROL}) == is_ephemeral
    assert [refused.name for refused in one.refused()] == ([] if is_ephemeral else ["web"])


def test_while_it_is_there_its_name_is_its_own():
    one = roster(record("web", BOB, 3, ephemeral=True))
    one.member(record("web", EVIL, 4, ephemeral=True))
    assert set(one.members) == {BOB}
    assert "its key has changed" in one.refused()[0].why


def test_whom_a_person_accepts_stays_accepted_until_it_is_gone():
    one = roster(record("web", BOB, 3, ephemeral=True), accept=Accept.ASK)
    assert one.accept("web") == BOB
    one.snapshot(snapshot(record("web", BOB, 3, ephemeral=True)), NOW)
    assert set(one.members) == {BOB}
    one.snapshot(snapshot(record("web", CAROL, 4, ephemeral=True)), NOW)
    assert one.members == {}
