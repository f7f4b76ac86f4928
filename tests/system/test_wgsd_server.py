"""The real wgsd, a plugin of CoreDNS, serves a hub's peers: members find each other by it, and ours answers as it."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.system.members import Daemon, read_lab
from tests.system.network import PROGRAM, ZONE, Network, await_
from tests.system.test_external import attach, bring_up, take_down

BUILT = Path(__file__).parents[2] / ".peers/coredns-wgsd"
SERVER = str(BUILT) if BUILT.exists() else shutil.which("coredns-wgsd")
COREFILE = f"""
.:53 {{
    bind 198.51.100.10
    wgsd {ZONE} wgx0 {{
        self 198.51.100.10:51820 10.0.0.254/32
    }}
}}
"""
OURS = "198.51.100.10:5300"
# Asks two servers the same, each question with and without EDNS; says of each whether the answers are the same bytes,
# or of a list the same records: wireguard-go tells its peers in any order
COMPARE = """
import socket, sys, dns.message, dns.rdatatype
def ask(query, port):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("198.51.100.10", port))
        sock.send(query.to_wire())
        return sock.recv(65535)
def is_same(one, other):
    lines = [sorted(str(record) for rrset in dns.message.from_wire(data).answer for record in rrset
        if rrset.rdtype == dns.rdatatype.PTR) for data in (one, other)]
    return one == other or (lines[0] and lines[0] == lines[1] and len(one) == len(other) and one[:12] == other[:12])
for label in sys.argv[2:]:
    name = f"{label}._wireguard._udp.{sys.argv[1]}".lstrip(".")
    for rdtype in ("PTR", "SRV", "TXT", "A", "AAAA", "SOA"):
        for asked in (name, name.upper()):
            for edns in (-1, 0):
                query = dns.message.make_query(asked, rdtype, use_edns=edns, id=7)
                wgsd, ours = ask(query, 53), ask(query, 5300)
                print("same" if is_same(wgsd, ours) else f"{asked} {rdtype} {edns}: {wgsd.hex()} {ours.hex()}")
"""

pytestmark = [
    pytest.mark.usefixtures("needs_lab"),
    pytest.mark.skipif(
        SERVER is None, reason="needs CoreDNS with wgsd, which `scripts/peers wgsd` builds where Go has it"
    ),
    pytest.mark.skipif(not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"),
]


def test_members_find_each_other_by_the_real_wgsd():
    """All three WireGuards are wireguard-go's."""
    with read_lab() as lab, Network(lab) as network:
        for host in ("registry", "alice", "bob"):
            bring_up(network, host, "external")
        hub = lab.hosts["registry"]
        hub.write_file("/run/lab/Corefile", COREFILE)
        server = Daemon(hub, [SERVER, "-conf", "/run/lab/Corefile"])
        server.wait_for("CoreDNS-")
        for host in ("alice", "bob"):
            attach(network, host, "external")
        network.wait("alice", "direct", "bob", seconds=60)
        network.wait("bob", "direct", "alice", seconds=60)
        assert network.ping("alice", "bob") == 3
        assert network.ping("bob", "alice") == 3

        # the same device, served by ours beside it
        flags = ["--interface", "wgx0", "--zone", ZONE, "--dns", OURS, "--wgsd-exact"]
        ours = Daemon(hub, [*PROGRAM, "registry", "run", *flags, "--self", "198.51.100.10:51820"])
        ours.wait_for("started")
        labels = [network.keys[host].to_label() for host in ("registry", "alice", "bob")]
        known = ["dig", "+short", "-p", "5300", "@198.51.100.10", f"{labels[-1]}._wireguard._udp.{ZONE}", "SRV"]
        await_(lambda: hub.run(known, check=False).stdout, "bob in our zone")
        said = hub.run([sys.executable, "-c", COMPARE, ZONE, "", *labels, "a" * 56, "nobody"]).stdout.splitlines()
        assert [line for line in said if line != "same"] == []
        assert len(said) == 6 * 6 * 2 * 2
        for daemon in (ours, server):
            daemon.process.terminate()
            daemon.process.wait()
        for host in ("registry", "alice", "bob"):
            take_down(network, host)
