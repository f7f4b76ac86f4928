"""Which address of ours the core asks a datagram to leave from (rule E3); the sockets' part is in io/test_udp.py."""

from dataclasses import replace

import pytest

from tests.tunnel.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Node, Sent, Wire, joined
from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.burst import Burst, OwnAddress
from wgdisco.tunnel.messages import UNDER_LOAD_QUEUE

pytestmark = pytest.mark.rule("E3")

SECOND = Endpoint.from_text("198.51.100.3:51820")


def at(sent: Sent) -> OwnAddress:
    return OwnAddress(sent.destination.address.packed, 1)


def locals_of(wire: Wire, mark: int, kind: int, by: Node) -> list[OwnAddress | None]:
    return [sent.local for sent in wire.since(mark, kind, by=by)]


def at_its_second_address() -> tuple[Wire, Node, Node]:
    """Alice reaches Bob at an address that is his second; the wire brings what is sent there."""
    wire, alice, bob = joined()
    alice.change(bob, endpoint=SECOND)
    original = wire._deliver

    def deliver(sent: Sent) -> None:
        if sent.destination == SECOND:
            bob.device.receive(Burst(sent.data, len(sent.data), 0, at(sent)), sent.source, wire.now)
            if not bob.busy:
                bob.device.handle_handshakes(wire.now)
        else:
            original(replace(sent, source=SECOND) if sent.local == OwnAddress(SECOND.address.packed, 1) else sent)

    wire._deliver = deliver
    return wire, alice, bob


def test_replies_leave_from_the_address_that_was_written_to():
    wire, alice, bob = at_its_second_address()
    alice.ping(bob)
    bob.ping(alice)
    second = OwnAddress(SECOND.address.packed, 1)
    assert locals_of(wire, 0, RESPONSE, bob) == [second]
    assert locals_of(wire, 0, TRANSPORT, bob) == [second]
    assert locals_of(wire, 0, INITIATION, alice) == [None]


def test_a_cookie_reply_too():
    wire, alice, bob = at_its_second_address()
    bob.busy = True
    alice.ping(bob)
    first = wire.log[-1]
    for _ in range(UNDER_LOAD_QUEUE + 1):
        bob.device.receive(Burst(first.data, len(first.data), 0, at(first)), first.source, wire.now)
    wire.settle()
    replies = {sent.local for sent in wire.log if sent.kind == COOKIE_REPLY}
    assert replies == {OwnAddress(SECOND.address.packed, 1)}


def test_it_follows_every_authenticated_packet_and_nothing_else():
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.hold = True
    alice.ping(bob)
    wire.hold = False
    (held,) = wire.held
    elsewhere = OwnAddress(b"\xcb\x00\x71\x09", 7)
    forged = held.data[:-1] + bytes([held.data[-1] ^ 1])
    bob.device.receive(Burst(forged, len(forged), 0, elsewhere), alice.endpoint, wire.now)
    mark = len(wire.log)
    bob.ping(alice)
    assert locals_of(wire, mark, TRANSPORT, bob) == [OwnAddress(bob.endpoint.address.packed, 1)]
    bob.device.receive(Burst(held.data, len(held.data), 0, elsewhere), alice.endpoint, wire.now)
    mark = len(wire.log)
    bob.ping(alice)
    assert [sent.local for sent in wire.since(mark, TRANSPORT, by=bob)] == [elsewhere]


@pytest.mark.rule("T4", "T6")
def test_what_goes_unanswered_is_sent_from_wherever_the_system_likes():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    wire.lose = lambda _sent: True
    alice.ping(bob)
    first, *others = [sent.local for sent in wire.run(60.0) if sent.kind == INITIATION]
    assert first is None, "15 s without an answer"
    assert others
    assert set(others) == {None}


@pytest.mark.rule("T4")
def test_a_retry_forgets_the_address_that_the_first_attempt_left_from():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    wire.run(121.0)
    wire.lose = lambda _sent: True
    mark = len(wire.log)
    alice.ping(bob)  # renews: the session is old
    wire.run(6.0)
    assert locals_of(wire, mark, INITIATION, alice) == [OwnAddress(alice.endpoint.address.packed, 1), None]


@pytest.mark.rule("E4", "E5")
@pytest.mark.parametrize("change", [{"fwmark": 7}, {"listen_port": 9999}])
def test_another_mark_or_port_is_another_way_out(change):
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    alice.device.apply(replace(alice.device.config(), **change), wire.now)
    mark = len(wire.log)
    alice.ping(bob)
    assert locals_of(wire, mark, TRANSPORT, alice) == [None]
    bob.ping(alice)
    alice.device.apply(alice.device.config(), wire.now)
    mark = len(wire.log)
    alice.ping(bob)
    assert locals_of(wire, mark, TRANSPORT, alice) == [OwnAddress(alice.endpoint.address.packed, 1)]


def test_an_endpoint_that_is_set_again_has_no_address_of_ours_yet():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    peer = alice.device.peers[bob.key]
    alice.device.configure_peer(peer, None, None, None, wire.now)
    mark = len(wire.log)
    alice.ping(bob)
    alice.device.configure_peer(peer, None, bob.endpoint, None, wire.now)
    alice.ping(bob)
    assert locals_of(wire, mark, TRANSPORT, alice) == [OwnAddress(alice.endpoint.address.packed, 1), None]


def test_an_endpoint_that_is_set_has_no_address_of_ours_yet():
    wire, alice, bob = joined()
    alice.ping(bob)
    bob.ping(alice)
    alice.change(bob, endpoint=SECOND)
    mark = len(wire.log)
    alice.ping(bob)
    assert locals_of(wire, mark, TRANSPORT, alice) == [None]
