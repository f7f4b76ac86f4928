import pytest

from wgdisco.tunnel.firewall import Facts, Finding, Need, Service, Tool, findings, removals

HUB = Need("mesh", 51820, (Service("tcp", 80),), forward=True)
MEMBER = Need("mesh", 51820)


def base(family, table, name, policy="drop"):
    hook = name.lower()
    return {"chain": {"family": family, "table": table, "name": name, "type": "filter", "hook": hook, "policy": policy}}


def chain(family, table, name):
    return {"chain": {"family": family, "table": table, "name": name}}


def commands(need, facts):
    return [" ".join(command) for finding in findings(need, facts) for command in finding.commands]


def test_a_host_without_a_firewall_needs_nothing():
    assert findings(HUB, Facts([base("inet", "filter", "input", "accept")])) == ()
    assert findings(HUB, Facts()) == ()


def test_our_own_table_is_not_a_finding():
    assert findings(HUB, Facts([base("inet", "wgdisco_other", "forward")])) == ()


def test_plain_nft_gets_a_rule_at_the_head_of_the_very_chain():
    facts = Facts([base("inet", "filter", "input"), base("inet", "filter", "forward")])
    assert commands(HUB, facts) == [
        'nft insert rule inet filter input udp dport 51820 accept comment "wgdisco-mesh"',
        'nft insert rule inet filter input iifname "mesh" tcp dport 80 accept comment "wgdisco-mesh"',
        'nft insert rule inet filter forward iifname "mesh" oifname "mesh" accept comment "wgdisco-mesh"',
    ]
    assert len(commands(MEMBER, facts)) == 1


def test_a_full_tunnel_comes_back_too():
    facts = Facts([base("inet", "filter", "forward")])
    assert commands(Need("mesh", 51820, forward=True, full_tunnel=True), facts) == [
        'nft insert rule inet filter forward iifname "mesh" accept comment "wgdisco-mesh"',
        'nft insert rule inet filter forward oifname "mesh" ct state established,related accept comment "wgdisco-mesh"',
    ]


def test_dockers_chain_is_used_where_docker_drops():
    ruleset = [base("ip", "filter", "FORWARD"), chain("ip", "filter", "DOCKER-USER")]
    facts = Facts(ruleset, iptables={"iptables": ()})
    assert commands(HUB, facts) == [
        "iptables -I DOCKER-USER -i mesh -o mesh -m comment --comment wgdisco-mesh -j ACCEPT"
    ]
    there = ("-N DOCKER-USER", "-A DOCKER-USER -i mesh -o mesh -m comment --comment wgdisco-mesh -j ACCEPT")
    again = Facts(ruleset, iptables={"iptables": there})
    assert commands(HUB, again) == []
    assert [" ".join(command) for command in removals(HUB, again, permanent=False)] == [
        "iptables -D DOCKER-USER -i mesh -o mesh -m comment --comment wgdisco-mesh -j ACCEPT"
    ]


def test_iptables_chains_are_left_to_iptables_where_there_is_one():
    ruleset = [base("ip", "filter", "INPUT"), base("ip6", "filter", "INPUT")]
    facts = Facts(ruleset, iptables={"iptables": (), "ip6tables": ()})
    rule = "-I INPUT -p udp -m udp --dport 51820 -m comment --comment wgdisco-mesh -j ACCEPT"
    assert commands(MEMBER, facts) == [f"iptables {rule}", f"ip6tables {rule}"]
    assert commands(MEMBER, Facts(ruleset))[0].startswith("nft insert rule ip filter INPUT ")


