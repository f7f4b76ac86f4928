"""The strict zone as a function from question to answer."""

from ipaddress import ip_address

import dns.name
import pytest
from dns.rcode import NOERROR, NXDOMAIN, REFUSED
from dns.rdatatype import AAAA, ANY, HINFO, NS, PTR, SOA, SRV, TXT, A

from tests.dnssd.goldenzone import ALICE, BOB, REGISTRY, golden_zone, key, peer
from wgdisco.dnssd.instance import OwnInstance
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.records import HostData, PtrData, SoaData, SrvData
from wgdisco.dnssd.zone import Vantage, Zone
from wgdisco.endpoint import Endpoint

NAMES = ZoneNames.from_text("example.com")
ALICE_NAME = NAMES.instance(ALICE)


def ask(name: str | dns.name.Name, rdtype: int, zone: Zone | None = None, vantage: Vantage | None = None):
    qname = dns.name.from_text(name, origin=NAMES.origin) if isinstance(name, str) else name
    return (zone or golden_zone()).lookup(qname, rdtype, vantage or Vantage())


def types(records):
    return [record.data.rdtype for record in records]


def browsed(answer):
    return [NAMES.key_of(record.data.target) for record in answer.answer]


@pytest.mark.rule("DNS1")
def test_srv_has_one_record_then_host_then_txt():
    answer = ask(ALICE_NAME, SRV)
    assert [record.data for record in answer.answer] == [SrvData(7777, NAMES.host(ALICE))]
    assert types(answer.additional) == [A, TXT]
    assert {record.ttl for record in (*answer.answer, *answer.additional)} == {5}


@pytest.mark.parametrize(("instance", "there", "absent"), [(ALICE, A, AAAA), (BOB, AAAA, A)])
def test_host_records_are_of_the_type_asked(instance, there, absent):
    assert types(ask(NAMES.instance(instance), there).answer) == [there]
    nodata = ask(NAMES.instance(instance), absent)
    assert (nodata.rcode, nodata.answer, types(nodata.authority)) == (NOERROR, (), [SOA])


def test_browse_lists_all_in_order_without_the_unpublishable_self():
    assert browsed(ask("_wireguard._udp", PTR)) == [ALICE, BOB, key(4), key(5), key(6)]


def test_self_is_last_where_the_query_came_to_a_usable_address():
    at = Vantage(ip_address("198.51.100.9"))
    assert browsed(ask("_wireguard._udp", PTR, vantage=at))[-1] == REGISTRY
    host = ask(NAMES.instance(REGISTRY), SRV, vantage=at).additional[0].data
    assert host == HostData(ip_address("198.51.100.9"))
    assert ask(NAMES.instance(REGISTRY), SRV, vantage=Vantage(ip_address("127.0.0.1"))).rcode == NXDOMAIN


def test_browse_that_is_cut_starts_further_on_each_turn():
    zone = golden_zone()
    assert browsed(ask("_wireguard._udp", PTR, zone, Vantage(browse_max=2))) == [ALICE, BOB]
    assert browsed(ask("_wireguard._udp", PTR, zone, Vantage(browse_max=2, turn=4))) == [key(6), ALICE]
    assert len(browsed(ask("_wireguard._udp", PTR, zone, Vantage(browse_max=5, turn=4)))) == 5


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("_services._dns-sd._udp", "_wireguard._udp.example.com."),
        ("b._dns-sd._udp", "example.com."),
        ("lb._dns-sd._udp", "example.com."),
        ("db._dns-sd._udp", "example.com."),
    ],
)
def test_service_types_and_browse_domains(name, target):
    assert [record.data for record in ask(name, PTR).answer] == [PtrData(dns.name.from_text(target))]


def test_origin_has_soa_with_the_live_serial_and_ns():
    soa = ask("@", SOA).answer[0]
    assert isinstance(soa.data, SoaData)
    assert (soa.data.serial, soa.data.minimum, soa.ttl) == (7, 5, 5)
    assert [record.data.target.to_text() for record in ask("@", NS).answer] == ["ns1.example.com."]


def test_name_server_is_where_the_query_came_to():
    at = Vantage(ip_address("2001:db8::53"))
    assert [record.data for record in ask("ns1", AAAA, vantage=at).answer] == [HostData(ip_address("2001:db8::53"))]
    assert types(ask("@", NS, vantage=at).additional) == [AAAA]
    loopback = ask("ns1", A, vantage=Vantage(ip_address("127.0.0.1")))
    assert (loopback.rcode, loopback.answer) == (NOERROR, ())


@pytest.mark.parametrize("name", ["_udp", "_dns-sd._udp", "_wireguard._udp", "@", "ns1", ALICE_NAME])
@pytest.mark.rule("DNS2")
def test_names_that_exist_are_nodata_for_other_types(name):
    answer = ask(name, 99)
    assert (answer.rcode, answer.answer, types(answer.authority)) == (NOERROR, (), [SOA])
    assert answer.authority[0].ttl == 5


@pytest.mark.parametrize(
    "name", ["nothing", "x._udp", "_tcp", "r._dns-sd._udp", f"x.{ALICE_NAME}", NAMES.instance(key(3))]
)
@pytest.mark.rule("DNS2")
def test_names_that_do_not_exist_are_nxdomain(name):
    answer = ask(name, SRV)
    assert (answer.rcode, answer.answer, types(answer.authority)) == (NXDOMAIN, (), [SOA])


@pytest.mark.parametrize("name", ["example.org.", "com.", ".", "notexample.com."])
def test_outside_the_zone_is_refused(name):
    answer = ask(dns.name.from_text(name), SOA)
    assert (answer.rcode, answer.authoritative, answer.authority) == (REFUSED, False, ())


@pytest.mark.rule("DNS3")
def test_any_is_one_small_record():
    assert types(ask("_wireguard._udp", ANY).answer) == [HINFO]
    assert types(ask(ALICE_NAME, ANY).answer) == [HINFO]
    assert ask("_udp", ANY).answer == ()
    assert ask("nothing", ANY).rcode == NXDOMAIN


def test_browsing_an_empty_zone_is_nodata():
    answer = ask("_wireguard._udp", PTR, Zone.create("example.com", 1))
    assert (answer.rcode, answer.answer) == (NOERROR, ())


def test_a_snapshot_does_not_change_when_the_next_is_made():
    first = golden_zone()
    moved = first.with_instance(peer(BOB, "192.0.2.9:9"), serial=8)
    gone = moved.without_instance(ALICE, serial=9)
    assert list(moved.instances) == list(first.instances)
    assert [first.instances[BOB].endpoint, moved.instances[BOB].endpoint] == [
        Endpoint.from_text("[2001:db8::8]:8888"),
        Endpoint.from_text("192.0.2.9:9"),
    ]
    assert ask(ALICE_NAME, SRV, gone).rcode == NXDOMAIN
    assert ask(ALICE_NAME, SRV, first).rcode == NOERROR
    assert [first.serial, moved.serial, gone.serial] == [7, 8, 9]


def test_own_key_among_the_instances_is_listed_once():
    zone = Zone.create(
        "example.com",
        1,
        [peer(REGISTRY, "192.0.2.1:1")],
        OwnInstance(REGISTRY, 51820, Endpoint.from_text("192.0.2.2:2")),
    )
    assert browsed(ask("_wireguard._udp", PTR, zone)) == [REGISTRY]
