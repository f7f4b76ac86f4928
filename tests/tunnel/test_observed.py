"""What changed between two looks at a device that tells nothing."""

from dataclasses import replace

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel.events import DeviceStatus, PathSeen, PeerHandshake, PeerSilent, PeerStatus, PeerWanted
from wgdisco.tunnel.observed import Observed

KEY = PublicKey(bytes(range(32)))
HERE, THERE = Endpoint.from_text("192.0.2.1:1"), Endpoint.from_text("198.51.100.1:2")
QUIET = PeerStatus(KEY, None, (), False, 0, None, None, None, None, 0, 0)
STANDS = replace(QUIET, endpoint=HERE, handshake_at=900.0, handshake_unix=5000.0, rx_bytes=148)


def looks(*peers: PeerStatus, since: float = 1000.0):
    """Events of each look, a second apart; the last status."""
    observed, told, status = Observed(), [], DeviceStatus(None, 0, 0, (), {})
    for number, peer in enumerate(peers):
        status, events = observed.look(DeviceStatus(None, 0, 0, (peer,), {}), since + number)
        told.append(events)
    return told, status.peers[0]


def test_a_session_found_at_first_is_news_while_it_stands():
    assert looks(STANDS)[0] == [[PeerHandshake(KEY, HERE, 1000.0)]]
    assert looks(STANDS, since=900.0 + 180)[0] == [[]]
    assert looks(QUIET, replace(QUIET, endpoint=HERE))[0] == [[], []]


def test_handshakes():
    renewed = replace(STANDS, handshake_at=1000.5, handshake_unix=5100.5, rx_bytes=400)
    told, seen = looks(QUIET, STANDS, STANDS, renewed)
    assert told == [[], [PeerHandshake(KEY, HERE, 1001.0)], [], [PeerHandshake(KEY, HERE, 1003.0)]]
    assert seen.received_at == 1003.0


def test_paths_are_seen_by_what_comes():
    told, seen = looks(STANDS, replace(STANDS, endpoint=THERE), replace(STANDS, endpoint=THERE))
    assert told[1:] == [[], []]  # somebody set it
    assert seen.received_at == 900.0
    told, seen = looks(STANDS, replace(STANDS, endpoint=THERE, rx_bytes=180))
    assert told[1:] == [[PathSeen(KEY, THERE, 1001.0)]]
    assert seen.received_at == 1001.0


def test_a_peer_that_goes_and_comes_begins_anew():
    observed = Observed()
    observed.look(DeviceStatus(None, 0, 0, (STANDS,), {}), 1000.0)
    assert observed.look(DeviceStatus(None, 0, 0, (), {}), 1001.0)[1] == []
    assert observed.look(DeviceStatus(None, 0, 0, (STANDS,), {}), 1002.0)[1] == [PeerHandshake(KEY, HERE, 1002.0)]


@pytest.mark.parametrize("step", [-3600.0, 3600.0], ids=["back", "forward"])
def test_the_clock_is_set(step):
    same = replace(STANDS, handshake_at=900.0 - step)
    renewed = replace(STANDS, handshake_at=1002.0, handshake_unix=5102.0 + step)
    told, seen = looks(STANDS, same)
    assert (told[1], seen.handshake_at) == ([], 900.0)
    told, seen = looks(STANDS, same, renewed)
    assert told[2] == [PeerHandshake(KEY, HERE, 1002.0)]
    assert seen.handshake_at == 1002.0


class TestWishes:
    """What is sent to a peer says that somebody wants it, or misses it."""

    def test_an_initiation_says_that_the_peer_is_wanted(self):
        sent = replace(QUIET, endpoint=HERE, tx_bytes=148)
        told, _ = looks(QUIET, sent, sent, replace(sent, tx_bytes=296))
        assert told == [[], [PeerWanted(KEY, 1001.0)], [], [PeerWanted(KEY, 1003.0)]]
        expired = replace(STANDS, handshake_at=800.0)
        assert looks(expired, replace(expired, tx_bytes=148))[0][1] == [PeerWanted(KEY, 1001.0)]

    def test_one_of_our_own_does_not_nor_its_repetitions(self):
        observed, told = Observed(), []
        observed.begun(KEY, 1000.0)
        for number in range(25):
            peer = replace(QUIET, endpoint=HERE, tx_bytes=148 * number)
            told += observed.look(DeviceStatus(None, 0, 0, (peer,), {}), 1000.0 + 5 * number)[1]
        assert [event.at for event in told] == [1100.0, 1105.0, 1110.0, 1115.0, 1120.0]

    def test_silence(self):
        sends = [replace(STANDS, tx_bytes=1000 * number) for number in range(4)]
        heard = replace(sends[3], rx_bytes=1000, tx_bytes=4000)
        told, _ = looks(*sends, heard, replace(heard, tx_bytes=5000))
        silent = [PeerSilent(KEY, 900.0, 1002.0)], [PeerSilent(KEY, 900.0, 1003.0)]
        assert told[1:] == [[], *silent, [], []]

    def test_an_endpoint_that_we_gave_is_no_news(self):
        observed = Observed()
        observed.look(DeviceStatus(None, 0, 0, (STANDS,), {}), 1000.0)
        observed.moved(KEY, THERE)
        moved = replace(STANDS, endpoint=THERE, rx_bytes=180)
        assert observed.look(DeviceStatus(None, 0, 0, (moved,), {}), 1001.0)[1] == []


def look(observed: Observed, at: float, peer: PeerStatus, **changes):
    """The events of one look."""
    return observed.look(DeviceStatus(None, 0, 0, (peer,), {}), at, **changes)[1]


def test_to_be_heard_where_we_moved_it_is_news_from_the_second_look_on():
    """What the first one counts may have come before."""
    observed = Observed()
    look(observed, 1000.0, STANDS)
    observed.moved(KEY, THERE)
    moved = replace(STANDS, endpoint=THERE, rx_bytes=180)
    assert look(observed, 1001.0, moved) == []
    heard = replace(moved, rx_bytes=300)
    assert look(observed, 1002.0, heard) == [PathSeen(KEY, THERE, 1002.0)]
    assert look(observed, 1003.0, replace(heard, rx_bytes=400)) == []


def test_a_look_from_before_a_move_is_passed_over():
    observed = Observed()
    look(observed, 1000.0, STANDS)
    observed.moved(KEY, THERE)
    before = replace(STANDS, rx_bytes=9000)
    assert look(observed, 1001.0, before, stale={KEY}) == []
    assert observed.known[KEY].endpoint == THERE
    roamed = replace(before, rx_bytes=9100)
    assert look(observed, 1002.0, roamed) == []
    assert look(observed, 1003.0, replace(roamed, rx_bytes=9200)) == []  # it was heard there before
    assert look(observed, 1004.0, replace(roamed, endpoint=THERE, rx_bytes=9300)) == [PathSeen(KEY, THERE, 1004.0)]


def test_the_very_same_peer_did_nothing():
    observed = Observed()
    first, _ = observed.look(DeviceStatus(None, 0, 0, (STANDS,), {}), 1000.0)
    again, events = observed.look(DeviceStatus(None, 0, 0, (STANDS,), {}), 1001.0)
    assert again.peers[0] is first.peers[0]
    assert events == []
