"""Every pair of NAT types, on the virtual clock: the registry's orders, its relay, openers and checks."""

from itertools import combinations_with_replacement

import pytest

from tests.sim.host import Host, place
from tests.sim.mesh import MeshMember, MeshRegistry
from tests.sim.nat import PUBLIC, TYPES
from tests.sim.network import Network
from wgdisco.api import PathWord
from wgdisco.endpoint import Endpoint
from wgdisco.peer.agent import PathChanged

PAIRS = list(combinations_with_replacement(TYPES, 2))
EASY = {"public", "firewall", "full-cone", "address-restricted", "port-restricted", "eim-other-port", "open-input"}
OPEN = {"public", "full-cone", "address-restricted"}
PEER_RTT = 0.040


def expected(pair):
    hard = [name for name in pair if name not in EASY]
    if not hard:
        return PathWord.DIRECT
    other = [name for name in pair if name not in hard]
    return PathWord.DIRECT if other and other[0] in OPEN else PathWord.RELAY


class Mesh:
    """A registry and two members, connected to it and not yet to each other."""

    def __init__(self, pair, seed, loss=0.0):
        self.network = Network(seed)
        self.network.delay = PEER_RTT / 8
        self.registry_host = place(self.network, PUBLIC, 1, "10.9.0.1", relays=True)
        self.hosts = [place(self.network, TYPES[name], 2 + n, f"10.9.0.{2 + n}") for n, name in enumerate(pair)]
        everybody = [self.registry_host, *self.hosts]
        for one in everybody:
            for other in everybody:
                if one is not other:
                    self._introduce(one, other)
        self.registry = MeshRegistry(self.registry_host)
        self.members = [MeshMember(host, self.registry_host) for host in self.hosts]
        self.network.clock.run(3)
        for member in self.members:
            member.tell_candidates()
        self.network.clock.run(3 + self.network.random.random() * 2)
        self.network.loss = loss

    def _introduce(self, one: Host, other: Host) -> None:
        more = {"managed": True}
        if other is self.registry_host:
            more |= {"endpoint": self._endpoint(other), "persistent_keepalive": 25}
        one.introduce(other, **more)

    @staticmethod
    def _endpoint(host):
        return Endpoint(host.address, 51820)

    def words(self):
        (a, b), (host_a, host_b) = self.members, self.hosts
        return a.path(host_b), b.path(host_a)


def first(member, word):
    """When the member first told that."""
    return next(
        (
            t.at
            for t in member.told
            if isinstance(t.news, PathChanged)
            and t.news.path is word
            and t.news.key != member._registry.private.public_key()
        ),
        None,
    )


def connect(pair, seed, loss=0.0, seconds=8.0):
    mesh = Mesh(pair, seed, loss)
    a = mesh.members[0]
    mesh.began = mesh.network.now
    mesh.sent = [host.sent for host in mesh.hosts]
    a.want(mesh.hosts[1])
    word = expected(pair)
    mesh.network.clock.run(seconds, until=lambda: mesh.words() == (word, word))
    mesh.took = mesh.network.now - mesh.began
    return mesh


@pytest.mark.parametrize("pair", PAIRS + [pair[::-1] for pair in PAIRS if pair[0] != pair[1]], ids="-".join)
def test_every_pair_connects(pair):
    mesh = connect(pair, 1)
    word = expected(pair)
    assert mesh.words() == (word, word)