class TestUfw:
    RULESET = (base("ip", "filter", "INPUT"), base("ip", "filter", "FORWARD"), chain("ip", "filter", "ufw-user-input"))

    def facts(self, *added):
        return Facts(self.RULESET, added, {"iptables": ()})

    def test_its_own_words_are_used(self):
        assert commands(HUB, self.facts()) == [
            "ufw allow 51820/udp comment wgdisco-mesh",
            "ufw allow in on mesh to any port 80 proto tcp comment wgdisco-mesh",
            "ufw route allow in on mesh out on mesh comment wgdisco-mesh",
        ]
        assert findings(HUB, self.facts())[0].permanent

    def test_what_was_added_is_not_added_again(self):
        assert commands(MEMBER, self.facts("ufw allow 51820/udp comment 'wgdisco-mesh'")) == []
        assert commands(MEMBER, self.facts("ufw allow 51820/udp")) == []

    def test_only_ours_is_taken_away_and_only_for_good(self):
        facts = self.facts(
            "ufw allow 51820/udp",
            "ufw allow in on mesh to any port 80 proto tcp comment 'wgdisco-mesh'",
            "ufw route allow in on mesh out on mesh comment 'wgdisco-mesh'",
        )
        assert removals(HUB, facts, permanent=False) == ()
        assert [" ".join(command) for command in removals(HUB, facts, permanent=True)] == [
            "ufw delete allow in on mesh to any port 80 proto tcp",
            "ufw route delete allow in on mesh out on mesh",
        ]


class TestFirewalld:
    RULESET = (base("inet", "firewalld", "input"),)

    def test_the_port_goes_into_its_zone_now_and_for_good(self):
        assert commands(MEMBER, Facts(self.RULESET, zone="public")) == [
            "firewall-cmd --permanent --zone=public --add-port=51820/udp",
            "firewall-cmd --zone=public --add-port=51820/udp",
        ]
        assert commands(MEMBER, Facts(self.RULESET, zone="public", zone_ports=("51820/udp",))) == []

    def test_a_hub_gets_a_zone_of_its_own(self):
        said = commands(HUB, Facts(self.RULESET, zone="public", zone_ports=("51820/udp",)))
        assert said == [
            "firewall-cmd --permanent --new-zone=wgd-mesh",
            "firewall-cmd --permanent --zone=wgd-mesh --add-interface=mesh",
            "firewall-cmd --permanent --zone=wgd-mesh --add-port=80/tcp",
            "firewall-cmd --permanent --zone=wgd-mesh --add-forward",
            "firewall-cmd --reload",
        ]

    def test_all_of_it_is_taken_away(self):
        facts = Facts(self.RULESET, zone="public", zone_ports=("51820/udp",), zones=("public", "wgd-mesh"))
        assert findings(HUB, facts) == ()
        said = [" ".join(command) for command in removals(HUB, facts, permanent=True)]
        assert "firewall-cmd --permanent --delete-zone=wgd-mesh" in said
        assert said[-1] == "firewall-cmd --reload"


def test_rules_of_ours_are_found_by_their_comment():
    rules = [
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 7, "comment": comment, "expr": []}}
        for comment in ("wgdisco-mesh", "wgdisco-other", "mine")
    ]
    assert removals(MEMBER, Facts(rules), permanent=False) == (
        ("nft", "delete", "rule", "inet", "filter", "input", "handle", "7"),
    )


def test_the_text_can_be_pasted_into_a_shell():
    finding = Finding(Tool.NFT, "inet filter input", (("nft", "insert", "comment", '"wgdisco-mesh"'),))
    head, command = finding.to_text().splitlines()
    assert head.startswith("this host's firewall (nft, inet filter input) drops")
    assert command == """  sudo nft insert comment '"wgdisco-mesh"'"""


@pytest.mark.parametrize("service", [Service("udp", 53), Service("tcp", 53)])
def test_services_inside_are_for_the_tunnel_only(service):
    (finding,) = findings(Need("mesh", 51820, (service,)), Facts([base("inet", "filter", "input")]))
    assert f'iifname "mesh" {service.protocol} dport 53' in " ".join(finding.commands[1])


def test_a_port_outside_the_tunnel_is_opened_like_the_devices_own():
    need = Need("mesh", 51820, outside=(Service("tcp", 443),))
    assert commands(need, Facts([base("inet", "filter", "input")])) == [
        'nft insert rule inet filter input udp dport 51820 accept comment "wgdisco-mesh"',
        'nft insert rule inet filter input tcp dport 443 accept comment "wgdisco-mesh"',
    ]
    zone = Facts([base("inet", "firewalld", "input")], zone="public", zone_ports=("51820/udp",))
    assert commands(need, zone)[:2] == [
        "firewall-cmd --permanent --zone=public --add-port=443/tcp",
        "firewall-cmd --zone=public --add-port=443/tcp",
    ]
