"""Observations folded into the zone, on a virtual clock."""

import random
from dataclasses import replace
from ipaddress import ip_network

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.registry.directory import LIVE_FOR, Directory, Handshaken, Published, Withdrawn
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, PathSeen, PeerHandshake, PeerStatus, PeerWanted

ALICE, BOB, CAROL, STRANGER = (PublicKey(bytes([number] * 32)) for number in range(1, 5))
ALLOWED = {key: (ip_network(f"10.0.0.{number}/32"),) for number, key in enumerate((ALICE, BOB, CAROL), start=1)}
TUNNEL = (ip_network("10.0.0.0/24"), ip_network("2001:db8:77::/64"))
AT_ALICE = Endpoint.from_text("192.0.2.10:40001")
AT_BOB = Endpoint.from_text("203.0.113.10:51820")
MOVED = Endpoint.from_text("203.0.113.20:51821")
PRIVATE = ["192.168.1.10:51820", "172.31.0.1:5", "100.64.0.9:5", "127.0.0.1:5", "169.254.7.7:5", "[fc00::1]:5"]
INSIDE = ["10.0.0.2:51820", "[2001:db8:77::2]:51820"]
START = 1000.0


def make(exact: bool = False, **endpoints: Endpoint) -> Directory:
    peers = tuple(
        PeerConfig(key, endpoint=endpoints.get(name), allowed_ips=ALLOWED[key])
        for name, key in (("alice", ALICE), ("bob", BOB), ("carol", CAROL))
    )
    return Directory(DeviceConfig(peers=peers), TUNNEL, exact)


def counted(key: PublicKey, received: float | None, endpoint: Endpoint | None = AT_BOB) -> PeerStatus:
    return PeerStatus(key, endpoint, ALLOWED[key], False, 0, None, None, received, None, 0, 0)


def status(*peers: PeerStatus) -> DeviceStatus:
    return DeviceStatus(CAROL, 51820, 0, peers, {})


def zone(directory: Directory) -> dict[PublicKey, Endpoint]:
    return {key: endpoint for key, endpoint, _ in directory.published()}


