"""What the network looks like: histories, reports and rows, without a socket."""

import json
from dataclasses import replace

import pytest

from tests.registry.test_membership import NETWORK
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.paths import PathRecord
from wgdisco.registry import path_reports
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Member, Put, Remove, Role
from wgdisco.registry.histories import LENGTH, Histories
from wgdisco.registry.membership import Membership
from wgdisco.registry.view import PIECE_SIZE, View, view_json
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PeerHandshake, PeerStatus


def key(number):
    return PublicKey(bytes([number]) * 32)


ALICE, BOB, ADMIN = (
    Member(name, key(number), number, ("all",), 0.0, proven=True, role=role)
    for number, name, role in ((2, "alice", Role.MEMBER), (3, "bob", Role.MEMBER), (4, "admin", Role.ADMIN))
)
TO_BOB = PathRecord(BOB.public_key.to_text(), "direct")


@pytest.fixture
def membership():
    return Membership([NETWORK, ALICE, BOB, ADMIN])


@pytest.fixture
def view(membership):
    directory = Directory(DeviceConfig(), ())
    directory.set_peers([PeerConfig(member) for member in membership.members], 0.0)
    return View(membership, directory, {BOB.public_key: 1_600_000_000.7})


def status(rx=0, received_at=None):
    peer = PeerStatus(ALICE.public_key, None, (), False, 0, None, None, received_at, None, rx, 0)
    return DeviceStatus(None, 0, 0, (peer,), {})


# Histories


def test_a_history_is_what_came_in_each_interval():
    histories = Histories()
    for rx, tx in ((1000, 0), (1000, 0), (1500, 7), (1500, 7), (40, 7)):
        histories.sample({2: (rx, tx)})
    assert histories.of(2) == ([500, 0, 40], [7, 0, 0])  # a new key counts from 0


def test_a_history_is_of_the_last_intervals_and_goes_with_the_traffic_and_the_member():
    histories = Histories()
    for sample in range(LENGTH + 5):
        histories.sample({2: (sample, 0), 3: (min(sample, 1), 0)})
    assert histories.of(2) == ([1] * LENGTH, [0] * LENGTH)
    assert histories.of(3) == ([], [])
    histories.sample({})
    assert histories.of(2) == ([], [])


# Reports


def test_reports_are_bounded_in_all_and_make_room(membership, monkeypatch):
    monkeypatch.setattr(path_reports, "IN_ALL_MAX", 2)
    reports = path_reports.PathReports()
    to_alice = PathRecord(ALICE.public_key.to_text(), "lan")
    assert reports.take(membership, ADMIN, [TO_BOB, to_alice], 0.0) == 2
    assert reports.take(membership, ALICE, [TO_BOB], 0.0) is None
    assert reports.take(membership, ADMIN, [TO_BOB], 0.0) == 1
    assert reports.take(membership, ALICE, [TO_BOB], 0.0) == 1
    membership.apply([Remove(BOB)])
    reports.keep(membership)
    assert reports.take(membership, ADMIN, [to_alice], 0.0) == 1
    assert reports.of(ALICE.number).paths == ()


def test_one_peer_has_one_path(membership):
    reports = path_reports.PathReports()
    assert reports.take(membership, ALICE, [TO_BOB] * 5, 0.0) == 1


# Rows


def test_rows_that_did_not_change_are_the_same_objects(membership, view):
    view.look(status(rx=1), 1_700_000_000.0, 10.0)
    before = view.rows(ADMIN)
    view.look(status(rx=1), 1_700_000_001.3, 11.0)
    assert all(view.rows(ADMIN)[name] is row for name, row in before.items())
    view.look(status(rx=2), 1_700_000_002.0, 12.0)
    after = view.rows(ADMIN)
    assert [after[name] is row for name, row in before.items()] == [False, True, True]


def test_a_member_is_not_told_when_only_the_traffic_of_others_changes(view):
    view.look(status(rx=1), 1_700_000_000.0, 10.0)
    before = view.rows(BOB)
    view.look(status(rx=2), 1_700_000_001.0, 11.0)
    assert all(view.rows(BOB)[name] is row for name, row in before.items())


def test_when_a_member_was_seen_is_unix_time_and_known_from_before(membership, view):
    view.look(status(received_at=9.0), 1_700_000_000.0, 10.0)
    rows = view.rows(ADMIN)
    assert rows[ALICE.public_key.to_text()]["seen_at"] == 1_699_999_999
    assert rows[BOB.public_key.to_text()]["seen_at"] == 1_600_000_000
    assert rows[ADMIN.public_key.to_text()]["seen_at"] is None


def test_a_clock_that_was_set_is_followed(view):
    view.look(status(received_at=9.0), 1_000_000_000.0, 10.0)
    view.look(status(received_at=9.0), 1_700_000_001.0, 11.0)
    assert view.rows(ADMIN)[ALICE.public_key.to_text()]["seen_at"] == 1_699_999_999


def test_a_renewed_key_is_another_row_and_in_the_paths_of_others(membership, view):
    view.reports.take(membership, ALICE, [TO_BOB], 0.0)
    renewed = replace(BOB, public_key=key(9))
    membership.apply([Put(renewed)])
    view.follow()
    view.look(status(), 1_700_000_000.0, 10.0)
    rows = view.rows(ADMIN)
    assert key(9).to_text() in rows
    assert BOB.public_key.to_text() not in rows
    assert rows[ALICE.public_key.to_text()]["paths"][0]["peer"] == key(9).to_text()


def test_an_endpoint_that_is_heard_is_online(view):
    view._directory.observe_event(PeerHandshake(ALICE.public_key, Endpoint.from_text("198.51.100.7:4000"), 5.0))
    view.look(status(), 1_700_000_000.0, 10.0)
    assert view.rows(ADMIN)[ALICE.public_key.to_text()]["online"]
    assert not view.rows(ADMIN)[BOB.public_key.to_text()]["online"]


@pytest.mark.parametrize("count", [0, 1, 50, 5000])
def test_a_view_comes_in_pieces_no_larger_than_a_slow_line_can_take_in_time(count):
    rows = [{"name": f"m{number}", "paths": 20 * [number]} for number in range(count)]
    rows += [{"paths": 1000 * ["x" * 100]} for _ in range(count // 10)]
    pieces = list(view_json({"network": {}}, 7, 8, rows))
    assert max(map(len, pieces)) < PIECE_SIZE + 110_000
    assert json.loads("".join(pieces)) == {"schema": 1, "time": 8, "serial": 7, "network": {}, "members": rows}
