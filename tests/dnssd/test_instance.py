"""Instances to records and back; the registry's own instance."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.dnssd.goldenzone import ALICE, BOB, REGISTRY, peer
from wgdisco.api import CandidateRecord
from wgdisco.dnssd.instance import (
    OwnInstance,
    ServiceInstance,
    from_records,
    host_data,
    srv_data,
    txt_data,
    wgsd_txt_data,
)
from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import Endpoint

CANDIDATES = tuple(
    CandidateRecord(kind, endpoint, priority)
    for kind, endpoint, priority in [
        ("host", "192.168.1.5:40000", 2130706431),
        ("host", "[2001:db8::5]:40000", 2130706430),
        ("map", "203.0.113.1:40000", 0),
        ("srflx", "203.0.113.1:41424", 4294967295),
        ("relay", "198.51.100.10:51820", 1),
    ]
)
NAMES = ZoneNames.from_text("example.com")


def reread(instance: ServiceInstance) -> ServiceInstance:
    host = host_data(instance.endpoint.address)
    port = srv_data(instance, NAMES).port
    return from_records(instance.key, port, str(host.address), txt_data(instance).strings)


@pytest.mark.parametrize(
    "instance",
    [
        peer(ALICE, "203.0.113.1:7777", "10.0.0.1/32"),
        peer(BOB, "[2001:db8::8]:8888", "10.0.0.2/32", "fd00::2/128"),
        peer(ALICE, "203.0.113.1:1"),
        peer(ALICE, "203.0.113.1:65535", *(f"10.{number}.0.0/16" for number in range(200))),
        replace(peer(ALICE, "203.0.113.1:7777"), candidates=CANDIDATES, nat="eim/apdf/-", name="alice"),
        replace(peer(ALICE, "203.0.113.1:7777", "10.0.0.1/32"), nat="-/-/-"),
        replace(peer(ALICE, "203.0.113.1:7777"), name="a"),
        replace(peer(ALICE, "203.0.113.1:7777"), candidates=CANDIDATES[:1]),
    ],
)
def test_records_bring_the_instance_back(instance):
    assert reread(instance) == instance


def test_allowed_prefixes_go_on_in_further_strings_of_at_most_255_bytes():
    strings = txt_data(peer(ALICE, "203.0.113.1:7", *(f"10.{100 + number}.0.0/16" for number in range(30)))).strings
    assert [string.partition(b"=")[0] for string in strings] == [b"txtvers", b"pub", b"allowed", b"allowed2"]
    assert all(len(string) <= 255 for string in strings)
    assert len(strings[2]) > 240
    joined = b",".join(string.partition(b"=")[2] for string in strings[2:])
    assert joined.count(b"/16") == 30


@pytest.mark.parametrize(("last", "sizes"), [("1.0.0.0/8", [255]), ("10.0.0.0/8", [245, 19])])
def test_a_prefix_that_just_fits_stays_in_the_first_string(last, sizes):
    prefixes = [*(f"10.{100 + number}.0.0/16" for number in range(17)), last]
    strings = txt_data(peer(ALICE, "203.0.113.1:7", *prefixes)).strings
    assert [len(string) for string in strings[2:]] == sizes


def test_a_mapped_address_is_an_a_record():
    assert str(host_data(ip_address("::ffff:192.0.2.1")).address) == "192.0.2.1"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255", "nonsense"])
def test_an_address_that_is_not_unicast_is_refused(address):
    with pytest.raises(ValueError, match="address"):
        from_records(ALICE, 51820, address, None)


def test_port_0_is_refused():
    with pytest.raises(ValueError, match="port"):
        from_records(ALICE, 0, "192.0.2.1", None)


def test_the_txt_of_another_key_is_refused():
    with pytest.raises(ValueError, match="another key"):
        from_records(ALICE, 1, "192.0.2.1", txt_data(peer(BOB, "192.0.2.1:1")).strings)


@pytest.mark.parametrize("value", [b"10.0.0.1/33", b"\xff", b"10.0.0.1/32,rubbish"])
def test_an_allowed_prefix_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=r".+"):
        from_records(ALICE, 1, "192.0.2.1", [b"allowed=" + value])


def test_without_txt_nothing_is_known_of_allowed_ips():
    assert from_records(ALICE, 1, "192.0.2.1", None) == ServiceInstance(ALICE, Endpoint.from_text("192.0.2.1:1"))


def test_a_txt_version_we_do_not_know_is_not_read():
    assert from_records(ALICE, 1, "192.0.2.1", [b"txtvers=2", b"pub=?", b"allowed=?"]).allowed_ips == ()


@pytest.mark.parametrize("local", ["127.0.0.1", "::1", "fe80::1", "10.0.0.254", "0.0.0.0"])
def test_own_instance_is_not_published_where_it_is_of_no_use(local):
    own = OwnInstance(REGISTRY, 51820, tunnel_prefixes=(ip_network("10.0.0.0/24"),))
    assert own.published_at(ip_address(local)) is None
    assert own.seen_at(ip_address(local)) == ServiceInstance(REGISTRY, Endpoint(ip_address(local), 51820))


def test_own_instance_is_where_the_query_came_to():
    own = OwnInstance(REGISTRY, 51820, tunnel_prefixes=(ip_network("10.0.0.0/24"),))
    found = own.published_at(ip_address("198.51.100.1"))
    assert found == ServiceInstance(REGISTRY, Endpoint.from_text("198.51.100.1:51820"))


def test_a_fixed_endpoint_of_the_own_instance_holds_everywhere():
    own = OwnInstance(REGISTRY, 51820, endpoint=Endpoint.from_text("198.51.100.1:7"))
    for local in (None, ip_address("127.0.0.1")):
        found = own.published_at(local)
        assert found is not None
        assert found.endpoint.port == 7


def test_own_instance_without_any_address_is_nowhere():
    assert OwnInstance(REGISTRY, 51820).published_at(None) is None
    assert OwnInstance(REGISTRY, 51820).seen_at(None) is None


def test_what_more_is_known_follows_wgsds_strings():
    known = replace(
        peer(ALICE, "203.0.113.1:7", "10.0.0.1/32"), candidates=CANDIDATES[:2], nat="eim/eif/2", name="alice"
    )
    assert txt_data(known).strings[2:] == (
        b"allowed=10.0.0.1/32",
        b"c1=host,192.168.1.5:40000,2130706431",
        b"c2=host,[2001:db8::5]:40000,2130706430",
        b"nat=eim/eif/2",
        b"name=alice",
        b"v=1",
    )
    assert wgsd_txt_data(known).strings == txt_data(peer(ALICE, "203.0.113.1:7", "10.0.0.1/32")).strings


def more(*strings: bytes) -> ServiceInstance:
    return from_records(ALICE, 1, "192.0.2.1", [b"txtvers=1", *strings])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"host",
        b"host,192.0.2.1:1",
        b"host,192.0.2.1:1,2,3",
        b"host,192.0.2.1:1,-1",
        b"host,192.0.2.1:1,4294967296",
        b"host,192.0.2.1:1," + b"1" * 200,
        b"host,192.0.2.1:1,\xb2",
        b"host,192.0.2.1:0,1",
        b"host,example.com:1,1",
        b"host,0.0.0.0:1,1",
        b"host,224.0.0.251:5353,1",
        b"host,255.255.255.255:1,1",
        b"prflx,192.0.2.1:1,1",
        b"guess,192.0.2.1:1,1",
        b"HOST,192.0.2.1:1,1",
        b"host,192.0.2.1:1,\xd9\xa1",
    ],
)
def test_a_candidate_that_cannot_be_is_left_out_and_nothing_else(value):
    read = more(b"c1=" + value, b"c2=map,192.0.2.9:9,7", b"name=alice", b"v=1")
    assert read.candidates == (CandidateRecord("map", "192.0.2.9:9", 7),)
    assert read.name == "alice"


def test_candidates_are_few_and_an_endpoint_comes_once():
    strings = [b"c%d=host,192.168.1.%d:9,1" % (number, number) for number in range(1, 20)]
    assert len(more(*strings, b"v=1").candidates) == 8
    assert len(more(b"c1=host,192.0.2.1:1,2", b"c2=srflx,192.0.2.1:1,1", b"v=1").candidates) == 1


@pytest.mark.parametrize(
    "string", [b"nat=cone", b"nat=\xff", b"nat", b"name=Alice", b"name=a.b", b"name=\xff", b"name="]
)
def test_a_profile_or_name_that_is_none_is_left_out(string):
    assert more(string, b"v=1") == more()


def test_another_version_of_what_more_there_is_is_not_read():
    assert more(b"c1=host,192.0.2.9:9,1", b"name=alice", b"v=2") == more()
    assert more(b"c1=host,192.0.2.9:9,1", b"name=alice") == more()
