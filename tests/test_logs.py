import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from ipaddress import ip_network

import pytest
from aiohttp.http_exceptions import BadStatusLine

from wgdisco import logs
from wgdisco.invitation import JoinLink
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
    hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook)
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(False)
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


FORGED = "alice\n12:00:00 error: the registry is a liar\x1b[2J\u2028\x85end"


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_others_say_ends_no_line_and_moves_no_cursor(style, capsys):
    logs.configure(style)
    LOG.warning("refused %s", FORGED, extra={"fields": {"name": FORGED, "names": [FORGED]}})
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert err.count("\\n12:00:00 error") == 3


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_join_link_is_shown_to_nobody(style, capsys):
    link = JoinLink(("198.51.100.1:51820",), PrivateKey(bytes(range(32))).public_key(), bytes(16)).to_text()
    logs.configure(style, verbose=True)
    try:
        raise ValueError(f"cannot read {link!r}")
    except ValueError:
        LOG.exception("join %s", link, extra={"fields": {"link": link, "links": [link, "next"]}})
    said = capsys.readouterr().err
    assert link.rpartition("/")[2] not in said
    assert said.count("(a join link)") == 4
    assert "next" in said
    assert style == "text" or json.loads(said)["links"][1] == "next"
    LOG.info("copy all of it, from wgdisco:// to its end")
    assert "wgdisco:// to its end" in capsys.readouterr().err


def test_what_cannot_be_logged_is_told_in_a_line_of_the_same_kind(capsys):
    logs.configure("json")
    LOG.info("%d members", "many")
    LOG.info("names", extra={"fields": {"by_key": {(1, 2): "no JSON"}}})
    first, second = lines(capsys)
    assert json.loads(first)["event"] == "cannot be logged: '%d members' of wgdisco.somewhere (TypeError)"
    assert json.loads(second)["event"] == "cannot be logged: 'names' of wgdisco.somewhere (TypeError)"


EVERYTHING = """
import asyncio, gc, logging, sys, threading, warnings
from wgdisco import logs
from wgdisco.process import run_daemon

class Broken:
    def __del__(self):
        raise RuntimeError("in the end")

async def fail():
    raise ZeroDivisionError("a bug")

async def daemon():
    warnings.warn("old\\nways")
    logging.getLogger("aiohttp.server").error("Error handling request\\nfrom nobody", exc_info=ValueError("bad"))
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start(); thread.join()
    Broken(); gc.collect()
    lost = asyncio.ensure_future(fail())
    await asyncio.sleep(0.01)
    del lost; gc.collect()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())

logs.configure(sys.argv[1])
run_daemon(daemon)
"""


def all_that_goes_wrong(style, **environment):
    """Lines of a daemon in which everything does, and to whom its standard error goes by JOURNAL_STREAM."""
    reading, writing = os.pipe()
    told = os.fstat(writing)
    stream = environment.pop("JOURNAL_STREAM", "{}:{}").format(told.st_dev, told.st_ino)
    with open(reading) as lines:
        command = [sys.executable, "-c", EVERYTHING, style]
        process = subprocess.Popen(command, stderr=writing, env=os.environ | {"JOURNAL_STREAM": stream})
        os.close(writing)
        said = lines.read().splitlines()
    assert process.wait(10) == 1
    return said


def test_every_line_is_json_whoever_says_it_and_whatever_ends_the_program():
    said = [json.loads(line) for line in all_that_goes_wrong("json")]
    assert [one["event"].partition("\n")[0] for one in said[1:]] == [
        "Error handling request",
        "this is a bug",
        "this is a bug",
        "Task exception was never retrieved",
        "this is a bug",
    ]
    assert "old\nways" in said[0]["event"]
    assert [one["level"] for one in said] == ["warning", "error", "critical", "critical", "error", "critical"]
    assert [one["exception"].splitlines()[-1].strip(" |+-") for one in said[1:]][:4] == [
        "ValueError: bad",
        "ZeroDivisionError: division by zero",
        "RuntimeError: in the end",
        "ZeroDivisionError: a bug",
    ]
    assert "ZeroDivisionError: a bug" in said[-1]["exception"]


def test_in_the_journal_every_line_has_a_priority_and_none_a_time():
    said = all_that_goes_wrong("text")
    assert {line[:3] for line in said} == {"<2>", "<3>", "<4>"}
    assert not [line for line in said if re.search(r"\d\d:\d\d:\d\d", line)]
    assert [line for line in said if "this is a bug" in line] == ["<2>critical: this is a bug"] * 3
    assert "<3>ValueError: bad" in said
    assert any("old\\nways" in line for line in said)


def test_where_another_took_the_stream_from_the_journal_there_are_times():
    said = all_that_goes_wrong("text", JOURNAL_STREAM="1:2")
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: .*", said[0])


@pytest.mark.parametrize(("stream", "prefix"), [("{}:{}", "<3>"), ("", "")])
def test_a_command_that_fails_is_one_line_for_the_journal_too(stream, prefix):
    reading, writing = os.pipe()
    told = os.fstat(writing)
    command = [sys.executable, "-m", "wgdisco", "status", "nowhere"]
    environment = os.environ | {"JOURNAL_STREAM": stream.format(told.st_dev, told.st_ino)}
    with open(reading) as lines:
        process = subprocess.Popen(command, stderr=writing, env=environment)
        os.close(writing)
        assert lines.read().startswith(f"{prefix}wgdisco: no wgdisco daemon answers for nowhere")
    assert process.wait(10) == 3


def test_what_is_no_http_is_not_worth_a_line_and_a_bug_in_a_handler_is(capsys):
    logs.configure("json")
    server = logging.getLogger("aiohttp.server")
    server.error("Error handling request from %s", "10.0.0.1", exc_info=BadStatusLine("\x16\x03"))
    server.error("Error handling request from %s", "10.0.0.1", exc_info=ValueError("of ours"))
    (line,) = lines(capsys)
    assert "ValueError: of ours" in json.loads(line)["exception"]
