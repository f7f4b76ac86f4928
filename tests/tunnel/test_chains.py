import pytest

from wgdisco.tunnel.chains import Packet, Ruleset

PLACE = {"family": "inet", "table": "filter"}
WIREGUARD = Packet("udp", 51820)


def match(left, right, operator="=="):
    return {"match": {"op": operator, "left": left, "right": right}}


def port(number, protocol="udp"):
    return match({"payload": {"protocol": protocol, "field": "dport"}}, number)


def meta(key, name):
    return match({"meta": {"key": key}}, name)


UNKNOWN = match({"payload": {"protocol": "ip", "field": "saddr"}}, "192.0.2.1")
ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}


def ruleset(policy, *rules, **chains):
    """A base chain `input` with that policy and rules (lists of expressions), and further chains by name."""
    base = {**PLACE, "name": "input", "type": "filter", "hook": "input", "policy": policy}
    objects = [{"metainfo": {}}, {"table": {**PLACE}}, {"chain": base}]
    for name, expressions in [("input", rules), *chains.items()]:
        objects += [{"rule": {**PLACE, "chain": name, "handle": 1, "expr": expr}} for expr in expressions]
    return Ruleset(objects)


def accepts(it, packet=WIREGUARD):
    (chain,) = it.base_chains()
    return it.accepts(chain, packet)


@pytest.mark.parametrize(
    ("it", "expected"),
    [
        (ruleset("accept"), True),
        (ruleset("drop"), False),
        (ruleset("drop", [port(51820), ACCEPT]), True),
        (ruleset("drop", [port(51821), ACCEPT]), False),
        (ruleset("drop", [port(51820, "tcp"), ACCEPT]), False),
        (ruleset("drop", [port({"set": [22, 51820]}), ACCEPT]), True),
        (ruleset("drop", [port({"set": [{"range": [50000, 60000]}]}), ACCEPT]), True),
        (ruleset("drop", [port({"range": [1, 1024]}), ACCEPT]), False),
        (ruleset("drop", [port("@open"), ACCEPT]), False),
        (ruleset("accept", [{"counter": {}}, DROP]), False),
        (ruleset("accept", [{"reject": {"type": "icmp"}}]), False),
        (ruleset("accept", [{"xt": {"type": "target", "name": "REJECT"}}]), False),
        (ruleset("accept", [UNKNOWN, DROP]), True),
        (ruleset("drop", [UNKNOWN, ACCEPT]), False),
        (ruleset("drop", [match({"ct": {"key": "state"}}, ["established", "related"], "in"), ACCEPT]), False),
        (ruleset("drop", [match({"ct": {"key": "state"}}, "invalid", "!="), ACCEPT]), True),
        (ruleset("drop", [{"limit": {"rate": 1}}, ACCEPT]), False),
        (ruleset("drop", [{"jump": {"target": "in"}}], **{"in": [[port(51820), ACCEPT]]}), True),
        (ruleset("drop", [port(51820), {"jump": {"target": "in"}}], **{"in": [[ACCEPT]]}), True),
        (ruleset("accept", [{"jump": {"target": "in"}}], **{"in": [[RETURN], [DROP]]}), True),
        (ruleset("accept", [{"jump": {"target": "in"}}], **{"in": [[UNKNOWN, RETURN], [DROP]]}), True),
        (ruleset("accept", [{"goto": {"target": "in"}}], **{"in": [[DROP]]}), False),
        (ruleset("accept", [{"jump": {"target": "input"}}]), True),
        (ruleset("accept", [{"vmap": {"key": {}, "data": {}}}]), True),
    ],
)
def test_what_becomes_of_a_packet_to_wireguards_port(it, expected):
    assert accepts(it) is expected


def test_interfaces_and_their_wildcards():
    it = ruleset("drop", [meta("iifname", "me*"), meta("oifname", "mesh"), ACCEPT])
    assert accepts(it, Packet(iifname="mesh", oifname="mesh"))
    assert not accepts(it, Packet(iifname="eth0", oifname="mesh"))
    assert not accepts(it, Packet(iifname="mesh"))


def test_chains_that_see_no_ip_packets_are_left_out():
    chain = {"family": "bridge", "table": "t", "name": "c", "type": "filter", "hook": "input", "policy": "drop"}
    nat = {"family": "ip", "table": "t", "name": "c", "type": "nat", "hook": "input", "policy": "accept"}
    assert Ruleset([{"chain": chain}, {"chain": nat}]).base_chains() == []
