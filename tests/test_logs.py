import json
import logging
import re
import time
from ipaddress import ip_network

import pytest

from wgdisco import logs
from wgdisco.keys import PresharedKey, PrivateKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig

LOG = logging.getLogger("wgdisco.somewhere")
FIELDS = {
    "at": 12.5,
    "peer": "K=",
    "endpoints": ["192.0.2.1:1", "[2001:db8::1]:2"],
    "reason": None,
    "left": [],
    "count": 0,
}


@pytest.fixture(autouse=True)
def _restored():
    root, own = logging.getLogger(), logging.getLogger("wgdisco")
    before = (root.level, root.handlers[:], own.level)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    own.setLevel(before[2])


def lines(capsys) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


class TestText:
    def test_one_line_an_event_for_people(self, capsys):
        logs.configure("text")
        LOG.info("direct", extra={"fields": FIELDS})
        LOG.warning("registry unreachable")
        first, second = lines(capsys)
        assert re.fullmatch(r"\d\d:\d\d:\d\d direct peer=K= endpoints=192.0.2.1:1,\[2001:db8::1\]:2 count=0", first)
        assert re.fullmatch(r"\d\d:\d\d:\d\d warning: registry unreachable", second)

    def test_an_exception_follows_its_line(self, capsys):
        logs.configure("text")
        try:
            raise ValueError("no such thing")
        except ValueError:
            LOG.exception("failed")
        said = lines(capsys)
        assert said[0].endswith("error: failed")
        assert said[-1] == "ValueError: no such thing"


class TestJson:
    def test_one_object_a_line(self, capsys):
        logs.configure("json")
        LOG.warning("direct", extra={"fields": FIELDS})
        (line,) = lines(capsys)
        assert json.loads(line) == {"schema": 1, "level": "warning", "event": "direct", **FIELDS}

    def test_without_a_time_of_its_own_an_event_has_the_boot_clocks(self, capsys):
        logs.configure("json")
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        LOG.info("started")
        (line,) = lines(capsys)
        assert before <= json.loads(line)["at"] <= time.clock_gettime(time.CLOCK_BOOTTIME)

    def test_what_is_no_json_value_is_shown_as_text(self, capsys):
        logs.configure("json")
        LOG.info("started", extra={"fields": {"network": ip_network("10.0.0.0/24")}})
        (line,) = lines(capsys)
        assert json.loads(line)["network"] == "10.0.0.0/24"

    def test_an_exception_stays_in_the_line(self, capsys):
        logs.configure("json")
        try:
            raise ValueError("no such thing")
        except ValueError:
            LOG.exception("failed")
        (line,) = lines(capsys)
        assert json.loads(line)["exception"].endswith("ValueError: no such thing")


class TestLevels:
    def test_debug_only_when_asked_for_and_only_our_own(self, capsys):
        other = logging.getLogger("another.library")
        for verbose, expected in ((False, ["info", "warning"]), (True, ["debug", "info", "warning"])):
            logs.configure("json", verbose)
            LOG.debug("small")
            LOG.info("event")
            other.info("chatter")
            other.warning("trouble")
            assert [json.loads(line)["level"] for line in lines(capsys)] == expected

    def test_configured_twice_says_things_once(self, capsys):
        logs.configure("text")
        logs.configure("json")
        LOG.info("event")
        assert len(lines(capsys)) == 1


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_key_is_shown_even_when_somebody_logs_a_whole_configuration(style, capsys):
    private, preshared = PrivateKey(bytes(range(32))), PresharedKey(bytes(range(32, 64)))
    config = DeviceConfig(private, peers=(PeerConfig(private.public_key(), preshared),))
    logs.configure(style, verbose=True)
    LOG.debug("%r %s", config, config, extra={"fields": {"config": config, "key": private, "psk": [preshared]}})
    (line,) = lines(capsys)
    for secret in (private, preshared):
        assert secret.to_text() not in line
        assert secret.raw.hex() not in line
        assert repr(secret.raw)[2:-1] not in line
