"""The demo as a picture."""

from ipaddress import ip_address
from xml.etree import ElementTree as ET

from wgdisco.lab.picture import to_svg
from wgdisco.lab.scenario import Report
from wgdisco.lab.timeline import Shown

OUTSIDE = {
    host: ip_address(text)
    for host, text in (("registry", "198.51.100.10"), ("alice", "192.0.2.10"), ("bob", "203.0.113.10"))
}
NAT = {"alice": "full-cone", "bob": "symmetric-random"}


def texts(report: Report, shown=()) -> list[str]:
    root = ET.fromstring(to_svg(report, OUTSIDE, shown))
    return [element.text for element in root.iter() if element.text and element.text.strip()]


def test_it_shows_the_nats_where_each_was_seen_and_the_time_it_took():
    drawn = texts(Report(NAT, True, time_to_direct_ms=12.3, endpoints={"alice": "192.0.2.10:4", "bob": None}))
    assert {"full-cone", "symmetric-random", "192.0.2.10:4", "203.0.113.10"} <= set(drawn)
    assert "direct tunnel" in drawn
    assert "12 ms after bob's start" in drawn


def test_a_run_that_failed_is_not_drawn_as_direct():
    drawn = texts(Report(NAT, False, "no direct path"))
    assert "no direct tunnel" in drawn
    assert "direct tunnel" not in drawn


def test_what_was_said_is_there_whatever_it_is_and_the_last_of_much():
    drawn = texts(Report(NAT), [Shown(at / 10, "bob", f"<{at}> & on", False) for at in range(100)])
    assert "<99> & on" in drawn
    assert "<0> & on" not in drawn
