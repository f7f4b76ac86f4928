"""What a member reports of its paths, and when."""

from dataclasses import replace

import pytest

from wgdisco.api import PathWord, PeerReport, Reason
from wgdisco.keys import PublicKey
from wgdisco.paths import PATHS_MAX, PathRecord, PathsRequest
from wgdisco.peer.path_report import FIGURES_INTERVAL, PathReporter

BOB = PublicKey(bytes(range(32)))
DIRECT = PeerReport(BOB.to_text(), "direct", None, "192.0.2.1:7", "packet", [], 1_700_000_000.9, 10, 20, 0, True, "bob")
NEVER = replace(DIRECT, path=PathWord.IDLE.value, reason=Reason.NOT_YET_TRIED.value, latest_handshake=None)


def due(reporter, *peers, at, rtt=None):
    request = reporter.due(peers, lambda _key: rtt, at)
    if request is not None:
        reporter.told(request, at)
    return request


def test_a_path_is_told_as_it_is():
    request = due(PathReporter(), DIRECT, at=0.0, rtt=0.0123456)
    assert request == PathsRequest(
        [PathRecord(BOB.to_text(), "direct", None, "192.0.2.1:7", 12.346, 1_700_000_000, 10, 20)]
    )


def test_what_was_never_tried_is_not_told():
    assert due(PathReporter(), NEVER, at=0.0) is None


@pytest.mark.parametrize("name", ["registry", None])
def test_only_paths_to_members_are_told(name):
    assert due(PathReporter(), replace(DIRECT, name=name), at=0.0) is None


def test_another_word_reason_or_endpoint_is_told_at_once_and_figures_in_a_while():
    reporter = PathReporter()
    assert due(reporter, DIRECT, at=0.0)
    assert due(reporter, DIRECT, at=5.0) is None
    relayed = replace(DIRECT, path="relay", reason=Reason.NO_UDP_ANSWER.value)
    for number, told in enumerate([relayed, replace(relayed, reason=Reason.CLOCK.value), DIRECT]):
        assert due(reporter, told, at=10.0 + number)
    moved = replace(DIRECT, endpoint="192.0.2.2:7")
    assert due(reporter, moved, at=20.0)
    busy = replace(moved, rx_bytes=11)
    assert due(reporter, busy, at=19.0 + FIGURES_INTERVAL) is None
    assert due(reporter, busy, at=20.0 + FIGURES_INTERVAL)
    assert due(reporter, busy, at=1e6) is None


def test_a_path_that_is_gone_is_told_and_a_registry_that_forgot_is_told_all():
    reporter = PathReporter()
    due(reporter, DIRECT, at=0.0)
    assert due(reporter, NEVER, at=5.0) == PathsRequest([])
    due(reporter, DIRECT, at=10.0)
    reporter.begin_anew()
    assert due(reporter, DIRECT, at=11.0)


def test_no_more_are_told_than_a_registry_takes():
    request = due(PathReporter(), *[DIRECT] * (PATHS_MAX + 1), at=0.0)
    assert len(request.paths) == PATHS_MAX
    assert PathsRequest.from_json({"paths": [{"peer": BOB.to_text(), "path": "direct"}] * PATHS_MAX})
