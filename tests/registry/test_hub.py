from dataclasses import replace

from tests.registry.test_stock import LAPTOP, NETWORK, VPS
from wgdisco.registry.facts import Member
from wgdisco.registry.hub import hub_rules
from wgdisco.registry.membership import Membership


def test_members_that_proved_their_key_are_forwarded_by_group():
    vps = Member("vps", VPS, 2, ("all", "ops"), 0.0, proven=True, full_tunnel=True)
    laptop = Member("laptop", LAPTOP, 3, ("all",), 0.0)
    rules = hub_rules(Membership([NETWORK, vps, laptop]), "mesh", {4: ("eth0",)})
    (only,) = rules.hosts
    assert (only.addresses, only.groups, only.full_tunnel) == (NETWORK.addresses(2), ("all", "ops"), True)
    assert rules.own == NETWORK.registry_addresses
    both = hub_rules(Membership([NETWORK, vps, replace(laptop, proven=True)]), "mesh", {})
    assert len(both.hosts) == 2
