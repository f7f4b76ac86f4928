"""What moves a peer's endpoint: rule E1, and what holds where somebody checks the paths."""

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.roaming import SILENT_FOR, Roaming

A, B, RELAY = (Endpoint.from_text(f"203.0.113.{number}:1000") for number in (1, 2, 9))


def checked(endpoint: Endpoint | None) -> Roaming:
    roaming = Roaming({RELAY})
    roaming.is_managed = True
    roaming.set(endpoint, 0.0)
    return roaming


@pytest.mark.rule("E1")
@pytest.mark.parametrize(("managed", "relays"), [(False, {RELAY}), (True, set())])
def test_who_is_not_checked_is_where_it_was_last_heard(managed, relays):
    roaming = Roaming(relays)
    roaming.is_managed = managed
    for at, source in enumerate((A, B, RELAY, A)):
        roaming.heard(source, None, at / 1000)
        assert roaming.endpoint == source


@pytest.mark.parametrize("source", [A, RELAY])
def test_where_there_is_no_endpoint_any_is_one(source):
    roaming = checked(None)
    roaming.heard(source, None, 0.0)
    assert roaming.endpoint == source


@pytest.mark.parametrize("used", [A, RELAY])
def test_what_is_in_use_is_left_when_it_is_silent(used):
    roaming = checked(used)
    roaming.heard(B, None, SILENT_FOR / 2)  # it was chosen just now
    roaming.heard(used, None, SILENT_FOR)
    roaming.heard(B, None, 1.9 * SILENT_FOR)
    assert roaming.endpoint == used
    roaming.heard(B, None, 2 * SILENT_FOR)
    assert roaming.endpoint == B


def test_what_comes_over_the_relay_moves_nothing():
    roaming = checked(A)
    roaming.heard(RELAY, None, 100.0)
    assert roaming.endpoint == A


def test_a_source_is_new_once():
    roaming = checked(A)
    assert [roaming.is_new_source(source) for source in (A, A, B, B, A)] == [True, False, True, False, True]
