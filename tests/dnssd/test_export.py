"""The zone file, read by the programs that are to read it."""

import shutil
import subprocess
from ipaddress import ip_address

import dns.zone
import pytest

from tests.dnssd.goldenzone import ALICE, golden_zone, known_peer
from wgdisco.dnssd.export import server_addresses, to_text

SERVERS = (ip_address("198.51.100.10"), ip_address("2001:db8::10"))
SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


def exported():
    zone = golden_zone().with_instance(known_peer(ALICE), 8)
    return "".join(to_text(zone, SERVERS))


@pytest.mark.parametrize("command", [["named-checkzone", "-k", "fail", "example.com"], ["ldns-read-zone", "-z"]])
def test_is_taken_without_a_word_against_it(command, tmp_path):
    path = shutil.which(command[0], path=SBIN)
    if path is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "zone").write_text(exported())
    done = subprocess.run([path, *command[1:], str(tmp_path / "zone")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_dnspython_reads_the_same_strings():
    zone = dns.zone.from_text(exported(), "example.com.", relativize=False)
    name = f"{ALICE.to_label()}._wireguard._udp.example.com."
    strings = zone.find_rdataset(name, "TXT")[0].strings
    assert strings[0] == b"txtvers=1"
    assert strings[1] == f"pub={ALICE.to_text()}".encode()
    assert [str(rdata.target) for rdata in zone.find_rdataset("example.com.", "NS")] == [
        "ns1.example.com.",
        "ns2.example.com.",
    ]


def test_servers_are_where_others_can_ask():
    assert server_addresses(ip_address("127.0.0.1"), *SERVERS, ip_address("0.0.0.0"), *SERVERS) == SERVERS
