from dataclasses import replace

import pytest

from tests.test_api import PEER, REPORT
from wgdisco.api import Reason
from wgdisco.status import REMEDIES, render_status

NOW = 1700000060.0


def test_all_there_is_to_say():
    assert render_status(replace(REPORT, public_key="K=", peers=[replace(PEER, rx_bytes=1536)]), NOW) == "\n".join(
        [
            "interface: alice",
            "  role: member of example.com.",
            "  public key: K=",
            "  listening port: 51820",
            "  engine: userspace (reference)",
            "",
            f"peer: {PEER.public_key}",
            "  path: punching (no UDP answer)",
            "  to do: see whether UDP gets out, here and there (`wgdisco netcheck`)",
            "  preshared key: (hidden)",
            "  endpoint: [2001:db8::1]:51820 (from zone)",
            "  allowed ips: 10.0.0.2/32",
            "  latest handshake: 60 s ago",
            "  transfer: 1.50 KiB received, 2 B sent",
            "  persistent keepalive: every 25 s",
        ]
    )


def test_what_is_not_known_is_left_out():
    bare = replace(
        PEER,
        path="idle",
        reason=None,
        endpoint=None,
        endpoint_from=None,
        allowed_ips=[],
        latest_handshake=None,
        rx_bytes=0,
        tx_bytes=0,
        persistent_keepalive=0,
        preshared_key=False,
    )
    lines = render_status(replace(REPORT, peers=[bare]), NOW).split("\n")
    assert lines[2] == "  public key: (none)"
    assert lines[6:] == [f"peer: {PEER.public_key}", "  path: idle", "  allowed ips: (none)"]


def test_without_peers_nothing_follows_the_interface():
    assert render_status(replace(REPORT, peers=[]), NOW).count("\n") == 4


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1024**2 * 5 // 2, "2.50 MiB"),
        (1024**3, "1.00 GiB"),
        (1024**4 * 2000, "2000.00 TiB"),
    ],
)
def test_sizes(count, text):
    rendered = render_status(replace(REPORT, peers=[replace(PEER, rx_bytes=count)]), NOW)
    assert f"  transfer: {text} received" in rendered


def test_a_wall_clock_that_was_set_back_gives_no_age_below_zero():
    rendered = render_status(replace(REPORT, peers=[PEER]), PEER.latest_handshake - 3600)
    assert "latest handshake: 0 s ago" in rendered


def test_the_clock_is_looked_at_when_none_is_given():
    assert " s ago" in render_status(replace(REPORT, peers=[PEER]))


def test_there_is_something_to_do_about_every_reason():
    assert set(REMEDIES) == {reason.value for reason in Reason}
