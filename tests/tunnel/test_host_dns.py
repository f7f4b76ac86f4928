from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgdisco.tunnel.host_dns import DnsMode, NameServers, ResolverFacts, Tool, choose, record_name, steps, undo

ALL = NameServers.from_items(["10.0.0.1", "fd00::1", "corp.example"])
ZONE = NameServers((ip_address("10.7.0.1"),), zone="wg.internal")
RESOLVED = ResolverFacts(leads_to="/run/systemd/resolve/stub-resolv.conf", has_resolvectl=True)
OPENRESOLV = ResolverFacts(has_resolvconf=True)


def test_items_are_told_apart_as_wg_quick_does():
    assert ALL.servers == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert ALL.search == ("corp.example",)
    assert ALL.items() == ("10.0.0.1", "fd00::1", "corp.example")


@pytest.mark.parametrize("item", ["10.0.0", "1", "a b", "-x", "a..b", "é.example", "~.", "$(id)", "a" * 255, "x;y", ""])
def test_what_is_neither_address_nor_domain_is_refused(item):
    with pytest.raises(ValueError, match=r"^DNS "):
        NameServers.from_items([item])


@given(st.text())
def test_no_item_is_taken_that_a_program_could_take_for_an_option_or_a_line(item):
    try:
        names = NameServers.from_items([item])
    except ValueError:
        return
    assert not any(word.startswith("-") or set(word) & set(" \t\n\0~") for word in names.items())


@pytest.mark.parametrize(
    "facts",
    [
        RESOLVED,
        ResolverFacts(resolv_conf="search x\nnameserver 127.0.0.53 # stub\n", has_resolvectl=True),
        ResolverFacts(nsswitch="passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n", has_resolvectl=True),
        # Debian's systemd-resolved brings a resolvconf that tells it
        ResolverFacts(has_resolvectl=True, has_resolvconf=True, is_resolved_only=True),
    ],
)
def test_systemd_resolved_is_told_where_it_is_asked(facts):
    assert choose(DnsMode.AUTO, facts, ALL) is Tool.RESOLVED
    assert choose(DnsMode.AUTO, facts, ZONE) is Tool.RESOLVED


def test_one_that_nobody_asks_is_not_told():
    facts = ResolverFacts("# nameserver 127.0.0.53\nnameserver 192.0.2.1\n", nsswitch="hosts: dns # resolve")
    with_both = ResolverFacts(facts.resolv_conf, nsswitch=facts.nsswitch, has_resolvectl=True, has_resolvconf=True)
    assert choose(DnsMode.AUTO, with_both, ALL) is Tool.RESOLVCONF


def test_resolvconf_is_told_of_a_zone_only_when_that_is_asked_for():
    assert choose(DnsMode.AUTO, OPENRESOLV, ALL) is Tool.RESOLVCONF
    assert choose(DnsMode.AUTO, OPENRESOLV, ZONE) is None
    assert choose(DnsMode.AUTO, ResolverFacts(), ZONE) is None
    assert choose(DnsMode.RESOLVCONF, OPENRESOLV, ZONE) is Tool.RESOLVCONF
    assert choose(DnsMode.NONE, RESOLVED, ALL) is None


@pytest.mark.parametrize(
    ("mode", "facts", "names", "complaint"),
    [
        (DnsMode.AUTO, ResolverFacts(), ALL, "neither systemd-resolved nor resolvconf"),
        (DnsMode.RESOLVED, OPENRESOLV, ZONE, "install systemd-resolved"),
        (DnsMode.RESOLVCONF, RESOLVED, ALL, "install openresolv"),
    ],
)
def test_what_is_missing_is_said(mode, facts, names, complaint):
    with pytest.raises(ValueError, match=complaint):
        choose(mode, facts, names)


def test_all_names_or_those_of_the_zone():
    commands = [" ".join(step.command) for step in steps(Tool.RESOLVED, "wg0", ALL)]
    assert "resolvectl dns wg0 10.0.0.1 fd00::1" in commands
    assert "resolvectl domain wg0 corp.example ~." in commands
    commands = [" ".join(step.command) for step in steps(Tool.RESOLVED, "wg0", ZONE)]
    # never asked for more than the zone, not even between two commands
    assert commands.index("resolvectl domain wg0 ~wg.internal") < commands.index("resolvectl dns wg0 10.7.0.1")
    assert commands[0] == "resolvectl default-route wg0 no"
    (told,) = steps(Tool.RESOLVCONF, "wg0", ALL)
    assert told.command == ("resolvconf", "-a", "wg0", "-m", "0", "-x")
    assert told.text == "nameserver 10.0.0.1\nnameserver fd00::1\nsearch corp.example\n"
    (told,) = steps(Tool.RESOLVCONF, "wg0", ZONE)
    assert told.command == ("resolvconf", "-a", "wg0")
    assert undo(Tool.RESOLVCONF, "wg0").command == ("resolvconf", "-d", "wg0", "-f")


def test_the_name_comes_early_in_resolvconfs_order_as_wg_quicks():
    facts = ResolverFacts(interface_order="# order\nlo.inet6\nlo.*\ntun*\ntap*\n")
    assert record_name(Tool.RESOLVCONF, "wg0", facts, ALL) == "tun.wg0"
    assert record_name(Tool.RESOLVCONF, "wg0", ResolverFacts(), ALL) == "wg0"
    assert record_name(Tool.RESOLVCONF, "mesh", ResolverFacts(), ZONE) == "vpn.mesh"
    assert record_name(Tool.RESOLVED, "wg0", facts, ZONE) == "wg0"
