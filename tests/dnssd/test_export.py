"""The zone file, read by the programs that are to read it."""

import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import dns.zone
import pytest

from tests.dnssd.goldenzone import ALICE, golden_zone, key, known_peer, peer
from wgdisco.dnssd.export import difference, merged, records, server_addresses, to_text
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.dnssd.zone import Zone, public_zone

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


def random_zone(random, serial):
    """Members with and without names, groups and addresses, some of them known by their key alone."""
    members = [
        ZoneMember(
            f"m{n}",
            tuple(ip_address(f"10.0.{random.randrange(3)}.{n}") for _ in range(random.randrange(1, 2))),
            tuple(random.sample(["all", "ops", "g" * 63], random.randrange(1, 4))),
        )
        for n in range(8)
        if random.random() < 0.8
    ]
    instances = [
        replace(peer(key(n), f"203.0.113.{random.randrange(1, 4)}:{n + 1}", "10.0.0.1/32"), name=f"m{n}")
        for n in range(8)
        if random.random() < 0.8
    ]
    return Zone.create("example.com.", serial, instances, None, Roster.create(members, (ip_address("10.0.0.254"),)))


def test_what_goes_and_what_comes_leads_from_one_zone_to_the_next():
    random = Random(1)
    zones = [random_zone(random, serial) for serial in range(1, 60)]
    steps = [difference(before, after) for before, after in pairwise(zones)]
    for first in range(0, len(steps), 7):
        for last in range(first + 1, len(zones), 11):
            gone, new = merged(steps[first:last]).records(zones[0].names)
            have, want = Counter(records(zones[first])), Counter(records(zones[last]))
            assert have - Counter(gone) + Counter(new) == want
            assert not Counter(gone) - have


def test_what_is_known_to_differ_is_all_that_is_looked_at():
    zone = random_zone(Random(4), 1)
    moved, gone = list(zone.instances)[:2]
    after = zone.following(2, [peer(moved, "203.0.113.9:9")], [gone])
    assert difference(zone, after, [moved, gone]) == difference(zone, after)
    assert len(difference(zone, after)) == 2
    assert not difference(zone, after, [])


def test_holds_what_is_answered():
    zone = random_zone(Random(2), 7)
    exported = list(records(zone, SERVERS))
    assert len(set(exported)) == len(exported)
    assert {record.data.rdtype.name for record in exported} == {"NS", "A", "AAAA", "PTR", "SRV", "TXT"}
    for record in exported:
        if record.data.rdtype.name != "NS" and not record.name.labels[0].startswith(b"ns"):
            assert record in zone.lookup(record.name, record.data.rdtype).answer


def test_where_nothing_can_be_listed_nothing_is():
    zone = public_zone(random_zone(Random(3), 7), {"m1", "m2"})
    kinds = Counter(record.data.rdtype.name for record in records(zone) if record.ttl < 3600)
    assert kinds == {"SRV": 2, "TXT": 2, "A": 2}
