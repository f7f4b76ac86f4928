"""What daemons say is read whatever they say."""

import io
import json

import pytest

from wgdisco.errors import LocalError
from wgdisco.lab.timeline import Timeline, describe, now, parse_line
from wgdisco.lab.world import World

KEY = "xScVkH3fUGUv4RrJFfmcqm8rs3SEHr41km6+yffAHw4="
NAMES = {KEY: "alice"}


def line(event: str, **fields: object) -> str:
    return json.dumps({"schema": 1, "at": 12.5, "event": event, **fields}) + "\n"


@pytest.mark.parametrize(
    ("event", "fields", "shown"),
    [
        ("started", {}, "started"),
        ("handshake", {"peer": KEY, "endpoint": "192.0.2.1:5"}, "handshake with alice, seen at 192.0.2.1:5"),
        ("registry_handshake", {}, "handshake with the registry"),
        ("published", {"peer": KEY, "endpoint": "192.0.2.1:5"}, "published alice at 192.0.2.1:5"),
        ("stale", {"peer": KEY}, "alice is stale: out of the zone"),
        ("found", {"peer": KEY, "endpoint": "192.0.2.1:5"}, "found alice in the zone at 192.0.2.1:5"),
        ("punching", {"peer": KEY, "endpoints": ["a:1", "b:2"]}, "punching towards alice at a:1, b:2"),
        ("direct", {"peer": KEY, "endpoint": "192.0.2.1:5"}, "alice answers from 192.0.2.1:5: hole punched"),
        ("path", {"peer": KEY, "path": "stale", "reason": "clock"}, "path to alice is stale (clock)"),
        ("path", {"peer": "B" * 44, "path": "direct", "reason": None}, "path to BBBBBBBB… is direct"),
        ("no zone", {"level": "warning", "server": "x"}, "warning: no zone server=x"),
        ("never heard of", {"peer": KEY}, None),
    ],
)
def test_events_for_people(event: str, fields: dict, shown: str | None) -> None:
    said = parse_line("bob", line(event, **fields))
    assert (said.host, said.at, said.event) == ("bob", 12.5, event)
    assert describe(said, NAMES) == shown


@pytest.mark.parametrize("text", ["Traceback (most recent call last):", "{", "[1]", '{"event": 3}', "null", ""])
def test_what_is_no_event_is_shown_as_it_is(text: str) -> None:
    said = parse_line("bob", text + "\n")
    assert said.event is None
    assert describe(said, NAMES) == text


@pytest.mark.parametrize("at", [None, "noon", {}])
def test_an_event_without_a_usable_time_was_said_now(at: object) -> None:
    before = now()
    assert before <= parse_line("bob", json.dumps({"event": "started", "at": at})).at <= now()


@pytest.mark.usefixtures("needs_lab")
def test_waiting_listening_and_the_end_of_a_daemon() -> None:
    output = io.StringIO()
    said = line("direct", peer=KEY, endpoint="192.0.2.1:5") + line("direct", peer=KEY, endpoint="192.0.2.1:6")
    with World(["bob"]) as world:
        timeline = Timeline(NAMES, output)
        started_at = timeline.start(world.hosts["bob"], ["sh", "-c", f"cat >&2 <<E\n{said}\nE\nsleep 1000"])
        assert timeline.wait(lambda: timeline.last("bob", "direct", KEY) is not None, timeout=5)
        assert not timeline.wait(lambda: timeline.first("alice", "direct") is not None, timeout=0.05)
        assert started_at <= now()
        first, last = timeline.first("bob", "direct", KEY), timeline.last("bob", "direct", KEY)
        assert first is not None
        assert last is not None
        assert [first.fields["endpoint"], last.fields["endpoint"]] == ["192.0.2.1:5", "192.0.2.1:6"]
        assert "\x1b" not in output.getvalue()
    with World(["bob"]) as world:
        timeline = Timeline(NAMES, output)
        timeline.start(world.hosts["bob"], ["sh", "-c", "echo 'wgdisco: port 53 is in use' >&2; exit 1"])
        with pytest.raises(LocalError, match="the daemon on bob ended with status 1: wgdisco: port 53 is in use"):
            timeline.wait(lambda: False, timeout=5)
