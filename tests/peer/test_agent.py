"""All paths together on a virtual clock: what may be applied, what is told, how eagerly the zone is followed."""

import random
from dataclasses import replace
from ipaddress import ip_network

import pytest

from wgdisco.api import PathWord, Reason
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.peer.actions import Initiate, SetPeer
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.news import Found, PathChanged, Refused
from wgdisco.peer.path import DEAD_AFTER, PUNCH_OFFSETS
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import (
    DeviceGone,
    DeviceStatus,
    PathSeen,
    PeerHandshake,
    PeerStatus,
    PeerWanted,
    RawReceived,
)
from wgdisco.tunnel.messages import REJECT_AFTER_TIME

ALICE, BOB, CAROL, REGISTRY, STRANGER = (PublicKey(bytes([number] * 32)) for number in range(1, 6))
TUNNEL = (ip_network("10.0.0.0/24"), ip_network("fd00:77::/64"))
AT_REGISTRY = Endpoint.from_text("198.51.100.10:51820")
AT_BOB = Endpoint.from_text("203.0.113.10:51820")
AT_CAROL = Endpoint.from_text("203.0.113.30:51820")
OWN_ADDRESS = Endpoint.from_text("192.168.1.10:51820")
REFLEXIVE = Endpoint.from_text("192.0.2.10:40001")
START = 500.0

PEERS = (
    PeerConfig(REGISTRY, endpoint=AT_REGISTRY, persistent_keepalive=25),
    PeerConfig(BOB, persistent_keepalive=25),
    PeerConfig(CAROL),
)


def status(*peers: PeerStatus) -> DeviceStatus:
    return DeviceStatus(ALICE, 51820, 0, peers, {})


def counted(key: PublicKey, handshake: float | None = None, unanswered: float | None = None) -> PeerStatus:
    return PeerStatus(key, AT_BOB, (), False, 25, handshake, None, handshake, unanswered, 0, 0)


@pytest.fixture
def agent() -> Agent:
    ourselves = Ourselves(ALICE, TUNNEL, (REGISTRY,), frozenset([OWN_ADDRESS]))
    agent = Agent(PEERS, ourselves, START)
    agent.handle_timer(START)
    agent.actions()
    agent.news()
    return agent


class TestWhatMayBeApplied:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("127.0.0.1:51820", "loopback"),
            ("127.255.255.254:1", "loopback"),
            ("[::1]:51820", "loopback"),
            ("169.254.1.1:51820", "not a unicast address beyond the link"),
            ("[fe80::1]:51820", "not a unicast address beyond the link"),
            ("0.0.0.0:51820", "not a unicast address beyond the link"),
            ("[::]:51820", "not a unicast address beyond the link"),
            ("224.0.0.251:5353", "not a unicast address beyond the link"),
            ("[ff02::fb]:5353", "not a unicast address beyond the link"),
            ("10.0.0.2:51820", "inside the tunnel"),
            ("[fd00:77::2]:51820", "inside the tunnel"),
            ("[::ffff:10.0.0.2]:51820", "inside the tunnel"),
            ("192.168.1.10:51820", "our own"),
        ],
    )
    def test_what_must_not_be_is_refused_and_told(self, agent, text, why):
        endpoint = Endpoint.from_text(text)
        agent.instance_found(BOB, endpoint, START + 1)
        assert agent.news() == [Refused(BOB, endpoint, why, START + 1)]
        assert agent.actions() == []

    @pytest.mark.parametrize(
        "text",
        ["203.0.113.10:51820", "[2001:db8::1]:51820", "192.168.1.11:51820", "192.168.1.10:51821", "100.64.0.1:7"],
    )
    def test_another_host_or_port_may_be(self, agent, text):
        endpoint = Endpoint.from_text(text)
        agent.instance_found(BOB, endpoint, START + 1)
        assert agent.actions() == [SetPeer(BOB, endpoint, 25), Initiate(BOB, (endpoint,))]

    def test_what_the_zone_says_of_our_own_key_is_ours(self, agent):
        agent.instance_found(ALICE, REFLEXIVE, START)
        assert (agent.actions(), agent.news()) == ([], [])
        agent.instance_found(BOB, REFLEXIVE, START + 1)
        assert agent.news() == [Refused(BOB, REFLEXIVE, "our own", START + 1)]
        agent.instance_gone(ALICE, START + 2)
        agent.actions()
        agent.instance_found(BOB, REFLEXIVE, START + 3)
        assert SetPeer(BOB, REFLEXIVE, 25) in agent.actions()

    def test_a_refused_endpoint_leaves_the_one_before_in_use(self, agent):
        agent.instance_found(BOB, AT_BOB, START)
        agent.instance_found(BOB, Endpoint.from_text("127.0.0.1:51820"), START + 1)
        agent.actions()
        agent.handle_timer(START + 1)
        assert [action for action in agent.actions() if action.key == BOB] == [Initiate(BOB, (AT_BOB,))]

    def test_nobody_we_do_not_know_is_ever_applied(self, agent):
        agent.instance_found(STRANGER, AT_BOB, START)
        agent.instance_gone(STRANGER, START)
        agent.device_event(PeerHandshake(STRANGER, AT_BOB, START))
        agent.device_event(PathSeen(STRANGER, AT_BOB, START))
        agent.device_event(PeerWanted(STRANGER, START))
        agent.device_status(status(counted(STRANGER, START, START)), START + 1000)
        assert (agent.actions(), agent.news()) == ([], [])


