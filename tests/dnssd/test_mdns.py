import hashlib
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgdisco.dnssd import mdns
from wgdisco.dnssd.mdns import (
    MAX_SEEN,
    ROTATE_AFTER,
    Announcement,
    Announcer,
    Drop,
    LanPeer,
    LanPeerGone,
    Neighbours,
    announce,
    parse_announcement,
)
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey

ALICE, BOB, MALLORY = (PublicKey(bytes([n]) * 32) for n in (1, 2, 3))
AT = (ip_address("192.168.1.7"),)


class Dice:
    """Bytes that never repeat, the same in every run."""

    def __init__(self) -> None:
        self.turn = 0

    def __call__(self, size: int) -> bytes:
        self.turn += 1
        return hashlib.shake_128(b"%d" % self.turn).digest(size)


def knowing(*keys: PublicKey) -> Neighbours:
    neighbours = Neighbours(0.0)
    neighbours.set_known(keys, 0.0)
    return neighbours


def seen(neighbours: Neighbours, said: Announcement, addresses, now: float, interface="eth0") -> None:
    neighbours.instance_seen(interface, said, addresses, now)


def gone(neighbours: Neighbours, label: str, now: float) -> None:
    neighbours.instance_gone("eth0", label, now)


def lan(key: PublicKey, *endpoints: str, at: float = 0.0) -> LanPeer:
    return LanPeer(key, tuple(map(Endpoint.from_text, endpoints)), at)


def test_the_tag_is_as_the_format_has_it():
    said = announce(ALICE, 40000, Dice())
    key = hashlib.blake2s(b"wgdisco mdns 1" + ALICE.raw).digest()
    expected = hashlib.blake2s(said.nonce + (40000).to_bytes(2, "big"), key=key, digest_size=16).digest()
    assert said.pairs() == {"n": said.nonce, "t": expected}
    assert len(said.nonce) == 16


def test_a_known_peer_is_recognised_and_a_stranger_is_not():
    dice, neighbours = Dice(), knowing(ALICE, BOB)
    seen(neighbours, announce(BOB, 40000, dice), AT, 1.0)
    seen(neighbours, announce(MALLORY, 40000, dice), AT, 1.0)
    assert neighbours.events() == [lan(BOB, "192.168.1.7:40000", at=1.0)]
    assert neighbours.drops == {Drop.STRANGER: 1}
    assert neighbours.events() == []


@pytest.mark.parametrize("change", ["port", "nonce", "tag"])
def test_a_tag_is_good_for_its_own_nonce_and_port(change):
    said = announce(BOB, 40000, Dice())
    forged = {"port": 40001, "nonce": bytes(16), "tag": bytes(16)}[change]
    neighbours = knowing(BOB)
    seen(neighbours, replace(said, **{change: forged}), AT, 1.0)
    assert neighbours.events() == []


def test_an_announcement_changes_hourly_and_with_key_and_port():
    announcer = Announcer(ALICE, 40000, Dice(), 5.0)
    first = announcer.announcement
    assert announcer.get_timer() == 5.0 + ROTATE_AFTER
    announcer.handle_timer(4.0 + ROTATE_AFTER)
    announcer.set_identity(ALICE, 40000, 9.0)
    assert announcer.announcement == first
    announcer.handle_timer(5.0 + ROTATE_AFTER)
    second = announcer.announcement
    assert not {first.label, first.nonce, first.tag} & {second.label, second.nonce, second.tag}
    announcer.set_identity(BOB, 40000, 9999.0)
    assert announcer.get_timer() == 9999.0 + ROTATE_AFTER
    assert announcer.announcement not in (first, second)


def test_a_peer_stays_while_its_announcement_changes():
    dice, neighbours = Dice(), knowing(BOB)
    old, new = announce(BOB, 40000, dice), announce(BOB, 40000, dice)
    seen(neighbours, old, AT, 1.0)
    seen(neighbours, new, AT, 2.0)
    gone(neighbours, old.label, 3.0)
    gone(neighbours, "never seen", 3.0)
    assert neighbours.events() == [lan(BOB, "192.168.1.7:40000", at=1.0)]
    gone(neighbours, new.label, 4.0)
    assert neighbours.events() == [LanPeerGone(BOB, 4.0)]


def test_a_peer_elsewhere_on_the_lan_is_told_again():
    neighbours, said = knowing(BOB), announce(BOB, 40000, Dice())
    seen(neighbours, said, AT, 1.0)
    seen(neighbours, said, AT, 2.0)
    seen(neighbours, said, (ip_address("192.168.1.8"),), 3.0)
    assert neighbours.events()[1:] == [lan(BOB, "192.168.1.8:40000", at=3.0)]


def test_a_label_that_passes_to_another_peer():
    dice, neighbours = Dice(), knowing(ALICE, BOB)
    said = announce(BOB, 40000, dice)
    seen(neighbours, said, AT, 1.0)
    seen(neighbours, replace(announce(ALICE, 9, dice), label=said.label), AT, 2.0)
    assert neighbours.events()[1:] == [lan(ALICE, "192.168.1.7:9", at=2.0), LanPeerGone(BOB, 2.0)]


