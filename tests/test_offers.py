from ipaddress import ip_network

import pytest

from wgdisco.offers import EXIT, OFFERS_MAX, judge_subnets, parse_offers, refuse, to_texts

PREFIXES = (ip_network("10.9.8.0/24"), ip_network("fd00:9::/64"))


def nets(*texts):
    return tuple(map(ip_network, texts))


def test_offers_are_subnets_and_a_word_for_the_internet():
    assert parse_offers("10.1.0.0/24,exit,fd01::/64,10.1.0.0/24") == (*nets("10.1.0.0/24"), *EXIT, *nets("fd01::/64"))
    assert to_texts(parse_offers("exit,10.1.0.0/24")) == ["10.1.0.0/24", "exit"]
    assert to_texts(nets("0.0.0.0/0")) == ["0.0.0.0/0"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.1.0.7/24", "write 10.1.0.0/24"),
        ("lan", "is not a subnet: write"),
        ("", "is not a subnet: write"),
        (",".join(f"10.1.{n}.0/24" for n in range(OFFERS_MAX + 1)), f"at most {OFFERS_MAX}"),
    ],
)
def test_what_is_no_offer_is_told_what_to_write(text, says):
    with pytest.raises(ValueError, match=says):
        parse_offers(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("127.0.0.0/8", "one host or one link"),
        ("::1/128", "one host or one link"),
        ("169.254.0.0/16", "one host or one link"),
        ("fe80::/64", "one host or one link"),
        ("224.0.0.0/8", "one host or one link"),
        ("ff02::/16", "one host or one link"),
        ("240.0.0.0/8", "one host or one link"),
        ("::/1", "one host or one link"),
        ("128.0.0.0/1", "one host or one link"),
        ("10.9.8.128/25", "overlaps 10.9.8.0/24, the network's own"),
        ("10.0.0.0/8", "overlaps 10.9.8.0/24, the network's own"),
        ("fd00:9::1/128", "overlaps fd00:9::/64"),
        ("172.0.0.0/8", "too wide: /16"),
        ("64.0.0.0/3", "too wide: /16"),
        ("2001::/16", "too wide: /32"),
    ],
)
def test_what_can_be_behind_nobody(text, says):
    assert says in refuse(ip_network(text), PREFIXES)


@pytest.mark.parametrize("text", ["172.16.0.0/12", "192.168.1.0/24", "203.0.113.0/24", "2001:db8::/32", "0.0.0.0/0"])
def test_what_can_be_behind_a_member(text):
    assert refuse(ip_network(text), PREFIXES) is None


def test_who_has_a_subnet_keeps_it():
    good, bad = judge_subnets(
        nets("10.1.0.0/24", "10.2.0.0/25", "0.0.0.0/0", "10.1.0.128/25"), PREFIXES, nets("10.2.0.0/16")
    )
    assert good == nets("10.1.0.0/24", "0.0.0.0/0")
    assert [str(subnet) for subnet, _ in bad] == ["10.2.0.0/25", "10.1.0.128/25"]
    assert judge_subnets(nets("0.0.0.0/0"), PREFIXES, EXIT)[0] == nets("0.0.0.0/0")
