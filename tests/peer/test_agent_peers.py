"""Peers that come and go while the agent runs."""

from wgdisco.api import PathWord
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.peer.actions import Initiate, SetPeer
from wgdisco.peer.agent import Agent, Ourselves
from wgdisco.peer.news import PathChanged, Refused
from wgdisco.peer.path import PUNCH_OFFSETS
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import PeerHandshake

A = Endpoint.from_text("203.0.113.1:1000")
B = Endpoint.from_text("203.0.113.2:2000")
C = Endpoint.from_text("[2001:db8::3]:3000")


def key(number: int) -> PublicKey:
    return PrivateKey(bytes([number]) * 32).public_key()


OWN, REGISTRY, BOB, CAROL = (key(number) for number in range(1, 5))


def agent(*peers: PeerConfig) -> Agent:
    return Agent(peers, Ourselves(OWN, (), (REGISTRY,)), 0.0)


def peer(whose: PublicKey, endpoint: Endpoint | None = None, keepalive: int = 25) -> PeerConfig:
    return PeerConfig(whose, endpoint=endpoint, persistent_keepalive=keepalive)


def initiated(actions) -> list[tuple[PublicKey, tuple[Endpoint, ...]]]:
    return [(action.key, action.endpoints) for action in actions if isinstance(action, Initiate)]


def test_a_peer_that_comes_is_punched_to_and_one_that_stays_is_left_alone():
    one = agent(peer(REGISTRY, A))
    one.device_event(PeerHandshake(REGISTRY, A, 0.1))
    one.actions()
    one.set_peers((peer(REGISTRY, A), peer(BOB, B)), 1.0)
    one.handle_timer(1.0 + PUNCH_OFFSETS[1])
    assert initiated(one.actions()) == [(BOB, (B,))]
    assert one.is_live(REGISTRY)
    assert not one.is_live(BOB)
    assert not one.all_live()


def test_a_peer_that_goes_takes_its_actions_and_news_along():
    one = agent(peer(REGISTRY, A), peer(BOB))
    one.instance_found(BOB, B, 1.0)
    one.remove_peer(BOB)
    one.remove_peer(BOB)
    assert all(action.key != BOB for action in one.actions())
    assert all(news.key != BOB for news in one.news())
    one.device_event(PeerHandshake(BOB, B, 2.0))
    one.instance_found(BOB, B, 2.0)
    one.instance_gone(BOB, 2.0)
    assert one.actions() == []


def test_a_peer_that_comes_back_begins_anew():
    one = agent(peer(BOB, B))
    one.device_event(PeerHandshake(BOB, B, 0.1))
    one.set_peers((), 1.0)
    assert one.get_timer() is None
    one.news()
    one.set_peers((peer(BOB, B),), 2.0)
    (told,) = one.news()
    assert isinstance(told, PathChanged)
    assert told.path is PathWord.PUNCHING


def test_without_a_keepalive_a_path_waits_and_with_one_it_is_wanted():
    one = agent(peer(BOB, B, keepalive=0))
    one.handle_timer(0.0)
    assert one.actions() == []
    one.set_peers((peer(BOB, B),), 1.0)
    assert one.actions() == [SetPeer(BOB, B, 25), Initiate(BOB, (B,))]


def test_all_that_a_name_resolves_to_is_raced():
    one = agent(peer(REGISTRY))
    assert one.get_timer() is None
    one.set_alternatives(REGISTRY, (A, Endpoint.from_text("127.0.0.1:1"), C), 1.0)
    assert initiated(one.actions()) == [(REGISTRY, (A, C))]
    one.handle_timer(1.0 + PUNCH_OFFSETS[1])
    assert initiated(one.actions()) == [(REGISTRY, (A, C))]
    one.device_event(PeerHandshake(REGISTRY, C, 1.2))
    one.set_alternatives(REGISTRY, (B,), 2.0)
    assert one.actions() == [], "a path that works is left alone"
    one.set_alternatives(CAROL, (B,), 2.0)


def test_our_own_instance_gone_shakes_hands_only_with_registries_that_are_peers():
    one = agent(peer(BOB, B))
    one.instance_gone(OWN, 1.0)
    assert one.actions() == []


def test_an_endpoint_inside_the_tunnel_is_refused_for_a_late_peer_too():
    one = agent()
    one.set_peers((peer(BOB),), 0.0)
    one.instance_found(BOB, Endpoint.from_text("127.0.0.1:5"), 0.0)
    assert any(isinstance(news, Refused) for news in one.news())
    assert one.actions() == []