class TestFollowingTheDevice:
    def test_it_begins_with_the_registry_whose_endpoint_the_conf_gives(self):
        agent = Agent(PEERS, Ourselves(ALICE, TUNNEL), START)
        assert [(news.key, news.path, news.reason, news.endpoints) for news in agent.news()] == [
            (REGISTRY, PathWord.PUNCHING, Reason.NO_UDP_ANSWER, (AT_REGISTRY,)),
            (BOB, PathWord.PUNCHING, Reason.PEER_OFFLINE, ()),
            (CAROL, PathWord.IDLE, Reason.NOT_YET_TRIED, ()),
        ]
        # The first initiation to a configured endpoint is the device's own.
        due = START + PUNCH_OFFSETS[1]
        assert agent.get_timer() == due
        agent.handle_timer(due)
        assert agent.actions() == [Initiate(REGISTRY, (AT_REGISTRY,))]

    @pytest.mark.parametrize("event", [PeerHandshake, PathSeen])
    def test_an_authenticated_packet_makes_a_path(self, agent, event):
        agent.instance_found(BOB, AT_BOB, START)
        agent.news()
        agent.device_event(event(BOB, AT_BOB, START + 1))
        assert agent.news() == [PathChanged(BOB, PathWord.DIRECT, None, (AT_BOB,), START + 1)]
        agent.device_event(event(BOB, AT_BOB, START + 2))
        assert agent.news() == []

    def test_a_path_that_works_is_left_alone(self, agent):
        agent.device_event(PeerHandshake(BOB, AT_BOB, START))
        agent.device_event(PeerHandshake(REGISTRY, AT_REGISTRY, START))
        agent.actions()
        agent.instance_found(BOB, AT_CAROL, START + 1)
        agent.instance_gone(BOB, START + 2)
        agent.handle_timer(START + 60)
        assert agent.actions() == []
        assert agent.get_timer() is None

    def test_when_the_zone_is_silent_only_the_registry_is_asked_whether_it_still_knows_us(self, agent):
        agent.device_event(PeerHandshake(BOB, AT_BOB, START))
        agent.device_event(PeerHandshake(REGISTRY, AT_REGISTRY, START))
        agent.actions()
        agent.registry_reachable(False, START + 3)
        assert agent.actions() == [SetPeer(REGISTRY, AT_REGISTRY, 25), Initiate(REGISTRY, (AT_REGISTRY,))]

    def test_a_packet_for_a_lazy_peer_opens_its_path(self, agent):
        agent.instance_found(CAROL, AT_CAROL, START)
        assert agent.actions() == []
        agent.device_event(PeerWanted(CAROL, START + 1))
        assert agent.actions() == [SetPeer(CAROL, AT_CAROL, 0), Initiate(CAROL, (AT_CAROL,))]

    def test_a_dead_path_is_told_and_tried_again(self, agent):
        agent.device_event(PeerHandshake(BOB, AT_BOB, START))
        agent.news()
        agent.device_status(status(counted(BOB, START, START + 50)), START + 50 + DEAD_AFTER)
        assert agent.actions() == [SetPeer(BOB, AT_BOB, 25), Initiate(BOB, (AT_BOB,))]
        (news,) = agent.news()
        assert (news.path, news.endpoints) == (PathWord.PUNCHING, (AT_BOB,))

    def test_other_events_are_none_of_its_business(self, agent):
        agent.device_event(RawReceived(b"", AT_BOB))
        agent.device_event(DeviceGone("deleted"))
        assert (agent.actions(), agent.news()) == ([], [])

    def test_the_next_deadline_is_the_earliest_of_all(self, agent):
        agent.instance_found(BOB, AT_BOB, START + 0.05)
        assert agent.get_timer() == pytest.approx(START + PUNCH_OFFSETS[1])
        agent.handle_timer(START + PUNCH_OFFSETS[1])
        assert agent.get_timer() == pytest.approx(START + 0.05 + PUNCH_OFFSETS[1])


