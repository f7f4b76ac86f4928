"""Members of a registry behind NATs that no punching gets through: what their traffic takes, and what ends it."""

import json
import time

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import await_

pytestmark = pytest.mark.usefixtures("needs_lab")


@pytest.fixture(scope="module")
def mesh():
    with read_lab("symmetric-random", "symmetric-random") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        mesh.join("bob")
        await_(lambda: mesh.ping("alice", "bob", 1), "a ping")
        yield mesh


def shown(mesh, name):
    return json.loads(mesh.registry("show", name, "-o", "json"))


def test_they_talk_by_the_relay_which_is_counted_and_publishes_nothing(mesh):
    assert mesh.ping("alice", "bob") == 3
    assert mesh.ping("bob", "alice") == 3
    for one, other in (("alice", "bob"), ("bob", "alice")):
        peer = mesh.peers(one)[other]
        assert (peer["path"], peer["endpoint"]) == ("relay", "198.51.100.10:51820")
        assert shown(mesh, one)["relayed_tx_bytes"] >= 6 * 128
        assert shown(mesh, one)["endpoint"].startswith(str(mesh.lab.outside(one)))


def test_no_ping_is_lost_while_a_key_is_renewed(mesh):
    answered = [mesh.pinging("bob", "alice", 60), mesh.pinging("alice", "bob", 60)]
    mesh.verb("alice", "rotate-key")
    assert [count() for count in answered] == [60, 60]


def test_a_revocation_ends_it_at_once(mesh):
    address, began = mesh.address("bob"), time.monotonic()
    assert mesh.ping("alice", address, 1) == 1
    mesh.registry("revoke", "bob")
    assert mesh.ping("alice", address, 1) == 0
    assert time.monotonic() - began < 5