def test_who_becomes_known_later_is_recognised_and_who_ceases_to_be_is_forgotten():
    neighbours = knowing()
    seen(neighbours, announce(BOB, 40000, Dice()), AT, 1.0)
    assert neighbours.get_timer() is None
    neighbours.set_known([ALICE], 2.0)
    assert neighbours.events() == []
    neighbours.set_known([ALICE, BOB], 3.0)
    assert neighbours.events() == [lan(BOB, "192.168.1.7:40000", at=3.0)]
    neighbours.set_known([ALICE], 4.0)
    assert neighbours.events() == []
    neighbours.set_known([BOB], 5.0)
    assert neighbours.events() == [lan(BOB, "192.168.1.7:40000", at=5.0)]


def test_only_what_can_be_on_this_lan_is_told():
    said = announce(BOB, 40000, Dice())
    texts = ["198.51.100.7", "2001:db8::7", "fe80::7", "127.0.0.1", "224.0.0.1", "0.0.0.0", "fd00::7"]
    neighbours = knowing(BOB)
    seen(neighbours, said, map(ip_address, texts), 1.0)
    assert neighbours.events() == [lan(BOB, "[fd00::7]:40000", at=1.0)]
    seen(neighbours, said, map(ip_address, texts[:1]), 3.0)
    assert neighbours.events() == [LanPeerGone(BOB, 3.0)]
    assert neighbours.drops[Drop.ELSEWHERE]


def test_what_an_interface_heard_goes_with_it():
    dice, neighbours = Dice(), knowing(ALICE, BOB)
    seen(neighbours, announce(ALICE, 9, dice), AT, 1.0)
    for interface in ("eth0", "wlan0"):
        seen(neighbours, announce(BOB, 9, dice), [ip_address(f"10.0.0.{len(interface)}")], 1.0, interface)
    neighbours.events()
    neighbours.interface_gone("eth0", 2.0)
    assert neighbours.events() == [LanPeerGone(ALICE, 2.0), lan(BOB, "10.0.0.5:9", at=2.0)]


def test_strangers_take_bounded_memory_and_work(monkeypatch):
    trials = []
    monkeypatch.setattr(mdns, "TRIALS_BURST", 10)
    monkeypatch.setattr(mdns, "TRIALS_PER_SECOND", 2)
    dice, neighbours = Dice(), Neighbours(0.0)
    neighbours.set_known([ALICE, BOB], 0.0)
    for _ in range(MAX_SEEN * 3):
        seen(neighbours, announce(MALLORY, 9, dice), AT, 0.0)
        trials.append(neighbours.drops[Drop.STRANGER])
    assert trials[-1] == 5
    # and yet who is one of us gets its turn as time passes, without being heard again
    seen(neighbours, announce(BOB, 40000, dice), AT, 0.0)
    now, turns = 0.0, 0
    while (timer := neighbours.get_timer()) is not None:
        assert timer > now
        now, turns = timer, turns + 1
        neighbours.handle_timer(now)
    assert turns <= MAX_SEEN
    assert [event.key for event in neighbours.events()] == [BOB]


def test_strangers_do_not_displace_peers():
    dice, neighbours = Dice(), knowing(BOB)
    said = announce(BOB, 40000, dice)
    seen(neighbours, said, AT, 0.0)
    for _ in range(MAX_SEEN + 1):
        seen(neighbours, announce(MALLORY, 9, dice), AT, 0.0)
    gone(neighbours, said.label, 1.0)
    assert neighbours.events() == [lan(BOB, "192.168.1.7:40000"), LanPeerGone(BOB, 1.0)]


def test_who_repeats_an_announcement_adds_few_endpoints():
    neighbours, said = knowing(BOB), announce(BOB, 40000, Dice())
    for n in range(50):
        addresses = [ip_address(f"10.0.{n}.{m}") for m in range(1, 20)]
        seen(neighbours, replace(said, label=f"label{n}"), addresses, float(n))
    assert max(len(event.endpoints) for event in neighbours.events()) == 8
    for n in range(46, 50):
        gone(neighbours, f"label{n}", 99.0)
    assert neighbours.events()[-1] == LanPeerGone(BOB, 99.0)


@given(st.integers(-1, 70000), st.dictionaries(st.sampled_from([b"n", b"t", b"x"]), st.none() | st.binary(max_size=40)))
def test_any_records_are_an_announcement_or_none(port, pairs):
    said = parse_announcement("label", port, pairs)
    if said is not None:
        assert said == Announcement("label", port, pairs[b"n"], pairs[b"t"])
        neighbours = knowing(ALICE)
        seen(neighbours, said, AT, 0.0)
        assert neighbours.events() == []


def test_an_announcement_survives_its_records():
    said = announce(ALICE, 40000, Dice())
    pairs = {key.encode(): value for key, value in said.pairs().items()}
    assert parse_announcement(said.label, 40000, pairs) == said
    assert parse_announcement(said.label, 0, pairs) is None
    assert parse_announcement(said.label, 40000, {b"n": pairs[b"n"]}) is None