class TestFollowingTheZone:
    def test_found_is_told_before_what_is_done_about_it(self, agent):
        agent.instance_found(BOB, AT_BOB, START + 1)
        assert agent.news() == [
            Found(BOB, AT_BOB, START + 1),
            PathChanged(BOB, PathWord.PUNCHING, Reason.NO_UDP_ANSWER, (AT_BOB,), START + 1),
        ]

    def test_gone_from_the_zone_there_is_nothing_left_to_try(self, agent):
        agent.instance_found(BOB, AT_BOB, START)
        agent.news()
        agent.instance_gone(BOB, START + 1)
        assert agent.news() == [PathChanged(BOB, PathWord.PUNCHING, Reason.PEER_OFFLINE, (), START + 1)]

    def test_a_registry_that_forgot_us_gets_another_handshake(self, agent):
        agent.device_event(PeerHandshake(REGISTRY, AT_REGISTRY, START))
        agent.device_event(PeerHandshake(BOB, AT_BOB, START))
        agent.instance_found(ALICE, REFLEXIVE, START)
        agent.actions()
        agent.instance_gone(ALICE, START + 30)
        assert agent.actions() == [SetPeer(REGISTRY, AT_REGISTRY, 25), Initiate(REGISTRY, (AT_REGISTRY,))]

    def test_the_reason_follows_whether_the_registry_answers(self, agent):
        report = agent.report(counted(BOB))
        assert (report.path, report.reason) == ("punching", "peer offline")
        agent.registry_reachable(False, START)
        assert agent.report(counted(BOB)).reason == "registry unreachable"
        agent.registry_reachable(True, START)
        assert agent.report(counted(BOB)).reason == "peer offline"

    def test_settled_is_when_every_path_that_is_wanted_works(self, agent):
        assert not agent.all_live()
        agent.device_event(PeerHandshake(REGISTRY, AT_REGISTRY, START))
        assert not agent.all_live()
        agent.device_event(PeerHandshake(BOB, AT_BOB, START))
        assert agent.all_live()
        agent.device_event(PeerWanted(CAROL, START))
        assert not agent.all_live()

    def test_a_lazy_path_that_has_run_out_is_not_missed(self, agent):
        for key in (REGISTRY, BOB, CAROL):
            agent.device_event(PeerHandshake(key, AT_BOB, START))
        now = START + REJECT_AFTER_TIME
        fresh = replace(counted(BOB, now), key=BOB)
        agent.device_status(status(fresh, counted(CAROL, START)), now)
        assert agent.report(counted(CAROL)).path == "stale"
        assert agent.all_live()


class TestReport:
    def test_the_endpoint_in_use_and_where_it_came_from(self, agent):
        agent.instance_found(BOB, AT_BOB, START)
        agent.device_event(PeerHandshake(BOB, AT_BOB, START))
        report = agent.report(counted(BOB, START))
        assert (report.path, report.reason, report.endpoint, report.endpoint_from) == (
            "direct",
            None,
            str(AT_BOB),
            "zone",
        )

    def test_roamed_to_an_endpoint_nobody_published(self, agent):
        agent.device_event(PathSeen(BOB, AT_BOB, START))
        assert agent.report(counted(BOB, START)).endpoint_from == "packet"


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_events_applies_what_must_not_be(seed):
    """Whatever the zone and the device say in whatever order: no forbidden endpoint, no unknown peer, no lost clock."""
    dice = random.Random(seed)
    agent = Agent(PEERS, Ourselves(ALICE, TUNNEL, (REGISTRY,), frozenset([OWN_ADDRESS])), START)
    bad = [Endpoint.from_text(text) for text in ("127.0.0.1:1", "10.0.0.9:51820", "[fe80::1]:2", str(OWN_ADDRESS))]
    endpoints = [AT_BOB, AT_CAROL, AT_REGISTRY, *bad]
    keys = [ALICE, BOB, CAROL, REGISTRY, STRANGER]
    now = START
    for _ in range(400):
        now += dice.choice([0.0, 0.01, 1.0, 200.0])
        key, endpoint = dice.choice(keys), dice.choice(endpoints)
        match dice.randrange(7):
            case 0 | 1:
                agent.instance_found(key, endpoint, now)
            case 2:
                agent.instance_gone(key, now)
            case 3:
                agent.device_event(PeerHandshake(key, dice.choice([AT_BOB, AT_CAROL]), now))
            case 4:
                agent.device_event(PeerWanted(key, now))
            case 5:
                agent.device_status(status(counted(key, now - dice.choice([0, 200]), now - 10)), now)
            case 6:
                agent.registry_reachable(dice.random() < 0.5, now)
        agent.handle_timer(now)
        for action in agent.actions():
            applied = (action.endpoint,) if isinstance(action, SetPeer) else action.endpoints
            assert action.key in {BOB, CAROL, REGISTRY}
            assert 0 < len(applied) <= 8
            assert not set(applied) & set(bad)
        deadline = agent.get_timer()
        assert deadline is None or deadline > now
