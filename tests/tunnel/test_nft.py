from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest

from wgdisco.tunnel.nft import (
    Enrolment,
    HubHost,
    HubRules,
    block_incoming_rules,
    gateway_rules,
    remove_table,
    table_name,
)


def host(number, *groups, full=False):
    return HubHost((IPv4Address(f"10.7.8.{number}"), IPv6Address(f"fd77::{number}")), groups, full)


def test_the_table_is_replaced_whether_or_not_there_is_one():
    text = HubRules("mesh").to_text()
    assert text.startswith("table inet wgdisco_mesh\ndelete table inet wgdisco_mesh\ntable inet wgdisco_mesh {\n")
    assert remove_table("mesh") == "table inet wgdisco_mesh\ndelete table inet wgdisco_mesh\n"


@pytest.mark.parametrize(
    ("interface", "table"), [("mesh", "wgdisco_mesh"), ("a-b.c", "wgdisco_a-b.c"), ("a+=@", "wgdisco_a___")]
)
def test_any_interface_has_a_table(interface, table):
    assert table_name(interface) == table


@pytest.mark.parametrize("name", ['a"b', "a\\", "wg*", "a\nb"])
def test_a_name_that_would_end_the_string_is_refused(name):
    with pytest.raises(ValueError, match="interface name"):
        HubRules(name).to_text()


def test_group_names_never_reach_nft():
    text = HubRules("mesh", (host(2, 'ops"; drop', "b c"),)).to_text()
    assert "ops" not in text
    assert "b c" not in text


def test_hosts_in_the_same_groups_share_a_chain():
    hosts = (host(2, "a", "b"), host(3, "b", "a"), host(4, "c"), host(5))
    text = HubRules("mesh", hosts).to_text()
    assert text.count("chain class") == 3
    assert "10.7.8.2 : jump class0, 10.7.8.3 : jump class0, 10.7.8.4 : jump class1, 10.7.8.5 : jump class2" in text


def test_without_a_full_tunnel_nothing_leaves_by_an_uplink():
    text = HubRules("mesh", (host(2, "a"),), uplinks={4: ("eth0",)}).to_text()
    assert "masquerade" not in text
    assert "eth0" not in text


def test_a_full_tunnel_is_masqueraded_by_its_uplink_of_each_version():
    text = HubRules("mesh", (host(2, "a", full=True), host(3, "a")), uplinks={4: ("eth0", "eth1")}).to_text()
    assert 'oifname { "eth0", "eth1" } ip saddr @full4 masquerade' in text
    assert "ip6 saddr @full6" not in text
    assert 'iifname "mesh" ip daddr 169.254.0.0/16 counter drop' in text


def test_who_is_being_enrolled_reaches_one_port():
    enrolment = Enrolment(IPv4Network("169.254.128.0/18"), IPv4Address("169.254.119.103"), 80)
    text = HubRules("mesh", enrolment=enrolment).to_text()
    peers = 'iifname "mesh" ip saddr 169.254.128.0/18'
    accept, drop = f"{peers} ip daddr 169.254.119.103 tcp dport 80 accept", f"{peers} counter drop"
    assert text.index(accept) < text.index(drop)


def test_further_ports_lead_to_the_devices_own_from_outside_only():
    assert "redirect" not in HubRules("mesh", port=51820).to_text()
    text = HubRules("mesh", port=51820, also_ports=(443, 53)).to_text()
    rule = 'iifname != { "mesh", "lo" } fib daddr type local udp dport { 443, 53 } redirect to :51820'
    assert text.count(rule) == text.count("redirect") == 1
    assert "type nat hook prerouting priority dstnat" in text


def test_beside_a_server_its_interface_is_ours_to_forward_and_it_hears_no_initiations():
    rules = HubRules("mesh", (host(2, "a"),), (IPv4Address("10.7.8.1"),), port=51820)
    both, initiation = 'iifname { "mesh", "wg0" } oifname { "mesh", "wg0" }', "udp dport 51820 @th,64,8 1 counter drop"
    text = replace(rules, beside="wg0").to_text()
    assert text.index(f"{both} ip saddr vmap @class_of4") < text.index('iifname "mesh" counter drop')
    assert 'iifname != { "mesh", "wg0" } ip daddr 10.7.8.1 fib' in text
    assert text.count(initiation) == 1
    assert "wg0" not in rules.to_text()
    assert initiation not in rules.to_text()


def test_block_incoming_is_about_its_interface_only():
    lines = [line for line in block_incoming_rules("mesh").splitlines() if "drop" in line or "accept" in line]
    assert all("mesh" in line or "policy accept" in line for line in lines)


def test_what_is_behind_a_host_is_in_its_groups_and_of_its_class():
    behind = HubHost((ip_address("10.7.8.2"),), ("a",), False, (ip_network("10.1.0.0/24"), ip_network("fd01::/64")))
    text = HubRules("mesh", (behind, host(3, "a"))).to_text()
    assert "10.7.8.2 : jump class0, 10.1.0.0/24 : jump class0, 10.7.8.3 : jump class0" in text
    assert "flags interval;" in text
    assert "flags interval;" not in HubRules("mesh", (host(3, "a"),)).to_text()


def test_a_gateway_that_has_nothing_behind_it_lets_nothing_through():
    text = gateway_rules("mesh", ())
    forward = text.partition("chain forward")[2].partition("}")[0]
    assert [line.split()[-1] for line in forward.splitlines()[2:-1]] == ["accept", "accept", "drop"]
    assert "masquerade" not in text


def test_a_gateway_leads_to_its_subnets_and_an_exit_to_no_private_address():
    text = gateway_rules("mesh", (ip_network("10.1.0.0/24"), ip_network("::/0")))
    assert 'iifname "mesh" oifname != "mesh" ip daddr 10.1.0.0/24 accept' in text
    assert "ip6 daddr != { fc00::/7, fe80::/10 } masquerade" in text
    assert "ip daddr != " not in text
