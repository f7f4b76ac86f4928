from ipaddress import ip_network

import pytest

from wgdisco.tunnel.policy import (
    AUTO,
    OFF,
    Plan,
    Rule,
    free_table,
    kept_rules,
    parse_table,
    parse_table_names,
    plan,
    rules_for,
)

EVERYTHING = [ip_network("0.0.0.0/0"), ip_network("::/0")]
OFFICE = [ip_network("10.1.0.0/16"), ip_network("fd01::/64")]


def test_where_routes_go():
    networks = [OFFICE[0], EVERYTHING[0], OFFICE[0], OFFICE[1], EVERYTHING[1]]
    assert plan(networks, AUTO) == Plan(254, tuple(OFFICE), tuple(EVERYTHING))
    assert plan(networks, OFF) == Plan()
    assert plan(networks, 7) == Plan(7, (OFFICE[0], EVERYTHING[0], OFFICE[1], EVERYTHING[1]))
    assert plan([ip_network("0.0.0.0/1")], AUTO).defaults == ()


def test_a_table_by_its_number_its_name_or_by_none():
    known = {
        "auto": "auto",
        "off": "off",
        "1": 1,
        "0254": 254,
        "4294967295": 2**32 - 1,
        "main": "main",
        "a.b-c": "a.b-c",
    }
    assert {text: parse_table(text) for text in known} == known


@pytest.mark.parametrize("text", ["", "0", "-1", "-main", "0x7", "a/b", "a" * 65, "4294967296", "1 2"])
def test_no_table(text):
    with pytest.raises(ValueError, match="Table is not a number from 1 to 4294967295, nor auto, off or a table's name"):
        parse_table(text)


def test_a_table_by_the_name_that_the_host_has_for_it():
    text = "#\n254 main\n0x77 vpn extra\n0 unspec\n\nx bad\n7\n#1 inr.ruhep\n4294967296 large\n"
    names = parse_table_names(text)
    assert names == {"main": 254, "vpn": 119}
    assert plan([*OFFICE, *EVERYTHING], "vpn", names) == Plan(119, (*OFFICE, *EVERYTHING))
    with pytest.raises(ValueError, match="Table = inr: no such table in /etc/iproute2/rt_tables: name it there"):
        plan(OFFICE, "inr", names)


def test_the_first_free_table():
    assert free_table(set()) == 51820
    assert free_table({254, 51820, 51821, 51823}) == 51822


def test_rules_come_before_all_others_but_local():
    assert rules_for(EVERYTHING, 51820, {0, 32766, 32767}) == (
        Rule(4, 32764, 254),
        Rule(4, 32765, 51820, 51820),
        Rule(6, 32764, 254),
        Rule(6, 32765, 51820, 51820),
    )
    assert rules_for(EVERYTHING[1:], 7, {0, 100, 32766}) == (Rule(6, 98, 254), Rule(6, 99, 7, 7))
    assert rules_for(EVERYTHING[:1], 7, {3})[0].priority == 1
    with pytest.raises(ValueError, match="there is a routing rule of priority 1 or 2"):
        rules_for(EVERYTHING, 7, {2})


def test_rules_read_back_and_nothing_else():
    good = [4, 32764, 254, 0]
    bad = [[5, 1, 1, 1], [4, 1, 1], [4, -1, 1, 1], [4, 1, 2**32, 1], [4, True, 1, 1], ["4", 1, 1, 1], 4, None]
    assert kept_rules([*bad, good]) == (Rule(4, 32764, 254),)
    assert kept_rules(None) == kept_rules({"4": 1}) == ()


def test_one_pair_of_rules_an_ip_version_however_many_networks():
    networks = [ip_network(text) for text in ("10.1.0.0/24", "10.2.0.0/24", "::/0", "0.0.0.0/0")]
    assert rules_for(networks, 7, ()) == rules_for([networks[3], networks[2]], 7, ())