class TestPublishing:
    def test_nothing_is_before_a_packet_proved_it(self):
        directory = make(alice=AT_ALICE)
        assert zone(directory) == {}
        assert directory.get_timer() is None

    def test_a_handshake_proves_an_endpoint(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        assert directory.published() == ((BOB, AT_BOB, ALLOWED[BOB]),)
        assert directory.events() == [Published(BOB, AT_BOB, START), Handshaken(BOB, AT_BOB, START)]
        assert directory.events() == []

    def test_data_from_elsewhere_moves_it_at_once(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.events()
        directory.observe_event(PathSeen(BOB, MOVED, START + 5))
        assert zone(directory) == {BOB: MOVED}
        assert directory.events() == [Published(BOB, MOVED, START + 5)]
        (entry,) = (entry for entry in directory.entries() if entry.key == BOB)
        assert (entry.seen_at, entry.handshake_at) == (START + 5, START)

    def test_another_handshake_from_there_is_no_change(self):
        directory = make()
        for at in (START, START + 120):
            directory.observe_event(PeerHandshake(BOB, AT_BOB, at))
        assert directory.events() == [
            Published(BOB, AT_BOB, START),
            Handshaken(BOB, AT_BOB, START),
            Handshaken(BOB, AT_BOB, START + 120),
        ]

    def test_the_order_is_the_devices_whoever_came_first(self):
        directory = make()
        for key, endpoint in ((CAROL, MOVED), (BOB, AT_BOB), (ALICE, AT_ALICE)):
            directory.observe_event(PeerHandshake(key, endpoint, START))
        assert [key for key, _, _ in directory.published()] == [ALICE, BOB, CAROL]
        directory.observe_event(PathSeen(BOB, AT_ALICE, START + 1))
        assert [key for key, _, _ in directory.published()] == [ALICE, BOB, CAROL]
        assert [entry.key for entry in directory.entries()] == [ALICE, BOB, CAROL]

    def test_strangers_and_other_events_are_passed_over(self):
        directory = make()
        directory.observe_event(PathSeen(STRANGER, AT_BOB, START))
        directory.observe_event(PeerWanted(BOB, START))
        directory.observe_event(DeviceGone("deleted"))
        assert (zone(directory), directory.events()) == ({}, [])

    @pytest.mark.parametrize("text", PRIVATE + INSIDE)
    def test_a_private_or_inner_source_never_is(self, text):
        source = Endpoint.from_text(text)
        directory = make()
        directory.observe_event(PeerHandshake(BOB, source, START))
        assert zone(directory) == {}
        assert directory.events() == [Handshaken(BOB, source, START)]

    @pytest.mark.parametrize("text", PRIVATE + INSIDE)
    def test_moving_there_takes_the_member_out(self, text):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.observe_event(PathSeen(BOB, Endpoint.from_text(text), START + 1))
        assert zone(directory) == {}
        assert [type(event) for event in directory.events()] == [Published, Handshaken, Withdrawn]


class TestStaleness:
    def test_silence_of_180_seconds_takes_it_out(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.events()
        assert directory.get_timer() == START + LIVE_FOR == START + 180
        directory.observe_status(status(counted(BOB, START)), START + 179.9)
        assert zone(directory) == {BOB: AT_BOB}
        directory.observe_status(status(counted(BOB, START)), START + 180)
        assert zone(directory) == {}
        assert directory.events() == [Withdrawn(BOB, "silent too long", START + 180)]
        assert directory.get_timer() is None

    def test_any_authenticated_packet_counts_as_a_word(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.observe_status(status(counted(BOB, START + 170)), START + 180)
        assert zone(directory) == {BOB: AT_BOB}
        assert directory.get_timer() == START + 350
        directory.observe_status(status(counted(BOB, START + 170)), START + 350)
        assert zone(directory) == {}

    def test_it_remains_an_entry_and_comes_back_with_the_next_packet(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.observe_status(status(), START + 180)
        (entry,) = (entry for entry in directory.entries() if entry.key == BOB)
        assert (entry.endpoint, entry.seen_at, entry.live) == (AT_BOB, START, False)
        directory.events()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START + 500))
        assert zone(directory) == {BOB: AT_BOB}
        assert Published(BOB, AT_BOB, START + 500) in directory.events()

    def test_one_going_takes_no_other_along(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.observe_event(PeerHandshake(ALICE, AT_ALICE, START + 60))
        directory.observe_status(status(), START + 180)
        assert zone(directory) == {ALICE: AT_ALICE}
        assert directory.get_timer() == START + 240

    def test_early_and_repeated_calls_are_harmless(self):
        directory = make()
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.observe_status(status(), START + 180)
        directory.events()
        for _ in range(3):
            directory.observe_status(status(counted(BOB, START)), START + 181)
        assert directory.events() == []


class TestExact:
    """wgsd's way: whatever endpoint the device has, however old or private."""

    def test_the_confs_endpoints_are_there_from_the_start(self):
        assert zone(make(exact=True, alice=AT_ALICE)) == {ALICE: AT_ALICE}

    def test_a_new_peers_is_published_too_and_nobody_is_moved(self):
        directory = make(exact=True, alice=AT_ALICE)
        directory.set_peers([PeerConfig(ALICE, endpoint=MOVED), PeerConfig(STRANGER, endpoint=AT_BOB)], START)
        assert zone(directory) == {ALICE: AT_ALICE, STRANGER: AT_BOB}

    @pytest.mark.parametrize("text", PRIVATE + INSIDE)
    def test_any_source_is_published(self, text):
        directory = make(exact=True)
        directory.observe_event(PeerHandshake(BOB, Endpoint.from_text(text), START))
        assert zone(directory) == {BOB: Endpoint.from_text(text)}

    def test_nothing_grows_too_old(self):
        directory = make(exact=True)
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        directory.events()
        directory.observe_status(status(), START + 100_000)
        assert zone(directory) == {BOB: AT_BOB}
        assert directory.events() == []
        assert directory.report(counted(BOB, START)).path == "stale"


class TestReport:
    def test_the_path_in_a_word_and_why(self):
        directory = make()
        assert (directory.report(counted(BOB, None, None)).path, directory.report(counted(BOB, None)).reason) == (
            "idle",
            "not yet tried",
        )
        directory.observe_event(PeerHandshake(BOB, AT_BOB, START))
        live = directory.report(counted(BOB, START))
        assert (live.path, live.reason, live.endpoint_from) == ("direct", None, "packet")
        at_home = Endpoint.from_text("192.168.1.7:51820")
        directory.observe_event(PathSeen(BOB, at_home, START + 1))
        assert directory.report(counted(BOB, START, at_home)).path == "lan"
        directory.observe_status(status(), START + 500)
        stale = directory.report(counted(BOB, START))
        assert (stale.path, stale.reason) == ("stale", "peer offline")

    @pytest.mark.parametrize("exact", [False, True])
    def test_an_endpoint_no_packet_came_from_is_the_confs(self, exact):
        directory = make(exact=exact, alice=AT_ALICE)
        assert directory.report(counted(ALICE, None, AT_ALICE)).endpoint_from == "conf"
        assert directory.report(counted(ALICE, None, None)).endpoint_from is None


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_zone_holds_what_is_live_and_public(seed):
    dice = random.Random(seed)
    directory = make()
    sources = [AT_ALICE, AT_BOB, MOVED, *(Endpoint.from_text(text) for text in PRIVATE + INSIDE)]
    public = {AT_ALICE, AT_BOB, MOVED}
    told: dict[PublicKey, Endpoint] = {}
    heard: dict[PublicKey, tuple[float, Endpoint]] = {}
    now = START
    for _ in range(500):
        now += dice.choice([0.0, 1.0, 50.0, 170.0])
        key, source = dice.choice([ALICE, BOB, CAROL]), dice.choice(sources)
        match dice.randrange(3):
            case 0 | 1:
                directory.observe_event(dice.choice([PeerHandshake, PathSeen])(key, source, now))
                heard[key] = (now, source)
            case _ if key in heard and now - heard[key][0] < LIVE_FOR:
                heard[key] = (now, heard[key][1])
        peers = [replace(counted(key, at), endpoint=source) for key, (at, source) in heard.items()]
        directory.observe_status(status(*peers), now)
        for event in directory.events():
            if isinstance(event, Published):
                told[event.key] = event.endpoint
            elif isinstance(event, Withdrawn):
                del told[event.key]
        expected = {key: source for key, (at, source) in heard.items() if now - at < LIVE_FOR and source in public}
        assert zone(directory) == told == expected
