"""What a member that nobody uses sends: counted in the core, over two renewals of its session."""

import json
import time
from collections import Counter

import pytest

from tests.system.members import Mesh, read_lab
from tests.system.network import await_

pytestmark = pytest.mark.usefixtures("needs_lab")

HOSTS = ("alice", "bob", "carol", "dave")
SPAN = 320.0
PACE = 25.0


@pytest.mark.soak
def test_an_idle_member_sends_less_than_a_packet_each_25_seconds():
    with read_lab(*["port-restricted"] * 4) as lab, lab.capture() as capture:
        mesh = Mesh(lab)
        for host in HOSTS:
            mesh.stay(host, "join", mesh.registry("invite", host), "--foreground")
        for host in HOSTS:
            mesh.members[host].wait_for("PEER ")
        mesh.verb("alice", "wait", "--direct")

        def is_measured():
            time.sleep(5)  # to look is to send
            return "nat lifetime" in "".join(mesh.members["alice"].err)

        await_(is_measured, "the lifetime of the NAT to be measured", 400)
        time.sleep(20)
        outside = lab.outside("alice")
        asked = [packet for packet in capture.packets if packet.source == outside and packet.destination_port == 3478]
        began = len(capture.packets)
        time.sleep(SPAN)
        sent = [packet for packet in capture.packets[began:] if packet.source == outside]
        came = [packet for packet in capture.packets[began:] if packet.destination == outside]
        kinds = Counter(packet.first_byte for packet in sent)
        print(f"idle: {len(sent)} packets in {SPAN:g} s, one each {SPAN / len(sent):.1f} s; {kinds}, {len(came)} came")
        print(f"before: {len(asked)} requests to the responder, NAT check included")
        assert kinds[1] >= 2  # initiations: sessions were renewed meanwhile
        assert all(packet.destination == lab.outside("registry") for packet in sent)
        assert SPAN / len(sent) >= PACE
        found = json.loads(mesh.verb("alice", "netcheck", "-o", "json"))
        assert found["keepalive"] == 75
        assert mesh.ping("alice", "bob") == 3
