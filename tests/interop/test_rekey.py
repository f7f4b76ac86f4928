"""A session is renewed while it is used. In a file of its own, so that it runs beside the others."""

import subprocess

import pytest

from tests.interop.engines import needs_wg, tunnel
from tests.system.network import await_

pytestmark = [pytest.mark.usefixtures("needs_lab"), needs_wg]


@pytest.mark.rule("T10", "H13")
def test_a_rekey_under_traffic_loses_nothing():
    """REKEY_AFTER_TIME is 120 s, REJECT_AFTER_TIME 180: past both, each direction of initiating, side by side."""
    with tunnel(initiator="here") as first, tunnel(initiator="there") as second:
        command = ["ping", "-q", "-i", "0.1", "-c", "2000", "-W", "2"]
        runs = [
            first.hosts["here"].popen([*command, "10.9.0.2"], stdout=subprocess.PIPE),
            second.hosts["there"].popen([*command, "10.9.0.1"], stdout=subprocess.PIPE),
        ]
        await_(lambda: first.handshake_time("here") and second.handshake_time("there"), "the first handshakes")
        before = first.handshake_time("here"), second.handshake_time("there")
        for run in runs:
            output = run.communicate(timeout=260)[0]
            assert "2000 packets transmitted, 2000 received" in output, output
        assert first.handshake_time("here") > before[0]
        assert second.handshake_time("there") > before[1]
