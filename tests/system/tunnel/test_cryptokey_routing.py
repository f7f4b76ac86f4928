"""Scenario 5: a source address belongs to the peer with the most specific allowed IPs of the whole device."""

import subprocess

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import Bed, loopback_pair, new_key
from wgdisco.lab.world import HostProcess

pytestmark = pytest.mark.usefixtures("needs_lab")


def _listen(bed: Bed, host: str) -> HostProcess:
    listener = bed[host].popen(["ncat", "-l", "-u", "-p", "1111"], stdout=subprocess.PIPE)
    await_(lambda: "ncat" in bed.run(host, "ss", "-ulpn", "sport = 1111"), "ncat to listen")
    return listener


@pytest.mark.rule("N5", "A3", "A4", "D7", "E1")
def test_a_source_of_a_more_specific_peer_is_not_delivered():
    """
    ::

        wg1's peers   wg2   192.168.241.0/24       n2 ── "X" from 192.168.241.2 ──► n1:1111 has it
                      other 192.168.241.2/32       n2 ── "X" from 192.168.241.2 ──► dropped: it is the other's

    What is dropped so was authenticated all the same: the endpoint follows it (rule D5).
    """
    with Bed("n0", "n1", "n2") as bed:
        wg1, wg2 = loopback_pair(bed)
        wg1.set("peer", wg2.public, "endpoint", "[::1]:2", "allowed-ips", "192.168.241.0/24")
        wg2.set("peer", wg1.public, "endpoint", "[::1]:1")
        with _listen(bed, "n1") as listener:
            bed["n2"].run(["ncat", "-u", "192.168.241.1", "1111"], text="X")
            assert listener.stdout.read(1) == "X"
            listener.kill()
        other = new_key().public_key()
        wg1.set("peer", other, "allowed-ips", "192.168.241.2/32")
        wg2.set("listen-port", "9997")
        received = wg1.transfer(wg2.public)[0]
        with _listen(bed, "n1") as listener:
            bed["n2"].run(["ncat", "-u", "192.168.241.1", "1111"], text="X")
            await_(lambda: wg1.transfer(wg2.public)[0] > received, "the packet to arrive")
            bed.ping("n1", "192.168.241.1")  # a turn of n1's stack: what was delivered is in ncat's hands now
            listener.terminate()
            assert listener.communicate(timeout=5.0)[0] == ""
        assert wg1.endpoint(wg2.public) == "[::1]:9997"
        wg1.set("peer", other, "remove")
        assert dict(wg1.show("allowed-ips"))[str(wg2.public)] == "192.168.241.0/24"
        # Gone with the other is its prefix; wg2's wider one counts again.
        assert bed.ping("n2", "192.168.241.1") == 1
